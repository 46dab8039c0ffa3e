//! What the host did, and the checks.

use crate::event::End;
use crate::outbox::What;
use crate::testing::{code, header};

/// The history of one request.
#[derive(Debug, Default)]
pub(super) struct Log {
    is_invite: bool,
    /// Final codes to the caller, in order, without retransmissions.
    finals: Vec<u16>,
    last_response: String,
    /// Whose response that is.
    last_is: Option<What>,
    end: Option<End>,
    pub(super) branches: Vec<Branch>,
}

/// The history of one target.
#[derive(Clone, Debug, Default)]
pub(super) struct Branch {
    /// Time of its request.
    sent_at: Option<u64>,
    request: String,
    cancel: String,
    /// The host has received a provisional response.
    heard: bool,
    /// The first final code that the host has received.
    final_code: Option<u16>,
    /// An error was reported.
    pub(super) failed: bool,
    /// Number of ACKs that the host has sent.
    pub(super) acks: usize,
}

/// What the host must do with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Send an ACK.
    Acknowledge,
    /// Pass a 2xx response on.
    PassOn,
    /// Anything.
    None,
}

impl Log {
    pub(super) fn new(is_invite: bool, targets: usize) -> Self {
        Self {
            is_invite,
            branches: vec![Branch::default(); targets],
            ..Self::default()
        }
    }

    /// The host sends a message to the caller.
    pub(super) fn response(&mut self, what: What, text: &str) {
        if header(text, "CSeq").is_some_and(|cseq| cseq.ends_with("CANCEL")) {
            assert_eq!(code(text), 200, "a CANCEL that matches is answered 200");
            return;
        }
        // A callee sends its 2xx to an INVITE again and again: each of them is passed on.
        let is_call = self.is_invite && (200..300).contains(&code(text));
        let is_again = match what {
            What::ResponseRetransmission | What::ReplyRetransmission | What::ReplyUnasked => true,
            What::ResponseUnasked => !is_call,
            What::Response
            | What::Reply
            | What::Request
            | What::RequestRetransmission
            | What::Ack
            | What::Cancel
            | What::CancelRetransmission => false,
        };
        if is_again {
            assert_eq!(Some(what.again()), self.last_is.map(What::again));
            assert_eq!(
                text, self.last_response,
                "a retransmission is the last response"
            );
            return;
        }
        let code = code(text);
        let what = if what == What::ResponseUnasked {
            What::Response
        } else {
            what
        };
        assert!(matches!(what, What::Response | What::Reply));
        // The simulated targets have a reason phrase of their own. A 500 may be the 503 of a target.
        let is_of_target = text.contains(" Test\r\n");
        assert!(
            code == 500 || is_of_target == (what == What::Response),
            "{what:?} {text}"
        );
        assert_eq!(
            text.matches("\r\nVia:").count(),
            1,
            "our Via is removed: {text}"
        );
        assert!(
            self.is_invite || code == 100 || code >= 200,
            "RFC 4320 §4.1: {code}"
        );
        assert!(self.is_invite || code != 408, "RFC 4320 §4.2");
        let is_success = (200..300).contains(&code);
        if !(is_success && self.is_invite) {
            assert!(self.finals.is_empty(), "{code} after {:?}", self.finals);
        }
        if code >= 200 {
            self.finals.push(code);
        }
        if !(is_success && self.is_invite) {
            text.clone_into(&mut self.last_response);
            self.last_is = Some(what);
        }
    }

    /// The host sends a message to a target.
    pub(super) fn request(&mut self, at: u64, what: What, number: usize, text: &str) {
        let branch = &mut self.branches[number];
        match what {
            What::Request => {
                assert_eq!(branch.sent_at, None, "one request for each branch");
                assert!(text.contains("X-Whole"), "a target gets the whole request");
                let breadth = header(text, "Max-Breadth").map(str::parse::<u8>);
                assert!(!matches!(breadth, Some(Err(_) | Ok(0))), "{text}");
                assert!(text.matches("Max-Breadth").count() < 2, "{text}");
                branch.sent_at = Some(at);
                text.clone_into(&mut branch.request);
            }
            What::RequestRetransmission => {
                assert_eq!(text, branch.request);
                assert_eq!(
                    branch.final_code, None,
                    "a retransmission after the final response"
                );
                assert!(
                    !(self.is_invite && branch.heard),
                    "a retransmission after a provisional response"
                );
            }
            What::Cancel | What::CancelRetransmission => {
                assert!(
                    self.is_invite && branch.heard,
                    "a CANCEL before a provisional response"
                );
                assert_eq!(branch.final_code, None, "a CANCEL after the final response");
                if what == What::Cancel {
                    assert!(branch.cancel.is_empty(), "one CANCEL for each branch");
                    text.clone_into(&mut branch.cancel);
                }
                assert_eq!(text, branch.cancel, "one CANCEL for each branch");
            }
            What::Ack => {
                assert!(self.is_invite);
                assert!(branch.final_code.is_some_and(|code| code >= 300));
                branch.acks += 1;
            }
            What::Response
            | What::ResponseRetransmission
            | What::ResponseUnasked
            | What::Reply
            | What::ReplyRetransmission
            | What::ReplyUnasked => panic!("{what:?} to a target"),
        }
    }

    /// The host is about to receive a response of a target. Returns what it must do.
    pub(super) fn receives(&mut self, at: u64, number: usize, text: &str) -> Duty {
        let branch = &mut self.branches[number];
        let code = code(text);
        if header(text, "CSeq").is_some_and(|cseq| cseq.ends_with("CANCEL")) {
            return Duty::None;
        }
        branch.heard |= code < 200;
        if code >= 200 && branch.final_code.is_none() {
            branch.final_code = Some(code);
        }
        // Later, the client transaction may have ended.
        let is_in_time = branch.sent_at.is_some_and(|sent| at < sent + 32_000);
        if !self.is_invite || !is_in_time || branch.failed {
            return Duty::None;
        }
        match branch.final_code {
            Some(300..) if code >= 300 => Duty::Acknowledge,
            Some(200..) if (200..300).contains(&code) => Duty::PassOn,
            Some(_) | None => Duty::None,
        }
    }

    /// Number of final responses to the caller, without retransmissions.
    pub(super) fn finals(&self) -> usize {
        self.finals.len()
    }

    pub(super) fn ended(&mut self, end: End) {
        assert_eq!(self.end, None, "it ends once");
        self.end = Some(end);
    }

    /// Nothing happens any more.
    pub(super) fn check(&self) {
        let end = self.end.expect("it has ended");
        assert_eq!(end.code, self.finals.first().copied());
        if self.is_invite {
            assert!(!self.finals.is_empty(), "an INVITE is answered");
        }
        let tried = self
            .branches
            .iter()
            .filter(|branch| branch.sent_at.is_some());
        assert!(usize::from(end.attempts) >= tried.count());
    }
}
