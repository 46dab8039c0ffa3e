//! Resets an instance to its initial state, so that the next call finds the same state as in a new instance.
//!
//! Only for [`Resettable`](super::resettable::Resettable) modules, whose whole state is their memory and mutable globals. Of the memory, only
//! the [`cards`] that the call wrote are restored: the cost of a reset depends on how much the call writes, and neither on the size of the
//! memory nor on how many other policies share the CPU caches.

use std::ops::Range;

use wasmtime::{Global, Memory, Store, Val};

use super::cards;

/// The initial state of an instance.
pub(crate) struct Pristine {
    memory: Memory,
    /// The size of the memory in bytes.
    size: usize,
    image: Image,
    globals: Vec<(Global, Val)>,
    /// The global with the marks, if the module has marks.
    marks: Option<Global>,
}

/// The initial content of a memory.
struct Image {
    /// Offset of the first byte that is not zero.
    start: usize,
    /// The bytes from there to the last byte that is not zero.
    bytes: Box<[u8]>,
}

impl Pristine {
    /// Copies the state of an instance that has not been called yet.
    pub(crate) fn of<T>(
        store: &mut Store<T>,
        memory: Memory,
        globals: Vec<Global>,
        marks: Option<Global>,
    ) -> Self {
        let bytes = memory.data(&*store);
        let (size, image) = (bytes.len(), Image::of(bytes));
        let globals = globals.into_iter().map(|global| {
            let value = global.get(&mut *store);
            (global, value)
        });
        Self {
            memory,
            size,
            image,
            globals: globals.collect(),
            marks,
        }
    }

    /// Resets the instance; false if that is impossible because its memory has grown. `host` are the marks of the host's writes.
    pub(crate) fn restore<T>(&self, store: &mut Store<T>, host: u64) -> bool {
        let written = match &self.marks {
            None => u64::MAX,
            Some(marks) => {
                let Val::I64(module) = marks.get(&mut *store) else {
                    return false;
                };
                module.cast_unsigned() | host
            }
        };
        let bytes = self.memory.data_mut(&mut *store);
        if bytes.len() != self.size {
            return false;
        }
        cards::each_range(written, self.size, |range| {
            self.image.restore(bytes, range);
        });
        let mut set = |global: &Global, value: Val| global.set(&mut *store, value).is_ok();
        self.globals
            .iter()
            .all(|(global, value)| set(global, *value))
            && self.marks.is_none_or(|marks| set(&marks, Val::I64(0)))
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
