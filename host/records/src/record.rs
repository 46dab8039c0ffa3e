//! A decision as it is written down.

use std::borrow::Cow;
use std::mem::size_of;
use std::net::SocketAddr;

use portcullis_policy::{Asked, Edit, Edits, Failure, Rejection, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What two texts in a list take beside their bytes.
const PAIR: usize = 64;

/// One decision: a line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// When, for people.
    pub time: String,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Whose request it was; `default` for the operator's.
    pub tenant: String,
    /// Where the request came from.
    pub source: SocketAddr,
    /// The host's socket that it came to.
    pub local: SocketAddr,
    /// How it came.
    pub transport: String,
    /// The request as received, but for what is masked. Absent where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The same in Base64, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_base64: Option<String>,
    /// The length of a body that was left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub body_bytes: usize,
    /// The policies that were asked, in order.
    pub policies: Vec<Asking>,
    /// What became of the request, in words.
    pub outcome: String,
}

/// A policy, what it asked, and what it decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asking {
    /// Its seat.
    pub seat: String,
    /// Its name.
    pub policy: String,
    /// The number of its generation.
    pub generation: u64,
    /// SHA-256 of its file.
    pub digest: String,
    /// What it asked of the host, in order.
    pub asked: Vec<Question>,
    /// Whether it asked more than is written down.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
    /// What it decided.
    pub decided: Decided,
    /// What it changed in the header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Change>,
    /// Microseconds that it took.
    pub duration_us: u64,
}

/// One question to the host and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The function of the contract.
    pub function: Cow<'static, str>,
    /// What was passed.
    pub arguments: Value,
    /// What was answered.
    pub answer: Value,
    /// What the answer left for `last-tag` or `tags`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Value>,
}

/// What a policy decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// Relay, to a next hop of this name if there is one.
    Relay(Option<String>),
    /// An answer.
    Reject {
        /// The status code.
        code: u16,
        /// The reason phrase.
        reason: String,
        /// Header fields.
        headers: Vec<(String, String)>,
    },
    /// Nothing is done.
    Drop,
    /// No opinion.
    Pass,
    /// The policy failed.
    Failed {
        /// How.
        kind: String,
        /// In words.
        text: String,
    },
}

/// A change to the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A header field is added.
    Add(String, String),
    /// All of a name are taken out.
    Remove(String),
}

impl Asking {
    /// Leaves out what it asked.
    pub(super) fn cut_off(&mut self) {
        self.cut |= !self.asked.is_empty();
        self.asked = Vec::new();
    }

    /// What it takes of memory beside its questions.
    pub(super) fn bytes(&self) -> usize {
        let decided = match &self.decided {
            Decided::Relay(next_hop) => next_hop.as_ref().map_or(0, String::len),
            Decided::Reject {
                reason, headers, ..
            } => {
                let pair = |(name, value): &(String, String)| PAIR + name.len() + value.len();
                reason.len() + headers.iter().map(pair).sum::<usize>()
            }
            Decided::Failed { kind, text } => kind.len() + text.len(),
            Decided::Drop | Decided::Pass => 0,
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
    /// As a tape has it.
    pub fn of(asked: Asked) -> Self {
        Self {
            function: asked.function,
            arguments: asked.arguments,
            answer: asked.answer,
            left: asked.left,
        }
    }

    /// For a tape.
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
    /// What an answer is.
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
            Err(failure) => Self::Failed {
                kind: failure.kind().as_str().to_owned(),
                text: failure.to_string(),
            },
        }
    }

    /// Whether both come to the same: of failures only the kind counts, because their words name addresses in the code.
    pub fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed { kind, .. }, Self::Failed { kind: other, .. }) => kind == other,
            _ => self == other,
        }
    }

    /// Whether changes to the header may come to anything.
    pub fn may_relay(&self) -> bool {
        matches!(self, Self::Relay(_) | Self::Pass)
    }
}

/// In a few words.
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
            Self::Drop => f.write_str("drop"),
            Self::Pass => f.write_str("pass"),
            Self::Failed { text, .. } => write!(f, "failure: {text}"),
        }
    }
}

impl Change {
    /// Those of a call.
    pub fn all(edits: &Edits) -> Vec<Self> {
        let changes = edits.iter().map(|edit| match edit {
            Edit::Add { name, value } => Self::Add(name.clone(), value.clone()),
            Edit::Remove { name } => Self::Remove(name.clone()),
        });
        changes.collect()
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

fn is_false(is: &bool) -> bool {
    !is
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}
