//! Long work in short turns.
//!
//! A load takes a tenth of a second and more, on a core that a worker may need for a request at any moment. Linux lets who runs finish
//! his turn, which is longer than a millisecond whatever his niceness, so the worker would wait some ten times as long as a request
//! takes. A load that gives way every few dozen microseconds costs the requests beside it next to nothing, and itself a few percent.
//! (The policy SCHED_IDLE gives way by itself, but gets nothing at all on a core that is never idle, and holds the locks that it has.)

/// Rows of a database after which a load gives way: each takes most of a microsecond.
pub(crate) const ROWS: i64 = 64;
/// Instructions of SQLite's virtual machine after which it gives way: a row takes ten or so.
pub(crate) const INSTRUCTIONS: i32 = 640;
/// Steps of a loop over rows that are in memory already.
const STEPS: usize = 4096;
/// Items that are sorted in one turn.
const SORTED: usize = 1024;

/// An iterator that gives way every now and then.
pub(crate) trait InTurns: Iterator + Sized {
    /// The same items.
    fn in_turns(self) -> impl Iterator<Item = Self::Item> {
        let mut steps = 0;
        self.inspect(move |_| {
            steps += 1;
            if steps % STEPS == 0 {
                give_way();
            }
        })
    }
}

impl<I: Iterator> InTurns for I {}

/// Lets who waits for this core have it first.
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
    }
}
