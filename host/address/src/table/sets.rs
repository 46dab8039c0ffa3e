//! The rules of the rows about one network, host or name: a single rule, or a block of rules.
//!
//! Equal rules are stored once, whatever the number of rows, and so are equal blocks. What most rows of a table have in common therefore
//! stays in the cache. Within a block, a rule is found by binary search, so that thousands of rows about one network cost a few more steps,
//! and not a longer scan.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::ops::Range;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::texts::Span;

/// The length of the tag of a rule without one.
const NO_TAG: u16 = u16::MAX;
/// Marks a set that is a block.
const BLOCK: u32 = 1 << 31;

/// Group, port and tag of a row, without its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) group: u32,
    /// Position of the tag. This is not the number of the tag, whose lookup would be one more cache miss.
    tag_start: u32,
    /// Length of the tag, or [`NO_TAG`].
    tag_length: u16,
    /// 0: any port.
    pub(super) port: u16,
}

/// A rule, and the position of its row in Kamailio's order: of the rules that match a source, the one with the lowest rank is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ranked {
    pub(super) rank: u32,
    /// Number of the rule.
    pub(super) rule: u32,
}

/// A set: the number of a rule, or that of a block with [`BLOCK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(u32);

/// All sets of a table.
#[derive(Debug, Default)]
pub(super) struct Sets {
    rules: Vec<Rule>,
    blocks: Vec<Block>,
    /// The rules of each block, sorted by port and group; of several with the same port and group, only the one with the lowest rank.
    ranked: Vec<Ranked>,
    /// For each port of each block, sorted by port: the index in `ranked` of its rule with the lowest rank.
    firsts: Vec<u32>,
}

/// The rules of several rows. Its parts of `ranked` and `firsts` start where those of the block before it end.
#[derive(Clone, Copy, Debug)]
struct Block {
    ranked_end: u32,
    firsts_end: u32,
}

/// Builds the sets of a table.
#[derive(Debug)]
pub(super) struct SetsBuilder {
    sets: Sets,
    /// Finds a block by its rules and ranks.
    index: HashTable<u32>,
}

impl Rule {
    /// Returns `None` if the tag is longer than 65,534 bytes, which validation excludes.
    pub(super) fn new(group: u32, port: u16, tag: Option<Span>) -> Option<Self> {
        let (tag_start, tag_length) = match tag {
            Some(Span { start, length }) => {
                let length = u16::try_from(length)
                    .ok()
                    .filter(|&length| length != NO_TAG)?;
                (start, length)
            }
            None => (0, NO_TAG),
        };
        Some(Self {
            group,
            tag_start,
            tag_length,
            port,
        })
    }

    /// Returns the position of the tag.
    #[inline]
    pub(super) fn tag(self) -> Option<Span> {
        (self.tag_length != NO_TAG).then(|| Span {
            start: self.tag_start,
            length: u32::from(self.tag_length),
        })
    }

    /// Whether a request from this port matches.
    #[inline]
    fn fits(self, port: u16) -> bool {
        self.port == 0 || self.port == port
    }

    fn key(self) -> (u16, u32) {
        (self.port, self.group)
    }
}

impl SetId {
    pub(super) const fn rule(number: u32) -> Self {
        Self(number)
    }

    fn block(self) -> Option<usize> {
        (self.0 & BLOCK != 0).then_some((self.0 & !BLOCK) as usize)
    }
}

impl Sets {
    /// Returns the rule that matches this group and source port, with the lowest rank.
    ///
    /// `rank` is the rank of the rule if the set is a single rule.
    #[inline]
    pub(super) fn find(&self, set: SetId, rank: u32, group: u32, port: u16) -> Option<Ranked> {
        match set.block() {
            None => {
                let rule = self.rule(set.0);
                (rule.group == group && rule.fits(port)).then_some(Ranked { rank, rule: set.0 })
            }
            Some(block) => self.find_in_block(block, group, port),
        }
    }

    /// Returns the rule that matches this source port, whatever its group, with the lowest rank.
    #[inline]
    pub(super) fn first(&self, set: SetId, rank: u32, port: u16) -> Option<Ranked> {
        match set.block() {
            None => self
                .rule(set.0)
                .fits(port)
                .then_some(Ranked { rank, rule: set.0 }),
            Some(block) => self.first_in_block(block, port),
        }
    }

    /// The same among the rules of these groups, which are sorted. Searches for each group, or scans the rules, whichever is less work.
    pub(super) fn first_of(
        &self,
        set: SetId,
        rank: u32,
        port: u16,
        groups: &[u32],
    ) -> Option<Ranked> {
        if let Some(block) = set.block()
            && groups.len() < self.ranked(block).len()
        {
            let found = groups.iter();
            let found = found.filter_map(|&group| self.find_in_block(block, group, port));
            return found.min();
        }
        let is_wanted = |ranked: &Ranked| {
            let rule = self.rule(ranked.rule);
            rule.fits(port) && groups.binary_search(&rule.group).is_ok()
        };
        self.all(set, rank).filter(is_wanted).min()
    }

    /// Returns all rules of the set, in any order.
    pub(super) fn all(&self, set: SetId, rank: u32) -> impl Iterator<Item = Ranked> {
        let (one, many) = match set.block() {
            None => (Some(Ranked { rank, rule: set.0 }), &[][..]),
            Some(block) => (None, self.ranked(block)),
        };
        one.into_iter().chain(many.iter().copied())
    }

    #[inline]
    pub(super) fn rule(&self, number: u32) -> Rule {
        self.rules[number as usize]
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rules.capacity() * size_of::<Rule>()
            + self.blocks.capacity() * size_of::<Block>()
            + self.ranked.capacity() * size_of::<Ranked>()
            + self.firsts.capacity() * size_of::<u32>()
    }

    fn find_in_block(&self, block: usize, group: u32, port: u16) -> Option<Ranked> {
        let ranked = self.ranked(block);
        let at = |port| {
            let found =
                ranked.binary_search_by_key(&(port, group), |ranked| self.rule(ranked.rule).key());
            found.ok().map(|at| ranked[at])
        };
        earlier(at(0), at(port))
    }

    fn first_in_block(&self, block: usize, port: u16) -> Option<Ranked> {
        let firsts = self.firsts(block);
        let at = |port| {
            let found = firsts
                .binary_search_by_key(&port, |&at| self.rule(self.ranked[at as usize].rule).port);
            found.ok().map(|at| self.ranked[firsts[at] as usize])
        };
        earlier(at(0), at(port))
    }

    fn ranked(&self, block: usize) -> &[Ranked] {
        &self.ranked[self.part(block, |block| block.ranked_end)]
    }

    fn firsts(&self, block: usize) -> &[u32] {
        &self.firsts[self.part(block, |block| block.firsts_end)]
    }

    fn part(&self, block: usize, end: impl Fn(&Block) -> u32) -> Range<usize> {
        let start = match block {
            0 => 0,
            _ => end(&self.blocks[block - 1]),
        };
        start as usize..end(&self.blocks[block]) as usize
    }
}

impl SetsBuilder {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        Self {
            sets: Sets {
                rules,
                ..Sets::default()
            },
            index: HashTable::new(),
        }
    }

    /// Returns the set of all rows about one network, host or name, in the order of their ranks.
    ///
    /// `absolute`: the ranks are compared with those of other sets. Otherwise only the order within the set matters, and sets with equal
    /// rules in equal order are stored once.
    pub(super) fn block(&mut self, rows: impl Iterator<Item = Ranked>, absolute: bool) -> SetId {
        let mut block: Vec<Ranked> = rows.collect();
        let sets = &mut self.sets;
        if !absolute {
            for (rank, ranked) in (0..).zip(&mut block) {
                ranked.rank = rank;
            }
        }
        let key = |ranked: &Ranked| sets.rules[ranked.rule as usize].key();
        block.sort_unstable_by_key(|ranked| (key(ranked), ranked.rank));
        block.dedup_by_key(|ranked| key(ranked));
        let found = self.index.find(hash(&block), |&number| {
            sets.ranked(number as usize) == block
        });
        if let Some(&number) = found {
            return SetId(number | BLOCK);
        }
        let number = sets.blocks.len() as u32;
        let start = sets.ranked.len() as u32;
        let mut firsts: Vec<u32> = Vec::new();
        for (at, ranked) in (0u32..).zip(&block) {
            let port = sets.rule(ranked.rule).port;
            // The block is sorted by port, so the rules of one port are consecutive.
            match firsts
                .last_mut()
                .map(|first| (block[*first as usize], first))
            {
                Some((best, first)) if sets.rule(best.rule).port == port => {
                    if ranked.rank < best.rank {
                        *first = at;
                    }
                }
                _ => firsts.push(at),
            }
        }
        sets.firsts.extend(firsts.iter().map(|at| start + at));
        sets.ranked.append(&mut block);
        sets.blocks.push(Block {
            ranked_end: sets.ranked.len() as u32,
            firsts_end: sets.firsts.len() as u32,
        });
        let rehash = |&number: &u32| hash(sets.ranked(number as usize));
        self.index.insert_unique(rehash(&number), number, rehash);
        SetId(number | BLOCK)
    }

    pub(super) fn build(mut self) -> Sets {
        self.sets.blocks.shrink_to_fit();
        self.sets.ranked.shrink_to_fit();
        self.sets.firsts.shrink_to_fit();
        self.sets
    }
}

#[inline]
fn earlier(a: Option<Ranked>, b: Option<Ranked>) -> Option<Ranked> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn hash(block: &[Ranked]) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(block)
}
