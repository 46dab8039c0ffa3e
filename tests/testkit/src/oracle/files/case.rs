//! What is compared: pairs of allow and deny files, and requests with questions about them.

use std::fmt;

use super::super::Envelope;

/// A pair of files, each a list of lines. An [`ODD_BYTE`] in a line is a byte that is no UTF-8 when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The file `NAME.allow`.
    pub allow: Vec<String>,
    /// The file `NAME.deny`.
    pub deny: Vec<String>,
}

/// A question to a pair of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `allow_routing(name)`
    Routing,
    /// `allow_register(name)`
    Register,
    /// `allow_uri(name, uri)`
    Uri(String),
}

/// A request and its questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The request.
    pub envelope: Envelope,
    /// What is asked, about which of the pairs.
    pub questions: Vec<(usize, Question)>,
}

/// Pairs of files, and what is asked about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The pairs. The first one is the default.
    pub pairs: Vec<Pair>,
    /// The requests.
    pub calls: Vec<Call>,
}

/// What stands for the byte 0xFF.
pub const ODD_BYTE: char = '\u{e0ff}';

impl Case {
    /// The most pairs that Kamailio takes.
    pub const MOST_PAIRS: usize = 64;
}

impl Question {
    /// The value of the header field `X-Ask` that asks this of pair `at`: see `tests/oracle/src/lib.rs`.
    pub fn line(&self, at: usize) -> String {
        match self {
            // The default needs no name.
            Self::Routing if at == 0 => "routing,".into(),
            Self::Routing => format!("routing,{}", name(at)),
            Self::Register => format!("register,{}", name(at)),
            Self::Uri(uri) => format!("uri,{},{uri},.", name(at)),
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, lines) in [("allow", &self.allow), ("deny", &self.deny)] {
            for line in lines {
                writeln!(f, "    {kind}: {line:?}")?;
            }
        }
        Ok(())
    }
}

/// The name of a pair.
pub fn name(at: usize) -> String {
    match at {
        0 => "permissions".into(),
        at => format!("pair-{at}"),
    }
}
