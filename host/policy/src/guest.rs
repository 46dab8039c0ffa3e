//! The module that makes a call, as the host sees it.

use wasmtime::{Func, Memory, TypedFunc};

use crate::reset::Cards;

/// What the host's functions need of the module that calls them. It is there from the end of the start function on.
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    /// What the host wrote into the memory since it was last put back.
    pub(crate) cards: Cards,
    pub(crate) realloc: Realloc,
    /// While the host asks for memory or returns it, the module may not call the host.
    pub(crate) is_inside: bool,
}

pub(crate) enum Realloc {
    Missing,
    /// Its type is looked at when it is first needed: many calls never need it.
    Untyped(Func),
    Typed(TypedFunc<(u32, u32, u32, u32), u32>),
}

impl Guest {
    /// `size` is that of the memory in bytes.
    pub(crate) fn new(memory: Memory, size: usize, realloc: Option<Func>) -> Self {
        Self {
            memory,
            cards: Cards::none(size),
            realloc: realloc.map_or(Realloc::Missing, Realloc::Untyped),
            is_inside: false,
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Takes the marks of what the host wrote.
    pub(crate) fn take_marks(&mut self) -> u64 {
        self.cards.take()
    }
}
