//! The row of a host.

use std::time::Duration;

use super::state::{HostState, Stage};

/// The longest name of a host, in characters.
pub const NAME_CHARACTERS: usize = 64;

/// A host is alive while its row is younger than this, by the clock of the database.
pub const ALIVE: Duration = Duration::from_secs(5);

/// What a host writes into its row.
#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    /// Its name.
    pub host: &'a str,
    /// Random for each process: 32 hexadecimal digits.
    pub instance: &'a str,
    /// Its first listen address.
    pub address: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The state, as JSON.
    pub state: &'a str,
    /// Whether the state differs from the one that this process wrote last.
    pub is_changed: bool,
}

/// What the row says before an announcement is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The clock of the database, in milliseconds since 1970.
    pub now: i64,
    /// Another process has written the row since, and is alive: its address.
    pub twin: Option<String>,
    /// What an operator asks of this process.
    pub wish: Option<Wish>,
}

/// What an operator asks of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What.
    pub kind: WishKind,
    /// Who asks.
    pub by: String,
    /// When, in milliseconds since 1970 by the clock of the database.
    pub at: i64,
}

/// The kinds of wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WishKind {
    /// Drain, and end.
    Drain,
}

/// The row of a host, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    /// Its name.
    pub host: String,
    /// Random for each process.
    pub instance: String,
    /// Its first listen address.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When the process began to announce itself, in milliseconds since 1970 by the clock of the database.
    pub started_at: i64,
    /// When the row was last written, by the same clock.
    pub seen_at: i64,
    /// The age of the row at the time of the query, in milliseconds by the same clock; negative if that clock has been set back.
    pub age_ms: i64,
    /// What the host says of itself; `None` if it cannot be read.
    pub state: Option<HostState>,
    /// What an operator asks of the process.
    pub wish: Option<Wish>,
}

impl WishKind {
    /// As in the column `wish`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
        }
    }

    /// From the column `wish`; `None` for a wish of another version.
    pub fn of(text: &str) -> Option<Self> {
        (text == Self::Drain.as_str()).then_some(Self::Drain)
    }
}

impl HostRow {
    /// Whether the host is alive: the row is younger than [`ALIVE`], and the process has not said that it ends. A row from the future, as in
    /// a database whose clock was set back, is not that of a living host: a living one would have written it again.
    pub fn is_alive(&self) -> bool {
        is_fresh(self.age_ms) && self.stage() != Some(Stage::Ended)
    }

    /// The stage that the host announced last; `None` if its state cannot be read.
    pub fn stage(&self) -> Option<Stage> {
        self.state.as_ref().map(|state| state.stage)
    }
}

/// Whether a row of this age, in milliseconds, is that of a living process.
pub(super) fn is_fresh(age_ms: i64) -> bool {
    u128::from(age_ms.unsigned_abs()) < ALIVE.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(age_ms: i64, stage: Stage) -> HostRow {
        HostRow {
            host: "edge-1".into(),
            instance: "0".repeat(32),
            address: "udp:192.0.2.1:5060".into(),
            version: "0.1.0".into(),
            started_at: 0,
            seen_at: 0,
            age_ms,
            state: Some(HostState {
                stage,
                ..HostState::default()
            }),
            wish: None,
        }
    }

    #[test]
    fn a_host_is_alive_while_its_row_is_fresh_and_it_has_not_ended() {
        assert!(row(0, Stage::Serving).is_alive());
        assert!(row(4_999, Stage::Draining).is_alive());
        assert!(!row(5_000, Stage::Serving).is_alive());
        assert!(!row(0, Stage::Ended).is_alive());
        // The clock of the database was set back.
        assert!(!row(-3_600_000, Stage::Serving).is_alive());
        assert!(!row(i64::MIN, Stage::Serving).is_alive());
        let unreadable = HostRow {
            state: None,
            ..row(0, Stage::Serving)
        };
        assert!(unreadable.is_alive());
    }
}
