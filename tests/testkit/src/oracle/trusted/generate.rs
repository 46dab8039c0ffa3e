//! Random tables of trusted peers: few sources with many rows each, so that order and tags matter.

use std::net::SocketAddr;

use fastrand::Rng;

use super::super::Envelope;
use super::case::{Call, Case, Question, Row};

/// Makes cases.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
    callers: Vec<SocketAddr>,
}

/// What the rows and questions of one case have in common.
struct Theme {
    sources: Vec<String>,
    /// One row in so many is odd; none if 0.
    odd: u32,
    /// One row in so many has a pattern.
    patterns: u32,
}

impl Generator {
    /// A generator for requests from these callers. The same seed makes the same cases.
    pub fn new(seed: u64, callers: Vec<SocketAddr>) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            callers,
        }
    }

    /// The next case.
    pub fn case(&mut self) -> Case {
        let asking: Vec<usize> = (0..4)
            .map(|_| self.rng.usize(..self.callers.len()))
            .collect();
        let mut theme = self.theme(&asking);
        let count = match self.rng.u32(..10) {
            0 => self.rng.usize(..3),
            1..=8 => self.rng.usize(3..25),
            _ => {
                // All callers, so that no answer gets longer than a header field may be.
                theme.sources = self
                    .callers
                    .iter()
                    .map(|caller| caller.ip().to_string())
                    .collect();
                self.rng.usize(60..200)
            }
        };
        let mut rows: Vec<Row> = Vec::new();
        for _ in 0..count {
            let row = match rows.is_empty() || self.rng.u32(..6) > 0 {
                true => self.row(&theme),
                false => {
                    let known = rows[self.rng.usize(..rows.len())].clone();
                    self.repeated(known)
                }
            };
            rows.push(row);
        }
        let mut calls = Vec::new();
        for caller in asking {
            for _ in 0..3 {
                calls.push(self.call(caller, &theme));
            }
        }
        Case { rows, calls }
    }

    fn theme(&mut self, asking: &[usize]) -> Theme {
        let mut sources: Vec<String> = asking
            .iter()
            .map(|at| self.callers[*at].ip().to_string())
            .collect();
        sources.extend((0..2).map(|_| self.of(&OTHER_SOURCES).to_owned()));
        Theme {
            sources,
            odd: self.of(&[0, 4, 12]),
            patterns: self.of(&[1, 2, 2, 5]),
        }
    }

    fn row(&mut self, theme: &Theme) -> Row {
        let mut row = Row {
            source: self.source(theme),
            proto: self.of(&ROW_PROTOS).to_owned(),
            from: self.pattern(theme, &FROM_PATTERNS),
            ruri: self.pattern(theme, &RURI_PATTERNS),
            tag: self.of(&TAGS).map(str::to_owned),
            priority: self.of(&PRIORITIES),
        };
        if theme.odd > 0 && self.rng.u32(..theme.odd) == 0 {
            self.make_odd(&mut row);
        }
        row
    }

    /// A row like another, with something else in one of its columns, or with nothing else at all.
    fn repeated(&mut self, mut row: Row) -> Row {
        match self.rng.u32(..5) {
            0 => row.proto = self.of(&ROW_PROTOS).to_owned(),
            1 => row.priority = self.of(&PRIORITIES),
            2 => row.from = None,
            3 => row.tag = self.of(&TAGS).map(str::to_owned),
            _ => {}
        }
        row
    }

    fn source(&mut self, theme: &Theme) -> String {
        theme.sources[self.rng.usize(..theme.sources.len())].clone()
    }

    fn pattern(&mut self, theme: &Theme, patterns: &[&str]) -> Option<String> {
        let has_one = self.rng.u32(..theme.patterns) == 0;
        has_one.then(|| patterns[self.rng.usize(..patterns.len())].to_owned())
    }

    /// What nobody should write, but somebody does.
    fn make_odd(&mut self, row: &mut Row) {
        match self.rng.u32(..5) {
            0 => row.proto = self.of(&["fax", "", "udp ", "none", "NONE", "dtls"]).into(),
            1 => row.from = Some(self.of(&BAD_PATTERNS).into()),
            2 => row.ruri = Some(self.of(&BAD_PATTERNS).into()),
            3 => row.from = Some(self.of(&REFERRING_PATTERNS).into()),
            _ => row.source = self.respelt(&row.source),
        }
    }

    /// Another spelling of a source, or something close to it.
    fn respelt(&mut self, source: &str) -> String {
        match self.rng.u32(..8) {
            0 => format!("[{source}]"),
            1 => source.to_uppercase(),
            2 => format!("::ffff:{source}"),
            3 => format!("{source} "),
            4 => format!("{source}:5060"),
            5 => format!("{source}/32"),
            6 => source.replacen('.', ".00", 1),
            _ => source.replacen("::", "0:0:0:0:0:0:0:", 1),
        }
    }

    fn call(&mut self, caller: usize, theme: &Theme) -> Call {
        let mut questions = vec![Question::Own];
        for _ in 0..7 {
            questions.push(self.question(theme));
        }
        Call {
            caller,
            envelope: self.envelope(),
            questions,
        }
    }

    fn envelope(&mut self) -> Envelope {
        let mut envelope = Envelope::to(self.of(&URIS));
        if envelope.uri.starts_with("sips:") || envelope.uri.contains('?') {
            // Portcullis has no TLS yet and refuses headers in a request URI, before a policy is asked.
            envelope.uri = "sip:alice@example.com".into();
        }
        if self.rng.u32(..20) == 0 {
            envelope.uri = self.long_uri();
        }
        envelope.to = Some("<sip:oracle@example.com>".into());
        let from = self.from();
        envelope.from = Some(match self.rng.u32(..4) {
            // What stands behind a URI without brackets belongs to the header field.
            0 if !from.contains([';', '?']) => from,
            1 => format!("\"A <b>\" <{from}>"),
            _ => format!("<{from}>"),
        });
        envelope
    }

    fn from(&mut self) -> String {
        match self.rng.u32(..20) {
            0 => self.long_uri(),
            _ => self.of(&URIS).to_owned(),
        }
    }

    /// Around the longest that Kamailio looks at.
    fn long_uri(&mut self) -> String {
        let end = "@example.com";
        let length = self.of(&[900, 1022, 1023, 1024, 1025, 1026]);
        format!("sip:{}{end}", "a".repeat(length - 4 - end.len()))
    }

    fn question(&mut self, theme: &Theme) -> Question {
        let mut source = self.source(theme);
        if theme.odd > 0 && self.rng.u32(..8) == 0 {
            source = self.respelt(&source);
        }
        let from = self.rng.bool().then(|| self.from());
        Question::Peer {
            source,
            proto: self.of(&ASKED_PROTOS).to_owned(),
            from,
        }
    }

    fn of<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> T {
        items[self.rng.usize(..N)]
    }
}

const ROW_PROTOS: [&str; 12] = [
    "any", "any", "any", "udp", "udp", "tcp", "tcp", "UDP", "tls", "sctp", "ws", "wss",
];

const ASKED_PROTOS: [&str; 14] = [
    "any", "udp", "udp", "tcp", "Any", "UDP", "tCP", "tls", "sctp", "ws", "wss", "none", "fax",
    "dtls",
];

/// Sources that nobody here has.
const OTHER_SOURCES: [&str; 7] = [
    "192.0.2.1",
    "2001:db8::1",
    "gw.example.com",
    "GW.example.com",
    "300.1.1.1",
    "any",
    "10.0.0.0/8",
];

const PRIORITIES: [i32; 10] = [0, 0, 0, 0, 1, 1, 5, -1, i32::MAX, i32::MIN];

const TAGS: [Option<&str>; 9] = [
    None,
    None,
    Some(""),
    Some("a"),
    Some("b"),
    Some("c"),
    Some("two words"),
    Some("zwölf"),
    Some("012345678901234567890123456789"),
];

const URIS: [&str; 15] = [
    "sip:alice@example.com",
    "sip:alice@example.com;transport=udp",
    "SIP:alice@example.com",
    "sips:alice@example.com",
    "sip:ALICE@EXAMPLE.COM",
    "sip:bob@example.org:5080",
    "sip:bob:secret@example.org?x=y",
    "sip:+4930123@example.com;user=phone",
    "sip:+3312345@example.com",
    "sip:example.com",
    "sip:a%20b@example.com",
    "sip:alice@[2001:db8::1]:5060",
    "sip:alice@192.0.2.1;lr",
    "sip:aa.bb@example.com",
    "sip:müller@example.com",
];

const FROM_PATTERNS: [&str; 20] = [
    "",
    "^sip:alice@",
    "^sip:.*@example\\.com$",
    "@example\\.com",
    "example",
    "^sips\\?:",
    "^sip:[a-z]*@",
    "^sip:[[:alpha:]]\\+@",
    "a\\{2\\}",
    "\\(alice\\|bob\\)@",
    "a+",
    "(alice)",
    "^sip:\\+49",
    ".",
    "^$",
    "^.*$",
    "ALICE",
    "transport=udp$",
    "ü",
    "^sip:m..ller@",
];

const RURI_PATTERNS: [&str; 10] = [
    "",
    "^sip:\\+49[0-9]*@",
    "^sip:+49",
    "^sip:alice@example\\.com$",
    "user=phone",
    "@\\[2001:db8::1\\]",
    ":50[68]0",
    "x=y$",
    "[^a-z]@",
    "bob",
];

/// No regular expressions.
pub(super) const BAD_PATTERNS: [&str; 5] = ["[a", "\\(alice", "a\\{2", "alice\\", "[[:letter:]]"];

/// With back-references.
pub(super) const REFERRING_PATTERNS: [&str; 2] = ["\\(a\\)\\1", "^sip:\\(.\\)\\1@"];
