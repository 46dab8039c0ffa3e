//! Records in slots that are used again.

use crate::chunks::Chunks;

/// Names a transaction. The id of one that is gone names nothing, even when its place is in use again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    slot: u32,
    generation: u32,
}

/// Records with ids that are checked, in memory that is kept.
#[derive(Debug)]
pub(crate) struct Slab<R> {
    slots: Chunks<Slot<R>>,
    /// The first free slot; they form a list.
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Slot<R> {
    generation: u32,
    /// The next free slot, if this one is free.
    next: u32,
    record: Option<R>,
}

/// The end of the list of free slots.
const NONE: u32 = u32::MAX;

impl Id {
    /// A number that no other active transaction of this worker has, for tables of the caller: smaller than the most transactions that were
    /// active at once. The number is used again, perhaps before [`Event::Ended`](crate::Event::Ended) is fetched, so an entry of such a table
    /// should have the whole id.
    pub fn slot(self) -> u32 {
        self.slot
    }

    /// How many transactions have had the slot before.
    pub fn generation(self) -> u32 {
        self.generation
    }
}

impl<R> Slab<R> {
    /// Bytes for each record.
    #[cfg(test)]
    pub(crate) const RECORD_BYTES: usize = size_of::<Slot<R>>();

    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of slots, used and free ones.
    pub(crate) fn slots(&self) -> u32 {
        // Ids have 32 bits: there are no more.
        self.slots.len() as u32
    }

    /// Whether there is no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a record.
    pub(crate) fn insert(&mut self, record: R) -> Id {
        self.insert_with(|_| record)
    }

    /// Adds a record that has its own id. Panics with more than 2³² records, which no memory holds.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Id) -> R) -> Id {
        self.len += 1;
        let slot = self.free;
        if let Some(place) = self.slots.element_mut(slot) {
            let generation = place.generation;
            let id = Id { slot, generation };
            place.record = Some(make(id));
            self.free = place.next;
            return id;
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer than 2³² records");
        let id = Id {
            slot,
            generation: 0,
        };
        self.slots.push(Slot {
            generation: 0,
            next: NONE,
            record: Some(make(id)),
        });
        id
    }

    /// Removes a record.
    pub(crate) fn remove(&mut self, id: Id) -> Option<R> {
        let place = self.slots.element_mut(id.slot)?;
        if place.generation != id.generation {
            return None;
        }
        let record = place.record.take()?;
        place.generation = place.generation.wrapping_add(1);
        place.next = std::mem::replace(&mut self.free, id.slot);
        self.len -= 1;
        Some(record)
    }

    /// The record of this id.
    pub(crate) fn record(&self, id: Id) -> Option<&R> {
        let place = self.slots.element(id.slot)?;
        let is_same = place.generation == id.generation;
        place.record.as_ref().filter(|_| is_same)
    }

    /// The record of this id, to change it.
    pub(crate) fn record_mut(&mut self, id: Id) -> Option<&mut R> {
        let place = self.slots.element_mut(id.slot)?;
        let is_same = place.generation == id.generation;
        place.record.as_mut().filter(|_| is_same)
    }

    /// The record in a slot.
    pub(crate) fn at(&self, slot: u32) -> Option<&R> {
        self.slots.element(slot)?.record.as_ref()
    }

    /// The record in a slot, to change it.
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut R> {
        self.slots.element_mut(slot)?.record.as_mut()
    }

    /// The id of the record in a slot.
    pub(crate) fn id_at(&self, slot: u32) -> Option<Id> {
        let place = self.slots.element(slot)?;
        place.record.as_ref()?;
        Some(Id {
            slot,
            generation: place.generation,
        })
    }

    /// All records.
    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.slots.iter().filter_map(|place| place.record.as_ref())
    }
}

impl<R> Default for Slab<R> {
    fn default() -> Self {
        Self {
            slots: Chunks::default(),
            free: NONE,
            len: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_removed_record_names_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        assert_eq!(slab.remove(first), None);

        let second = slab.insert("second");
        assert_eq!(second.slot(), first.slot());
        assert_eq!(slab.record(first), None);
        assert_eq!(slab.record_mut(second), Some(&mut "second"));
        assert_eq!(slab.id_at(0), Some(second));
        assert_eq!(slab.len(), 1);
    }
}
