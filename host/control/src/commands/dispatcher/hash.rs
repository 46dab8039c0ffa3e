//! `dispatcher.hash`.

use portcullis_config::TokenRole;
use portcullis_dispatcher::hash;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{number_of, text_of};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `dispatcher.hash`: the hash of one text, or of two, and its slot in a set of this many.
#[derive(Debug)]
pub(crate) struct Hash {
    slots: u32,
    one: String,
    other: Option<String>,
}

/// The reply of `dispatcher.hash`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HashReply {
    /// The hash, as a signed number.
    pub hashid: i32,
    /// The hash modulo the number of slots; 0 if that is 0.
    pub slot: u32,
}

impl FromCall for Hash {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let invalid = || Fault::new(500, "Invalid Parameters");
        let (slots, one, other) = match &call.params[..] {
            [slots, one] => (slots, one, None),
            [slots, one, other, ..] => (slots, one, Some(other)),
            _ => return Err(invalid()),
        };
        let slots = number_of(slots).and_then(|slots| u32::try_from(slots).ok());
        Ok(Self {
            slots: slots.ok_or_else(invalid)?,
            one: text_of(one).ok_or_else(invalid)?,
            other: other.and_then(text_of),
        })
    }
}

impl Procedure for Hash {
    type Reply = HashReply;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<HashReply, Fault> {
        let hash = hash(
            self.one.as_bytes(),
            self.other.as_deref().map(str::as_bytes),
        );
        Ok(HashReply {
            hashid: hash.cast_signed(),
            slot: hash.checked_rem(self.slots).unwrap_or(0),
        })
    }
}
