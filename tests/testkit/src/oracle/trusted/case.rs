//! What is compared: a table of trusted peers, and requests with questions about it.

use std::fmt;

use super::super::Envelope;
use super::super::case::quoted;

/// A row of the table `trusted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Column `src_ip`.
    pub source: String,
    /// Column `proto`.
    pub proto: String,
    /// Column `from_pattern`.
    pub from: Option<String>,
    /// Column `ruri_pattern`.
    pub ruri: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
    /// Column `priority`.
    pub priority: i32,
}

/// A question to the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `allow_trusted()`
    Own,
    /// `allow_trusted(source, proto)`, or with a From URI `allow_trusted(source, proto, from)`
    Peer {
        /// An address or any other text.
        source: String,
        /// A transport.
        proto: String,
        /// A From URI.
        from: Option<String>,
    },
}

/// The two ways to answer: Kamailio's `peer_tag_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0: whether there is a match, with the tag of the first.
    First,
    /// 1: how many there are, with the tags of all.
    Count,
}

/// A request and its questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number of the caller.
    pub caller: usize,
    /// The request.
    pub envelope: Envelope,
    /// What is asked, each in both modes.
    pub questions: Vec<Question>,
}

/// A table, and what is asked about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The rows, in the order of their ids.
    pub rows: Vec<Row>,
    /// The requests.
    pub calls: Vec<Call>,
}

impl Row {
    /// A row that trusts every request from a source.
    pub fn plain(source: &str) -> Self {
        Self {
            source: source.into(),
            proto: "any".into(),
            from: None,
            ruri: None,
            tag: None,
            priority: 0,
        }
    }

    /// The values of an INSERT in the order of the columns.
    fn values(&self) -> String {
        let text = |text: &Option<String>| text.as_deref().map_or_else(|| "NULL".into(), quoted);
        let (source, proto) = (quoted(&self.source), quoted(&self.proto));
        let [from, ruri, tag] = [&self.from, &self.ruri, &self.tag].map(text);
        let priority = self.priority;
        format!("({source}, {proto}, {from}, {ruri}, {tag}, {priority})")
    }
}

impl Question {
    /// The value of the header field `X-Ask` that asks this: see `tests/oracle/src/lib.rs`.
    pub fn line(&self, mode: Mode) -> String {
        let kind = match mode {
            Mode::First => "trusted",
            Mode::Count => "count",
        };
        match self {
            Self::Own => kind.into(),
            Self::Peer {
                source,
                proto,
                from: None,
            } => format!("{kind}-address,{source},{proto},."),
            Self::Peer {
                source,
                proto,
                from: Some(from),
            } => format!("{kind}-from,{source},{proto},{from},."),
        }
    }
}

impl Mode {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::First, Self::Count];
}

impl fmt::Display for Question {
    /// As it is written in Kamailio's configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => write!(f, "allow_trusted()"),
            Self::Peer {
                source,
                proto,
                from: None,
            } => write!(f, "allow_trusted({source:?}, {proto:?})"),
            Self::Peer {
                source,
                proto,
                from: Some(from),
            } => write!(f, "allow_trusted({source:?}, {proto:?}, {from:?})"),
        }
    }
}

/// The SQL that makes these rows the table, all at once.
pub fn sql(rows: &[Row]) -> String {
    let mut sql = String::from("BEGIN; DELETE FROM trusted; ");
    if !rows.is_empty() {
        let values: Vec<_> = rows.iter().map(Row::values).collect();
        sql.push_str(&format!(
            "INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) VALUES {}; ",
            values.join(", ")
        ));
    }
    sql.push_str("COMMIT;");
    sql
}
