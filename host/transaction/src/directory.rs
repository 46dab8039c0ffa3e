//! The table from names of transactions to records.

use hashbrown::HashTable;
use portcullis_sip::Transaction;

/// The slots of active and ended transactions by name. An entry has four bytes, because the records have the names.
#[derive(Debug, Default)]
pub(crate) struct Directory(HashTable<u32>);

/// Where the record of a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The slot of an active transaction.
    Active(u32),
    /// The slot of one that absorbs copies.
    Ended(u32),
}

impl Place {
    const ENDED: u32 = 1 << 31;

    fn pack(self) -> u32 {
        match self {
            Self::Active(slot) => slot,
            Self::Ended(slot) => slot | Self::ENDED,
        }
    }

    fn unpack(packed: u32) -> Self {
        match packed & Self::ENDED {
            0 => Self::Active(packed),
            _ => Self::Ended(packed & !Self::ENDED),
        }
    }
}

impl Directory {
    /// The place of a transaction. `name_at` is the name of the record at a place.
    pub(crate) fn find(
        &self,
        transaction: Transaction,
        name_at: impl Fn(Place) -> Option<Transaction>,
    ) -> Option<Place> {
        let is_it = |packed: &u32| name_at(Place::unpack(*packed)) == Some(transaction);
        let found = self.0.find(hash(transaction), is_it);
        found.map(|packed| Place::unpack(*packed))
    }

    pub(crate) fn insert(
        &mut self,
        transaction: Transaction,
        place: Place,
        name_at: impl Fn(Place) -> Option<Transaction>,
    ) {
        let hash_at = |packed: &u32| name_at(Place::unpack(*packed)).map_or(0, hash);
        self.0
            .insert_unique(hash(transaction), place.pack(), hash_at);
    }

    pub(crate) fn remove(&mut self, transaction: Transaction, place: Place) {
        let is_it = |packed: &u32| *packed == place.pack();
        if let Ok(entry) = self.0.find_entry(hash(transaction), is_it) {
            entry.remove();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A name is a keyed hash already, but its low byte says which worker has it, and is alike for all names of a table. The table takes the place
/// of an entry from the low bits and its tag from the high ones.
fn hash(transaction: Transaction) -> u64 {
    transaction.number().rotate_left(24)
}
