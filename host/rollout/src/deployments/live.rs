//! On which hosts of the fleet a change of a seat is in effect.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_fleet::directory::{Directory, DirectoryError, HostRow, Stage};
use portcullis_store::StoreError;
use tokio::time::{Instant, sleep};

use super::Deployments;
use super::database::Database;

/// The first pause between two looks at the hosts; it grows by a half with each look, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two looks at the hosts: a look reads the rows of all hosts.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// On which hosts a change is in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostsLive {
    /// Number of hosts that were alive when the change was made, and of those that came since.
    pub total: usize,
    /// Number of those on which the change is in effect on all workers.
    pub live: usize,
    /// The others, by name.
    pub behind: Vec<HostBehind>,
}

/// A host on which a change is not known to be in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBehind {
    /// Its name.
    pub host: String,
    /// How long ago it announced itself, by the clock of the database.
    pub seen: Duration,
    /// The last revision of the seat that it has carried out; `None` if it says nothing of the seat.
    pub revision: Option<u64>,
    /// Why it has not carried out the change; `None` if it has not said.
    pub error: Option<String>,
}

/// The state of a host with regard to a revision of a seat.
enum Stand {
    Live,
    Behind(HostBehind),
    /// It has refused the revision: waiting is of no use.
    Refused(HostBehind),
}

impl Deployments {
    /// Waits until the last change that this host has made to a seat is in effect on all workers of all hosts that are alive, for at most this
    /// time. `None` if no host announces itself, or policies are kept in memory.
    ///
    /// # Errors
    /// If the hosts cannot be read.
    pub async fn live_on_hosts(
        &self,
        seat: &str,
        patience: Duration,
    ) -> Result<Option<HostsLive>, StoreError> {
        let Some(database) = &self.database else {
            return Ok(None);
        };
        let is_stored = self
            .seats
            .files(seat)
            .is_some_and(|files| files.file().is_none());
        let revision = database.told().revision(seat);
        if !is_stored || database.health().is_memory() || revision == 0 {
            return Ok(None);
        }
        let end = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        // The hosts that were alive in any look. One that ends removes its row, or says so in it.
        let mut awaited = BTreeSet::new();
        loop {
            let rows = self.hosts(database).await?;
            let alive = rows.iter().filter(|row| row.is_alive());
            awaited.extend(alive.map(|row| row.host.clone()));
            let stands = rows
                .iter()
                .filter(|row| awaited.contains(&row.host) && row.stage() != Some(Stage::Ended))
                .map(|row| Stand::of(row, seat, revision));
            let (live, can_change) = count(stands);
            if live.total == 0 {
                return Ok(None);
            }
            let now = Instant::now();
            if !can_change || now >= end {
                return Ok(Some(live));
            }
            sleep(pause.min(end - now)).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// The hosts that announce themselves; none without the table.
    pub(super) async fn hosts(&self, database: &Database) -> Result<Vec<HostRow>, StoreError> {
        let directory = Directory::new(database.store().connections().clone());
        match directory.hosts().await {
            Ok(rows) => Ok(rows),
            Err(DirectoryError::NoTable { .. }) => Ok(Vec::new()),
            Err(DirectoryError::Denied { url, cause }) => Err(StoreError::Denied { url, cause }),
            Err(DirectoryError::ReadOnly { url, cause }) => Err(StoreError::Failed { url, cause }),
            Err(DirectoryError::Database(failure)) => Err(failure.into()),
        }
    }
}

impl Stand {
    fn of(row: &HostRow, seat: &str, revision: u64) -> Self {
        let said = row.state.as_ref().and_then(|state| state.seats.get(seat));
        if said.is_some_and(|said| said.revision >= revision) {
            // What it said before it stopped stays true: a process that starts again reads the change first.
            return Self::Live;
        }
        let refused = said.and_then(|said| said.refused.as_ref());
        let refused = refused.filter(|refused| refused.revision >= revision);
        let behind = HostBehind {
            host: row.host.clone(),
            seen: Duration::from_millis(u64::try_from(row.age_ms).unwrap_or(0)),
            revision: said.map(|said| said.revision),
            error: refused.map(|refused| refused.error.clone()),
        };
        match refused {
            Some(_) => Self::Refused(behind),
            None => Self::Behind(behind),
        }
    }
}

/// Sums up the hosts. Returns with it whether waiting can change it.
fn count(stands: impl Iterator<Item = Stand>) -> (HostsLive, bool) {
    let mut sum = HostsLive::default();
    let mut can_change = false;
    for stand in stands {
        sum.total += 1;
        match stand {
            Stand::Live => sum.live += 1,
            Stand::Refused(behind) => sum.behind.push(behind),
            Stand::Behind(behind) => {
                can_change = true;
                sum.behind.push(behind);
            }
        }
    }
    (sum, can_change)
}

#[cfg(test)]
mod tests {
    use portcullis_fleet::directory::{HostState, Refused, SeatState};

    use super::*;

    fn row(host: &str, age_ms: i64, said: Option<SeatState>) -> HostRow {
        let seats = said.map(|said| ("acme".to_owned(), said));
        HostRow {
            host: host.to_owned(),
            instance: "0".repeat(32),
            address: String::new(),
            version: String::new(),
            started_at: 0,
            seen_at: 0,
            age_ms,
            state: Some(HostState {
                seats: seats.into_iter().collect(),
                ..HostState::default()
            }),
            wish: None,
        }
    }

    #[test]
    fn hosts_are_live_behind_or_have_refused() {
        let at = |revision| SeatState {
            active: Some(4),
            revision,
            ..SeatState::default()
        };
        let refuses = SeatState {
            refused: Some(Refused {
                revision: 7,
                error: "too large".into(),
            }),
            ..at(6)
        };
        let rows = [
            row("live", 100, Some(at(7))),
            row("later", 100, Some(at(8))),
            row("silent", 200, None),
            row("slow", 3_000, Some(at(6))),
            row("unable", 0, Some(refuses)),
        ];
        let (sum, can_change) = count(rows.iter().map(|row| Stand::of(row, "acme", 7)));
        assert_eq!((sum.total, sum.live, can_change), (5, 2, true));
        let behind = |host: &str, seen, revision, error: Option<&str>| HostBehind {
            host: host.to_owned(),
            seen: Duration::from_millis(seen),
            revision,
            error: error.map(str::to_owned),
        };
        let expected = [
            behind("silent", 200, None, None),
            behind("slow", 3_000, Some(6), None),
            behind("unable", 0, Some(6), Some("too large")),
        ];
        assert_eq!(sum.behind, expected);
        // Nothing is left to wait for.
        let (_, can_change) = count(rows[4..].iter().map(|row| Stand::of(row, "acme", 7)));
        assert!(!can_change);
    }
}
