//! Inputs in any order, as no correct caller and no honest peer makes them: nothing panics, and nothing is left.

use proptest::collection::vec;
use proptest::prelude::*;

use portcullis_sip::Transport;

use crate::event::{Event, Failure};
use crate::plan::{Plan, StatusSet, Step, Target};
use crate::slab::Id;
use crate::testing::{FIRST_TCP, Host, from_callee, from_caller, request, response, small};
use crate::time::Time;
use crate::transactions::Receipt;

/// An input.
#[derive(Clone, Debug)]
enum Input {
    /// A request of a call, by its method; a new one becomes a transaction.
    Request(u64, &'static str),
    /// A response to a request that was sent, to its CANCEL or to another method.
    Response(prop::sample::Index, u16, &'static str),
    Plan(prop::sample::Index, Vec<u8>, bool),
    Again(prop::sample::Index, Vec<u8>),
    Best(prop::sample::Index),
    Answer(prop::sample::Index, u16),
    Forward(prop::sample::Index, u8),
    Fail(prop::sample::Index, u8, bool),
    Wait(u32),
    Expire(u8),
}

fn input() -> impl Strategy<Value = Input> {
    let index = any::<prop::sample::Index>;
    let method = prop::sample::select(vec!["INVITE", "INVITE", "MESSAGE", "CANCEL", "ACK"]);
    let answered = prop::sample::select(vec!["INVITE", "INVITE", "MESSAGE", "CANCEL"]);
    let code = || prop_oneof![Just(100_u16), Just(180), Just(200), Just(486), 100..700_u16];
    let targets = || vec(0..2 * FIRST_TCP as u8, 0..6);
    prop_oneof![
        (0..3_u64, method).prop_map(|(call, method)| Input::Request(call, method)),
        (index(), code(), answered)
            .prop_map(|(at, code, method)| Input::Response(at, code, method)),
        (index(), targets(), any::<bool>()).prop_map(|(at, to, asks)| Input::Plan(at, to, asks)),
        (index(), targets()).prop_map(|(at, to)| Input::Again(at, to)),
        index().prop_map(Input::Best),
        (index(), any::<u16>()).prop_map(|(at, code)| Input::Answer(at, code)),
        (index(), 0..20_u8).prop_map(|(at, branch)| Input::Forward(at, branch)),
        (index(), 0..20_u8, any::<bool>())
            .prop_map(|(at, to, is_late)| Input::Fail(at, to, is_late)),
        prop_oneof![0..600_u32, 0..40_000_u32, 0..700_000_u32].prop_map(Input::Wait),
        (0..4_u8).prop_map(Input::Expire),
    ]
}

/// A host that forgets no id.
struct Misused {
    host: Host,
    ids: Vec<Id>,
    /// Requests as they were sent to targets.
    sent: Vec<String>,
    is_forwarding: bool,
}

impl Misused {
    fn apply(&mut self, input: Input) {
        let now = self.host.now;
        match input {
            Input::Request(call, method) => self.request(call, method),
            Input::Response(at, code, method) => self.response(at, code, method),
            Input::Plan(at, targets, ask_on_failure) => {
                let plan = Plan {
                    targets: ranked(&targets),
                    retry_on: StatusSet::default(),
                    ask_on_failure,
                };
                let _may_fail = self.id(at).map(|id| self.host.core.plan(now, id, plan));
            }
            Input::Again(at, targets) => {
                let step = Step::Again(ranked(&targets));
                let _may_fail = self.id(at).map(|id| self.host.core.step(now, id, step));
            }
            Input::Best(at) => {
                let id = self.id(at);
                let _may_fail = id.map(|id| self.host.core.step(now, id, Step::Best));
            }
            Input::Answer(at, code) => {
                if let Some(id) = self.id(at) {
                    self.host.core.answer::<&str>(now, id, code, "", &[]);
                }
            }
            Input::Forward(at, branch) => {
                if let Some(id) = self.id(at) {
                    self.host.forward(id, branch);
                }
            }
            Input::Fail(at, branch, is_late) => {
                let failure = if is_late {
                    Failure::Unreachable
                } else {
                    Failure::Refused(403)
                };
                if let Some(id) = self.id(at) {
                    self.host.core.fail(now, id, branch, failure);
                }
            }
            Input::Wait(millis) => {
                self.host.now = Time::from_millis(now.as_millis() + u64::from(millis));
            }
            Input::Expire(at_most) => {
                self.host.core.expire(now, at_most.into());
            }
        }
        self.drain();
    }

    fn request(&mut self, call: u64, method: &str) {
        let text = request(method, call, "");
        let caller = from_caller(Transport::Udp);
        match self.host.receive(text.as_bytes(), &caller) {
            Receipt::New(_) => self.ids.push(self.host.begin(text.as_bytes(), &caller)),
            Receipt::Handled
            | Receipt::Stateless
            | Receipt::Stray
            | Receipt::Conflict
            | Receipt::Unreadable => {}
        }
    }

    fn response(&mut self, at: prop::sample::Index, code: u16, method: &str) {
        if self.sent.is_empty() {
            return;
        }
        let sent = at.get(&self.sent);
        let cseq = sent
            .split("CSeq: 1 ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next());
        let own = format!("CSeq: 1 {}", cseq.unwrap_or_default());
        let sent = sent.replace(&own, &format!("CSeq: 1 {method}"));
        let text = response(code, &sent, "x", "");
        self.host.receive(text.as_bytes(), &from_callee(0));
    }

    fn id(&self, at: prop::sample::Index) -> Option<Id> {
        (!self.ids.is_empty()).then(|| *at.get(&self.ids))
    }

    fn drain(&mut self) {
        self.host.core.take_sends(&mut self.host.outbox);
        for outgoing in self.host.outbox.iter() {
            if outgoing.branch.is_some() {
                let text = String::from_utf8(outgoing.bytes.to_vec()).expect("ASCII");
                self.sent.push(text);
            }
        }
        while let Some(event) = self.host.core.poll_event() {
            match event {
                Event::Start { id, branch, .. } if self.is_forwarding => {
                    self.host.forward(id, branch);
                }
                Event::Start { .. }
                | Event::Ask { .. }
                | Event::Outcome { .. }
                | Event::Ended { .. } => {}
            }
        }
    }

    /// Lets all time pass.
    fn end(mut self) {
        for _ in 0..10_000 {
            self.drain();
            let Some(next) = self.host.core.next_deadline() else {
                break;
            };
            self.host.now = next.max(self.host.now);
            self.host.core.expire(self.host.now, 100);
        }
        assert!(self.host.core.is_empty(), "{:?}", self.host.core);
        assert_eq!(self.host.core.usage().bytes, 0);
    }
}

fn ranked(targets: &[u8]) -> Vec<Target<usize>> {
    let targets = targets.iter().map(|&to| Target {
        rank: to % 3,
        ..Target::new(usize::from(to))
    });
    targets.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inputs_in_any_order_leave_nothing(
        inputs in vec(input(), 0..60),
        is_forwarding: bool,
    ) {
        let mut misused = Misused {
            host: Host::new(small()),
            ids: Vec::new(),
            sent: Vec::new(),
            is_forwarding,
        };
        for input in inputs {
            misused.apply(input);
        }
        misused.end();
    }
}
