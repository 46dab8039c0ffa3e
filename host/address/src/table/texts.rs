//! Texts that repeat (tags) or are looked up (names), each stored once.

use std::hash::{BuildHasher, BuildHasherDefault};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

/// Many texts in one allocation, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: String,
    /// Position of each text.
    spans: Vec<Span>,
}

/// Position of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) length: u32,
}

/// Finds the number of a text.
///
/// The hash is not keyed: the texts in the table come from the operator, and a name from the network is only compared with those.
#[derive(Debug, Default)]
pub(super) struct Index {
    numbers: HashTable<u32>,
}

impl Texts {
    /// Returns the text with this number. Panics if there is none.
    pub(super) fn text(&self, number: u32) -> &str {
        self.at(self.span(number))
    }

    /// Returns the text at this position.
    #[inline]
    pub(super) fn at(&self, Span { start, length }: Span) -> &str {
        &self.bytes[start as usize..start as usize + length as usize]
    }

    /// Returns the position of the text with this number.
    pub(super) fn span(&self, number: u32) -> Span {
        self.spans[number as usize]
    }

    /// Drops the numbers, when only positions are still needed.
    pub(super) fn forget_numbers(&mut self) {
        self.spans = Vec::new();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.spans.shrink_to_fit();
    }

    /// Returns `None` if all texts together would exceed 4 GiB.
    fn push(&mut self, text: &str) -> Option<u32> {
        let start = u32::try_from(self.bytes.len()).ok()?;
        let length = u32::try_from(text.len()).ok()?;
        start.checked_add(length)?;
        let number = u32::try_from(self.spans.len()).ok()?;
        self.bytes.push_str(text);
        self.spans.push(Span { start, length });
        Some(number)
    }
}

impl Index {
    pub(super) fn find(&self, texts: &Texts, text: &str) -> Option<u32> {
        self.numbers
            .find(hash(text), |&number| texts.text(number) == text)
            .copied()
    }

    /// Returns the number of the text, which is added if it is new; `None` if all texts together would exceed 4 GiB.
    pub(super) fn intern(&mut self, texts: &mut Texts, text: &str) -> Option<u32> {
        if let Some(number) = self.find(texts, text) {
            return Some(number);
        }
        let number = texts.push(text)?;
        self.numbers
            .insert_unique(hash(text), number, |&number| hash(texts.text(number)));
        Some(number)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.numbers.allocation_size()
    }
}

fn hash(text: &str) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(text)
}
