//! The lines of one file, in blocks whose patterns a text is compared with at once.

use super::line::{Rule, Side};
use crate::pattern::bank::{self, Bank, BankBuilder};
use crate::pattern::{Draft, Effort, Spent};

/// The lines of one file.
#[derive(Debug, Default)]
pub(super) struct Lines {
    blocks: Box<[Block]>,
    count: usize,
}

/// Lines that follow each other.
#[derive(Debug)]
struct Block {
    lines: Box<[Line]>,
    left: Bank,
    right: Bank,
}

/// One line: it fits when both of its sides do.
#[derive(Clone, Copy, Debug)]
struct Line {
    left: Mask,
    right: Mask,
}

/// One side of a line, as bits in what the bank of its block answers.
#[derive(Clone, Copy, Debug, Default)]
struct Mask {
    /// One of them has to be found; none of them stand for `ALL`.
    any: u64,
    /// None of them may be found.
    except: u64,
}

/// A block that is being filled.
#[derive(Default)]
struct Open {
    lines: Vec<Line>,
    left: Vec<Draft>,
    right: Vec<Draft>,
}

impl Lines {
    /// These rules, in their order.
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

    /// Whether a line fits both texts.
    ///
    /// # Errors
    /// When it takes too long.
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

    /// The bits of a side whose patterns go behind these.
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
