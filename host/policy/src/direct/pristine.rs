//! Puts an instance back to its first state, so that the next call finds what it would find in a new one.
//!
//! Only for modules that are [`Resettable`](super::resettable::Resettable): there memory and mutable globals are all the state
//! there is. It costs what the pool spends on the memory of an instance that it takes back, and saves everything else that
//! making and ending an instance costs.

use wasmtime::{Global, Memory, Store, Val};

/// The first state of an instance.
pub(super) struct Pristine {
    memory: Memory,
    /// The size of the memory in bytes.
    size: usize,
    /// Where the part of the memory begins that is not zero.
    start: usize,
    /// That part.
    image: Box<[u8]>,
    globals: Vec<(Global, Val)>,
}

impl Pristine {
    /// Notes the state of an instance that has not been called yet.
    pub(super) fn of<T>(store: &mut Store<T>, memory: Memory, globals: Vec<Global>) -> Self {
        let bytes = memory.data(&*store);
        let is_set = |byte: &u8| *byte != 0;
        let start = bytes.iter().position(is_set).unwrap_or(0);
        let end = bytes.iter().rposition(is_set).map_or(0, |last| last + 1);
        let (size, image) = (bytes.len(), bytes[start..end].into());
        let globals = globals.into_iter().map(|global| {
            let value = global.get(&mut *store);
            (global, value)
        });
        Self {
            memory,
            size,
            start,
            image,
            globals: globals.collect(),
        }
    }

    /// Puts the instance back; false if that cannot be done, because it has grown.
    pub(super) fn restore<T>(&self, store: &mut Store<T>) -> bool {
        let bytes = self.memory.data_mut(&mut *store);
        if bytes.len() != self.size {
            return false;
        }
        let (before, rest) = bytes.split_at_mut(self.start);
        let (image, after) = rest.split_at_mut(self.image.len());
        before.fill(0);
        image.copy_from_slice(&self.image);
        after.fill(0);
        self.globals
            .iter()
            .all(|(global, value)| global.set(&mut *store, *value).is_ok())
    }
}
