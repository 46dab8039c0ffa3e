//! Builds a [`Table`] of rows.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::net::IpAddr;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::address::Address;
use super::rows::{Rows, Stored};
use super::sets::{Ranked, Rule, SetId, SetsBuilder};
use super::slots::{Placed, Slots};
use super::texts::{Index, Texts};
use super::{Names, Table};
use crate::row::{Place, Row, RowError, RowWarning, Valid};
use crate::turns::{InTurns, sort_by_key};

/// Most rows of a table, about 16 GB of them. Slots are numbered with 31 bits, and there is one more value for NONE.
const MOST_ROWS: usize = (1 << 29) - 1;

/// Takes the rows one by one, in the order of the load, and builds the table.
///
/// The order matters for duplicates: of rows about one address the last one is used, of rows about one network the first.
#[derive(Debug, Default)]
pub struct TableBuilder {
    hosts: Vec<Taken>,
    subnets: Vec<Taken>,
    /// Number of the text of the name, and of the rule.
    domains: Vec<(u32, u32)>,
    rules: Vec<Rule>,
    rule_index: HashTable<u32>,
    tags: Texts,
    tag_index: Index,
    names: Texts,
    name_index: Index,
}

/// A row about a host or network.
#[derive(Clone, Copy, Debug)]
struct Taken {
    ip: IpAddr,
    bits: u8,
    rule: u32,
}

impl TableBuilder {
    /// Adds a row, or returns why it is invalid; the table then lacks it.
    ///
    /// A warning means that the row is used, but may not mean what was intended.
    ///
    /// # Errors
    /// If the row is invalid. [`Row`] describes which rows are, and what Kamailio does with them.
    pub fn push(&mut self, row: Row<'_>) -> Result<Option<RowWarning>, RowError> {
        let (valid, warning) = row.validate()?;
        match self.add(valid) {
            Some(()) => Ok(warning),
            None => Err(RowError {
                id: row.id,
                place: None,
                column: "id",
                value: row.id.to_string(),
                fault: "is one row too many for a table in memory".to_owned(),
                mend: format!("use at most {MOST_ROWS} rows, and 4 GiB of tags and of names"),
            }),
        }
    }

    /// Returns the number of rows added.
    pub fn len(&self) -> usize {
        self.hosts.len() + self.subnets.len() + self.domains.len()
    }

    /// Whether no row has been added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Builds the table. For a million rows this takes a tenth of a second or more, in short slices, so it must not run on an async worker.
    pub fn build(self) -> Table {
        let Self {
            mut hosts,
            mut subnets,
            mut domains,
            mut rules,
            rule_index,
            mut tags,
            tag_index,
            mut names,
            name_index,
        } = self;
        drop((rule_index, tag_index));
        rules.shrink_to_fit();
        tags.forget_numbers();
        tags.shrink();
        names.shrink();
        // Kamailio's order: hosts and names in reverse order of the load, networks by group and then in the order of the load.
        hosts.reverse();
        domains.reverse();
        sort_by_key(&mut subnets, |row| rules[row.rule as usize].group);
        let mut sets = SetsBuilder::new(rules);
        let stored = |rows: &[Taken]| {
            let stored = rows.iter().map(|row| Stored::new(row.rule));
            stored.in_turns().collect()
        };
        let mut rows = Rows::new(stored(&hosts), stored(&subnets));
        let v4 = slots(v4_rows(&hosts), v4_rows(&subnets), &mut sets, &mut rows);
        let v6 = slots(v6_rows(&hosts), v6_rows(&subnets), &mut sets, &mut rows);
        rows.keep_host_bits(subnets.iter().map(|row| row.ip), &v4, &v6);
        let names = Names {
            sets: name_sets(&domains, &mut sets),
            texts: names,
            index: name_index,
        };
        domains.shrink_to_fit();
        rows.domains = domains;
        Table {
            v4,
            v6,
            names,
            sets: sets.build(),
            tags,
            rows,
        }
    }

    /// Returns `None` if the table is full.
    fn add(&mut self, row: Valid<'_>) -> Option<()> {
        if self.len() == MOST_ROWS {
            return None;
        }
        let tag = match row.tag {
            Some(tag) => {
                let number = self.tag_index.intern(&mut self.tags, tag)?;
                Some(self.tags.span(number))
            }
            None => None,
        };
        let rule = self.rule(Rule::new(row.group, row.port, tag)?);
        let taken = |ip, bits| Taken { ip, bits, rule };
        match row.place {
            Place::Host4(addr) => self.hosts.push(taken(addr.into(), u32::WIDTH)),
            Place::Host6(addr) => self.hosts.push(taken(addr.into(), u128::WIDTH)),
            Place::Subnet4(addr, bits) => self.subnets.push(taken(addr.into(), bits)),
            Place::Subnet6(addr, bits) => self.subnets.push(taken(addr.into(), bits)),
            Place::Name(name) => {
                let name = self.name_index.intern(&mut self.names, name)?;
                self.domains.push((name, rule));
            }
        }
        Some(())
    }

    /// Returns the number of the rule, which is added if it is new.
    fn rule(&mut self, rule: Rule) -> u32 {
        let rules = &mut self.rules;
        let same = |&number: &u32| rules[number as usize] == rule;
        if let Some(&number) = self.rule_index.find(hash(&rule), same) {
            return number;
        }
        let number = rules.len() as u32;
        rules.push(rule);
        self.rule_index
            .insert_unique(hash(&rule), number, |&number| hash(&rules[number as usize]));
        number
    }
}

fn hash(rule: &Rule) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(rule)
}

/// Builds the slots of one address family, and stores the slot of each row. The rank of a row is its position in Kamailio's order.
fn slots<A: Address>(
    hosts: impl Iterator<Item = (u32, A, u8, u32)> + Clone,
    subnets: impl Iterator<Item = (u32, A, u8, u32)> + Clone,
    sets: &mut SetsBuilder,
    rows: &mut Rows,
) -> Slots<A> {
    let mut placed = Vec::with_capacity(hosts.clone().count() + subnets.clone().count());
    let rows_placed = hosts
        .chain(subnets)
        .map(|(rank, addr, bits, rule)| Placed::new(addr, bits, Ranked { rank, rule }));
    placed.extend(rows_placed.in_turns());
    Slots::new(placed, sets, |row, slot| rows.place(row, slot))
}

fn v4_rows(rows: &[Taken]) -> impl Iterator<Item = (u32, u32, u8, u32)> + Clone {
    (0..).zip(rows).filter_map(|(rank, row)| match row.ip {
        IpAddr::V4(ip) => Some((rank, ip.to_bits(), row.bits, row.rule)),
        IpAddr::V6(_) => None,
    })
}

fn v6_rows(rows: &[Taken]) -> impl Iterator<Item = (u32, u128, u8, u32)> + Clone {
    (0..).zip(rows).filter_map(|(rank, row)| match row.ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some((rank, ip.to_bits(), row.bits, row.rule)),
    })
}

/// Returns the set of each name, by the number of the name.
fn name_sets(domains: &[(u32, u32)], sets: &mut SetsBuilder) -> Vec<SetId> {
    let ranked = (0..)
        .zip(domains)
        .map(|(rank, &(name, rule))| (name, Ranked { rank, rule }));
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_unstable();
    let same_name = ranked.chunk_by(|(a, _), (b, _)| a == b);
    same_name
        .map(|rows| match rows {
            [(_, only)] => SetId::rule(only.rule),
            rows => sets.block(rows.iter().map(|&(_, ranked)| ranked), false),
        })
        .collect()
}
