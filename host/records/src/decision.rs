//! A decision, before it is written down.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_policy::DecisionId;
use portcullis_request::Request;

use crate::record::Asking;

/// One decision, as it is taken to the writer.
pub struct Decision<'d> {
    /// What it is called.
    pub id: DecisionId,
    /// When it was.
    pub time: SystemTime,
    /// Whose request it was.
    pub tenant: &'d Arc<str>,
    /// The request.
    pub request: &'d Request,
    /// Who was asked.
    pub policies: Vec<Asking>,
    /// What their questions take ([`Tape::bytes`](portcullis_policy::Tape::bytes)).
    pub tape_bytes: usize,
    /// What became of it.
    pub outcome: &'d dyn fmt::Display,
}
