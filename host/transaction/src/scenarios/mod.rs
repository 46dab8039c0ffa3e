//! Calls from beginning to end, with exact times.

mod addresses;
mod basics;
mod cancel;
mod limits;
mod non_invite;
mod targets;

use portcullis_sip::Transport;

use crate::config::Config;
use crate::outbox::What;
use crate::plan::{MOST_TARGETS, Plan};
use crate::slab::Id;
use crate::testing::{CALLER, Host, Sent, Told, code, from_callee, from_caller, request, response};
use crate::transactions::Receipt;

/// One call through a host.
struct Call {
    host: Host,
    id: Id,
    request: String,
    /// The requests to the targets, by number.
    out: Vec<String>,
}

impl Call {
    /// A request, with this plan, and what was sent at once.
    fn start(method: &str, plan: Plan<usize>) -> (Self, Vec<Sent>) {
        Self::with(Config::default(), method, "", plan)
    }

    fn with(config: Config, method: &str, more: &str, plan: Plan<usize>) -> (Self, Vec<Sent>) {
        let mut host = Host::new(config);
        let request = request(method, 1, more);
        let id = host.begin(request.as_bytes(), &from_caller(Transport::Udp));
        host.core.plan(host.now, id, plan).unwrap();
        let mut call = Self {
            host,
            id,
            request,
            out: vec![String::new(); MOST_TARGETS],
        };
        let (sent, _) = call.go_to(0);
        (call, sent)
    }

    fn go_to(&mut self, millis: u64) -> (Vec<Sent>, Vec<Told>) {
        let (sent, told) = self.host.go_to(millis);
        for sent in &sent {
            if let (What::Request, Some(branch)) = (sent.what, sent.branch) {
                self.out[usize::from(branch)] = sent.text.clone();
            }
        }
        (sent, told)
    }

    /// Everything until this time.
    fn sent_until(&mut self, millis: u64) -> Vec<Sent> {
        self.go_to(millis).0
    }

    /// The target with this branch number, which is its name in these tests too, answers.
    fn answer(&mut self, branch: usize, code: u16, more: &str) -> Vec<Sent> {
        let text = response(code, &self.out[branch], &format!("callee{branch}"), more);
        let receipt = self.host.receive(text.as_bytes(), &from_callee(branch));
        assert_eq!(receipt, Receipt::Handled);
        self.sent_until(self.host.now.as_millis())
    }

    /// The target answers the CANCEL and then, as a callee does, the INVITE.
    fn answer_cancel(&mut self, branch: usize, cancel: &str) -> Vec<Sent> {
        let text = response(200, cancel, "x", "");
        self.host.receive(text.as_bytes(), &from_callee(branch));
        self.answer(branch, 487, "")
    }

    /// The caller sends the same request, or another one of the transaction.
    fn caller(&mut self, method: &str) -> (Receipt, Vec<Sent>) {
        let text = self.request.replace("INVITE", method);
        let receipt = self
            .host
            .receive(text.as_bytes(), &from_caller(Transport::Udp));
        (receipt, self.sent_until(self.host.now.as_millis()))
    }

    /// Nothing is left after this time, and nothing is sent until then.
    fn is_gone_after(&mut self, millis: u64) {
        let before = self.go_to(millis - 1).0;
        assert_eq!(before, []);
        assert!(!self.host.core.is_empty(), "it is gone too early");
        self.go_to(millis);
        assert!(self.host.core.is_empty(), "{:?}", self.host.core);
        assert_eq!(self.host.core.usage().bytes, 0);
        assert_eq!(self.host.core.next_deadline(), None);
    }
}

/// The code of each response to the caller, with its time.
fn responses(sent: &[Sent]) -> Vec<(u64, u16)> {
    let to_caller = sent
        .iter()
        .filter(|sent| sent.to == CALLER.parse().unwrap());
    to_caller.map(|sent| (sent.at, code(&sent.text))).collect()
}

/// The times of messages of a kind.
fn times(sent: &[Sent], what: What) -> Vec<u64> {
    let found = sent.iter().filter(|sent| sent.what == what);
    found.map(|sent| sent.at).collect()
}

fn one(sent: &[Sent], what: What) -> &Sent {
    let mut found = sent.iter().filter(|sent| sent.what == what);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {what:?} in {sent:#?}"));
    assert_eq!(found.next(), None);
    first
}
