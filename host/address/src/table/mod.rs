//! The immutable table: what the rows say, arranged so that one look-up answers every question about a source.
//!
//! A look-up finds the innermost network or host that holds the source ([`slots`]). What its rows and those of the networks
//! around it say ([`sets`]) is only looked at when somebody asks for a group. The group, port and tag that rows have in
//! common are stored once, so they stay in the cache, and a source that nobody knows costs no more than a known one.

mod address;
mod builder;
mod dump;
mod entries;

mod sets;
mod slots;
mod texts;

use std::fmt;
use std::net::IpAddr;

pub use builder::TableBuilder;
pub(crate) use dump::bucket;
pub use dump::{DomainRow, HostRow, SubnetRow};
pub use entries::{Entries, Entry, EntryIter, Match};

use dump::Rows;
use entries::Place;
use sets::{SetId, Sets};
use slots::Slots;
use texts::{Index, Texts};

/// The address table: immutable, and shared by all workers.
///
/// The default table is empty: it knows no source.
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
    /// Everything the table says about a source address, for all groups and ports.
    ///
    /// An IPv4 address in IPv6 form (`::ffff:192.0.2.1`, as a dual-stack socket gives it) is looked up as IPv4. Never
    /// allocates. This is the host table and then the subnet table of Kamailio's `allow_source_address`.
    #[inline]
    pub fn lookup(&self, source: IpAddr) -> Entries<'_> {
        let place = match source.to_canonical() {
            IpAddr::V4(addr) => self.v4.lookup(addr.to_bits()).map(Place::V4),
            IpAddr::V6(addr) => self.v6.lookup(addr.to_bits()).map(Place::V6),
        };
        Entries::new(self, place)
    }

    /// Everything the table says about a name: exact and case-sensitive, as Kamailio's `allow_address` compares it.
    ///
    /// A name that is an address has to go through [`lookup`](Self::lookup) instead. Unlike Kamailio's
    /// `allow_address_group`, which forgets the tag of a name, the match carries it.
    pub fn lookup_name(&self, name: &str) -> Entries<'_> {
        let found = self.names.index.find(&self.names.texts, name);
        let place = found.map(|name| Place::Name(self.names.sets[name as usize]));
        Entries::new(self, place)
    }

    /// The rows about one address, in the order of Kamailio's `permissions.addressDump`: by hash bucket, within a bucket
    /// the last loaded first.
    ///
    /// Sorts the rows, so it costs time and memory: not for the way of a request.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = HostRow<'_>> {
        dump::hosts(self)
    }

    /// The rows about networks, in the order of `permissions.subnetDump`: by group, within a group as loaded.
    pub fn subnets(&self) -> impl ExactSizeIterator<Item = SubnetRow<'_>> {
        dump::subnets(self)
    }

    /// The rows about names, in the order of `permissions.domainDump`: by hash bucket, within a bucket the last loaded
    /// first.
    ///
    /// Sorts the rows, so it costs time and memory: not for the way of a request.
    pub fn domains(&self) -> impl ExactSizeIterator<Item = DomainRow<'_>> {
        dump::domains(self)
    }

    /// Number of rows about one address.
    pub fn host_count(&self) -> usize {
        self.rows.hosts.len()
    }

    /// Number of rows about networks.
    pub fn subnet_count(&self) -> usize {
        self.rows.subnets.len()
    }

    /// Number of rows about names.
    pub fn domain_count(&self) -> usize {
        self.rows.domains.len()
    }

    /// Number of rows of all kinds.
    pub fn len(&self) -> usize {
        self.host_count() + self.subnet_count() + self.domain_count()
    }

    /// Whether the table knows no source at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that the table holds, in bytes.
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

/// The counts, not the rows.
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
