//! A decision, as it is passed to the writer and written.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_policy::DecisionId;
use portcullis_request::Request;
use portcullis_text::rfc3339;

use crate::mask::Mask;
use crate::record::{Asking, Kind, Record, Sink};
use crate::writer::{self, Line, TooLong};

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

/// One decision in the queue.
#[derive(Debug)]
pub(crate) struct Job {
    id: DecisionId,
    /// Number of the call of `on-failure`; 0 for a decision.
    call: usize,
    time: SystemTime,
    tenant: Arc<str>,
    request: Request,
    policies: Vec<Asking>,
    outcome: String,
}

impl Job {
    pub(crate) fn of(decision: Decision<'_>, call: usize) -> Self {
        Self {
            id: decision.id,
            call,
            time: decision.time,
            tenant: Arc::clone(decision.tenant),
            request: decision.request.clone(),
            policies: decision.policies,
            outcome: decision.outcome.to_string(),
        }
    }

    /// Returns the memory of a decision in the queue, in bytes.
    pub(crate) fn bytes(decision: &Decision<'_>) -> usize {
        let policies = decision.policies.iter().map(Asking::bytes);
        size_of::<Self>() + decision.request.bytes() + policies.sum::<usize>() + decision.tape_bytes
    }
}

impl writer::Job for Job {
    /// Formats the line, without the queries of policies if it would be too long.
    fn write(
        self,
        mask: &Mask,
        sink: Option<&Sink>,
        line: Option<&mut Line>,
    ) -> Result<(), TooLong> {
        let mut record = record(self, mask);
        if let Some(sink) = sink {
            sink(&record);
        }
        let Some(line) = line else {
            return Ok(());
        };
        if line.set(&record).is_ok() {
            return Ok(());
        }
        record.policies.iter_mut().for_each(Asking::cut_off);
        line.set(&record)
    }
}

fn record(job: Job, mask: &Mask) -> Record {
    let Job {
        id,
        call,
        time,
        tenant,
        request,
        mut policies,
        mut outcome,
    } = job;
    let secrets = mask.secrets(&request);
    policies
        .iter_mut()
        .for_each(|asking| secrets.asking(asking));
    secrets.text(&mut outcome);
    let (text, body_bytes) = mask.request(&request);
    let (text, encoded) = match String::from_utf8(text) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let arrival = &request.arrival;
    Record {
        kind: match call {
            0 => Kind::Decision,
            _ => Kind::Failure,
        },
        id: id.to_string(),
        call,
        time: rfc3339(time),
        time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        tenant: tenant.to_string(),
        source: arrival.source,
        local: arrival.local,
        transport: arrival.transport.to_string(),
        request: text,
        request_base64: encoded,
        body_bytes,
        policies,
        outcome,
    }
}
