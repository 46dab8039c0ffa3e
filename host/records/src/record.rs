//! The JSON form of a decision.

use std::borrow::Cow;
use std::mem::size_of;
use std::net::SocketAddr;

use portcullis_policy::{Asked, Edit, Edits, Failure, NextStep, Rejection, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Memory of a pair of strings in a list, in addition to their bytes.
const PAIR: usize = 64;

/// Gets each record as it is written, on the writer's thread.
pub type Sink = Box<dyn Fn(&Record) + Send>;

/// One decision, or one call of `on-failure` for it: a line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What is recorded. Absent for a decision.
    #[serde(default, skip_serializing_if = "Kind::is_decision")]
    pub kind: Kind,
    /// Id of the decision.
    pub id: String,
    /// Number of the call of `on-failure` for this decision, from 1. Absent for a decision.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub call: usize,
    /// Time in RFC 3339.
    pub time: String,
    /// Time in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Tenant of the request; `default` for the operator.
    pub tenant: String,
    /// Source of the request.
    pub source: SocketAddr,
    /// Local socket that received the request.
    pub local: SocketAddr,
    /// Transport.
    pub transport: String,
    /// The request as received, after masking. Absent if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The same in Base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_base64: Option<String>,
    /// Length of a body that was omitted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub body_bytes: usize,
    /// The policy calls, in order.
    pub policies: Vec<Asking>,
    /// What happened to the request.
    pub outcome: String,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A decision on a request.
    #[default]
    Decision,
    /// What a policy decided after all targets of the request had failed.
    Failure,
}

/// The call of a policy: its queries and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asking {
    /// Seat.
    pub seat: String,
    /// Name of the policy.
    pub policy: String,
    /// Number of its generation.
    pub generation: u64,
    /// SHA-256 of its file.
    pub digest: String,
    /// Queries, in order.
    pub asked: Vec<Question>,
    /// Whether further queries are missing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
    /// The verdict, or the failure.
    pub decided: Decided,
    /// Changes of header fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Change>,
    /// Duration in microseconds.
    pub duration_us: u64,
}

/// One query and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Function of the contract.
    pub function: Cow<'static, str>,
    /// Arguments.
    pub arguments: Value,
    /// Answer.
    pub answer: Value,
    /// What the answer sets for `last-tag` or `tags`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Value>,
}

/// Result of a policy call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// Relay, optionally to a next hop of this name.
    Relay(Option<String>),
    /// Reject.
    Reject {
        /// Status code.
        code: u16,
        /// Reason phrase.
        reason: String,
        /// Header fields.
        headers: Vec<(String, String)>,
    },
    /// Drop.
    Drop,
    /// Pass.
    Pass,
    /// After the failure of all targets, the best response.
    Best,
    /// After the failure of all targets, this response.
    Answer {
        /// Status code.
        code: u16,
        /// Reason phrase.
        reason: String,
        /// Header fields.
        headers: Vec<(String, String)>,
    },
    /// After the failure of all targets, new ones.
    Again,
    /// The policy failed.
    Failed {
        /// Kind of failure.
        kind: String,
        /// Description.
        text: String,
    },
}

/// A change of header fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A header field is added.
    Add(String, String),
    /// All header fields of a name are removed.
    Remove(String),
}

impl Asking {
    /// Removes the queries.
    pub(super) fn cut_off(&mut self) {
        self.cut |= !self.asked.is_empty();
        self.asked = Vec::new();
    }

    /// Returns the memory in bytes, without the queries.
    pub(super) fn bytes(&self) -> usize {
        let decided = match &self.decided {
            Decided::Relay(next_hop) => next_hop.as_ref().map_or(0, String::len),
            Decided::Reject {
                reason, headers, ..
            }
            | Decided::Answer {
                reason, headers, ..
            } => {
                let pair = |(name, value): &(String, String)| PAIR + name.len() + value.len();
                reason.len() + headers.iter().map(pair).sum::<usize>()
            }
            Decided::Failed { kind, text } => kind.len() + text.len(),
            Decided::Drop | Decided::Pass | Decided::Best | Decided::Again => 0,
        };
        let edits = self.edits.iter().map(|edit| match edit {
            Change::Add(name, value) => PAIR + name.len() + value.len(),
            Change::Remove(name) => PAIR + name.len(),
        });
        let names = self.seat.len() + self.policy.len() + self.digest.len();
        size_of::<Self>() + names + decided + edits.sum::<usize>()
    }
}

impl Question {
    /// Converts a query from its form on a tape.
    pub fn of(asked: Asked) -> Self {
        Self {
            function: asked.function,
            arguments: asked.arguments,
            answer: asked.answer,
            left: asked.left,
        }
    }

    /// Converts the query to its form on a tape.
    pub fn asked(&self) -> Asked {
        Asked {
            function: self.function.clone(),
            arguments: self.arguments.clone(),
            answer: self.answer.clone(),
            left: self.left.clone(),
        }
    }
}

impl Decided {
    /// Converts the result of a call.
    pub fn of(answer: &Result<Verdict, Failure>) -> Self {
        match answer {
            Ok(Verdict::Relay(next_hop)) => Self::Relay(next_hop.clone()),
            Ok(Verdict::Reject(Rejection {
                code,
                reason,
                headers,
            })) => Self::Reject {
                code: *code,
                reason: reason.clone(),
                headers: headers.clone(),
            },
            Ok(Verdict::Drop) => Self::Drop,
            Ok(Verdict::Pass) => Self::Pass,
            Err(failure) => Self::failed(failure),
        }
    }

    /// Converts the result of a call of `on-failure`.
    pub fn of_step(answer: &Result<NextStep, Failure>) -> Self {
        match answer {
            Ok(NextStep::Best) => Self::Best,
            Ok(NextStep::Answer(Rejection {
                code,
                reason,
                headers,
            })) => Self::Answer {
                code: *code,
                reason: reason.clone(),
                headers: headers.clone(),
            },
            Ok(NextStep::Again) => Self::Again,
            Err(failure) => Self::failed(failure),
        }
    }

    fn failed(failure: &Failure) -> Self {
        Self::Failed {
            kind: failure.kind().as_str().to_owned(),
            text: failure.to_string(),
        }
    }

    /// Whether both results are equivalent. Of failures only the kind is compared, because their descriptions contain addresses in the
    /// code.
    pub fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed { kind, .. }, Self::Failed { kind: other, .. }) => kind == other,
            _ => self == other,
        }
    }

    /// Whether changes of header fields can have an effect.
    pub fn may_relay(&self) -> bool {
        matches!(self, Self::Relay(_) | Self::Pass | Self::Again)
    }

    /// Returns the queries of the interfaces `forwarding` and `dispatcher` that the host accepted, if they have an effect: those by which the
    /// policy said where the request goes.
    pub(crate) fn said(&self, asked: &[Question]) -> Vec<Question> {
        if !matches!(self, Self::Relay(_) | Self::Again) {
            return Vec::new();
        }
        let is_said = |one: &&Question| match one.function.split_once('.') {
            Some(("forwarding", _)) => one.answer.is_null(),
            // The chosen destinations.
            Some(("dispatcher", _)) => one.answer.as_array().is_some_and(|all| !all.is_empty()),
            Some(_) | None => false,
        };
        asked.iter().filter(is_said).cloned().collect()
    }
}

/// A short description.
impl std::fmt::Display for Decided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Relay(None) => f.write_str("relay"),
            Self::Relay(Some(next_hop)) => write!(f, "relay to {next_hop}"),
            Self::Reject {
                code,
                reason,
                headers,
            } => {
                write!(f, "reject {code}")?;
                if !reason.is_empty() {
                    write!(f, " {reason}")?;
                }
                headers
                    .iter()
                    .try_for_each(|(name, value)| write!(f, ", {name}: {value}"))
            }
            Self::Answer {
                code,
                reason,
                headers,
            } => {
                write!(f, "answer {code}")?;
                if !reason.is_empty() {
                    write!(f, " {reason}")?;
                }
                headers
                    .iter()
                    .try_for_each(|(name, value)| write!(f, ", {name}: {value}"))
            }
            Self::Drop => f.write_str("drop"),
            Self::Pass => f.write_str("pass"),
            Self::Best => f.write_str("best"),
            Self::Again => f.write_str("again"),
            Self::Failed { text, .. } => write!(f, "failure: {text}"),
        }
    }
}

impl Change {
    /// Returns the changes of a call.
    pub fn all(edits: &Edits) -> Vec<Self> {
        let changes = edits.iter().map(|edit| match edit {
            Edit::Add { name, value } => Self::Add(name.clone(), value.clone()),
            Edit::Remove { name } => Self::Remove(name.clone()),
        });
        changes.collect()
    }
}

/// `permissions.allow-address(200, "192.0.2.1", 5060)`
impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let arguments = self.arguments.as_array().map(Vec::as_slice);
        let arguments = arguments.unwrap_or_default().iter();
        let arguments: Vec<_> = arguments.map(Value::to_string).collect();
        write!(f, "{}({})", self.function, arguments.join(", "))
    }
}

/// `add X-Trunk: 7`
impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add(name, value) => write!(f, "add {name}: {value}"),
            Self::Remove(name) => write!(f, "remove {name}"),
        }
    }
}

impl Kind {
    fn is_decision(&self) -> bool {
        *self == Self::Decision
    }
}

/// `add {"next-hop":"carrier-a","rank":0}`, `memo "6f6e65"`, `add-set 1 "weight" 3 0: ["sip:192.0.2.1"]`
pub(crate) fn write_said(f: &mut std::fmt::Formatter<'_>, said: &Question) -> std::fmt::Result {
    let function = said.function.trim_start_matches("forwarding.");
    f.write_str(function.trim_start_matches("dispatcher."))?;
    let arguments = said.arguments.as_array().into_iter().flatten();
    arguments
        .into_iter()
        .try_for_each(|argument| write!(f, " {argument}"))?;
    match said.answer.is_null() {
        true => Ok(()),
        false => write!(f, ": {}", said.answer),
    }
}

fn is_false(is: &bool) -> bool {
    !is
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}
