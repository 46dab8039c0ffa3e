//! The last decisions of seats, in memory. A seat is followed from the first question about it on, and for a while after the last one: the
//! others cost their workers nothing.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Bytes;
use parking_lot::Mutex;
use portcullis_dataplane::trace::Next;

/// Decisions of a seat that are kept.
pub(crate) const MOST: usize = 500;

/// Most decisions of a seat in a second; further ones are counted.
pub(crate) const RATE: u32 = 50;

/// How long a seat is followed after the last question.
const KEPT: Duration = Duration::from_secs(600);

/// Interval between two checks whether somebody still asks.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// A seat, and whether the tenant asks.
pub(crate) type Key = (String, bool);

/// The seats that are followed.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<HashMap<Key, FollowedSeat>>);

/// The decisions of a seat.
#[derive(Debug)]
struct FollowedSeat {
    since: SystemTime,
    asked: Instant,
    /// The newest first.
    last: VecDeque<Bytes>,
    left_out: u64,
}

/// The last decisions of a seat.
#[derive(Debug)]
pub(crate) struct Last {
    /// Since when the seat is followed.
    pub(crate) since: SystemTime,
    /// Decisions above the rate.
    pub(crate) left_out: u64,
    /// The newest first, each in JSON.
    pub(crate) lines: Vec<Bytes>,
}

impl Recent {
    /// Returns the decisions of a seat; `None` if the seat is not followed yet.
    pub(crate) fn last(&self, key: &Key) -> Option<Last> {
        let mut all = self.0.lock();
        let kept = all.get_mut(key)?;
        kept.asked = Instant::now();
        Some(Last {
            since: kept.since,
            left_out: kept.left_out,
            lines: kept.last.iter().cloned().collect(),
        })
    }

    /// Begins to follow a seat; false if it is followed already.
    pub(crate) fn begin(&self, key: &Key) -> bool {
        let mut all = self.0.lock();
        if all.contains_key(key) {
            return false;
        }
        let kept = FollowedSeat {
            since: SystemTime::now(),
            asked: Instant::now(),
            last: VecDeque::new(),
            left_out: 0,
        };
        all.insert(key.clone(), kept);
        true
    }

    /// Ends to follow a seat.
    pub(crate) fn end(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    /// Takes what has come. Returns whether somebody still asks.
    pub(crate) fn take(&self, key: &Key, next: Next) -> bool {
        let mut all = self.0.lock();
        let Some(kept) = all.get_mut(key) else {
            return false;
        };
        match next {
            Next::Line(line) => {
                kept.last.truncate(MOST - 1);
                kept.last.push_front(line);
            }
            Next::LeftOut(count) => kept.left_out += count,
            Next::Silence => {}
            Next::End => return false,
        }
        let is_asked = kept.asked.elapsed() < KEPT;
        if !is_asked {
            all.remove(key);
        }
        is_asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_decisions_are_kept_as_long_as_somebody_asks() {
        let recent = Recent::default();
        let key = ("default".to_owned(), false);
        let line = |number: usize| Next::Line(number.to_string().into());
        assert!(!recent.take(&key, line(0)) && recent.last(&key).is_none());
        assert!(recent.begin(&key) && !recent.begin(&key));
        for number in 0..MOST + 3 {
            assert!(recent.take(&key, line(number)));
        }
        assert!(recent.take(&key, Next::LeftOut(7)));
        let all = recent.last(&key).unwrap();
        assert_eq!((all.lines.len(), all.left_out), (MOST, 7));
        assert_eq!(all.lines[0], (MOST + 2).to_string());
        recent.0.lock().get_mut(&key).unwrap().asked -= KEPT;
        assert!(!recent.take(&key, Next::Silence) && recent.last(&key).is_none());
        assert!(recent.begin(&key));
        recent.end(&key);
        assert!(recent.last(&key).is_none());
    }
}
