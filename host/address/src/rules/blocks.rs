//! The lines of a rules file, in blocks whose patterns are matched against a text at once.

use super::line::{Rule, Side};
use crate::pattern::bank::{self, Bank, BankBuilder};
use crate::pattern::{Draft, Effort, Spent};

/// The lines of one rules file.
#[derive(Debug, Default)]
pub(super) struct Lines {
    blocks: Box<[Block]>,
    count: usize,
}

/// Consecutive lines.
#[derive(Debug)]
struct Block {
    lines: Box<[Line]>,
    left: Bank,
    right: Bank,
}

/// One line. It matches if both of its sides match.
#[derive(Clone, Copy, Debug)]
struct Line {
    left: Mask,
    right: Mask,
}

/// One side of a line, as bits in the result of the bank of its block.
#[derive(Clone, Copy, Debug, Default)]
struct Mask {
    /// One of these must match; no bits mean `ALL`.
    any: u64,
    /// None of these may match.
    except: u64,
}

/// A block that is being built.
#[derive(Default)]
struct Open {
    lines: Vec<Line>,
    left: Vec<Draft>,
    right: Vec<Draft>,
}

impl Lines {
    /// Creates the lines of these rules, in their order.
    pub(super) fn new(rules: Vec<Rule>, banks: &mut BankBuilder) -> Self {
        let count = rules.len();
        let mut blocks = Vec::new();
        let mut open = Open::default();
        for rule in rules {
            if !open.has_room(&rule) {
                blocks.push(std::mem::take(&mut open).close(banks));
            }
            open.add(rule);
        }
        if !open.lines.is_empty() {
            blocks.push(open.close(banks));
        }
        Self {
            blocks: blocks.into(),
            count,
        }
    }

    /// Whether a line matches both texts.
    ///
    /// # Errors
    /// If it takes too long.
    pub(super) fn fit(
        &self,
        left: &str,
        right: &str,
        effort: &mut Effort<'_>,
    ) -> Result<bool, Spent> {
        for block in &self.blocks {
            effort.spend(block.lines.len())?;
            let found = block.left.found(left, effort)?;
            let fits_left = |line: &&Line| line.left.fits(found);
            if !block.lines.iter().any(|line| fits_left(&line)) {
                continue;
            }
            let found = block.right.found(right, effort)?;
            let mut lines = block.lines.iter().filter(fits_left);
            if lines.any(|line| line.right.fits(found)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

impl Mask {
    fn fits(self, found: u64) -> bool {
        (self.any == 0 || found & self.any != 0) && found & self.except == 0
    }

    /// Adds the patterns of a side to `patterns`, and returns their bits.
    fn add(side: Side, patterns: &mut Vec<Draft>) -> Self {
        let mut bits = |drafts: Vec<Draft>| {
            let bits = drafts.into_iter().map(|draft| {
                patterns.push(draft);
                1 << (patterns.len() - 1)
            });
            bits.fold(0, |bits, bit: u64| bits | bit)
        };
        Self {
            any: bits(side.patterns),
            except: bits(side.except),
        }
    }
}

impl Open {
    fn has_room(&self, rule: &Rule) -> bool {
        self.left.len() + rule.left.len() <= bank::MOST
            && self.right.len() + rule.right.len() <= bank::MOST
            && self.lines.len() < bank::MOST
    }

    fn add(&mut self, rule: Rule) {
        self.lines.push(Line {
            left: Mask::add(rule.left, &mut self.left),
            right: Mask::add(rule.right, &mut self.right),
        });
    }

    fn close(self, banks: &mut BankBuilder) -> Block {
        let mut bank = |drafts: Vec<Draft>| banks.build(&drafts.iter().collect::<Vec<_>>());
        Block {
            lines: self.lines.into(),
            left: bank(self.left),
            right: bank(self.right),
        }
    }
}
