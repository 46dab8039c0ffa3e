//! The module instance that makes a call, as host functions see it.

use wasmtime::{Func, Memory, TypedFunc};

use crate::reset::Cards;

/// What host functions need of the module that calls them. Set after the start function has returned.
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    /// The cards that the host wrote since the last reset.
    pub(crate) cards: Cards,
    pub(crate) realloc: Realloc,
    /// Whether `cabi_realloc` or the post-return function runs, during which the module must not call the host.
    pub(crate) is_inside: bool,
}

pub(crate) enum Realloc {
    Missing,
    /// Its type is checked on first use: many calls never use it.
    Untyped(Func),
    Typed(TypedFunc<(u32, u32, u32, u32), u32>),
}

impl Guest {
    /// `size` is the size of the memory in bytes.
    pub(crate) fn new(memory: Memory, size: usize, realloc: Option<Func>) -> Self {
        Self {
            memory,
            cards: Cards::none(size),
            realloc: realloc.map_or(Realloc::Missing, Realloc::Untyped),
            is_inside: false,
        }
    }

    /// The linear memory of the module.
    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Returns the marks of the host's writes and clears them.
    pub(crate) fn take_marks(&mut self) -> u64 {
        self.cards.take()
    }
}
