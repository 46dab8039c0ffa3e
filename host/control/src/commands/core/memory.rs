//! `core.shmmem`: the memory of the process. There is one process, so all of its memory is what Kamailio calls shared.

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Param};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};
use crate::memory::Memory;

/// `core.shmmem`.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    /// The unit of the reply is 2 to the power of this, in bytes.
    shift: u32,
}

/// The reply of `core.shmmem`, with Kamailio's names in Kamailio's order, in bytes or the unit that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedMemoryReply {
    /// What the process may have: the limit of its control group, or the memory of the machine.
    pub total: u64,
    /// What it could still get.
    pub free: u64,
    /// Resident memory.
    pub used: u64,
    /// The same: the administration of memory is not counted by itself.
    pub real_used: u64,
    /// The most that was ever resident.
    pub max_used: u64,
    /// Fragments of free memory: not counted.
    pub fragments: u64,
}

impl FromCall for SharedMemory {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let unit = match &call.params[..] {
            [] => None,
            [Param::Text(unit)] => unit.bytes().next(),
            _ => Some(b'?'),
        };
        let shift = match unit.map(|unit| unit.to_ascii_lowercase()) {
            None | Some(b'b') => 0,
            Some(b'k') => 10,
            Some(b'm') => 20,
            Some(b'g') => 30,
            Some(_) => return Err(Fault::new(500, "bad param, (use b|k|m|g)")),
        };
        Ok(Self { shift })
    }
}

impl Procedure for SharedMemory {
    type Reply = SharedMemoryReply;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<SharedMemoryReply, Fault> {
        let memory = Memory::of_process();
        Ok(SharedMemoryReply {
            total: memory.total >> self.shift,
            free: memory.free() >> self.shift,
            used: memory.used >> self.shift,
            real_used: memory.used >> self.shift,
            max_used: memory.most >> self.shift,
            fragments: 0,
        })
    }
}
