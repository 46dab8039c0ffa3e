//! A caller that asks both servers from one address and port.

use std::fmt;
use std::net::SocketAddr;

use super::case::{Answer, read_answers};
use crate::sip::{Caller, Transport};

/// One address and port, over one transport.
#[derive(Debug)]
pub(super) struct Voice {
    line: Line,
    portcullis: SocketAddr,
    kamailio: SocketAddr,
}

#[derive(Debug)]
enum Line {
    /// One socket for both.
    Udp(Caller),
    /// Two connections from one address.
    Tcp {
        portcullis: Caller,
        kamailio: Caller,
    },
}

impl Voice {
    pub(super) fn new(
        transport: Transport,
        local: SocketAddr,
        portcullis: SocketAddr,
        kamailio: SocketAddr,
    ) -> Self {
        let line = match transport {
            Transport::Udp => Line::Udp(Caller::udp_from(local, portcullis)),
            Transport::Tcp => {
                let first = Caller::tcp_from(local, portcullis);
                let second = Caller::tcp_from(first.local(), kamailio);
                Line::Tcp {
                    portcullis: first,
                    kamailio: second,
                }
            }
        };
        Self {
            line,
            portcullis,
            kamailio,
        }
    }

    /// Where it speaks from.
    pub(super) fn local(&self) -> SocketAddr {
        match &self.line {
            Line::Udp(caller)
            | Line::Tcp {
                kamailio: caller, ..
            } => caller.local(),
        }
    }

    /// Puts all questions to Portcullis in one request.
    pub(super) fn ask_portcullis(&mut self, questions: &[String]) -> Vec<Answer> {
        match &mut self.line {
            Line::Udp(caller) => {
                caller.turn_to(self.portcullis);
                ask(caller, questions)
            }
            Line::Tcp { portcullis, .. } => ask(portcullis, questions),
        }
    }

    /// Puts all questions to Kamailio in one request.
    pub(super) fn ask_kamailio(&mut self, questions: &[String]) -> Vec<Answer> {
        match &mut self.line {
            Line::Udp(caller) => {
                caller.turn_to(self.kamailio);
                ask(caller, questions)
            }
            Line::Tcp { kamailio, .. } => ask(kamailio, questions),
        }
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.line {
            Line::Udp(_) => Transport::Udp,
            Line::Tcp { .. } => Transport::Tcp,
        };
        write!(f, "{} over {transport}", self.local())
    }
}

/// Puts all questions, each a line of `X-Ask`, in one request.
pub(super) fn ask(caller: &mut Caller, questions: &[String]) -> Vec<Answer> {
    let mut request = caller.request("MESSAGE", "sip:oracle@example.com");
    request.extra = questions
        .iter()
        .map(|question| format!("X-Ask: {question}"))
        .collect();
    let answer = caller.ask(&request);
    assert_eq!(answer.code(), 480, "{questions:?}: {}", answer.start_line());
    let answers = read_answers(answer.header("X-Answers").unwrap_or_default());
    assert_eq!(
        answers.len(),
        questions.len(),
        "one answer to each question of {questions:?}: {:?}",
        answer.header("X-Answers")
    );
    answers
}
