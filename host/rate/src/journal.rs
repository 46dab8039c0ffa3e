//! Numbers that workers note for the control side, in a ring of fixed size.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::atomic::Ordering;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicU64};

/// What workers note without a lock, and the control side takes. Whoever takes a note sees what its worker has written before.
#[derive(Debug)]
pub struct Journal {
    /// Each place has a number, or 0.
    places: Box<[AtomicU64]>,
    next: AtomicU64,
    has_lost: AtomicBool,
}

/// What has been noted since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The numbers, in any order.
    pub numbers: Vec<u64>,
    /// Whether there were more than there is room for.
    pub is_incomplete: bool,
}

impl Journal {
    /// Room for this many notes between two looks.
    pub fn new(places: usize) -> Self {
        Self {
            places: (0..places.max(1)).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(0),
            has_lost: AtomicBool::new(false),
        }
    }

    /// Notes a number that is not 0. Without room, the oldest note is lost.
    #[inline]
    pub fn note(&self, number: u64) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let place = &self.places[turn % self.places.len()];
        let before = place.swap(number, Ordering::AcqRel);
        if before != 0 && before != number {
            self.has_lost.store(true, Ordering::Release);
        }
    }

    /// Takes all notes. This look or the next one reports a loss.
    pub fn take(&self) -> Noted {
        let is_incomplete = self.has_lost.swap(false, Ordering::AcqRel);
        let noted = |place: &&AtomicU64| place.load(Ordering::Relaxed) != 0;
        let numbers = self.places.iter().filter(noted);
        let numbers = numbers.map(|place| place.swap(0, Ordering::AcqRel));
        Noted {
            numbers: numbers.collect(),
            is_incomplete,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn notes_are_taken_once_and_a_loss_is_told() {
        let journal = Journal::new(3);
        let take = || {
            let Noted {
                mut numbers,
                is_incomplete,
            } = journal.take();
            numbers.sort_unstable();
            (numbers, is_incomplete)
        };
        assert_eq!(take(), (vec![], false));
        [7, 8].iter().for_each(|number| journal.note(*number));
        assert_eq!(take(), (vec![7, 8], false));
        assert_eq!(take(), (vec![], false));
        (1..=4).for_each(|number| journal.note(number));
        assert_eq!(take(), (vec![2, 3, 4], true));
        assert_eq!(take(), (vec![], false));
        // The same number again is no loss.
        (0..9).for_each(|_| journal.note(5));
        assert_eq!(take(), (vec![5, 5, 5], false));
    }
}
