//! Calls allocate nothing once the memory has its size, but the list of targets that the caller of the crate brings.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_sip::{
    Arrival, Forward, Framing, Index, Limits, Local, Message, Proxy, ProxyConfig, Routes,
    RoutesBuilder, Target as SipTarget, Transport, scan,
};
use portcullis_testkit::allocations::{CountingAllocator, during};
use portcullis_transaction::{
    Config, Event, Outbox, Plan, Receipt, StatusSet, Target, Time, Transactions, What,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A host with one next hop.
struct Host {
    core: Transactions<&'static str>,
    proxy: Arc<Proxy>,
    routes: Routes,
    index: Index,
    out: Vec<u8>,
    now: Time,
    /// The last request that went to the next hop.
    sent: Vec<u8>,
    outbox: Outbox,
}

impl Host {
    fn new() -> Self {
        let proxy = Arc::new(Proxy::new(ProxyConfig {
            locals: vec![Local {
                transport: Transport::Udp,
                addr: address("198.51.100.1:5060"),
                advertised: None,
            }],
            aliases: Vec::new(),
            key: [7; 16],
            earlier_keys: Vec::new(),
            dialog_minutes: 60,
            record_route: true,
            server_header: None,
            force_rport: Vec::new(),
            clients: portcullis_sip::Clients::default(),
        }));
        let mut routes = RoutesBuilder::new();
        routes.hop("hop", "sip:203.0.113.1:5060").unwrap();
        Self {
            core: Transactions::new(Arc::clone(&proxy), Config::default()),
            proxy,
            routes: routes.build(&HashMap::new()),
            index: Index::default(),
            out: Vec::with_capacity(4_096),
            now: Time::ZERO,
            sent: Vec::with_capacity(4_096),
            outbox: Outbox::default(),
        }
    }

    fn request(&mut self, text: &str) {
        let arrival = arrival("192.0.2.10:5060");
        self.scan(text.as_bytes());
        let message = Message::new(text.as_bytes(), &self.index);
        let Receipt::New(name) = self.core.receive(self.now, message, &arrival) else {
            return self.drain();
        };
        let back = self.proxy.way_up(message, &arrival, &self.routes).unwrap();
        let id = self
            .core
            .begin(self.now, name, message, &arrival, back, false)
            .unwrap();
        let plan = Plan {
            targets: vec![Target::new("hop")],
            retry_on: StatusSet::default(),
            ..Plan::new(Vec::new())
        };
        self.core.plan(self.now, id, plan).unwrap();
        self.drain();
    }

    fn response(&mut self, text: &str) {
        self.scan(text.as_bytes());
        let message = Message::new(text.as_bytes(), &self.index);
        self.core
            .receive(self.now, message, &arrival("203.0.113.1:5060"));
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            self.core.take_sends(&mut self.outbox);
            for outgoing in self.outbox.iter() {
                if outgoing.what == What::Request {
                    self.sent.clear();
                    self.sent.extend_from_slice(outgoing.bytes);
                }
            }
            let Some(event) = self.core.poll_event() else {
                return;
            };
            let Event::Start { id, branch, .. } = event else {
                continue;
            };
            let job = self.core.job(id, branch).unwrap();
            let scanned = scan(
                job.request,
                Framing::Datagram,
                &Limits::default(),
                &mut self.index,
            );
            scanned.unwrap();
            let message = Message::new(job.request, &self.index);
            let target = SipTarget::NextHop(job.target);
            let to = self.proxy.forward(
                message,
                job.arrival,
                &self.routes,
                &Forward::new(target, job.branch, job.breadth),
                &mut self.out,
            );
            self.core
                .forward(self.now, id, branch, &self.out, to.unwrap().to);
        }
    }

    fn scan(&mut self, bytes: &[u8]) {
        scan(
            bytes,
            Framing::Datagram,
            &Limits::default(),
            &mut self.index,
        )
        .unwrap();
    }

    /// One call, or another transaction, and all of its timers. Returns how often it allocated.
    fn run(&mut self, number: u64, method: &str, codes: &[u16]) -> u64 {
        let request = request(method, number);
        let ack = request.replace("INVITE", "ACK");
        let mut allocations = during(|| self.request(&request));
        for &code in codes {
            let response = response(code, std::str::from_utf8(&self.sent).unwrap());
            allocations += during(|| self.response(&response));
        }
        allocations += during(|| self.request(&ack));
        while let Some(next) = self.core.next_deadline() {
            self.now = next.max(self.now);
            allocations += during(|| {
                self.core.expire(self.now, 100);
                self.drain();
            });
        }
        assert!(self.core.is_empty());
        allocations
    }
}

fn request(method: &str, number: u64) -> String {
    format!(
        "{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bK{number:08}\r\nMax-Forwards: 70\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: {number:08}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn response(code: u16, sent: &str) -> String {
    let is_copied = |line: &&str| {
        let names = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        names.iter().any(|name| line.starts_with(name))
    };
    let lines: Vec<_> = sent.split("\r\n").filter(is_copied).collect();
    format!(
        "SIP/2.0 {code} X\r\n{}\r\nContent-Length: 0\r\n\r\n",
        lines.join("\r\n")
    )
}

fn arrival(source: &str) -> Arrival {
    Arrival {
        source: address(source),
        local: address("198.51.100.1:5060"),
        transport: Transport::Udp,
        connection: None,
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_transaction_allocates_only_what_is_named() {
    let mut host = Host::new();
    for (method, codes, most) in [
        ("INVITE", &[100, 180, 200, 200][..], 1),
        ("MESSAGE", &[200], 1),
        ("MESSAGE", &[], 1),
        ("INVITE", &[100, 180, 486, 486], 1),
        ("INVITE", &[], 1),
    ] {
        for number in 0..3 {
            host.run(number, method, codes);
        }
        let allocations = host.run(3, method, codes);
        assert!(allocations <= most, "{allocations} for {method} {codes:?}");
    }
}
