//! The way of a datagram to its 401 allocates nothing but what the call of the policy itself needs, and neither does that of a call of seven
//! messages, but for the list of targets of each of its two transactions.
//!
//! A program of its own with one test, because its allocator counts for the whole process.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod support;

use std::sync::Arc;

use portcullis_dataplane::pipeline::{Handled, Pipeline};
use portcullis_policy::Evaluator;
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Transport};
use portcullis_testkit::allocations::{self, CountingAllocator};
use portcullis_transaction::Outbox;
use support::peer::{Udp, header, ok_to, request, start_line};
use support::policies::{guest, relaying};
use support::{Parts, Setup};

/// Calls that are counted together.
const ROUNDS: u64 = 200;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What this thread has asked for while `work` ran so many times, after it had run a few times.
fn mine(mut work: impl FnMut()) -> u64 {
    (0..10).for_each(|_| work());
    allocations::during(|| (0..ROUNDS).for_each(|_| work()))
}

/// What all other threads have.
fn others(mut work: impl FnMut()) -> u64 {
    (0..10).for_each(|_| work());
    let before = allocations::of_other_threads();
    (0..ROUNDS).for_each(|_| work());
    allocations::of_other_threads() - before
}

#[test]
fn a_datagram_on_its_way_allocates_nothing_outside_the_sandbox() {
    let one_each = || drop(std::hint::black_box(Box::new(1)));
    assert_eq!(mine(one_each), ROUNDS, "the allocator counts");

    let page = || Setup::new().policy(guest("page"));
    let of_reject = of_the_call(&page().parts());
    assert_eq!(of_the_pipeline(&page().parts()), of_reject);
    assert_eq!(of_a_worker(page()), of_reject);

    let callee = Udp::new("127.0.0.1:0");
    let next_hop = format!("[relay]\nnext-hop = \"sip:{}\"\n", callee.addr());
    let next_hop = format!("{next_hop}mode = \"stateless\"\n");
    let relay = || Setup::new().config(&next_hop).policy(relaying());
    let of_relay = of_the_call(&relay().parts());
    assert_eq!(of_the_pipeline(&relay().parts()), of_relay);

    // Ended transactions are forgotten soon, so that none of their memory is new.
    let next_hop = format!("[relay]\nnext-hop = \"sip:{}\"\n", callee.addr());
    let stateful = format!("{next_hop}[transactions]\nlingering = 8\n");
    let parts = Setup::new().config(&stateful).policy(relaying()).parts();
    let lists_of_targets = 2 * ROUNDS;
    assert_eq!(of_calls(&parts, &callee), of_relay + lists_of_targets);
}

/// Calls of seven messages, relayed in transactions.
fn of_calls(parts: &Parts, callee: &Udp) -> u64 {
    let mut call = Calls {
        pipeline: Pipeline::new(Arc::clone(&parts.shared), 0),
        caller: arrival(parts),
        callee: Arrival {
            source: callee.addr(),
            ..arrival(parts)
        },
        sends: Outbox::default(),
        out: Vec::new(),
        counted: 0,
    };
    (0..40).for_each(|_| call.run());
    call.counted = 0;
    (0..ROUNDS).for_each(|_| call.run());
    call.counted
}

struct Calls {
    pipeline: Pipeline,
    caller: Arrival,
    callee: Arrival,
    sends: Outbox,
    out: Vec<u8>,
    /// What the pipeline has asked for.
    counted: u64,
}

impl Calls {
    /// INVITE, 100, 180, 200, ACK, BYE, 200.
    fn run(&mut self) {
        let Self { caller, callee, .. } = *self;
        let invite = invite();
        let relayed = self.handle(invite.clone(), caller);
        let ok = ok_to(&relayed);
        let routes = header(&relayed, "Record-Route").unwrap().to_owned();
        for code in ["100 Trying", "180 Ringing"] {
            let text = String::from_utf8_lossy(&ok).replace("200 OK", code);
            self.handle(text.into_bytes(), callee);
        }
        assert_eq!(start_line(&self.handle(ok, callee)), "SIP/2.0 200 OK");
        for (method, number) in [("ACK", 1), ("BYE", 2)] {
            let text = String::from_utf8_lossy(&invite)
                .replace("CSeq: 1 INVITE", &format!("CSeq: {number} {method}"))
                .replace("INVITE", method)
                .replace("branch=z9hG4bK", &format!("branch=z9hG4bK{method}"))
                .replace(
                    "To: <sip:bob@example.com>",
                    &format!("Route: {routes}\r\nTo: <sip:bob@example.com>;tag=b"),
                );
            let relayed = self.handle(text.into_bytes(), caller);
            assert!(relayed.starts_with(method.as_bytes()));
            if method == "BYE" {
                let ok = self.handle(ok_to(&relayed), callee);
                assert_eq!(start_line(&ok), "SIP/2.0 200 OK");
            }
        }
    }

    /// Returns the last message that is sent.
    fn handle(&mut self, bytes: Vec<u8>, arrival: Arrival) -> Vec<u8> {
        let before = allocations::of_this_thread();
        self.pipeline.refresh();
        let (bytes, handled) =
            self.pipeline
                .handle(bytes, Framing::Datagram, &arrival, &mut self.out);
        let has_sent = matches!(handled, Handled::Done(Some(_)));
        let has_more = self.pipeline.take_sends(&mut self.sends);
        self.counted += allocations::of_this_thread() - before;
        assert!(
            matches!(handled, Handled::Done(_) | Handled::Relayed),
            "requests of this policy do not wait"
        );
        drop(bytes);
        match self.sends.iter().last() {
            Some(last) if has_more => last.bytes.to_vec(),
            _ if has_sent => self.out.clone(),
            _ => Vec::new(),
        }
    }
}

/// The policy's call alone.
fn of_the_call(parts: &Parts) -> u64 {
    let shared = &parts.shared;
    let generation = shared.tenants.load().default.seat.slot.current().unwrap();
    let addresses = shared.addresses.current();
    let scope = Default::default();
    let mut evaluator = Evaluator::new();
    let mut request = Request::read(invite(), Framing::Datagram, arrival(parts));
    mine(|| {
        let asked = request.take().unwrap();
        let (back, verdict) = evaluator.decide(&generation.policy, &scope, &addresses, asked);
        verdict.unwrap();
        request = Some(back);
    })
}

/// The same within the pipeline.
fn of_the_pipeline(parts: &Parts) -> u64 {
    let mut pipeline = Pipeline::new(Arc::clone(&parts.shared), 0);
    let arrival = arrival(parts);
    let (mut bytes, mut out) = (invite(), Vec::new());
    mine(|| {
        pipeline.refresh();
        let buffer = std::mem::take(&mut bytes);
        let (buffer, handled) = pipeline.handle(buffer, Framing::Datagram, &arrival, &mut out);
        assert!(matches!(handled, Handled::Done(Some(_))));
        bytes = buffer;
    })
}

/// The same in a worker, with its sockets.
fn of_a_worker(setup: Setup) -> u64 {
    let host = setup.start();
    let caller = Udp::new("127.0.0.1:0");
    let invite = request("INVITE", "sip:bob@example.com", "UDP", caller.addr());
    let counted = others(|| {
        caller.send(&invite, host.udp());
        let (answer, _) = caller.receive();
        assert_eq!(start_line(&answer), "SIP/2.0 401 Address not authorised");
    });
    host.stop();
    counted
}

fn invite() -> Vec<u8> {
    let caller = "127.0.0.1:40000".parse().unwrap();
    request("INVITE", "sip:bob@example.com", "UDP", caller)
}

fn arrival(parts: &Parts) -> Arrival {
    Arrival {
        source: "127.0.0.1:40000".parse().unwrap(),
        local: parts.addr(Transport::Udp),
        transport: Transport::Udp,
        connection: None,
    }
}
