//! A caller that sends questions to several servers from one address and port.

use std::fmt;
use std::net::SocketAddr;

use crate::sip::{Caller, Transport};

/// A caller with one address and port, over one transport.
#[derive(Debug)]
pub(super) struct Voice {
    line: Line,
    servers: Vec<SocketAddr>,
}

#[derive(Debug)]
enum Line {
    /// One socket for all servers.
    Udp(Caller),
    /// A connection to each server, from one address.
    Tcp(Vec<Caller>),
}

/// The parts of a request other than its questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The method.
    pub method: String,
    /// The request URI.
    pub uri: String,
    /// The value of From, without a tag; none for the caller's own.
    pub from: Option<String>,
    /// The value of To; none for the request URI.
    pub to: Option<String>,
    /// The values of Contact; none for the caller's own.
    pub contacts: Option<Vec<String>>,
}

impl Voice {
    pub(super) fn new(transport: Transport, local: SocketAddr, servers: Vec<SocketAddr>) -> Self {
        let line = match transport {
            Transport::Udp => Line::Udp(Caller::udp_from(local, servers[0])),
            Transport::Tcp => {
                let mut callers: Vec<Caller> = Vec::new();
                for server in &servers {
                    let local = callers.first().map_or(local, Caller::local);
                    callers.push(Caller::tcp_from(local, *server));
                }
                Line::Tcp(callers)
            }
        };
        Self { line, servers }
    }

    /// The address of the caller.
    pub(super) fn local(&self) -> SocketAddr {
        match &self.line {
            Line::Udp(caller) => caller.local(),
            Line::Tcp(callers) => callers[0].local(),
        }
    }

    /// Sends all questions to one of the servers in one request.
    pub(super) fn ask(
        &mut self,
        server: usize,
        envelope: &Envelope,
        questions: &[String],
    ) -> Vec<String> {
        match &mut self.line {
            Line::Udp(caller) => {
                caller.turn_to(self.servers[server]);
                ask(caller, envelope, questions)
            }
            Line::Tcp(callers) => ask(&mut callers[server], envelope, questions),
        }
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.line {
            Line::Udp(_) => Transport::Udp,
            Line::Tcp(_) => Transport::Tcp,
        };
        write!(f, "{} over {transport}", self.local())
    }
}

impl Envelope {
    /// A request to this URI with default values for everything else.
    pub fn to(uri: &str) -> Self {
        Self {
            method: "MESSAGE".into(),
            uri: uri.into(),
            from: None,
            to: None,
            contacts: None,
        }
    }
}

impl Default for Envelope {
    fn default() -> Self {
        Self::to("sip:oracle@example.com")
    }
}

/// Sends all questions in one request, each as a line of `X-Ask`.
pub(super) fn ask(caller: &mut Caller, envelope: &Envelope, questions: &[String]) -> Vec<String> {
    let mut request = caller.request(&envelope.method, &envelope.uri);
    let Envelope {
        from, to, contacts, ..
    } = envelope.clone();
    request.from = from.unwrap_or(request.from);
    request.to = to.unwrap_or(request.to);
    request.contacts = contacts.unwrap_or(request.contacts);
    request.extra = questions
        .iter()
        .map(|question| format!("X-Ask: {question}"))
        .collect();
    let answer = caller.ask(&request);
    let said = answer.start_line();
    assert_eq!(answer.code(), 480, "{envelope:?}, {questions:?}: {said}");
    let answers = answer.headers("X-Answers").concat();
    let answers: Vec<_> = answers.split_terminator(';').map(str::to_owned).collect();
    assert_eq!(
        answers.len(),
        questions.len(),
        "one answer to each question of {questions:?}: {answers:?}"
    );
    answers
}
