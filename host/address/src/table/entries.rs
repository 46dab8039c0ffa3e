//! Results of lookups.

use std::net::IpAddr;
use std::{fmt, vec};

use rustc_hash::FxHashSet;

use super::Table;
use super::sets::{Ranked, Rule, SetId};

/// All rows about one source or name.
///
/// Cheap to copy; querying it for several groups needs no further lookup.
#[derive(Clone, Copy)]
pub struct Entries<'t> {
    table: &'t Table,
    /// `None`: no rows.
    place: Option<Place>,
}

/// Where the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The innermost IPv4 slot that contains the source.
    V4(u32),
    /// The same for IPv6.
    V6(u32),
    /// The rows of the name.
    Name(SetId),
}

/// The row that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'t> {
    /// The row's group.
    pub group: u32,
    /// The row's tag; `Some("")` if the column is an empty text, `None` if it is NULL.
    pub tag: Option<&'t str>,
}

/// One of the rows about a source, from [`Entries::iter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'t> {
    /// The row's group.
    pub group: u32,
    /// The port that it requires; 0 means any.
    pub port: u16,
    /// Its tag.
    pub tag: Option<&'t str>,
}

/// Iterator over [`Entry`], from [`Entries::iter`].
#[derive(Clone)]
pub struct EntryIter<'t> {
    table: &'t Table,
    rules: vec::IntoIter<u32>,
}

impl Table {
    /// Returns all rows about a source address, for all groups and ports.
    ///
    /// An IPv4 address in IPv6 form (`::ffff:192.0.2.1`, from a dual-stack socket) is looked up as IPv4. Never allocates. This is a search
    /// of the host table and then the subnet table in Kamailio's `allow_source_address`.
    #[inline]
    pub fn lookup(&self, source: IpAddr) -> Entries<'_> {
        let place = match source.to_canonical() {
            IpAddr::V4(addr) => self.v4.lookup(addr.to_bits()).map(Place::V4),
            IpAddr::V6(addr) => self.v6.lookup(addr.to_bits()).map(Place::V6),
        };
        Entries::new(self, place)
    }

    /// Returns all rows about a name: exact and case-sensitive, as Kamailio's `allow_address` compares it.
    ///
    /// A name that is an address must be looked up with [`lookup`](Self::lookup) instead. Unlike Kamailio's `allow_address_group`, which
    /// loses the tag of a name, the match contains it.
    pub fn lookup_name(&self, name: &str) -> Entries<'_> {
        let found = self.names.index.find(&self.names.texts, name);
        let place = found.map(|name| Place::Name(self.names.sets[name as usize]));
        Entries::new(self, place)
    }
}

impl<'t> Entries<'t> {
    fn new(table: &'t Table, place: Option<Place>) -> Self {
        Self { table, place }
    }

    /// Returns the row by which a request from this port is in the group: Kamailio's `allow_source_address` and `allow_address`.
    ///
    /// A row with port 0 matches every port. A request from port 0 matches only those.
    #[inline]
    pub fn find(self, group: u32, port: u16) -> Option<Match<'t>> {
        self.answer(|set, rank| self.table.sets.find(set, rank, group, port))
    }

    /// Returns the first row that matches a request from this port, whatever its group: Kamailio's `allow_source_address_group` and
    /// `allow_address_group`.
    ///
    /// That is the last loaded row about this very address, or, without one, among the networks around it the row of the lowest group, and
    /// of several the first loaded.
    #[inline]
    pub fn first(self, port: u16) -> Option<Match<'t>> {
        self.answer(|set, rank| self.table.sets.first(set, rank, port))
    }

    /// The same among the rows of these groups, which must be sorted. The time hardly depends on the number of rows about the source.
    pub fn first_of(self, port: u16, groups: &[u32]) -> Option<Match<'t>> {
        self.answer(|set, rank| self.table.sets.first_of(set, rank, port, groups))
    }

    /// Whether there are no rows about the source.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.place.is_none()
    }

    /// Returns every row that [`find`](Self::find) or [`first`](Self::first) can return, in Kamailio's order. Rows that are hidden by
    /// others before them are omitted.
    ///
    /// Sorts the rows about the source, and therefore allocates: not for the path of a message.
    pub fn iter(self) -> EntryIter<'t> {
        let sets = &self.table.sets;
        let all = |set, rank| sets.all(set, rank);
        let mut rules = match self.place {
            None => Vec::new(),
            Some(Place::V4(slot)) => self.table.v4.rules(slot, all),
            Some(Place::V6(slot)) => self.table.v6.rules(slot, all),
            Some(Place::Name(set)) => {
                let mut ranked: Vec<_> = sets.all(set, 0).collect();
                ranked.sort_unstable();
                ranked.into_iter().map(|ranked| ranked.rule).collect()
            }
        };
        let mut seen = FxHashSet::default();
        rules.retain(|&rule| {
            let Rule { group, port, .. } = sets.rule(rule);
            !seen.contains(&(group, 0)) && seen.insert((group, port))
        });
        EntryIter {
            table: self.table,
            rules: rules.into_iter(),
        }
    }

    #[inline]
    fn answer(self, find: impl Fn(SetId, u32) -> Option<Ranked>) -> Option<Match<'t>> {
        let rule = match self.place? {
            Place::V4(slot) => self.table.v4.answer(slot, find)?,
            Place::V6(slot) => self.table.v6.answer(slot, find)?,
            Place::Name(set) => find(set, 0)?.rule,
        };
        let rule = self.table.sets.rule(rule);
        Some(Match {
            group: rule.group,
            tag: self.table.tag(rule),
        })
    }
}

impl<'t> IntoIterator for Entries<'t> {
    type Item = Entry<'t>;
    type IntoIter = EntryIter<'t>;

    fn into_iter(self) -> EntryIter<'t> {
        self.iter()
    }
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'t> Iterator for EntryIter<'t> {
    type Item = Entry<'t>;

    fn next(&mut self) -> Option<Entry<'t>> {
        let rule = self.table.sets.rule(self.rules.next()?);
        Some(Entry {
            group: rule.group,
            port: rule.port,
            tag: self.table.tag(rule),
        })
    }
}

impl fmt::Debug for EntryIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl Table {
    #[inline]
    pub(super) fn tag(&self, rule: Rule) -> Option<&str> {
        rule.tag().map(|tag| self.tags.at(tag))
    }
}
