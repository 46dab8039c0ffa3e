//! Which of two rows of a seat is older: a database that was replaced by a backup goes back.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portcullis_store::Seat as StoredSeat;

/// How long a row must be older before it applies. A server that is a replica may lag behind the one that was asked before, and a backup
/// is not read back at once: nothing is written before the tables have been there for this time.
const SETTLED: Duration = Duration::from_secs(10);

/// A row, compared with an earlier one of the same seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// It has been changed since.
    Newer,
    /// No role has changed.
    Same,
    /// It does not come from the earlier one: the database has gone back.
    Older,
}

/// The seats whose rows are older, or gone.
#[derive(Debug, Default)]
pub(super) struct Older(Mutex<BTreeMap<String, Since>>);

/// Since when the row of a seat has been older, or gone.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: Instant,
    /// The last number of the row at that time; `None` if there is no row.
    last: Option<u64>,
    /// Whether nothing is left to be done as long as that is so.
    is_over: bool,
}

impl Age {
    pub(super) fn of(row: &StoredSeat, before: &StoredSeat) -> Self {
        // Not the author: a column may be too short for a name.
        let has_same_roles = row.active == before.active
            && row.previous == before.previous
            && row.candidate == before.candidate
            && row.mode == before.mode;
        // A time is that of the host that made the change, so only whether it is the same one says something.
        let is_same_change =
            row.changed_at == before.changed_at || before.changed_at == 0 || row.changed_at == 0;
        if row.last < before.last {
            return Self::Older;
        }
        match row.revision.cmp(&before.revision) {
            Ordering::Greater => Self::Newer,
            Ordering::Equal if has_same_roles && is_same_change => Self::Same,
            Ordering::Equal | Ordering::Less => Self::Older,
        }
    }
}

impl Older {
    /// Notes that the row of a seat is older, with its last number, or gone. Returns whether that has been so for [`SETTLED`].
    pub(super) fn note(&self, seat: &str, last: Option<u64>, now: Instant) -> bool {
        let mut all = self.0.lock();
        let begins = Since {
            at: now,
            last,
            is_over: false,
        };
        let since = all.entry(seat.to_owned()).or_insert(begins);
        // A row that comes back is part of a restore that goes on.
        if since.last.is_none() != last.is_none() {
            *since = begins;
        }
        !since.is_over && now.saturating_duration_since(since.at) >= SETTLED
    }

    /// Notes that what follows from a row that is gone has been done.
    pub(super) fn finish(&self, seat: &str) {
        if let Some(since) = self.0.lock().get_mut(seat) {
            since.is_over = true;
        }
    }

    /// The last number of a row when it was found to be older.
    pub(super) fn last_of(&self, seat: &str) -> Option<u64> {
        self.0.lock().get(seat)?.last
    }

    /// Notes that the row of a seat is not older, or applies.
    pub(super) fn clear(&self, seat: &str) {
        self.0.lock().remove(seat);
    }

    /// Whether no seat waits.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().values().all(|since| since.is_over)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_store::Trial;

    use super::*;

    fn seat(revision: u64, last: u64, active: u64) -> StoredSeat {
        StoredSeat {
            name: "acme".to_owned(),
            last,
            active: Some(active),
            revision,
            ..StoredSeat::default()
        }
    }

    #[test]
    fn a_row_that_went_back_is_told_from_one_that_was_changed() {
        let before = seat(7, 5, 5);
        assert_eq!(Age::of(&before, &before), Age::Same);
        assert_eq!(Age::of(&seat(7, 6, 5), &before), Age::Same, "a push");
        assert_eq!(Age::of(&seat(8, 6, 6), &before), Age::Newer);
        assert_eq!(Age::of(&seat(6, 5, 4), &before), Age::Older);
        assert_eq!(
            Age::of(&seat(9, 4, 4), &before),
            Age::Older,
            "restored, and changed again"
        );
        assert_eq!(
            Age::of(&seat(7, 5, 4), &before),
            Age::Older,
            "as many changes, but others"
        );
        let tried = StoredSeat {
            candidate: Some((4, Trial::Shadow)),
            ..before.clone()
        };
        assert_eq!(Age::of(&tried, &before), Age::Older);
        let at = |changed_at| StoredSeat {
            changed_at,
            ..before.clone()
        };
        assert_eq!(Age::of(&at(9), &at(9)), Age::Same);
        assert_eq!(Age::of(&at(9), &at(0)), Age::Same, "the own change");
        assert_eq!(
            Age::of(&at(8), &at(9)),
            Age::Older,
            "the same numbers, another file"
        );
        let by_other = StoredSeat {
            changed_by: "ann".to_owned(),
            ..before.clone()
        };
        assert_eq!(Age::of(&by_other, &before), Age::Same);
    }

    #[test]
    fn an_older_row_applies_after_ten_seconds_unless_it_was_a_replica_that_lagged() {
        let (older, begun) = (Older::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(!older.note("acme", Some(3), begun));
        assert!(!older.note("acme", Some(6), after(9)));
        assert!(!older.is_over());
        assert!(older.note("acme", Some(6), after(10)));
        assert_eq!(older.last_of("acme"), Some(3), "before hosts raised it");
        older.clear("acme");
        assert!(older.is_over());
        assert!(!older.note("acme", Some(3), after(11)));
        assert!(!older.note("beta", Some(1), after(30)));
    }

    #[test]
    fn a_row_that_is_gone_is_told_once_and_one_that_comes_back_waits_again() {
        let (older, begun) = (Older::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(!older.note("acme", None, begun));
        assert!(older.note("acme", None, after(10)));
        older.finish("acme");
        assert!(older.is_over(), "the seats need not be read again");
        assert!(!older.note("acme", None, after(60)));
        assert!(!older.note("acme", Some(1), after(61)));
        assert!(!older.is_over());
        assert!(older.note("acme", Some(1), after(71)));
    }
}
