//! What a host says of itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The most seats that a host lists in its row: first those with a candidate, then those that changed last.
pub const MOST_SEATS: usize = 500;

/// What a host says of itself: the column `state`, as JSON. Members that another version does not write have their default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostState {
    /// What the host does with new requests.
    pub stage: Stage,
    /// The addresses on which the host listens for SIP.
    pub listen: Vec<String>,
    /// The control addresses.
    pub control: Vec<String>,
    /// The seats, by name: at most [`MOST_SEATS`].
    pub seats: BTreeMap<String, SeatState>,
    /// Number of all seats with a policy.
    pub seats_total: u64,
    /// A digest of the active generations, candidates and shares of all seats to which policies are pushed: hosts with the same digest decide by
    /// the same policies there.
    pub seats_digest: String,
    /// The address table.
    pub addresses: TableState,
    /// The trusted peers.
    pub trusted: TableState,
    /// By how much the host's view of the database is late.
    pub lag: Lag,
    /// Conditions that need attention, by kind: how many there are.
    pub alerts: BTreeMap<String, u64>,
    /// The load.
    pub load: Load,
    /// The clock of the host minus the clock of the database, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Another process that announces itself under the same name.
    pub twin: Option<Twin>,
    /// Whether the host drains only when it is told so on its own machine.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refuses_drain: bool,
    /// The hosts that share its addresses; `None` without `peers-listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersState>,
}

/// What a host has of those that share its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeersState {
    /// Its address for the others.
    pub listen: String,
    /// The addresses of the others in its configuration.
    pub others: Vec<String>,
    /// Those of them that live.
    pub alive: Vec<String>,
}

/// What a host does with new requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It starts: tenants' policies are being loaded.
    Starting,
    /// It serves.
    #[default]
    Serving,
    /// It refuses new transactions, and ends when those in progress have ended.
    Draining,
    /// It has ended.
    Ended,
}

/// The generations of a seat on a host, and what its candidate has done there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeatState {
    /// The active generation; `None` if there is none yet.
    pub active: Option<u64>,
    /// The candidate.
    pub candidate: Option<u64>,
    /// The share of dialogs on which the candidate decides, in hundredths of a percent; `None` for a shadow, and without a candidate.
    pub share: Option<u16>,
    /// The last revision of the seat in the database that the host has carried out: it is in effect on all its workers.
    pub revision: u64,
    /// The first 12 hexadecimal digits of the SHA-256 of the active policy; empty if there is none.
    pub digest: String,
    /// Whether the seat follows a file of the host: its numbers then mean nothing on other hosts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_file: bool,
    /// Whether the host does not have the seat: its tenant runs on other hosts only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_elsewhere: bool,
    /// Calls of the candidate on this host, since its trial with this share began; 0 without one.
    #[serde(skip_serializing_if = "is_zero")]
    pub calls: u64,
    /// Failed ones of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures: u64,
    /// Compared calls whose verdicts differed.
    #[serde(skip_serializing_if = "is_zero")]
    pub differing: u64,
    /// Time of all these calls, in microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub time_us: u64,
    /// The durations of all these calls in a canary step of a roll-out: how many are in which bucket.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub durations: BTreeMap<u16, u64>,
    /// Calls whose verdict was compared with that of the other generation: all of a shadow, a sample in a canary step of a roll-out.
    #[serde(skip_serializing_if = "is_zero")]
    pub compared: u64,
    /// Calls of the active generation since the trial of the candidate began; 0 without a candidate.
    #[serde(skip_serializing_if = "is_zero")]
    pub active_calls: u64,
    /// Total duration of `active_calls`, in microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub active_time_us: u64,
    /// As `durations`, of `active_calls`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub active_durations: BTreeMap<u16, u64>,
    /// What the host could not carry out; `None` if there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// A state of a seat in the database that a host could not carry out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// The revision of the seat.
    pub revision: u64,
    /// Why: a file that cannot be compiled, settings that the policy refuses.
    pub error: String,
}

/// A table in the memory of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableState {
    /// The generation: it grows with each load that changed the table, on this host.
    pub generation: u64,
    /// The number of rows.
    pub rows: u64,
    /// The error of the last load; `None` if it succeeded.
    pub error: Option<String>,
}

/// By how much the view that a host has of the database is older than the interval of its looks, and a second for a look, in milliseconds, when it
/// wrote its row. 0 for a host that follows the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lag {
    /// The tables of addresses and of trusted peers; `None` if they come from files.
    pub tables_ms: Option<u64>,
    /// The pushed policies; `None` without a database of them.
    pub policies_ms: Option<u64>,
}

/// The load of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Requests per second.
    pub requests: u64,
    /// Calls in progress: active transactions.
    pub calls: u64,
    /// CPU time of the process, in percent of what its workers could use at most.
    pub busy_percent: u64,
}

/// Another process with the same host name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Twin {
    /// Its address.
    pub address: String,
    /// When it was first noticed, in milliseconds since 1970 by the clock of the database.
    pub since: i64,
}

impl HostState {
    /// What other hosts and operators must learn at once: the state without figures that change all the time.
    #[must_use]
    pub fn essence(&self) -> Self {
        let mut essence = Self {
            lag: Lag::default(),
            load: Load::default(),
            clock_ahead_ms: 0,
            ..self.clone()
        };
        for seat in essence.seats.values_mut() {
            *seat = SeatState {
                calls: 0,
                failures: 0,
                differing: 0,
                time_us: 0,
                durations: BTreeMap::new(),
                compared: 0,
                active_calls: 0,
                active_time_us: 0,
                active_durations: BTreeMap::new(),
                ..std::mem::take(seat)
            };
        }
        essence
    }
}

impl Lag {
    /// The longer one; 0 if there is none.
    pub fn longest_ms(self) -> u64 {
        self.tables_ms.max(self.policies_ms).unwrap_or(0)
    }
}

impl Stage {
    /// All, in the order of a host's life.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Serving, Self::Draining, Self::Ended];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_another_version_is_read_as_far_as_it_is_known() {
        let text = r#"{"stage":"draining","seats":{"acme":{"active":7,"new":1}},"later":[1]}"#;
        let state: HostState = serde_json::from_str(text).unwrap();
        assert_eq!(state.stage, Stage::Draining);
        assert_eq!(state.seats["acme"].active, Some(7));
        assert_eq!(state.lag.longest_ms(), 0);
        let again = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<HostState>(&again).unwrap(), state);
    }

    #[test]
    fn figures_that_change_all_the_time_are_not_urgent() {
        let seat = SeatState {
            active: Some(1),
            calls: 7,
            durations: [(3, 7)].into(),
            ..SeatState::default()
        };
        let state = HostState {
            seats: [("acme".to_owned(), seat.clone())].into(),
            ..HostState::default()
        };
        let busy = HostState {
            seats: [("acme".to_owned(), SeatState { calls: 9, ..seat })].into(),
            load: Load {
                requests: 5,
                ..Load::default()
            },
            clock_ahead_ms: 3,
            ..HostState::default()
        };
        assert_eq!(busy.essence(), state.essence());
        let draining = HostState {
            stage: Stage::Draining,
            ..busy.clone()
        };
        assert_ne!(draining.essence(), busy.essence());
    }

    #[test]
    fn the_longer_lag_counts() {
        let lag = |tables_ms, policies_ms| Lag {
            tables_ms,
            policies_ms,
        };
        assert_eq!(lag(Some(3), None).longest_ms(), 3);
        assert_eq!(lag(None, Some(5)).longest_ms(), 5);
        assert_eq!(lag(Some(3), Some(2)).longest_ms(), 3);
    }
}
