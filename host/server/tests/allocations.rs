//! The way of a datagram to its 401 allocates nothing but what the call of the policy itself needs.
//!
//! A program of its own with one test, because its allocator counts for the whole process.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_dataplane::pipeline::{Handled, Pipeline};
use portcullis_policy::Evaluator;
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Transport};
use support::peer::{Udp, request, start_line};
use support::policies::{guest, relaying};
use support::{Parts, Setup};

/// Calls that are counted together.
const ROUNDS: u64 = 200;

/// The system's allocator, counting what is asked of it.
struct Counting;

static ALL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static MINE: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    ALL.fetch_add(1, Ordering::Relaxed);
    MINE.set(MINE.get() + 1);
}

/// What this thread has asked for while `work` ran so many times, after it had run a few times.
fn mine(mut work: impl FnMut()) -> u64 {
    (0..10).for_each(|_| work());
    let before = MINE.get();
    (0..ROUNDS).for_each(|_| work());
    MINE.get() - before
}

/// What all other threads have.
fn others(mut work: impl FnMut()) -> u64 {
    let theirs = || ALL.load(Ordering::SeqCst) - MINE.get();
    (0..10).for_each(|_| work());
    let before = theirs();
    (0..ROUNDS).for_each(|_| work());
    theirs() - before
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
