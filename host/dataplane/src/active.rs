//! Active transactions, as operators see them.

use portcullis_transaction::Id;

/// An active transaction. The texts are as received, and may contain anything. Long ones are cut, except `call_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveTransaction {
    /// The worker that owns it.
    pub worker: usize,
    /// Its name among the transactions of that worker.
    pub id: Id,
    /// The method of its request.
    pub method: String,
    /// The value of From.
    pub from: String,
    /// The value of To.
    pub to: String,
    /// The value of Call-ID.
    pub call_id: String,
    /// The number in CSeq.
    pub cseq: u32,
    /// Whether its request is an INVITE.
    pub is_invite: bool,
    /// Whether its sender or an operator has cancelled it.
    pub is_cancelled: bool,
    /// The final code that was sent.
    pub code: Option<u16>,
    /// Targets that were tried.
    pub targets: usize,
    /// Seconds until the search for an answer ends in any case.
    pub seconds_left: u64,
}

/// Selects the transactions of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallName {
    /// The value of Call-ID.
    pub call_id: String,
    /// The number in CSeq.
    pub cseq: u32,
}

/// A page of the transactions of a worker.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) transactions: Vec<ActiveTransaction>,
    /// The slot at which the next page begins; `None` at the end.
    pub(crate) next: Option<u32>,
}

/// What was cancelled in a page of the transactions of a worker.
#[derive(Debug, Default)]
pub(crate) struct CancelledPage {
    /// Transactions of the call.
    pub(crate) found: usize,
    /// The number of their targets that are not done yet; `None` if none waits for its answer.
    pub(crate) pending: Option<usize>,
    /// The slot at which the next page begins; `None` at the end.
    pub(crate) next: Option<u32>,
}
