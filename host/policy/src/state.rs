//! What the store of a sandbox holds: the call, and beside it the module that makes it.

use wasmtime::ResourceLimiter;

use crate::call::Call;
use crate::failure::Refused;
use crate::guest::Guest;

/// It moves into the sandbox and comes back when the sandbox ends, in one piece of memory that serves call after call.
pub(crate) type Data = Box<State>;

/// The call, which lasts until the verdict, and what lasts as long as the sandbox.
pub(crate) struct State {
    pub(crate) call: Call,
    /// The module of the sandbox, if it is one.
    pub(crate) guest: Option<Guest>,
    /// Bytes of linear memory in use, over all memories of the sandbox.
    pub(crate) memory: usize,
}

impl State {
    /// That of a sandbox that is still to be made.
    pub(crate) fn new(call: Call) -> Self {
        Self {
            call,
            guest: None,
            memory: 0,
        }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        wanted: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.call.bounds().memory_bytes;
        // A composition has several memories.
        let wanted = self.memory.saturating_add(wanted.saturating_sub(current));
        if wanted > limit {
            return Err(Refused::Memory { wanted, limit }.into());
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        wanted: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.call.bounds().table_elements;
        match wanted > limit {
            true => Err(Refused::Table { wanted, limit }.into()),
            false => Ok(true),
        }
    }
}
