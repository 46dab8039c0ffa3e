//! The immutable table: rows arranged so that one lookup answers every query about a source.
//!
//! A lookup finds the innermost network or host that contains the source ([`slots`]). The rules of its rows and of those of the networks
//! around it ([`sets`]) are read only when a group is queried. The combinations of group, port and tag are stored once each, so that they
//! stay in the cache, and an unknown source costs no more than a known one.

mod address;
mod builder;
mod dump;
mod entries;
mod rows;
mod sets;
mod slots;
mod texts;

use std::fmt;

pub use builder::TableBuilder;
pub(crate) use dump::bucket;
pub use dump::{DomainRow, HostRow, SubnetRow};
pub use entries::{Entries, Entry, EntryIter, Match};

use rows::Rows;
use sets::{SetId, Sets};
use slots::Slots;
use texts::{Index, Texts};

/// The address table: immutable, and shared by all workers.
///
/// The default table is empty.
#[derive(Default)]
pub struct Table {
    v4: Slots<u32>,
    v6: Slots<u128>,
    names: Names,
    sets: Sets,
    tags: Texts,
    rows: Rows,
}

/// The host names of the table, each with its set.
#[derive(Debug, Default)]
struct Names {
    texts: Texts,
    index: Index,
    sets: Vec<SetId>,
}

impl Table {
    /// Returns the number of rows about one address.
    pub fn host_count(&self) -> usize {
        self.rows.hosts.len()
    }

    /// Returns the number of rows about networks.
    pub fn subnet_count(&self) -> usize {
        self.rows.subnets.len()
    }

    /// Returns the number of rows about names.
    pub fn domain_count(&self) -> usize {
        self.rows.domains.len()
    }

    /// Returns the number of rows of all kinds.
    pub fn len(&self) -> usize {
        self.host_count() + self.subnet_count() + self.domain_count()
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the memory of the table, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.v4.memory_bytes()
            + self.v6.memory_bytes()
            + self.names.texts.memory_bytes()
            + self.names.index.memory_bytes()
            + self.names.sets.capacity() * size_of::<SetId>()
            + self.sets.memory_bytes()
            + self.tags.memory_bytes()
            + self.rows.memory_bytes()
    }
}

/// Shows the counts and not the rows.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("hosts", &self.host_count())
            .field("subnets", &self.subnet_count())
            .field("domains", &self.domain_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
