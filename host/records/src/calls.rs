//! Call records: one line for each attempt of a target and for each transaction. They are the counterpart of Kamailio's `acc`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_config::RecordsConfig;
use portcullis_policy::DecisionId;
use portcullis_sip::Transport;
use portcullis_text::rfc3339;
use serde::Serialize;

use crate::file::File;
use crate::mask::Mask;
use crate::record::Sink;
use crate::stats::RecordStats;
use crate::writer::{self, Line, Output, TooLong, Writer};

/// Passes call records to a thread that writes them.
#[derive(Debug)]
pub struct Calls {
    writer: Writer<Job>,
    stats: Arc<RecordStats>,
}

/// What the records of one transaction have in common.
#[derive(Clone, Debug)]
pub struct Call {
    /// Id of the decision.
    pub id: Option<DecisionId>,
    /// Tenant; `default` for the operator.
    pub tenant: Arc<str>,
    /// Source of the request.
    pub source: SocketAddr,
    /// Transport of the request.
    pub transport: Transport,
    /// Method.
    pub method: String,
    /// The received request URI.
    pub uri: String,
    /// The URI in From.
    pub from: String,
    /// The URI in To.
    pub to: String,
    /// Call-ID.
    pub call_id: String,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Happened {
    /// A target has its result.
    Attempt {
        /// Name of the next hop, or a URI.
        target: String,
        /// The final code: the received one, or the one that the failure counts as.
        status: u16,
        /// Where the code comes from.
        cause: &'static str,
        /// Milliseconds from the turn of the target to its result.
        ms: u64,
    },
    /// A transaction has ended.
    Transaction {
        /// The final code that was sent; null if none was (RFC 4320).
        status: Option<u16>,
        /// Targets that got their turn.
        attempts: u8,
        /// Whether the sender cancelled.
        cancelled: bool,
        /// Milliseconds from the request to the first response above 100; null if there was none.
        first_response_ms: Option<u64>,
        /// Milliseconds from the request to the final response; null if there was none.
        final_response_ms: Option<u64>,
        /// Milliseconds from the request to the end.
        ms: u64,
    },
}

#[derive(Debug)]
struct Job {
    time: SystemTime,
    call: Arc<Call>,
    happened: Happened,
}

/// One line.
#[derive(Serialize)]
struct Record<'j> {
    #[serde(flatten)]
    happened: &'j Happened,
    /// Id of the decision.
    id: Option<String>,
    /// When it happened.
    time: String,
    time_ms: u64,
    tenant: &'j str,
    source: SocketAddr,
    transport: String,
    method: &'j str,
    uri: String,
    from: String,
    to: String,
    call_id: &'j str,
}

impl Calls {
    /// Starts the thread.
    pub(super) fn start(file: File, config: &RecordsConfig, mask: Mask) -> io::Result<Self> {
        let stats = Arc::new(RecordStats::default());
        let writer = Writer::start(
            "calls",
            Output::file(file),
            config,
            mask,
            Arc::clone(&stats),
        )?;
        Ok(Self { writer, stats })
    }

    /// Passes a record to the writer, if the queue has room.
    pub fn write(&self, call: &Arc<Call>, happened: Happened) {
        let bytes = size_of::<Job>() + call.bytes() + happened.bytes();
        self.writer.write(bytes, || Job {
            time: SystemTime::now(),
            call: Arc::clone(call),
            happened,
        });
    }

    /// The statistics of call records.
    pub fn stats(&self) -> &RecordStats {
        &self.stats
    }
}

impl Call {
    fn bytes(&self) -> usize {
        let texts = [&self.method, &self.uri, &self.from, &self.to, &self.call_id];
        size_of::<Self>() + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

impl Happened {
    fn bytes(&self) -> usize {
        match self {
            Self::Attempt { target, .. } => target.len(),
            Self::Transaction { .. } => 0,
        }
    }
}

impl writer::Job for Job {
    fn write(self, mask: &Mask, _: Option<&Sink>, line: Option<&mut Line>) -> Result<(), TooLong> {
        let Some(line) = line else {
            return Ok(());
        };
        let Self {
            time,
            call,
            mut happened,
        } = self;
        if let Happened::Attempt { target, .. } = &mut happened {
            *target = mask.uri(target);
        }
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        line.set(&Record {
            happened: &happened,
            id: call.id.map(|id| id.to_string()),
            time: rfc3339(time),
            time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            tenant: &call.tenant,
            source: call.source,
            transport: call.transport.to_string(),
            method: &call.method,
            uri: mask.uri(&call.uri),
            from: mask.uri(&call.from),
            to: mask.uri(&call.to),
            call_id: &call.call_id,
        })
    }
}
