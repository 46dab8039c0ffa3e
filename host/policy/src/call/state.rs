//! The data of a sandbox's store: the call, and the module that makes it.

use wasmtime::ResourceLimiter;

use crate::call::Call;
use crate::failure::Refused;
use crate::guest::Guest;
use crate::profile::Recorder;

/// Boxed, because it moves into a sandbox and back when the sandbox ends. One allocation serves all calls of an evaluator.
pub(crate) type Data = Box<State>;

/// The state of the current call, and what lasts as long as the sandbox.
pub(crate) struct State {
    pub(crate) call: Call,
    /// The module of the sandbox; `None` for components and during a start function.
    pub(crate) guest: Option<Guest>,
    /// Bytes of all linear memories of the sandbox together.
    pub(crate) memory: usize,
    /// Number of 64ths of its memory that the last call of a module wrote, if it has been reset.
    pub(crate) written: u32,
    /// Set if the call is profiled.
    pub(crate) profile: Option<Box<Recorder>>,
}

impl State {
    /// The data of a sandbox that is not instantiated yet.
    pub(crate) fn new(call: Call) -> Self {
        Self {
            call,
            guest: None,
            memory: 0,
            written: 0,
            profile: None,
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
