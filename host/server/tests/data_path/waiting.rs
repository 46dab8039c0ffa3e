//! Requests of slow tenants, which let those of others go first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_dataplane::pipeline::{Handled, Pipeline};
use portcullis_dataplane::tenants::Pressure;
use portcullis_sip::{Arrival, Framing, Transport};

use crate::support::peer::{Tcp, Udp, header, request_with, start_line};
use crate::support::policies::guest;
use crate::support::{Host, Parts, Setup, block_on, until};

const SLOW: &str = "sip:x@slow.example";
const QUICK: &str = "sip:x@quick.example";

/// One tenant takes 20 ms for each request and fails. The other has no policy: unoptimised code may make any call a slow one.
fn parts() -> Parts {
    let parts = Setup::new()
        .config(
            "[policy]\ndeadline = \"20ms\"\n[tenants.quick]\nuri-domains = [\"quick.example\"]\n\
             [tenants.slow]\nuri-domains = [\"slow.example\"]\nbreaker-failures = 0\n",
        )
        .parts();
    parts.seat("slow", &guest("loop-with-body"));
    parts
}

/// How a message of a caller comes.
fn arrival(parts: &Parts, transport: Transport) -> Arrival {
    Arrival {
        source: "127.0.0.1:40000".parse().unwrap(),
        local: parts.addr(transport),
        transport,
        connection: None,
    }
}

/// Sends a request; its Call-ID.
fn send(caller: &Udp, host: &Host, uri: &str) -> String {
    let bytes = request_with("MESSAGE", uri, "UDP", caller.addr(), "", b"body");
    caller.send(&bytes, host.udp());
    header(&bytes, "Call-ID").unwrap().to_owned()
}

/// The Call-IDs of so many answers, as they come.
fn receive(caller: &Udp, count: usize) -> Vec<String> {
    let answers = (0..count).map(|_| caller.receive().0);
    answers
        .map(|answer| header(&answer, "Call-ID").unwrap().to_owned())
        .collect()
}

#[test]
fn the_quick_go_first_and_nobody_overtakes_itself() {
    let host = parts().start();
    let caller = Udp::towards(host.udp());
    until("what came last is not answered last", || {
        let mut sent: Vec<_> = (0..4).map(|_| send(&caller, &host, SLOW)).collect();
        sent.push(send(&caller, &host, QUICK));
        let answered = receive(&caller, sent.len());
        let quick = sent.pop().unwrap();
        let slow: Vec<_> = answered.iter().filter(|id| **id != quick).collect();
        assert_eq!(slow, sent.iter().collect::<Vec<_>>());
        answered.last() != Some(&quick)
    });
    assert!(caller.is_empty());
}

#[test]
fn a_stream_of_slow_requests_holds_up_nobody_else() {
    const SLOW_ONES: usize = 6;
    let host = parts().start();
    let mut stream = Tcp::connect(host.tcp());
    let caller = Udp::towards(host.udp());
    let tenants = host.shared.tenants.load_full();
    let slow = tenants
        .all()
        .find(|tenant| &*tenant.name == "slow")
        .unwrap();
    let decided = || slow.counters[0].requests.value();
    until("somebody else is answered in the middle of it", || {
        let before = decided();
        let received = host.count(|c| c.tcp.received.value());
        let slow = || request_with("MESSAGE", SLOW, "TCP", stream.addr(), "", b"body");
        let sent: Vec<_> = (0..SLOW_ONES).map(|_| slow()).collect();
        stream.send(&sent.concat());
        until("the first is there", || {
            host.count(|c| c.tcp.received.value()) > received
        });
        send(&caller, &host, QUICK);
        receive(&caller, 1);
        let is_early = decided() < before + SLOW_ONES as u64;
        for sent in &sent {
            let answer = stream.receive();
            assert_eq!(start_line(&answer), "SIP/2.0 503 Policy Failure");
            assert_eq!(header(&answer, "Call-ID"), header(sent, "Call-ID"));
        }
        is_early
    });
}

#[test]
fn who_waits_is_answered_before_the_end() {
    const SENT: usize = 5;
    let host = parts().start();
    let caller = Udp::towards(host.udp());
    // From the first one on they wait.
    send(&caller, &host, SLOW);
    receive(&caller, 1);
    for _ in 0..SENT {
        send(&caller, &host, SLOW);
    }
    until("all have come in", || {
        host.count(|c| c.udp.received.value()) == 1 + SENT as u64
    });
    host.stop();
    receive(&caller, SENT);
    assert!(caller.is_empty());
}

/// A drain counts transactions afterwards.
#[test]
fn nobody_waits_after_a_worker_has_settled() {
    const SENT: u64 = 5;
    let host = parts().start();
    let caller = Udp::towards(host.udp());
    send(&caller, &host, SLOW);
    receive(&caller, 1);
    for _ in 0..SENT {
        send(&caller, &host, SLOW);
    }
    until("all have come in", || {
        host.count(|c| c.udp.received.value()) == 1 + SENT
    });
    block_on(host.shared.orders.settle());
    assert_eq!(host.count(|c| c.udp.sent.value()), 1 + SENT);
}

#[test]
fn only_who_is_slow_beside_others_waits() {
    let parts = parts();
    let mut pipeline = Pipeline::new(Arc::clone(&parts.shared), 0);
    let arrival = arrival(&parts, Transport::Udp);
    let mut out = Vec::new();
    let mut ask = |uri| {
        let bytes = request_with("MESSAGE", uri, "UDP", arrival.source, "", b"body");
        let handled = pipeline.handle(bytes, Framing::Datagram, &arrival, &mut out);
        match handled.1 {
            Handled::Done(_) | Handled::Relayed => None,
            Handled::HandOver(_) => panic!("there is one worker"),
            Handled::Waits(request) => {
                pipeline.decide(*request, &mut out).unwrap();
                Some(start_line(&out).to_owned())
            }
        }
    };
    assert_eq!(ask(SLOW), None, "nobody knows yet");
    for _ in 0..3 {
        assert_eq!(ask(SLOW).as_deref(), Some("SIP/2.0 503 Policy Failure"));
        assert_eq!(ask(QUICK), None);
        assert_eq!(ask("sip:x@other.example"), None);
    }
    let tenants = parts.shared.tenants.load();
    let postponed = |name| {
        let mut all = tenants.all();
        let tenant = all.find(|one| &*one.name == name).unwrap();
        tenant.counters[0].postponed.value()
    };
    assert_eq!((postponed("slow"), postponed("quick")), (3, 0));
}

#[test]
fn a_message_of_a_stream_that_was_handed_over_stays_behind_a_deferred_one() {
    let parts = parts();
    let mut pipeline = Pipeline::new(Arc::clone(&parts.shared), 0);
    let arrival = arrival(&parts, Transport::Tcp);
    let mut out = Vec::new();
    let mut take = || {
        let bytes = request_with("MESSAGE", SLOW, "TCP", arrival.source, "", b"body");
        let framing = Framing::Stream;
        let (_, handled) = pipeline.handle_handed_over(bytes, framing, &arrival, &mut out);
        matches!(handled, Handled::Waits(_))
    };
    assert!(!take(), "nobody knows yet");
    assert!(take(), "the tenant is slow");
    let tenants = parts.shared.tenants.load();
    let slow = tenants.all().find(|one| &*one.name == "slow").unwrap();
    let (now, pressure) = (Instant::now(), Pressure::new(Instant::now()));
    for _ in 0..1_000 {
        slow.budget.charge(0, now, Duration::ZERO, &pressure, None);
    }
    assert!(!slow.budget.is_slow(0));
    assert!(take(), "the one before still waits");
}

#[test]
fn where_there_are_no_tenants_nobody_waits() {
    let parts = Setup::new()
        .config("[policy]\ndeadline = \"5ms\"\n")
        .parts();
    parts.seat("default", &guest("loop-with-body"));
    let host = parts.start();
    let caller = Udp::towards(host.udp());
    for _ in 0..3 {
        send(&caller, &host, SLOW);
    }
    receive(&caller, 3);
    let tenants = host.shared.tenants.load();
    assert_eq!(tenants.default.counters[0].requests.value(), 3);
    assert_eq!(tenants.default.counters[0].postponed.value(), 0);
}
