//! `fleet.status`, `fleet.drain` and `fleet.forget`: the hosts on the same database.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::http::Method;
use indexmap::IndexMap;
use portcullis_config::TokenRole;
use portcullis_fleet::directory::{
    DirectoryError, HostRow, HostState, PeersState, SeatState, Standing, TableState, Twin, Wish,
    WishKind, differing,
};
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, FromCall, Procedure, Timestamp, expect, of_database};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `fleet.status`.
#[derive(Debug)]
pub(crate) struct ShowFleet;

/// `fleet.drain`.
#[derive(Debug)]
pub(crate) struct DrainHost {
    host: String,
}

/// `fleet.forget`.
#[derive(Debug)]
pub(crate) struct Forget {
    host: String,
}

/// The hosts on the same database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetStatus {
    /// The name of the host that answers.
    pub host: String,
    /// Whether the host that answers announces itself to the others.
    pub announced: bool,
    /// Why its last announcement failed; null if it did not.
    pub error: Option<String>,
    /// The hosts, by name.
    pub hosts: Vec<FleetHost>,
    /// Seats whose pushed generations differ among the hosts that serve.
    pub differing: Vec<String>,
}

/// A host, as it last said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetHost {
    /// Its name.
    pub host: String,
    /// Random for each process.
    pub instance: String,
    /// What is known of it.
    pub stage: FleetStage,
    /// Its first listen address.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When it began to announce itself, by the clock of the database.
    pub started_at: Timestamp,
    /// When it last announced itself, by the same clock.
    pub seen_at: Timestamp,
    /// Milliseconds since then.
    pub silent_ms: u64,
    /// By how many milliseconds its view of the database is older than the interval of its looks: 0 if it follows the database, null if its state cannot
    /// be read.
    pub lag_ms: Option<u64>,
    /// Listen addresses for SIP.
    pub listen: Vec<String>,
    /// Addresses of the control interfaces.
    pub control: Vec<String>,
    /// Its seats with a policy: at most 500, those on trial and those changed last.
    pub seats: IndexMap<String, FleetSeat>,
    /// Number of all seats with a policy.
    pub seats_total: u64,
    /// The address table.
    pub addresses: Option<FleetTable>,
    /// The trusted peers.
    pub trusted: Option<FleetTable>,
    /// Number of alerts by kind.
    pub alerts: IndexMap<String, u64>,
    /// Requests per second.
    pub requests_per_second: u64,
    /// Transactions in progress.
    pub calls: u64,
    /// CPU time of the process, in percent of what its workers could use at most.
    pub busy_percent: u64,
    /// The clock of the host minus that of the database, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Another process that announces itself under the same name.
    pub twin: Option<FleetTwin>,
    /// The hosts that share its addresses; null without `peers-listen`.
    pub peers: Option<FleetPeers>,
    /// What an operator asks of it.
    pub wish: Option<FleetWish>,
}

/// What a host has of those that share its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetPeers {
    /// Its address for the others.
    pub listen: String,
    /// The addresses of the others in its configuration.
    pub others: Vec<String>,
    /// Those of them that live, as this host hears.
    pub alive: Vec<String>,
}

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FleetStage {
    /// It starts: policies are being loaded.
    Starting,
    /// It serves.
    Serving,
    /// It refuses new transactions, and ends when those in progress have ended.
    Draining,
    /// It has said that it ends.
    Ended,
    /// It has been silent for five seconds, and has not said that it ends.
    Gone,
    /// It announces itself, and this version cannot read what it says.
    Unreadable,
}

/// A seat of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetSeat {
    /// The active generation.
    pub active: Option<u64>,
    /// The first digits of the digest of the active policy.
    pub digest: String,
    /// Whether the seat follows a file of the host: the numbers then mean nothing on other hosts.
    pub is_file: bool,
    /// The candidate.
    pub candidate: Option<u64>,
    /// The candidate's share of the dialogs, in hundredths of a percent; null for a shadow, and without a candidate.
    pub share: Option<u16>,
    /// The last revision of the seat in the database that the host has carried out on all workers.
    pub revision: u64,
    /// Calls of the candidate.
    pub calls: u64,
    /// Failed ones of them.
    pub failures: u64,
    /// Compared calls in which the answers of candidate and active generation differ: of all calls of a shadow, of a sample in a roll-out.
    pub differing: u64,
    /// Time of these calls, in microseconds.
    pub time_us: u64,
    /// Why the host could not carry out a later revision; null if it could.
    pub refused: Option<String>,
}

/// A table of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetTable {
    /// The number of the load on that host.
    pub generation: u64,
    /// Number of rows.
    pub rows: u64,
    /// Error of the last load; null if it succeeded.
    pub error: Option<String>,
}

/// Another process with the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetTwin {
    /// Its address.
    pub address: String,
    /// Since when.
    pub since: Timestamp,
}

/// What an operator asks of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetWish {
    /// What: `drain`.
    pub wish: String,
    /// Who asks.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
}

/// A host that was asked to drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetDrained {
    /// Its name.
    pub host: String,
    /// The process.
    pub instance: String,
}

/// A host that was removed from the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetForgotten {
    /// Its name.
    pub host: String,
}

impl FleetStage {
    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Ended => "ended",
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
        }
    }
}

impl From<Standing> for FleetStage {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Starting => Self::Starting,
            Standing::Serving => Self::Serving,
            Standing::Draining => Self::Draining,
            Standing::Ended => Self::Ended,
            Standing::Gone => Self::Gone,
            Standing::Unreadable => Self::Unreadable,
        }
    }
}

impl From<HostRow> for FleetHost {
    fn from(row: HostRow) -> Self {
        let stage = Standing::of(&row).into();
        let (is_readable, state) = (row.state.is_some(), row.state.unwrap_or_default());
        let HostState {
            stage: _,
            listen,
            control,
            seats,
            seats_total,
            seats_digest: _,
            addresses,
            trusted,
            lag,
            alerts,
            load,
            clock_ahead_ms,
            twin,
            refuses_drain: _,
            peers,
        } = state;
        Self {
            host: row.host,
            instance: row.instance,
            stage,
            address: row.address,
            version: row.version,
            started_at: time(row.started_at),
            seen_at: time(row.seen_at),
            silent_ms: u64::try_from(row.age_ms).unwrap_or(0),
            lag_ms: is_readable.then(|| lag.longest_ms()),
            listen,
            control,
            seats: seats
                .into_iter()
                .map(|(name, seat)| (name, seat.into()))
                .collect(),
            seats_total,
            addresses: is_readable.then(|| addresses.into()),
            trusted: is_readable.then(|| trusted.into()),
            alerts: alerts.into_iter().collect(),
            requests_per_second: load.requests,
            calls: load.calls,
            busy_percent: load.busy_percent,
            clock_ahead_ms,
            twin: twin.map(FleetTwin::from),
            peers: peers.map(FleetPeers::from),
            wish: row.wish.map(FleetWish::from),
        }
    }
}

impl From<SeatState> for FleetSeat {
    fn from(seat: SeatState) -> Self {
        let SeatState {
            active,
            candidate,
            share,
            revision,
            digest,
            is_file,
            is_elsewhere: _,
            calls,
            failures,
            differing,
            time_us,
            durations: _,
            compared: _,
            active_calls: _,
            active_time_us: _,
            active_durations: _,
            refused,
        } = seat;
        Self {
            active,
            digest,
            is_file,
            candidate,
            share,
            revision,
            calls,
            failures,
            differing,
            time_us,
            refused: refused.map(|refused| refused.error),
        }
    }
}

impl From<TableState> for FleetTable {
    fn from(table: TableState) -> Self {
        let TableState {
            generation,
            rows,
            error,
        } = table;
        Self {
            generation,
            rows,
            error,
        }
    }
}

impl From<PeersState> for FleetPeers {
    fn from(peers: PeersState) -> Self {
        let PeersState {
            listen,
            others,
            alive,
        } = peers;
        Self {
            listen,
            others,
            alive,
        }
    }
}

impl From<Twin> for FleetTwin {
    fn from(twin: Twin) -> Self {
        Self {
            address: twin.address,
            since: time(twin.since),
        }
    }
}

impl From<Wish> for FleetWish {
    fn from(wish: Wish) -> Self {
        Self {
            wish: wish.kind.as_str().to_owned(),
            by: wish.by,
            at: time(wish.at),
        }
    }
}

impl FromCall for ShowFleet {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        expect(call, [])?;
        Ok(Self)
    }
}

impl FromCall for DrainHost {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [host] = expect(call, ["the name of a host"])?;
        Ok(Self { host })
    }
}

impl FromCall for Forget {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [host] = expect(call, ["the name of a host"])?;
        Ok(Self { host })
    }
}

impl Procedure for ShowFleet {
    type Reply = FleetStatus;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<FleetStatus, Fault> {
        let fleet = &control.fleet;
        let rows = fleet.directory().hosts().await.map_err(fault)?;
        let error = fleet.seen().error.as_ref().map(ToString::to_string);
        Ok(FleetStatus {
            host: fleet.name().to_owned(),
            announced: fleet.is_announced() && error.is_none(),
            error,
            differing: differing(&rows),
            hosts: rows.into_iter().map(FleetHost::from).collect(),
        })
    }
}

impl Procedure for DrainHost {
    type Reply = FleetDrained;

    fn subject(&self) -> Option<String> {
        Some(format!("host {}", self.host))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<FleetDrained, Fault> {
        let directory = control.fleet.directory();
        let row = find(control, &self.host).await?;
        let HostRow { host, instance, .. } = &row;
        let twin = row.state.as_ref().and_then(|state| state.twin.as_ref());
        if let Some(twin) = twin {
            let text = format!(
                "two processes have the name {host}, at {} and at {}: send SIGTERM to the one that you mean, or set `name` in [fleet] of one of them",
                row.address, twin.address
            );
            return Err(Fault::new(409, text));
        }
        if row.state.as_ref().is_some_and(|state| state.refuses_drain) {
            let text = format!(
                "{host} does not drain through other hosts: `remote-drain` in its [fleet] is false; send it SIGTERM"
            );
            return Err(Fault::new(409, text));
        }
        match Standing::of(&row) {
            Standing::Starting | Standing::Serving | Standing::Draining => {}
            Standing::Unreadable => {
                let text = format!(
                    "{host} has version {}, and this host cannot read what it says: ask it itself, or send it SIGTERM",
                    row.version
                );
                return Err(Fault::new(409, text));
            }
            Standing::Ended => {
                return Err(Fault::new(409, format!("{host} has ended")));
            }
            Standing::Gone => {
                let text = format!(
                    "{host} has not announced itself for {} s: it cannot hear this",
                    row.age_ms / 1_000
                );
                return Err(Fault::new(409, text));
            }
        }
        let by = caller.to_string();
        let asked = directory.wish(host, instance, WishKind::Drain, &by).await;
        match asked.map_err(fault)? {
            true => Ok(FleetDrained {
                host: host.clone(),
                instance: instance.clone(),
            }),
            false => Err(Fault::new(
                409,
                format!("{host} has been restarted meanwhile: ask again"),
            )),
        }
    }
}

impl Procedure for Forget {
    type Reply = FleetForgotten;

    fn subject(&self) -> Option<String> {
        Some(format!("host {}", self.host))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<FleetForgotten, Fault> {
        let row = find(control, &self.host).await?;
        let is_forgotten = match Standing::of(&row) {
            Standing::Ended | Standing::Gone => {
                let directory = control.fleet.directory();
                directory.forget(&row).await.map_err(fault)?
            }
            Standing::Starting | Standing::Serving | Standing::Draining | Standing::Unreadable => {
                false
            }
        };
        match is_forgotten {
            true => Ok(FleetForgotten { host: row.host }),
            false => Err(Fault::new(
                409,
                format!(
                    "{} announces itself: only a host that is gone or has ended can be forgotten",
                    row.host
                ),
            )),
        }
    }
}

impl ShowFleet {
    /// `GET /v1/fleet`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<FleetStatus>(
            Method::GET,
            "/v1/fleet",
            "showFleet",
            "List the hosts on the same database with their generations, lag, alerts and load",
        );
        routes.on(get.answers(200, "The hosts").refuses(&[503]), show)
    }
}

impl DrainHost {
    /// `POST /v1/fleet/{host}/drain`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<FleetDrained>(
            Method::POST,
            "/v1/fleet/{host}/drain",
            "drainHost",
            "Ask a host on the same database to drain and end, as SIGTERM does",
        );
        let post = post.answers(200, "The host, which begins within about two seconds");
        routes.on(post.refuses(&[404, 409, 415, 503]), drain)
    }
}

impl Forget {
    /// `DELETE /v1/fleet/{host}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<FleetForgotten>(
            Method::DELETE,
            "/v1/fleet/{host}",
            "forgetHost",
            "Remove a host that is gone or has ended from the list; otherwise its row stays for a day",
        );
        let delete = delete.answers(200, "The host");
        routes.on(delete.refuses(&[404, 409, 503]), forget)
    }
}

async fn show(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ShowFleet.dispatch(&control, &caller).await)
}

async fn drain(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(host): Segments<String>,
) -> Answer {
    answer(DrainHost { host }.dispatch(&control, &caller).await)
}

async fn forget(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(host): Segments<String>,
) -> Answer {
    answer(Forget { host }.dispatch(&control, &caller).await)
}

/// The row of a host.
async fn find(control: &Control, host: &str) -> Result<HostRow, Fault> {
    let rows = control.fleet.directory().hosts().await.map_err(fault)?;
    let known: Vec<_> = rows.iter().map(|row| row.host.clone()).collect();
    let found = rows.into_iter().find(|row| row.host == host);
    found.ok_or_else(|| {
        let known = match known.is_empty() {
            true => "no host has announced itself".to_owned(),
            false => format!("known are {}", known.join(", ")),
        };
        let shown = host.escape_debug();
        Fault::new(404, format!("there is no host `{shown}`: {known}"))
    })
}

fn fault(error: DirectoryError) -> Fault {
    of_database(503, error)
}

/// Milliseconds since 1970 as a time.
fn time(milliseconds: i64) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    let time: SystemTime = UNIX_EPOCH + since;
    time.into()
}
