//! Links that lose datagrams.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use portcullis_testkit::host::Builder;
use portcullis_testkit::lossy::Lossy;
use portcullis_testkit::messages::{Message, Request};
use portcullis_testkit::peer::{Peer, branch_of, method_of};
use portcullis_testkit::{policy, wait};

use crate::site::wait_until_idle;

/// Number of calls without PORTCULLIS_LOSSY_CALLS.
const CALLS: usize = 100;
const LOSS: f64 = 0.3;
const SEED: u64 = 28;
/// Shorter than T1, so that the test is short. The host has its own timers.
const REPEAT: Duration = Duration::from_millis(200);

/// The state of a call at the caller.
enum Call {
    Invited(Request),
    Ended(Request),
    Done,
    /// Each of the seven copies of the INVITE was lost behind the host, which happens to one of 5,000 calls at a loss of 30 %.
    Lost,
}

/// 28: with 30 % loss in each direction on both sides of the host, all calls of which the callee hears complete, and it sees one transaction each.
#[test]
fn calls_survive_loss() {
    let calls = std::env::var("PORTCULLIS_LOSSY_CALLS");
    survive(1, calls.map_or(CALLS, |n| n.parse().expect("a number")));
}

/// 28 and 30.
#[test]
fn calls_survive_loss_with_four_workers() {
    survive(4, CALLS);
}

fn survive(workers: usize, count: usize) {
    let builder = Builder::new().workers(workers);
    let ip = builder.lease().ip(1);
    let callee = Peer::udp(builder.lease().ip(3));
    let down = Lossy::start(ip, callee.local(), LOSS, SEED);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{}\"", down.addr()))
        .start();
    let up = Lossy::start(ip, host.sip(), LOSS, SEED + 10);
    let caller = Peer::udp(host.lease().ip(10));
    let mut calls: HashMap<String, Call> = (0..count)
        .map(|_| caller.request("INVITE", "sip:bob@example.com"))
        .map(|invite| (invite.call_id.clone(), Call::Invited(invite)))
        .collect();
    let (mut heard, mut asked) = (0, 0);
    let mut answered = Answers::default();
    wait::within(wait::PATIENCE, || {
        for call in calls.values() {
            match call {
                Call::Invited(request) | Call::Ended(request) => {
                    caller.send(&request.bytes(), up.addr());
                }
                Call::Done | Call::Lost => {}
            }
        }
        answered.repeat(&callee);
        // The pace of both ends, not a wait for something.
        std::thread::sleep(REPEAT);
        for seen in &callee.seen_after(asked) {
            answered.take(&callee, &seen.message, seen.from);
            asked += 1;
        }
        for seen in &caller.seen_after(heard) {
            heard += 1;
            let id = call_id(&seen.message);
            let call = calls.get_mut(id).expect("a call of this test");
            let next = advance(call, &seen.message, |bytes| caller.send(bytes, up.addr()));
            if let Some(next) = next {
                *call = next;
            }
        }
        let mut states = calls.values();
        let is_done = states.all(|call| matches!(call, Call::Done | Call::Lost));
        is_done.then_some(())
    })
    .expect("all calls complete");
    // A lost answer of the callee to a BYE is repeated by the host.
    wait_until_idle(&host);
    let mut branches: HashMap<String, HashSet<String>> = HashMap::new();
    for seen in callee.seen() {
        if seen.message.first_word() == "INVITE" {
            let of_call = branches.entry(call_id(&seen.message).to_owned());
            of_call
                .or_default()
                .insert(branch_of(&seen.message).to_owned());
        }
    }
    let lost = calls.iter().filter(|(_, call)| matches!(call, Call::Lost));
    let lost: Vec<_> = lost.map(|(id, _)| id).collect();
    assert!(lost.len() <= 1 + count / 200, "{} calls", lost.len());
    for id in &lost {
        assert!(!branches.contains_key(*id), "the callee had an INVITE");
    }
    assert_eq!(branches.len(), count - lost.len());
    assert!(branches.values().all(|branches| branches.len() == 1));
    // A BYE or its answer is lost eleven times for one of 1,600 calls. Then its transaction ends without an answer (RFC 4320 §4.2), and the next
    // copy of the caller begins another one.
    let unanswered = host.metric("portcullis_attempts_total", &["no_answer"]) as usize;
    let repeated = unanswered - lost.len();
    assert!(repeated <= 1 + count / 50, "{repeated} BYEs");
    let begun = host.metric("portcullis_transactions_begun_total", &[]);
    let expected = 2 * count - lost.len() + repeated;
    assert_eq!(begun, expected as f64, "an INVITE and a BYE each");
}

/// What a response changes. An ACK is sent for each 200.
fn advance(call: &Call, answer: &Message, send: impl Fn(&[u8])) -> Option<Call> {
    let (Call::Invited(request) | Call::Ended(request)) = call else {
        return None;
    };
    match (answer.code(), method_of(answer), call) {
        (200, "INVITE", Call::Invited(invite)) => {
            send(&invite.within(answer, "ACK", 0).bytes());
            Some(Call::Ended(invite.within(answer, "BYE", 2)))
        }
        (200, "INVITE", _) => {
            // The ACK has the CSeq of the INVITE.
            let mut invite = request.clone();
            invite.cseq = 1;
            send(&invite.within(answer, "ACK", 0).bytes());
            None
        }
        (200, "BYE", Call::Ended(_)) => Some(Call::Done),
        (408, "INVITE", Call::Invited(invite)) => {
            send(&invite.ack_for(answer).bytes());
            Some(Call::Lost)
        }
        (100..=199, ..) | (200, ..) => None,
        (code, method, _) => panic!("{code} to {method}"),
    }
}

/// The callee: 200 to each request, repeated for INVITE until its ACK comes.
#[derive(Default)]
struct Answers {
    unconfirmed: HashMap<String, (Vec<u8>, std::net::SocketAddr)>,
    confirmed: HashSet<String>,
}

impl Answers {
    fn take(&mut self, callee: &Peer, request: &Message, from: std::net::SocketAddr) {
        let id = call_id(request).to_owned();
        match request.first_word() {
            "INVITE" if !self.confirmed.contains(&id) => {
                let ok = callee.response(request, 200, &[]);
                self.unconfirmed.insert(id, (ok, from));
            }
            "ACK" | "INVITE" => {
                self.unconfirmed.remove(&id);
                self.confirmed.insert(id);
            }
            "BYE" => callee.send(&callee.response(request, 200, &[]), from),
            method => panic!("{method} comes to the callee"),
        }
    }

    fn repeat(&self, callee: &Peer) {
        for (ok, to) in self.unconfirmed.values() {
            callee.send(ok, *to);
        }
    }
}

fn call_id(message: &Message) -> &str {
    message.header("Call-ID").expect("a message has a Call-ID")
}
