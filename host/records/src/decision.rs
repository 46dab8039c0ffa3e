//! A decision, as it is passed to the writer.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_policy::DecisionId;
use portcullis_request::Request;

use crate::record::Asking;

/// One decision, as it is passed to the writer.
pub struct Decision<'d> {
    /// Id.
    pub id: DecisionId,
    /// Time.
    pub time: SystemTime,
    /// Tenant of the request.
    pub tenant: &'d Arc<str>,
    /// The request.
    pub request: &'d Request,
    /// The policy calls.
    pub policies: Vec<Asking>,
    /// Memory of the tapes ([`Tape::bytes`](portcullis_policy::Tape::bytes)).
    pub tape_bytes: usize,
    /// What happened to the request.
    pub outcome: &'d dyn fmt::Display,
}
