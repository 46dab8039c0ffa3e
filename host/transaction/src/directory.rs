//! The table from names of transactions to records.

use portcullis_sip::Transaction;

use crate::chunks::Chunks;
use crate::config::Config;

/// The slots of active and ended transactions by name, in chains. An entry has four bytes, because the records have the names.
///
/// The table has its size from the start and is never built anew: that would take many milliseconds with a million entries. The system backs
/// only those of its pages with memory that are used.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The first entry of each chain; [`END`] for an empty one.
    chains: Box<[u32]>,
    /// The next entry of the chain, by slot.
    after_active: Chunks<u32>,
    after_ended: Chunks<u32>,
    count: usize,
}

/// Where the record of a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The slot of an active transaction.
    Active(u32),
    /// The slot of one that absorbs retransmissions.
    Ended(u32),
}

/// The end of a chain: no place is packed so.
const END: u32 = 0;

/// Limits of the number of chains.
const FEWEST: usize = 1 << 10;
const MOST: usize = 1 << 26;

impl Place {
    const ENDED: u32 = 1 << 31;

    /// Panics with 2³¹ records, which no memory holds.
    fn pack(self) -> u32 {
        match self {
            Self::Active(slot) => slot + 1,
            Self::Ended(slot) => (slot + 1) | Self::ENDED,
        }
    }

    /// `None` at the end of a chain.
    fn unpack(packed: u32) -> Option<Self> {
        let slot = (packed & !Self::ENDED).checked_sub(1)?;
        Some(match packed & Self::ENDED {
            0 => Self::Active(slot),
            _ => Self::Ended(slot),
        })
    }
}

impl Directory {
    /// For as many records as these settings permit.
    pub(crate) fn new(config: &Config) -> Self {
        let active = config.most.saturating_mul(2);
        let all = active.saturating_add(config.absorbers);
        Self::with_chains(all.clamp(FEWEST, MOST).next_power_of_two())
    }

    /// With a number of chains that is a power of two.
    fn with_chains(chains: usize) -> Self {
        Self {
            chains: vec![END; chains].into(),
            after_active: Chunks::default(),
            after_ended: Chunks::default(),
            count: 0,
        }
    }

    /// The place of a transaction. `name_at` is the name of the record at a place.
    pub(crate) fn find(
        &self,
        transaction: Transaction,
        name_at: impl Fn(Place) -> Option<Transaction>,
    ) -> Option<Place> {
        let mut next = self.chains[self.chain_of(transaction)];
        loop {
            let place = Place::unpack(next)?;
            if name_at(place) == Some(transaction) {
                return Some(place);
            }
            next = self.after(place);
        }
    }

    /// Adds a place, which has no entry yet.
    pub(crate) fn insert(&mut self, transaction: Transaction, place: Place) {
        let chain = self.chain_of(transaction);
        let next = std::mem::replace(&mut self.chains[chain], place.pack());
        self.set_after(place, next);
        self.count += 1;
    }

    pub(crate) fn remove(&mut self, transaction: Transaction, place: Place) {
        let chain = self.chain_of(transaction);
        let after = self.after(place);
        let mut at = Place::unpack(self.chains[chain]);
        if at == Some(place) {
            self.chains[chain] = after;
            self.count -= 1;
            return;
        }
        while let Some(earlier) = at {
            at = Place::unpack(self.after(earlier));
            if at == Some(place) {
                self.set_after(earlier, after);
                self.count -= 1;
                return;
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A name is a keyed hash, but for its low byte: that says which worker has it, and is alike for all names here.
    fn chain_of(&self, transaction: Transaction) -> usize {
        (transaction.number() >> 8) as usize & (self.chains.len() - 1)
    }

    fn after(&self, place: Place) -> u32 {
        let next = match place {
            Place::Active(slot) => self.after_active.element(slot),
            Place::Ended(slot) => self.after_ended.element(slot),
        };
        next.copied().unwrap_or(END)
    }

    fn set_after(&mut self, place: Place, next: u32) {
        let (links, slot) = match place {
            Place::Active(slot) => (&mut self.after_active, slot),
            Place::Ended(slot) => (&mut self.after_ended, slot),
        };
        while links.len() <= slot as usize {
            links.push(END);
        }
        if let Some(link) = links.element_mut(slot) {
            *link = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::transactions;

    /// Of 40 active and 40 ended transactions.
    static NAMES: OnceLock<Vec<Transaction>> = OnceLock::new();

    proptest! {
        #[test]
        fn a_place_is_found_by_its_name_until_it_is_removed(
            steps in prop::collection::vec((0..40_u32, any::<bool>(), any::<bool>()), 0..300),
        ) {
            let mut directory = Directory::with_chains(4);
            let names = NAMES.get_or_init(|| transactions(80));
            let name = |slot: u32, is_active: bool| names[2 * slot as usize + usize::from(is_active)];
            let place = |slot, is_active| if is_active { Place::Active(slot) } else { Place::Ended(slot) };
            let name_at = |place: Place| Some(match place {
                Place::Active(slot) => name(slot, true),
                Place::Ended(slot) => name(slot, false),
            });
            let mut model = BTreeMap::new();
            for (slot, is_active, removes) in steps {
                let (name, place) = (name(slot, is_active), place(slot, is_active));
                let found = directory.find(name, name_at);
                prop_assert_eq!(found, model.get(&(slot, is_active)).copied());
                if removes {
                    directory.remove(name, place);
                    model.remove(&(slot, is_active));
                } else if model.insert((slot, is_active), place).is_none() {
                    directory.insert(name, place);
                }
                prop_assert_eq!(directory.is_empty(), model.is_empty());
            }
            for ((slot, is_active), place) in model {
                prop_assert_eq!(directory.find(name(slot, is_active), name_at), Some(place));
            }
        }
    }
}
