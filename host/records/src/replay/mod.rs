//! Replay: a policy evaluates recorded requests with the recorded answers of the host, or the requests of a packet capture.

pub mod capture;
mod offline;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_address::Snapshot;
use portcullis_policy::{FailedAttempts, Limits, Runtime, Scope, Settings, StatedHost};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing};

use crate::record::write_said;
use crate::{Asking, Change, Decided, Kind, Question, Record};

pub use offline::{Answered, OfflinePolicy, Query};

use capture::Capture;

/// Deadline of a call. It is long, so that a busy machine does not change the results.
const PATIENCE: Duration = Duration::from_secs(10);

/// One decision to be replayed.
#[derive(Clone, Debug)]
pub struct Case {
    /// Id of the decision, with the number of the call after a failure (`6bd29a66-1/1`), or number of the packet.
    pub id: String,
    /// Which export is called.
    pub kind: Kind,
    /// Time.
    pub at: SystemTime,
    /// Tenant of the request.
    pub tenant: String,
    /// The request.
    pub request: Request,
    /// The recorded call.
    pub recorded: Option<Asking>,
}

/// Result of a policy on a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// The verdict, or the failure.
    pub decided: Decided,
    /// Changes of header fields.
    pub edits: Vec<Change>,
    /// The calls by which the policy said where the request goes.
    pub said: Vec<Question>,
    /// Fuel used; `None` if no policy was called.
    pub fuel: Option<u64>,
    /// Queries that were not recorded, with the answers of a host without any data.
    pub unanswered: Vec<Question>,
    /// Whether the record is incomplete, so that recorded answers are missing.
    pub is_cut: bool,
}

/// Which cases to replay.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of this tenant.
    pub tenant: Option<String>,
    /// Those of this seat; `None` for the tenant's own seat, and not `before` or `after`.
    pub seat: Option<String>,
}

/// Replays cases with one policy.
pub struct Player {
    policy: OfflinePolicy,
    tables: Option<Arc<Snapshot>>,
    nothing: Arc<Snapshot>,
}

impl Player {
    /// Loads the policy. Queries are answered from `tables`, or, without tables, from the record.
    ///
    /// # Errors
    /// If the policy cannot be used.
    pub fn new(
        runtime: &Runtime,
        file: &Path,
        settings: &Arc<Settings>,
        tables: Option<Arc<Snapshot>>,
    ) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // A policy for which recorded settings are replayed need not accept the settings that are given here.
        let policy = runtime.load_within(&name, &bytes, runtime.limits(), settings)?;
        let scope = Scope::operator().with_settings(Arc::clone(settings));
        Ok(Self {
            policy: OfflinePolicy::new(policy, Arc::new(scope)),
            tables,
            nothing: Arc::default(),
        })
    }

    /// Returns the name of the policy.
    pub fn name(&self) -> &str {
        self.policy.policy().name()
    }

    /// Replays one case. Counters and clock use the time of the case.
    pub fn play(&mut self, case: &Case) -> Played {
        // Tables replace the recorded answers, but for those that no table has.
        let has_tables = self.tables.is_some();
        let is_from_record = |function: &str| {
            const NEVER_IN_TABLES: [&str; 5] = ["flows", "forwarding", "guard", "outcome", "peer"];

            let interface = function.split('.').next().unwrap_or_default();
            !has_tables || NEVER_IN_TABLES.contains(&interface)
        };
        let recorded = case.recorded.as_ref().map(|asking| {
            let asked = asking.asked.iter();
            let asked = asked.filter(|one| is_from_record(&one.function));
            asked.map(Question::asked).collect()
        });
        let query = Query {
            request: case.request.clone(),
            at: case.at,
            recorded,
            failed: match case.kind {
                Kind::Decision => None,
                // What became of the targets is in the record.
                Kind::Failure => Some(FailedAttempts::default()),
            },
            host: StatedHost::default(),
        };
        let tables = self.tables.as_ref().unwrap_or(&self.nothing);
        let mut answered = self.policy.call(query, tables);
        let unanswered = &mut answered.unanswered;
        unanswered.retain(|one| is_from_record(&one.function));
        Played {
            said: answered.decided.said(&answered.asked),
            decided: answered.decided,
            edits: answered.edits,
            fuel: answered.fuel,
            unanswered: answered.unanswered,
            is_cut: case.recorded.as_ref().is_some_and(|asking| asking.cut),
        }
    }
}

impl Played {
    /// Returns the recorded result.
    pub fn recorded(asking: &Asking) -> Self {
        let edits = match asking.decided.may_relay() {
            true => asking.edits.clone(),
            false => Vec::new(),
        };
        Self {
            decided: asking.decided.clone(),
            edits,
            said: asking.decided.said(&asking.asked),
            fuel: None,
            unanswered: Vec::new(),
            is_cut: asking.cut,
        }
    }

    /// Whether both results are equivalent.
    pub fn is_as(&self, other: &Self) -> bool {
        self.decided.is_as(&other.decided) && self.edits == other.edits && self.said == other.said
    }
}

/// A short description.
impl std::fmt::Display for Played {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.decided)?;
        self.edits
            .iter()
            .try_for_each(|edit| write!(f, ", {edit}"))?;
        self.said.iter().try_for_each(|said| {
            f.write_str(", ")?;
            write_said(f, said)
        })
    }
}

/// Creates the engine for all policies of a replay.
///
/// # Errors
/// If the engine cannot be created on this machine.
pub fn runtime(limits: &Limits) -> anyhow::Result<Runtime> {
    let limits = Limits {
        deadline: PATIENCE,
        ..limits.clone()
    };
    Ok(Runtime::metered(limits)?)
}

/// Reads the decisions of a records file.
///
/// # Errors
/// If a line is not a record. The error names the line.
pub fn records(path: &Path, filter: &Filter) -> anyhow::Result<Vec<Case>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let mut cases = Vec::new();
    let mut lines = BufReader::new(file).lines().zip(1..).peekable();
    while let Some((line, number)) = lines.next() {
        let line = line.with_context(|| format!("cannot read {shown}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let record: Record = match serde_json::from_str(&line) {
            Ok(record) => record,
            // If the host is still writing the file, its last line may be incomplete.
            Err(error) if lines.peek().is_none() && error.is_eof() => break,
            Err(error) => bail!("{shown}:{number}: not a decision record: {error}"),
        };
        if filter
            .tenant
            .as_ref()
            .is_some_and(|tenant| *tenant != record.tenant)
        {
            continue;
        }
        let seat = filter.seat.as_deref().unwrap_or(&record.tenant);
        // If a policy failed and the previous generation was called, the last call is the one that counts.
        let recorded = record.policies.iter().rfind(|asking| asking.seat == seat);
        let Some(recorded) = recorded.cloned() else {
            continue;
        };
        let place = format!("{shown}:{number}: decision {}", record.id);
        cases.push(case(record, recorded).context(place)?);
    }
    Ok(cases)
}

fn case(record: Record, recorded: Asking) -> anyhow::Result<Case> {
    let mut bytes = match (record.request, record.request_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(encoded)) => STANDARD.decode(encoded).context("request_base64")?,
        (None, None) => bail!("it has no request"),
    };
    bytes.extend(std::iter::repeat_n(b'x', record.body_bytes));
    let arrival = Arrival {
        source: record.source,
        local: record.local,
        transport: record.transport.parse()?,
        connection: None,
    };
    let request = Request::read(bytes, Framing::Stream, arrival);
    Ok(Case {
        id: match record.kind {
            Kind::Decision => record.id,
            Kind::Failure => format!("{}/{}", record.id, record.call),
        },
        kind: record.kind,
        at: UNIX_EPOCH + Duration::from_millis(record.time_ms),
        tenant: record.tenant,
        request: request.context("its request cannot be read")?,
        recorded: Some(recorded),
    })
}

/// Returns the requests of a capture. `to` are the destinations of interest; empty means all.
pub fn captured(capture: Capture, to: &[String]) -> Vec<Case> {
    let is_there = |request: &Request| {
        let local = request.arrival.local;
        let mut to = to.iter();
        to.any(|to| *to == local.to_string() || *to == local.ip().to_string())
    };
    let cases = capture.requests.into_iter();
    cases
        .filter(|found| to.is_empty() || is_there(&found.request))
        .map(|found| Case {
            id: format!("packet {}", found.packet),
            kind: Kind::Decision,
            at: found.at,
            tenant: String::new(),
            request: found.request,
            recorded: None,
        })
        .collect()
}

/// Whether a file is a capture, according to its first bytes.
///
/// # Errors
/// If it cannot be read, or is compressed.
pub fn is_capture(path: &Path) -> anyhow::Result<bool> {
    use std::io::Read as _;

    const MAGIC: [[u8; 4]; 5] = [
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0x4d, 0x3c, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x0a, 0x0d, 0x0d, 0x0a],
    ];
    let mut first = [0; 4];
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    if file.read_exact(&mut first).is_err() {
        return Ok(false);
    }
    if let Some((form, command)) = compression(&first) {
        let shown = path.display();
        bail!("{shown} is compressed ({form}): `{command} {shown}` decompresses it");
    }
    Ok(MAGIC.contains(&first))
}

/// Returns the compression format of a file with these first bytes, and the command that decompresses it.
fn compression(first: &[u8; 4]) -> Option<(&'static str, &'static str)> {
    match first {
        [0x1f, 0x8b, ..] => Some(("gzip", "gunzip --keep")),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(("zstd", "unzstd")),
        [0xfd, b'7', b'z', b'X'] => Some(("xz", "unxz --keep")),
        [b'B', b'Z', b'h', _] => Some(("bzip2", "bunzip2 --keep")),
        [0x04, 0x22, 0x4d, 0x18] => Some(("lz4", "unlz4")),
        [b'P', b'K', 3, 4] => Some(("zip", "unzip")),
        _ => None,
    }
}

/// Counts the results.
pub fn count<'p>(played: impl Iterator<Item = &'p Played>) -> Vec<(String, usize)> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for played in played {
        *counts.entry(played.to_string()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
    counts
}

#[cfg(test)]
mod tests;
