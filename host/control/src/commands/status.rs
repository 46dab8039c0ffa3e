//! `portcullis.status`: the state of the host.

use std::path::Path;
use std::time::Instant;

use indexmap::IndexMap;
use portcullis_address::{DatabaseState, PartStatus};
use portcullis_config::{RelayMode, TokenRole};
use portcullis_dataplane::notices::{Hops, Notices, Trouble};
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport::Bound;
use portcullis_metrics::{
    AttemptResult, HandoverResult, IcmpError, Retransmission, TransactionCounters, WorkerCounters,
};
use portcullis_policy::FailureKind;
use portcullis_rollout::Progress;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::AddressLoad;
use super::alert::Alert;
use super::policy::SeatStatus;
use super::rules::RulesLoad;
use super::trusted::TrustedLoad;
use super::{FromCall, Procedure, Timestamp};
use crate::Control;
use crate::caller::Caller;

/// `portcullis.status`.
#[derive(Debug)]
pub(crate) struct Status;

/// The reply of `portcullis.status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// Version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Whether the host is ready.
    pub ready: bool,
    /// What is missing for that, one item per line.
    pub missing: Vec<String>,
    /// Time of the start.
    pub started_at: Timestamp,
    /// Number of worker threads.
    pub workers: u64,
    /// Listen addresses for SIP.
    pub listen: Vec<String>,
    /// Addresses of the control interfaces.
    pub control: Vec<String>,
    /// The address table.
    pub addresses: AddressStatus,
    /// The trusted peers.
    pub trusted: TrustedStatus,
    /// The allow and deny files.
    pub rules: RulesStatus,
    /// The operator's default policy.
    pub policy: SeatStatus,
    /// Number of tenants.
    pub tenants: u64,
    /// Progress of the start; null when it is finished.
    pub loading: Option<LoadingStatus>,
    /// Alerts that need attention, one per line.
    pub alerts: Vec<String>,
    /// Failed calls of all policies, by kind.
    pub policy_failures: IndexMap<String, u64>,
    /// Problems that an operator has to solve, by event: how often each occurred, and the last occurrence.
    pub troubles: IndexMap<String, TroubleStatus>,
    /// Next hops that accept no connections.
    pub next_hops_down: Vec<HopStatus>,
    /// The transactions; null with `mode = "stateless"` in `[relay]`.
    pub transactions: Option<TransactionsStatus>,
    /// Records of decisions; null if records are off.
    pub records: Option<RecordsStatus>,
    /// Database of pushed policies; null if there is none.
    pub pushed_policies: Option<StoreStatus>,
    /// Exchange with other hosts; null without `[fleet.redis]`.
    pub exchange: Option<ExchangeStatus>,
}

/// Progress of the start: tenants' policies, which are loaded while the host already serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadingStatus {
    /// Policies that are active, and those that turned out to be unusable.
    pub ready: u64,
    /// All.
    pub policies: u64,
}

/// The address table and its database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressStatus {
    /// The last load.
    #[serde(flatten)]
    pub table: AddressLoad,
    /// The database, without its password.
    pub database: String,
    /// The file that replaces the table of the database.
    pub address_file: Option<String>,
    /// How changes are detected.
    pub changes_seen_by: Option<String>,
    /// Number of successful loads.
    pub loads: u64,
    /// Number of failed loads.
    pub failed_loads: u64,
    /// Error of the last load; null if it succeeded.
    pub error: Option<String>,
    /// Since when the database has been unreachable; null while it is reachable.
    pub database_down_since: Option<Timestamp>,
}

/// The trusted peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedStatus {
    /// The last load.
    #[serde(flatten)]
    pub table: TrustedLoad,
    /// Results of all loads.
    #[serde(flatten)]
    pub history: LoadHistory,
}

/// The allow and deny files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RulesStatus {
    /// The last load.
    #[serde(flatten)]
    pub rules: RulesLoad,
    /// Results of all loads.
    #[serde(flatten)]
    pub history: LoadHistory,
}

/// Results of the loads of a table or of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadHistory {
    /// Number of successful loads.
    pub loads: u64,
    /// Number of failed loads.
    pub failed_loads: u64,
    /// Error of the last load; null if it succeeded.
    pub error: Option<String>,
}

/// A problem that an operator has to solve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TroubleStatus {
    /// Number of occurrences.
    pub count: u64,
    /// The last occurrence.
    pub last: Option<TroubleExample>,
}

/// One occurrence of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TroubleExample {
    /// Time.
    pub at: Timestamp,
    /// The remote address.
    pub peer: Option<String>,
    /// The tenant of the request.
    pub tenant: Option<String>,
    /// Call-ID of the request.
    pub call_id: String,
    /// Id of the decision.
    pub decision: Option<String>,
    /// Description.
    pub text: String,
}

/// A next hop that accepts no connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HopStatus {
    /// Address.
    pub next_hop: String,
    /// Since when it has accepted none.
    pub down_since: Timestamp,
    /// Number of requests that were not delivered.
    pub undelivered: u64,
    /// The error.
    pub error: String,
    /// Call-ID of the last request that was not delivered.
    pub call_id: String,
}

/// The transactions of all workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionsStatus {
    /// Transactions in progress.
    pub active: u64,
    /// Ended transactions that absorb retransmissions.
    pub lingering: u64,
    /// Bytes of stored messages.
    pub stored_bytes: u64,
    /// Transactions since the start.
    pub begun: u64,
    /// Requests answered 503 because a limit of `[transactions]` was reached.
    pub shed: u64,
    /// Messages that one worker handed over to another.
    pub handed_over: u64,
    /// Messages lost because the queue of the other worker was full.
    pub handovers_lost: u64,
    /// Responses without a transaction, which were dropped.
    pub strays: u64,
    /// Retransmissions received, which were absorbed.
    pub retransmissions_received: u64,
    /// Retransmissions sent: requests and responses.
    pub retransmissions_sent: u64,
    /// Requests to targets that an ICMP error ended.
    pub icmp_errors: u64,
    /// Results of all targets, and of those that are named next hops.
    pub attempts: Vec<AttemptsStatus>,
}

/// Results of targets of transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptsStatus {
    /// The name of a next hop; null for all targets.
    pub next_hop: Option<String>,
    /// 2xx responses.
    pub success: u64,
    /// Other final responses.
    pub failure: u64,
    /// No response in time.
    pub no_answer: u64,
    /// No final response in time.
    pub rang_out: u64,
    /// Cancelled, without a final response.
    pub cancelled: u64,
    /// Not reached.
    pub unreachable: u64,
    /// The name has no address.
    pub unresolved: u64,
    /// Not a permitted destination of the request.
    pub refused: u64,
}

/// The records of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordsStatus {
    /// The records file.
    pub file: Option<String>,
    /// Number of records written.
    pub written: u64,
    /// Records lost because there were too many per second.
    pub beyond_rate: u64,
    /// Records lost because the writer was too slow.
    pub writer_too_slow: u64,
    /// Records lost because they were too long.
    pub line_too_long: u64,
    /// Records lost because the file could not be written.
    pub file_failed: u64,
    /// Bytes of the records that wait for the writer.
    pub waiting_bytes: u64,
    /// Error of the file; null while it can be written.
    pub error: Option<String>,
    /// The call records; null without `calls` in `[records]`.
    pub calls: Option<CallRecordsStatus>,
}

/// The call records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallRecordsStatus {
    /// Their file.
    pub file: Option<String>,
    /// Number of records written.
    pub written: u64,
    /// Records lost because the writer was too slow.
    pub writer_too_slow: u64,
    /// Records lost because they were too long.
    pub line_too_long: u64,
    /// Records lost because the file could not be written.
    pub file_failed: u64,
    /// Bytes of the records that wait for the writer.
    pub waiting_bytes: u64,
    /// Error of the file; null while it can be written.
    pub error: Option<String>,
}

/// The database of pushed policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreStatus {
    /// Error; null while the database can be used.
    pub error: Option<String>,
    /// Since when.
    pub error_since: Option<Timestamp>,
    /// Automatic fallbacks that are not stored yet.
    pub fall_backs_not_stored: u64,
}

/// The exchange with other hosts, through Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExchangeStatus {
    /// Number of hosts that count together, this one included; null while the others are not heard.
    pub hosts: Option<u64>,
    /// Number of hosts when they were heard last; each limits its share by it while they are not heard.
    pub last_hosts: u64,
    /// The server; empty before the first exchange.
    pub server: String,
    /// Milliseconds since the last exchange that succeeded.
    pub lag_ms: u64,
    /// How many milliseconds the clock of Redis is ahead of that of this host.
    pub clock_ahead_ms: i64,
    /// Error of the last exchange; null if it succeeded.
    pub error: Option<String>,
}

impl FromCall for Status {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Status {
    type Reply = HostStatus;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<HostStatus, Fault> {
        let shared = &control.shared;
        let missing = control.missing();
        Ok(HostStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            ready: missing.is_empty(),
            missing,
            started_at: shared.started.into(),
            workers: shared.counters.len() as u64,
            listen: shared.listen.iter().map(Bound::to_string).collect(),
            control: control.listening.lines(),
            addresses: AddressStatus::of(control),
            trusted: TrustedStatus {
                table: TrustedLoad::current(control),
                history: shared.addresses.status().trusted.into(),
            },
            rules: RulesStatus {
                rules: RulesLoad::current(control),
                history: shared.addresses.status().rules.into(),
            },
            policy: SeatStatus::of(control.registry.default_files()),
            tenants: shared.tenants.load().named.len() as u64,
            loading: control.registry.progress().map(LoadingStatus::from),
            alerts: Alert::all(control).iter().map(Alert::line).collect(),
            policy_failures: policy_failures(&shared.counters),
            troubles: troubles(&shared.notices),
            next_hops_down: next_hops_down(&shared.notices.hops),
            transactions: TransactionsStatus::of(control),
            records: RecordsStatus::of(control),
            pushed_policies: StoreStatus::of(control),
            exchange: ExchangeStatus::of(control),
        })
    }
}

impl ExchangeStatus {
    fn of(control: &Control) -> Option<Self> {
        let status = control.exchange.as_ref()?;
        let health = status.health();
        let lag = status.lag(Instant::now()).as_millis();
        Some(Self {
            hosts: health.hosts.map(|hosts| hosts as u64),
            last_hosts: health.last_hosts as u64,
            server: health.server,
            lag_ms: u64::try_from(lag).unwrap_or(u64::MAX),
            clock_ahead_ms: health.ahead_ms,
            error: health.trouble.map(|(_, text)| text),
        })
    }
}

impl From<Progress> for LoadingStatus {
    fn from(Progress { done, total }: Progress) -> Self {
        Self {
            ready: done as u64,
            policies: total as u64,
        }
    }
}

impl AddressStatus {
    fn of(control: &Control) -> Self {
        let addresses = &control.shared.addresses;
        let status = addresses.status();
        let database = addresses.database();
        let address_file = database.address_file();
        Self {
            table: AddressLoad::of(&addresses.current()),
            database: database.url().to_string(),
            address_file: address_file.map(|file| file.display().to_string()),
            changes_seen_by: status.changes_seen_by.map(|by| by.to_string()),
            loads: status.loads,
            failed_loads: status.failures,
            error: status.last_error.map(|error| error.to_string()),
            database_down_since: match status.database {
                DatabaseState::Down { since } => Some(since.into()),
                DatabaseState::Up | DatabaseState::Unknown => None,
            },
        }
    }
}

impl From<PartStatus> for LoadHistory {
    fn from(status: PartStatus) -> Self {
        Self {
            loads: status.loads,
            failed_loads: status.failures,
            error: status.last_error,
        }
    }
}

impl TransactionsStatus {
    fn of(control: &Control) -> Option<Self> {
        let Shared {
            config, counters, ..
        } = &*control.shared;
        if config.relay.mode == RelayMode::Stateless {
            return None;
        }
        let total = |pick: &dyn Fn(&TransactionCounters) -> u64| {
            let each = counters.iter().map(|worker| pick(&worker.transactions));
            each.sum()
        };
        Some(Self {
            active: total(&|t| t.active.value()),
            lingering: total(&|t| t.lingering.value()),
            stored_bytes: total(&|t| t.stored_bytes.value()),
            begun: total(&|t| t.begun.value()),
            shed: total(&|t| t.shed.value()),
            handed_over: total(&|t| t.handovers.value(HandoverResult::Taken)),
            handovers_lost: total(&|t| t.handovers.value(HandoverResult::Full)),
            strays: total(&|t| t.strays.value()),
            retransmissions_received: total(&|t| {
                t.retransmissions.value(Retransmission::RequestReceived)
            }),
            retransmissions_sent: total(&|t| {
                t.retransmissions.value(Retransmission::RequestSent)
                    + t.retransmissions.value(Retransmission::ResponseSent)
            }),
            icmp_errors: total(&|t| t.icmp_errors.value(IcmpError::Target)),
            attempts: AttemptsStatus::all(counters),
        })
    }
}

impl AttemptsStatus {
    /// The results of all targets, then those of each named next hop.
    fn all(workers: &[WorkerCounters]) -> Vec<Self> {
        let each = || workers.iter().map(|worker| &worker.transactions);
        let all = Self::of(None, |result| {
            each().map(|t| t.attempts.value(result)).sum()
        });
        let names = each().take(1).flat_map(|t| t.next_hop_attempts.names());
        let named = names.map(|name| {
            Self::of(Some(name), |result| {
                let values = each().map(|t| t.next_hop_attempts.value(name, result));
                values.sum()
            })
        });
        [all].into_iter().chain(named).collect()
    }

    fn of(next_hop: Option<&str>, count: impl Fn(AttemptResult) -> u64) -> Self {
        Self {
            next_hop: next_hop.map(str::to_owned),
            success: count(AttemptResult::Success),
            failure: count(AttemptResult::Failure),
            no_answer: count(AttemptResult::NoAnswer),
            rang_out: count(AttemptResult::RangOut),
            cancelled: count(AttemptResult::Cancelled),
            unreachable: count(AttemptResult::Unreachable),
            unresolved: count(AttemptResult::Unresolved),
            refused: count(AttemptResult::Refused),
        }
    }
}

impl RecordsStatus {
    fn of(control: &Control) -> Option<Self> {
        let records = control.shared.records.as_ref()?;
        let config = &control.shared.config.records;
        let stats = records.stats();
        Some(Self {
            file: shown(config.file.as_deref()),
            written: stats.written(),
            beyond_rate: lost(&stats.lost(), "rate"),
            writer_too_slow: lost(&stats.lost(), "queue"),
            line_too_long: lost(&stats.lost(), "line"),
            file_failed: lost(&stats.lost(), "error"),
            waiting_bytes: stats.waiting() as u64,
            error: stats.error(),
            calls: records.calls().map(|calls| {
                let stats = calls.stats();
                CallRecordsStatus {
                    file: shown(config.calls.as_deref()),
                    written: stats.written(),
                    writer_too_slow: lost(&stats.lost(), "queue"),
                    line_too_long: lost(&stats.lost(), "line"),
                    file_failed: lost(&stats.lost(), "error"),
                    waiting_bytes: stats.waiting() as u64,
                    error: stats.error(),
                }
            }),
        })
    }
}

fn shown(file: Option<&Path>) -> Option<String> {
    file.map(|file| file.display().to_string())
}

/// Number of records lost for this reason.
fn lost(lost: &[(&str, u64)], reason: &str) -> u64 {
    let found = lost.iter().find(|(name, _)| *name == reason);
    found.map_or(0, |(_, count)| *count)
}

impl StoreStatus {
    fn of(control: &Control) -> Option<Self> {
        let status = control.registry.deployments().store_status()?;
        let (error, since) = status.error.unzip();
        Some(Self {
            error: error.map(|error| error.to_string()),
            error_since: since.map(Timestamp::from),
            fall_backs_not_stored: status.fall_backs as u64,
        })
    }
}

fn policy_failures(workers: &[WorkerCounters]) -> IndexMap<String, u64> {
    let kinds = FailureKind::ALL.into_iter().map(|kind| {
        let counts = workers.iter().map(|worker| &worker.policy_failures);
        let count: u64 = counts.map(|counts| counts.value(kind)).sum();
        (kind.as_str().to_owned(), count)
    });
    kinds.filter(|(_, count)| *count > 0).collect()
}

fn troubles(notices: &Notices) -> IndexMap<String, TroubleStatus> {
    let met = Trouble::ALL.into_iter().filter_map(|trouble| {
        let count = notices.count(trouble);
        (count > 0).then_some((trouble, count))
    });
    let met = met.map(|(trouble, count)| {
        let last = notices.last(trouble).map(|last| TroubleExample {
            at: last.at.into(),
            peer: last.peer.map(|peer| peer.to_string()),
            tenant: last.tenant.map(|name| name.to_string()),
            call_id: last.call_id,
            decision: last.decision.map(|id| id.to_string()),
            text: last.text,
        });
        (trouble.label().to_owned(), TroubleStatus { count, last })
    });
    met.collect()
}

fn next_hops_down(hops: &Hops) -> Vec<HopStatus> {
    let down = hops.down().into_iter().map(|(to, hop)| HopStatus {
        next_hop: to.to_string(),
        down_since: hop.since.into(),
        undelivered: hop.undelivered,
        error: hop.error,
        call_id: hop.call_id,
    });
    down.collect()
}
