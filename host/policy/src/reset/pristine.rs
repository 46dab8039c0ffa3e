//! Restores the memory of an instance, so that the next call finds the same state as in a new instance.
//!
//! Only for [`Resettable`](super::resettable::Resettable) modules, whose whole state is their memory and mutable globals. Only the
//! [`cards`] that the call wrote are restored: the cost of a reset depends on how much the call writes, and neither on the size of the
//! memory nor on how many other policies share the CPU caches.

use std::ops::Range;

use wasmtime::{Memory, Store};

use super::cards;

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
