//! Restores the memory of an instance, so that the next call finds the same state as in a new instance.
//!
//! Only for [`Resettable`](super::resettable::Resettable) modules, whose whole state is their memory and mutable globals. Only the
//! [`cards`] that the call wrote are restored: the cost of a reset depends on how much the call writes, and neither on the size of the
//! memory nor on how many other policies share the CPU caches.

use std::ops::Range;

use wasmtime::{Memory, Store};

use super::cards;
use crate::look_ahead::Lines;

/// Most cards that are read before a call: 8 KiB of a memory of one page.
const MOST_READ: u32 = 8;

/// The initial memory of an instance.
pub(crate) struct Pristine {
    memory: Memory,
    /// The size of the memory in bytes.
    size: usize,
    image: Image,
}

/// The initial content of a memory.
struct Image {
    /// Offset of the first byte that is not zero.
    start: usize,
    /// The bytes from there to the last byte that is not zero.
    bytes: Box<[u8]>,
}

impl Pristine {
    /// Copies the memory of an instance that has not been called yet.
    pub(crate) fn of<T>(store: &Store<T>, memory: Memory) -> Self {
        let bytes = memory.data(store);
        Self {
            memory,
            size: bytes.len(),
            image: Image::of(bytes),
        }
    }

    /// Reads the marked cards, unless there are so many that reading them saves little of the time of a call that writes them.
    pub(crate) fn read<T>(&self, store: &Store<T>, written: u64, lines: &mut Lines) {
        if written.count_ones() > MOST_READ {
            return;
        }
        let bytes = self.memory.data(store);
        cards::each_range(written, self.size, |range| {
            lines.read_all(self.image.part(&range));
            lines.read_all(bytes.get(range).unwrap_or_default());
        });
    }

    /// Restores the marked cards; false if that is impossible because the memory has grown.
    pub(crate) fn restore<T>(&self, store: &mut Store<T>, written: u64) -> bool {
        let bytes = self.memory.data_mut(store);
        if bytes.len() != self.size {
            return false;
        }
        cards::each_range(written, self.size, |range| {
            self.image.restore(bytes, range);
        });
        true
    }
}

impl Image {
    fn of(bytes: &[u8]) -> Self {
        let is_set = |byte: &u8| *byte != 0;
        let start = bytes.iter().position(is_set).unwrap_or(0);
        let end = bytes.iter().rposition(is_set).map_or(0, |last| last + 1);
        Self {
            start,
            bytes: bytes[start..end].into(),
        }
    }

    /// The bytes that are not zero, within a range of the memory.
    fn part(&self, range: &Range<usize>) -> &[u8] {
        let from = range.start.saturating_sub(self.start);
        let to = range.end.saturating_sub(self.start).min(self.bytes.len());
        self.bytes.get(from..to).unwrap_or_default()
    }

    /// Restores a range of the memory, which must be within bounds.
    fn restore(&self, memory: &mut [u8], range: Range<usize>) {
        let from = range.start.max(self.start);
        let to = range.end.min(self.start + self.bytes.len());
        let place = &mut memory[range.clone()];
        if from >= to {
            return place.fill(0);
        }
        let (before, rest) = place.split_at_mut(from - range.start);
        let (image, after) = rest.split_at_mut(to - from);
        before.fill(0);
        image.copy_from_slice(&self.bytes[from - self.start..to - self.start]);
        after.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_parts_of_an_image_are_those_of_the_memory() {
        let image = Image::of(&[0, 0, 3, 4, 5, 0]);
        let part = |range| image.part(&range).to_vec();
        assert!(part(0..2).is_empty());
        assert_eq!(part(0..3), [3]);
        assert_eq!(part(3..6), [4, 5]);
        assert!(part(5..6).is_empty());
        assert_eq!(part(0..6), [3, 4, 5]);
    }

    proptest! {
        #[test]
        fn any_range_is_restored_and_nothing_else(
            first in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 1..80),
            ends in any::<[prop::sample::Index; 2]>(),
        ) {
            let mut ends = ends.map(|end| end.index(first.len() + 1));
            ends.sort_unstable();
            let range = ends[0]..ends[1];
            let mut memory = vec![0xee; first.len()];
            Image::of(&first).restore(&mut memory, range.clone());
            for (at, byte) in memory.iter().enumerate() {
                let expected = if range.contains(&at) { first[at] } else { 0xee };
                prop_assert_eq!(*byte, expected, "{}", at);
            }
        }
    }
}
