//! Neither a rejection nor a relay nor a response on its way back allocates anything, once the buffers have their size.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod edge;

use edge::{CALLER, Edge, NEXT_HOP, request, response, tcp, udp};
use portcullis_sip::{
    Arrival, DialogSeal, Framing, Index, Limits, Message, OverloadAlgorithm, OverloadControl,
    Received, Target, scan,
};
use portcullis_testkit::allocations::{CountingAllocator, during};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// How often `work` allocates when it runs for the second time.
fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    during(work)
}

struct Worker {
    edge: Edge,
    index: Index,
    out: Vec<u8>,
}

impl Worker {
    fn new() -> Self {
        let mut edge = Edge::new(|routes| {
            routes
                .hop("tcp", "sip:gw.example.net;transport=tcp")
                .unwrap();
            routes.domain("gw.example.net").unwrap();
            routes.domain("192.0.2.64/26").unwrap();
        });
        edge.proxy = edge.proxy.with_overload_control(OverloadControl {
            next_hops: None,
            clients: Some(OverloadAlgorithm::Loss),
        });
        edge.proxy.ask_clients(20, 0, 1);
        Self {
            edge,
            index: Index::default(),
            out: Vec::new(),
        }
    }

    fn receive(&mut self, text: &str, arrival: &Arrival) -> Received {
        let scanned = scan(
            text.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut self.index,
        );
        let message = Message::new(text.as_bytes(), &self.index);
        self.edge
            .proxy
            .receive(message, scanned, arrival, &mut self.out)
    }

    fn reject(&mut self, text: &str, arrival: &Arrival) {
        assert_eq!(self.receive(text, arrival), Received::Judge);
        let message = Message::new(text.as_bytes(), &self.index);
        let headers = [("X-Why", "not in the table")];
        let sent = self.edge.proxy.reject(
            message,
            arrival,
            401,
            "Address not authorised",
            &headers,
            &mut self.out,
        );
        assert!(sent.is_some());
    }

    fn relay(&mut self, text: &str, arrival: &Arrival, target: Target<'_>) {
        assert_eq!(self.receive(text, arrival), Received::Judge);
        let message = Message::new(text.as_bytes(), &self.index);
        self.edge
            .proxy
            .relay(message, arrival, &self.edge.routes, target, &mut self.out)
            .unwrap();
    }
}

#[test]
fn the_counter_counts() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1_u8; 100]))) > 0);
}

#[test]
fn a_rejection_allocates_nothing() {
    let mut worker = Worker::new();
    for via in [
        "192.0.2.10:40000;",
        "pc.example;rport;",
        "[2001:db8::9]:7;received=1.2.3.4;",
    ] {
        let text =
            request("INVITE", "sip:grace@example.com", &[]).replace("192.0.2.10:40000;", via);
        assert_eq!(
            allocations(|| worker.reject(&text, &udp(CALLER))),
            0,
            "{via}"
        );
        assert_eq!(
            allocations(|| worker.reject(&text, &tcp("[2001:db8::9]:7", 5))),
            0,
            "{via}"
        );
    }
}

#[test]
fn an_answer_of_our_own_allocates_nothing() {
    let mut worker = Worker::new();
    for text in [
        request("OPTIONS", "sip:edge.example.com", &[]),
        request("INVITE", "sips:grace@example.com", &[]),
        request("INVITE", "sip:g@h", &["Proxy-Require: a, b"]),
        request("INVITE", "sip:g@h", &["CSeq: 8 INVITE"]),
        request("INVITE", "sip:g@h", &[]).replace("UDP 192", "UDP ::192"),
    ] {
        let work = || {
            assert!(matches!(
                worker.receive(&text, &udp(CALLER)),
                Received::Reply(_)
            ));
        };
        assert_eq!(allocations(work), 0, "{text}");
    }
}

#[test]
fn a_relay_allocates_nothing() {
    let mut worker = Worker::new();
    for (uri, lines) in [
        ("sip:grace@example.com", &[][..]),
        (
            "sip:grace@gw.example.net",
            &["Route: <sip:edge.example.com;lr>"],
        ),
        (
            "sip:grace@pc.example",
            &["Route: <sip:198.51.100.1;lr;r2=on>, <sip:192.0.2.70;lr>"],
        ),
        ("sip:grace@pc.example", &["Route: <sip:192.0.2.70>"]),
        (
            "sip:198.51.100.1;lr",
            &[
                "Route: <sip:192.0.2.70;lr>",
                "Route: <sip:grace@pc.example>",
            ],
        ),
        ("tel:+49", &[]),
    ] {
        let text = request("INVITE", uri, lines).replace("192.0.2.10:40000;", "pc.example;rport;");
        for target in [Target::AsRouted, Target::NextHop("tcp")] {
            assert_eq!(
                allocations(|| worker.relay(&text, &udp(CALLER), target)),
                0,
                "{uri} {lines:?}"
            );
            assert_eq!(
                allocations(|| worker.relay(&text, &tcp(CALLER, 5), target)),
                0,
                "{uri} {lines:?}"
            );
        }
    }
}

#[test]
fn a_request_that_follows_its_dialog_allocates_nothing() {
    let mut worker = Worker::new();
    for arrival in [udp(CALLER), tcp(CALLER, 5)] {
        let invite = request("INVITE", "sip:grace@example.com", &[]);
        let target = Target::NextHop("tcp");
        let (_, sent) = worker.edge.relay_to(&invite, &arrival, target).unwrap();
        let routes = edge::headers(&sent, "Record-Route");
        let routes: Vec<_> = routes
            .iter()
            .rev()
            .map(|route| format!("Route: {route}"))
            .collect();
        let routes: Vec<_> = routes.iter().map(String::as_str).collect();
        let bye = request("BYE", "sip:grace@203.0.113.7", &routes).replace(
            "To: <sip:grace@example.com>",
            "To: <sip:grace@example.com>;tag=g",
        );
        let work = || {
            assert_eq!(worker.receive(&bye, &arrival), Received::Judge);
            let message = Message::new(bye.as_bytes(), &worker.index);
            let DialogSeal::Valid(dialog) = worker.edge.proxy.dialog(message) else {
                panic!("{bye}");
            };
            worker.relay(&bye, &arrival, Target::Within(dialog));
        };
        assert_eq!(allocations(work), 0);
    }
}

#[test]
fn a_response_on_its_way_back_allocates_nothing() {
    let mut worker = Worker::new();
    for arrival in [udp(CALLER), tcp(CALLER, 5)] {
        let asking = request("INVITE", "sip:g@h", &[]).replace(";branch", ";oc;branch");
        let (_, sent) = worker.edge.relay(&asking, &arrival).unwrap();
        let text = response(200, &sent);
        let work = || {
            assert!(matches!(
                worker.receive(&text, &udp(NEXT_HOP)),
                Received::Forward(_)
            ));
        };
        assert_eq!(allocations(work), 0);
        let told = String::from_utf8_lossy(&worker.out);
        assert!(told.contains(";oc=20;"), "{told}");
    }
}
