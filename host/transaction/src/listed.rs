//! What operators may learn of an active transaction.

use crate::context::Context;
use crate::slab::Id;
use crate::time::Time;

/// An active transaction.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'t> {
    /// Its name among the transactions of its worker.
    pub id: Id,
    /// Its request as received. Once a target rings, only the header fields that CANCEL, ACK and replies need.
    pub request: &'t [u8],
    /// Whether that is an INVITE.
    pub is_invite: bool,
    /// Whether its sender or an operator has cancelled it.
    pub is_cancelled: bool,
    /// The final code that was sent.
    pub code: Option<u16>,
    /// Targets whose turn came.
    pub targets: usize,
    /// When the search for an answer ends in any case.
    pub limit: Time,
}

impl<'t> Listed<'t> {
    pub(crate) fn of<T: Clone>(id: Id, context: &'t Context<T>) -> Self {
        Self {
            id,
            request: context.request(),
            is_invite: context.is_invite(),
            is_cancelled: context.is_cancelled(),
            code: context.code(),
            targets: context.targets_tried(),
            limit: context.limit(),
        }
    }
}
