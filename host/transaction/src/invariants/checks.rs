//! What the host may send.

use portcullis_sip::{Framing, Index, Limits, Message, StartLine, scan};

use crate::event::End;
use crate::outbox::{Outgoing, What};
use crate::slab::Id;

/// The history of all transactions.
#[derive(Debug, Default)]
pub(super) struct Checks(Vec<History>);

#[derive(Debug)]
struct History {
    id: Id,
    is_invite: bool,
    /// The first final code that its sender got.
    code: Option<u16>,
    /// A failure was sent, after which none may follow.
    has_failed: bool,
    end: Option<End>,
    /// The addresses that got the request and a CANCEL, as bits: 16 targets have at most 64.
    requests: u64,
    cancels: u64,
    /// How many addresses were replaced by another one of their target.
    failovers: u32,
}

/// The header lines of this host may take a message beyond the limits for received ones.
const NONE: Limits = Limits {
    message_bytes: usize::MAX,
    header_lines: usize::MAX,
    header_bytes: usize::MAX,
    start_line_bytes: usize::MAX,
};

impl Checks {
    pub(super) fn begun(&mut self, id: Id, message: Message<'_>) {
        let StartLine::Request { method, .. } = message.start_line() else {
            panic!("a response begins no transaction");
        };
        assert!(self.0.iter().all(|history| history.id != id), "ids differ");
        self.0.push(History {
            id,
            is_invite: method == b"INVITE",
            code: None,
            has_failed: false,
            end: None,
            requests: 0,
            cancels: 0,
            failovers: 0,
        });
    }

    /// Another address of a target takes the place of one that has failed.
    pub(super) fn failed_over(&mut self, id: Id) {
        self.history(id).failovers += 1;
    }

    pub(super) fn ended(&mut self, id: Id, end: End) {
        let history = self.history(id);
        assert_eq!(history.end, None, "it ends once");
        history.end = Some(end);
    }

    pub(super) fn sent(&mut self, outgoing: &Outgoing<'_>, index: &mut Index) {
        let scanned = scan(outgoing.bytes, Framing::Datagram, &NONE, index);
        assert_eq!(scanned, Ok(()), "{outgoing:?}");
        let message = Message::new(outgoing.bytes, index);
        match message.start_line() {
            StartLine::Request { method, .. } => self.request(outgoing, method),
            StartLine::Response { code, .. } => {
                let cseq = message.cseq().expect("it was scanned");
                self.response(outgoing, code, cseq.method);
            }
        }
    }

    pub(super) fn all_have_ended(&self) {
        for history in &self.0 {
            let end = history.end.expect("it has ended");
            assert_eq!(end.code, history.code, "{history:?}");
            let addresses = u32::from(end.attempts) + history.failovers;
            assert!(addresses >= history.requests.count_ones(), "{history:?}");
        }
    }

    fn request(&mut self, outgoing: &Outgoing<'_>, method: &[u8]) {
        let number = outgoing.branch.expect("a request goes to a target");
        let bit = 1 << number;
        // Of an ended transaction, only the ACK to a failure is repeated.
        let Some(id) = outgoing.id else {
            assert_eq!((outgoing.what, method), (What::Ack, &b"ACK"[..]));
            return;
        };
        let history = self.history(id);
        match outgoing.what {
            What::Request => {
                assert!(!matches!(method, b"ACK" | b"CANCEL"));
                assert_eq!(history.requests & bit, 0, "one request for each target");
                history.requests |= bit;
            }
            What::RequestRetransmission => {}
            What::Ack => assert!(method == b"ACK" && history.is_invite),
            What::Cancel => {
                assert!(method == b"CANCEL" && history.is_invite);
                assert_eq!(history.cancels & bit, 0, "one CANCEL for each target");
                history.cancels |= bit;
            }
            What::CancelRetransmission => assert_ne!(history.cancels & bit, 0),
            What::Response
            | What::ResponseRetransmission
            | What::ResponseUnasked
            | What::Reply
            | What::ReplyRetransmission
            | What::ReplyUnasked => panic!("{outgoing:?} is a request"),
        }
        assert_ne!(history.requests & bit, 0, "the request goes first");
    }

    fn response(&mut self, outgoing: &Outgoing<'_>, code: u16, method: &[u8]) {
        assert_eq!(outgoing.branch, None, "a response goes to the sender");
        let is_again = match outgoing.what {
            What::Response | What::Reply => false,
            What::ResponseRetransmission
            | What::ResponseUnasked
            | What::ReplyRetransmission
            | What::ReplyUnasked => true,
            What::Request
            | What::RequestRetransmission
            | What::Ack
            | What::Cancel
            | What::CancelRetransmission => panic!("{outgoing:?} is a response"),
        };
        if method == b"CANCEL" {
            assert_eq!((outgoing.what, code), (What::Reply, 200));
            return;
        }
        let Some(id) = outgoing.id else {
            assert!(is_again, "{outgoing:?} after the end");
            return;
        };
        let history = self.history(id);
        if is_again {
            return;
        }
        let is_call = history.is_invite && (200..300).contains(&code);
        if !is_call {
            assert!(history.code.is_none(), "{code} after {history:?}");
        }
        if !history.is_invite {
            assert!(code == 100 || code >= 200, "RFC 4320 §4.1: {code}");
            assert_ne!(code, 408, "RFC 4320 §4.2");
        }
        if code >= 300 {
            assert!(!history.has_failed, "{code} after {history:?}");
            history.has_failed = true;
        }
        if code >= 200 && history.code.is_none() {
            history.code = Some(code);
        }
    }

    fn history(&mut self, id: Id) -> &mut History {
        let history = self.0.iter_mut().find(|history| history.id == id);
        history.expect("the transaction has begun")
    }
}
