//! Long work in short slices.
//!
//! A load takes a tenth of a second or more, on a core that a worker may need for a request at any moment. Linux lets a running thread
//! finish its time slice, which is longer than a millisecond at any niceness, so the worker would wait about ten times as long as a
//! request takes. A load that yields every few dozen microseconds hardly delays requests, and takes a few percent longer itself.
//! (SCHED_IDLE would yield by itself, but such a thread starves on a core that is never idle, and keeps the locks that it holds.)

/// Steps of a loop over rows in memory between two yields.
const STEPS: usize = 4096;
/// Lines of a file that are read, checked and stored between two yields.
const READ: usize = 64;
/// Items that are sorted in one turn.
const SORTED: usize = 1024;

/// An iterator that yields the processor at intervals.
pub(crate) trait InTurns: Iterator + Sized {
    /// Iterates over the same items, yielding the processor at intervals.
    fn in_turns(self) -> impl Iterator<Item = Self::Item> {
        in_turns_of(STEPS, self)
    }

    /// Does so for lines of a file that are read and checked: one of them takes much longer than a step in memory.
    fn read_in_turns(self) -> impl Iterator<Item = Self::Item> {
        in_turns_of(READ, self)
    }
}

impl<I: Iterator> InTurns for I {}

fn in_turns_of<I: Iterator>(steps: usize, items: I) -> impl Iterator<Item = I::Item> {
    let mut done = 0;
    items.inspect(move |_| {
        done += 1;
        if done % steps == 0 {
            give_way();
        }
    })
}

/// Lets other threads that wait for this core run first.
pub(crate) fn give_way() {
    std::thread::yield_now();
}

/// Sorts as `[T]::sort_by_key` does: items with equal keys keep their order.
pub(crate) fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    for piece in items.chunks_mut(SORTED) {
        piece.sort_by_key(&key);
        give_way();
    }
    let mut sorted = SORTED;
    while sorted < items.len() {
        // The sort finds both halves in order and only merges them.
        for pair in items.chunks_mut(2 * sorted) {
            pair.sort_by_key(&key);
            give_way();
        }
        sorted *= 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sorts_as_the_standard_library_does(keys in proptest::collection::vec(0u8..20, 0..10_000)) {
            let mut items: Vec<(usize, u8)> = keys.into_iter().enumerate().collect();
            let mut expected = items.clone();
            expected.sort_by_key(|(_, key)| *key);
            sort_by_key(&mut items, |(_, key)| *key);
            prop_assert_eq!(items, expected);
        }
    }

    #[test]
    fn no_item_is_lost_between_turns() {
        let count = 3 * STEPS + 1;
        assert!((0..count).in_turns().eq(0..count));
        assert!((0..count).read_in_turns().eq(0..count));
    }
}
