//! `portcullis.status`: everything that is worth knowing about the host.

use indexmap::IndexMap;
use portcullis_address::{DatabaseState, PartStatus};
use portcullis_dataplane::notices::{Hops, Notices, Trouble};
use portcullis_dataplane::transport::Bound;
use portcullis_metrics::WorkerCounters;
use portcullis_policy::FailureKind;
use portcullis_rollout::Progress;
use portcullis_rpc::{Call, Fault};
use portcullis_store::StoreError;
use portcullis_text::rfc3339;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::AddressLoad;
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
    /// The host's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Whether it can do its work.
    pub ready: bool,
    /// What is missing for that, a line each.
    pub missing: Vec<String>,
    /// When it was started.
    pub started_at: Timestamp,
    /// Number of worker threads.
    pub workers: u64,
    /// Where it takes SIP.
    pub listen: Vec<String>,
    /// Where control can be reached.
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
    /// How far the start is; null when it is over.
    pub loading: Option<LoadingStatus>,
    /// What somebody has to look at, a line each.
    pub alerts: Vec<String>,
    /// Calls of all policies that brought no verdict, by kind.
    pub policy_failures: IndexMap<String, u64>,
    /// What operators have to mend, by its event: how often it was met, and the last time.
    pub troubles: IndexMap<String, TroubleStatus>,
    /// The next hops that take no connections.
    pub next_hops_down: Vec<HopStatus>,
    /// The records of decisions; null if none are written.
    pub records: Option<RecordsStatus>,
    /// The database of pushed policies; null if there is none.
    pub pushed_policies: Option<StoreStatus>,
}

/// The policies of tenants that a start loads while the host serves already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadingStatus {
    /// Those that serve, and those that turned out to be unusable.
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
    /// The file in place of the database's table.
    pub address_file: Option<String>,
    /// How changes are noticed.
    pub changes_seen_by: Option<String>,
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Why the last one failed; null if it did not.
    pub error: Option<String>,
    /// Since when the database can't be reached; null while it can.
    pub database_down_since: Option<Timestamp>,
}

/// The trusted peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedStatus {
    /// The last load.
    #[serde(flatten)]
    pub table: TrustedLoad,
    /// How all loads fared.
    #[serde(flatten)]
    pub history: LoadHistory,
}

/// The allow and deny files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RulesStatus {
    /// The last load.
    #[serde(flatten)]
    pub rules: RulesLoad,
    /// How all loads fared.
    #[serde(flatten)]
    pub history: LoadHistory,
}

/// How the loads of a table or of files fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadHistory {
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Why the last one failed; null if it did not.
    pub error: Option<String>,
}

/// Something that an operator has to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TroubleStatus {
    /// How often it was met.
    pub count: u64,
    /// The last time.
    pub last: Option<TroubleExample>,
}

/// One time that something was met that an operator has to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TroubleExample {
    /// When.
    pub at: Timestamp,
    /// The other end.
    pub peer: Option<String>,
    /// Whose request it was.
    pub tenant: Option<String>,
    /// Of which call.
    pub call_id: String,
    /// The decision that it came from.
    pub decision: Option<String>,
    /// What happened.
    pub text: String,
}

/// A next hop that takes no connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HopStatus {
    /// Where it is.
    pub next_hop: String,
    /// Since when it takes none.
    pub down_since: Timestamp,
    /// Requests that were not delivered.
    pub undelivered: u64,
    /// Why.
    pub error: String,
    /// The last call that was not delivered.
    pub call_id: String,
}

/// The records of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordsStatus {
    /// Where they are written.
    pub file: Option<String>,
    /// Records in it.
    pub written: u64,
    /// Left out because there were too many in a second.
    pub beyond_rate: u64,
    /// Left out because the writer was too slow.
    pub writer_too_slow: u64,
    /// Left out because they were too long.
    pub line_too_long: u64,
    /// Left out because the file could not be written.
    pub file_failed: u64,
    /// Why the file can't be written; null while it can.
    pub error: Option<String>,
}

/// The database of pushed policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreStatus {
    /// Why it can't be used; null while it can.
    pub error: Option<String>,
    /// Since when.
    pub error_since: Option<Timestamp>,
    /// Fall-backs of breakers that it does not know yet.
    pub fall_backs_not_stored: u64,
}

impl FromCall for Status {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Status {
    type Reply = HostStatus;

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
            alerts: alerts(control),
            policy_failures: policy_failures(&shared.counters),
            troubles: troubles(&shared.notices),
            next_hops_down: next_hops_down(&shared.notices.hops),
            records: RecordsStatus::of(control),
            pushed_policies: StoreStatus::of(control),
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

impl RecordsStatus {
    fn of(control: &Control) -> Option<Self> {
        let records = control.shared.records.as_ref()?;
        let file = control.shared.config.records.file.as_ref();
        let told = records.told();
        let lost = told.lost();
        let lost = |reason| {
            let found = lost.iter().find(|(name, _)| *name == reason);
            found.map_or(0, |(_, count)| *count)
        };
        Some(Self {
            file: file.map(|file| file.display().to_string()),
            written: told.written(),
            beyond_rate: lost("rate"),
            writer_too_slow: lost("queue"),
            line_too_long: lost("line"),
            file_failed: lost("error"),
            error: told.error(),
        })
    }
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

/// What somebody has to look at: policies out of service, tenants that can't be used, a database that is away.
fn alerts(control: &Control) -> Vec<String> {
    let files = control.registry.all_files();
    let alerts = files.iter().filter_map(|files| {
        let alert = files.seat().alert()?;
        let (seat, at) = (&files.seat().name, rfc3339(alert.at));
        Some(format!("{seat}: {at}: {}", alert.text))
    });
    let wrong = control.registry.wrong_tenants().into_iter();
    let wrong =
        wrong.map(|(name, error)| format!("tenant {name} of the database can't be used: {error}"));
    let away = control.registry.deployments().storing().err().flatten();
    let away = away.filter(StoreError::is_away);
    let away = away.map(|error| format!("pushed policies: {error}"));
    alerts.chain(wrong).chain(away).collect()
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
