//! Properties of every sequence of inputs, as assertions that a property test and a fuzz target share.

mod checks;
mod input;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portcullis_sip::{
    Arrival, ConnectionId, Forward, Framing, Index, Limits, Local, Message, Proxy, ProxyConfig,
    Received, Routes, RoutesBuilder, StartLine, Target as SipTarget, Transport, scan,
};

use crate::config::{Config, Trying};
use crate::event::{Event, Failure};
use crate::outbox::{Outbox, What};
use crate::plan::{Plan, StatusSet, Step, Target};
use crate::slab::Id;
use crate::time::Time;
use crate::transactions::{Receipt, Transactions};
use checks::Checks;
use input::Input;

/// Reads `bytes` as messages, decisions, errors and times, in any order and as no correct caller and no honest peer makes them, and lets all
/// time pass at the end.
///
/// # Panics
/// If a property does not hold: an INVITE gets one failure at most, another request one answer and never a 408 (RFC 4320); a target gets one
/// request and one CANCEL; each message can be read; each transaction has a timer and ends once; the limits hold; nothing is left.
pub fn inputs(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut run = Run::new(&mut input);
    while let Some(kind) = input.byte() {
        run.apply(kind, &mut input);
        run.drain();
    }
    run.end();
}

const HOST: &str = "198.51.100.1:5060";
const CALLERS: [&str; 2] = ["192.0.2.10:40000", "192.0.2.11:40000"];
const CALLEE: &str = "203.0.113.1:5060";

/// Requests to targets that are remembered.
const MOST_SENT: usize = 32;

struct Run {
    core: Transactions<u8>,
    config: Config,
    now: Time,
    ids: Vec<Id>,
    /// Requests, ACKs and CANCELs as they were sent to targets.
    sent: Vec<Vec<u8>>,
    checks: Checks,
    forwards_at_once: bool,
    index: Index,
    out: Vec<u8>,
    outbox: Outbox,
}

/// The rules of the host, and its next hops `0` (UDP) and `1` (TCP).
fn world() -> &'static (Arc<Proxy>, Routes) {
    static WORLD: OnceLock<(Arc<Proxy>, Routes)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let local = |transport| Local {
            transport,
            addr: address(HOST),
            advertised: None,
        };
        let proxy = Proxy::new(ProxyConfig {
            locals: vec![local(Transport::Udp), local(Transport::Tcp)],
            aliases: Vec::new(),
            key: [7; 16],
            earlier_keys: Vec::new(),
            dialog_minutes: 60,
            record_route: true,
            server_header: None,
            force_rport: Vec::new(),
            clients: portcullis_sip::Clients::default(),
        });
        let mut routes = RoutesBuilder::new();
        for (name, transport) in [("0", "udp"), ("1", "tcp")] {
            let uri = format!("sip:{CALLEE};transport={transport}");
            routes.hop(name, &uri).expect("a next hop");
        }
        (Arc::new(proxy), routes.build(&HashMap::new()))
    })
}

fn address(text: &str) -> std::net::SocketAddr {
    text.parse().expect("an address")
}

impl Run {
    fn new(input: &mut Input<'_>) -> Self {
        let flags = input.number();
        let config = Config {
            trying: match flags % 3 {
                0 => Trying::Now,
                1 => Trying::After(Duration::from_millis(150)),
                _ => Trying::Never,
            },
            parallel: 1 + (flags >> 2) % 4,
            asks: (flags >> 4) % 4,
            most: 3,
            absorbers: 3,
            bytes: 8_192,
            ..Config::default()
        };
        Self {
            core: Transactions::new(Arc::clone(&world().0), config),
            config,
            now: Time::ZERO,
            ids: Vec::new(),
            sent: Vec::new(),
            checks: Checks::default(),
            forwards_at_once: flags & 0x80 == 0,
            index: Index::default(),
            out: Vec::new(),
            outbox: Outbox::default(),
        }
    }

    fn apply(&mut self, kind: u8, input: &mut Input<'_>) {
        let now = self.now;
        match kind % 12 {
            0 | 1 => self.request(input),
            2 | 3 => self.response(input),
            4 => {
                let bytes = input.piece();
                let arrival = arrival(address(CALLEE), input.number());
                self.receive(bytes, &arrival, false);
            }
            5 => {
                let flags = input.number();
                let plan = Plan {
                    targets: targets(input),
                    retry_on: match flags & 1 {
                        0 => StatusSet::default(),
                        _ => StatusSet::EMPTY.with_class(3).with_class(4).with_class(5),
                    },
                    asks: if flags & 2 != 0 { u8::MAX } else { 0 },
                    ..Plan::new(Vec::new())
                };
                let _may_fail = self.id(input).map(|id| self.core.plan(now, id, plan));
            }
            6 => {
                let step = match input.number() {
                    0 => Step::Best,
                    _ => Step::again(targets(input)),
                };
                let _may_fail = self.id(input).map(|id| self.core.step(now, id, step));
            }
            7 => {
                let code = input.pair();
                if let Some(id) = self.id(input) {
                    self.core.answer::<&str>(now, id, code, "", &[]);
                }
            }
            8 => {
                let branch = input.number() % 20;
                if let Some(id) = self.id(input) {
                    self.forward(id, branch);
                }
            }
            9 => self.fail(input),
            10 => {
                let (length, unit) = (input.pair(), input.number() % 4);
                let millis = u64::from(length) * [1, 10, 100, 1_000][usize::from(unit)];
                self.now = Time::from_millis(now.as_millis() + millis % 700_000);
            }
            _ => {
                self.core.expire(now, usize::from(input.number() % 8));
            }
        }
    }

    /// A request of a caller: of one of four calls, with a few differences.
    fn request(&mut self, input: &mut Input<'_>) {
        let (call, flags) = (input.number() % 4, input.number());
        let methods = [
            "INVITE", "INVITE", "INVITE", "CANCEL", "ACK", "MESSAGE", "BYE", "PRACK",
        ];
        let method = methods[usize::from(flags % 8)];
        let source = CALLERS[usize::from(flags >> 3 & 1)];
        let sent_by = CALLERS[usize::from(flags >> 4 & 1)];
        let tag = if flags & 0x20 == 0 { "" } else { ";tag=to" };
        let breadth = match flags >> 6 {
            0 | 1 => "",
            2 => "Max-Breadth: 2\r\n",
            _ => "Max-Breadth: 0\r\n",
        };
        let text = format!(
            "{method} sip:callee@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {sent_by};branch=z9hG4bKcall{call};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:caller@example.net>;tag=from\r\nTo: <sip:callee@example.com>{tag}\r\n\
             Call-ID: {call}\r\nCSeq: 1 {method}\r\n{breadth}Content-Length: 0\r\n\r\n"
        );
        let arrival = arrival(address(source), input.number());
        self.receive(text.as_bytes(), &arrival, !tag.is_empty());
    }

    /// A response to what was sent to a target: with this code, perhaps for another method, or without the Vias behind ours.
    fn response(&mut self, input: &mut Input<'_>) {
        let (at, code, flags) = (input.number(), input.number(), input.number());
        if self.sent.is_empty() {
            return;
        }
        let sent = &self.sent[usize::from(at) % self.sent.len()];
        let codes = [
            100, 180, 183, 200, 202, 302, 401, 407, 408, 486, 487, 500, 503, 603,
        ];
        let code = codes[usize::from(code) % codes.len()];
        let mut text = format!("SIP/2.0 {code} X\r\n").into_bytes();
        let mut vias = 0;
        for line in sent.split(|byte| *byte == b'\n').skip(1) {
            let is = |name: &[u8]| line.starts_with(name);
            vias += usize::from(is(b"Via:"));
            let is_copied = match vias {
                0 | 1 => is(b"Via:"),
                _ => is(b"Via:") && flags & 1 == 0,
            };
            if is_copied || [&b"From:"[..], b"To:", b"Call-ID:"].into_iter().any(is) {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            if is(b"CSeq:") {
                let other = ["INVITE", "MESSAGE", "CANCEL", "ACK"];
                let other = format!("CSeq: 1 {}\r", other[usize::from(flags >> 2 & 3)]);
                text.extend_from_slice(if flags & 2 == 0 {
                    line
                } else {
                    other.as_bytes()
                });
                text.push(b'\n');
            }
        }
        let challenge = format!(
            "WWW-Authenticate: Digest realm=\"{}\"\r\n",
            "x".repeat(flags.into())
        );
        text.extend_from_slice(if code == 401 {
            challenge.as_bytes()
        } else {
            b""
        });
        text.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        let arrival = arrival(address(CALLEE), flags >> 4);
        self.receive(&text, &arrival, false);
    }

    /// Receives a message as a host does.
    fn receive(&mut self, bytes: &[u8], arrival: &Arrival, is_in_dialog: bool) {
        let (proxy, routes) = world();
        let limits = Limits::default();
        let scanned = scan(bytes, Framing::Datagram, &limits, &mut self.index);
        let message = Message::new(bytes, &self.index);
        let is_valid = match message.start_line() {
            StartLine::Response { .. } => scanned.is_ok(),
            StartLine::Request { .. } => {
                let received = proxy.receive(message, scanned, arrival, &mut self.out);
                matches!(received, Received::Judge | Received::Absorbed)
            }
        };
        if !is_valid {
            return;
        }
        let Receipt::New(name) = self.core.receive(self.now, message, arrival) else {
            return;
        };
        let Some(back) = proxy.way_up(message, arrival, routes) else {
            return;
        };
        let begun = self
            .core
            .begin(self.now, name, message, arrival, back, is_in_dialog);
        if let Ok(id) = begun {
            self.checks.begun(id, message);
            self.ids.push(id);
        }
    }

    fn forward(&mut self, id: Id, branch: u8) {
        let Some(job) = self.core.job(id, branch) else {
            return;
        };
        // It was received, so it can be read; shortened, it may lack what a target needs.
        let limits = Limits::default();
        let scanned = scan(job.request, Framing::Datagram, &limits, &mut self.index);
        assert_eq!(scanned, Ok(()));
        let message = Message::new(job.request, &self.index);
        let job_target = *job.target;
        let name = (job_target % 2).to_string();
        let (proxy, routes) = world();
        let forward = Forward::new(SipTarget::NextHop(&name), job.branch, job.breadth);
        let written = proxy.forward(message, job.arrival, routes, &forward, &mut self.out);
        match written {
            Ok(forwarded) => {
                let to = forwarded.to;
                let followed = (job_target % 3 == 0).then_some(Duration::from_secs(4));
                let (now, out) = (self.now, &self.out);
                self.core.forward_first(now, id, branch, out, to, followed);
            }
            Err(error) => {
                let failure = Failure::Refused(error.code());
                self.core.fail(self.now, id, branch, failure);
            }
        }
    }

    /// An error about a target, or about what an ICMP message quotes.
    fn fail(&mut self, input: &mut Input<'_>) {
        let (flags, at) = (input.number(), input.number());
        let failure = match flags % 3 {
            0 => Failure::Unreachable,
            1 => Failure::Unresolved,
            _ => Failure::Refused(403),
        };
        if flags & 0x80 != 0 {
            if let Some(id) = self.id(input) {
                self.core.fail(self.now, id, at % 20, failure);
            }
            return;
        }
        if self.sent.is_empty() {
            return;
        }
        let sent = &self.sent[usize::from(at) % self.sent.len()];
        let quoted = &sent[..sent.len().min(usize::from(input.pair()))];
        let limits = Limits::default();
        let _may_be_cut = scan(quoted, Framing::Datagram, &limits, &mut self.index);
        let message = Message::new(quoted, &self.index);
        if let Some(branch) = world().0.branch_of_request(message) {
            self.core.fail_branch(self.now, branch, failure);
        }
    }

    /// An id of any transaction that there was.
    fn id(&self, input: &mut Input<'_>) -> Option<Id> {
        let at = usize::from(input.number());
        (!self.ids.is_empty()).then(|| self.ids[at % self.ids.len()])
    }

    /// Handles the events, checks what is sent, and checks the tables.
    fn drain(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Start { id, branch } if self.forwards_at_once => self.forward(id, branch),
                Event::Start { .. } | Event::Ask { .. } => {}
                Event::Outcome { attempt, .. } => {
                    assert!((200..700).contains(&attempt.code), "{attempt:?}");
                }
                Event::Failover { id, attempt, .. } => {
                    assert!((200..700).contains(&attempt.code), "{attempt:?}");
                    self.checks.failed_over(id);
                }
                Event::Ended { id, end } => {
                    self.checks.ended(id, end);
                    assert!(self.core.job(id, 0).is_none(), "its id names nothing");
                }
            }
        }
        self.core.take_sends(&mut self.outbox);
        for outgoing in self.outbox.iter() {
            self.checks.sent(&outgoing, &mut self.index);
            if matches!(outgoing.what, What::Request | What::Cancel | What::Ack) {
                self.sent.push(outgoing.bytes.to_vec());
            }
        }
        let excess = self.sent.len().saturating_sub(MOST_SENT);
        self.sent.drain(..excess);
        self.check_tables();
    }

    fn check_tables(&self) {
        let usage = self.core.usage();
        assert!(usage.active <= 2 * self.config.most, "{usage:?}");
        assert!(usage.absorbers <= self.config.absorbers, "{usage:?}");
        if self.core.is_empty() {
            assert_eq!(usage.bytes, 0, "nothing is stored");
        }
        let next = self.core.next_deadline();
        assert_eq!(next.is_some(), !self.core.is_empty(), "{usage:?}");
        // A tick of the wheel has ten milliseconds.
        let tick = Duration::from_millis(10);
        let first = self.core.first_deadline();
        let first = first.map(|first| first.max(self.now) + tick);
        assert!(first.is_none() || next <= first, "{next:?} after {first:?}");
    }

    /// Lets all time pass.
    fn end(mut self) {
        for _ in 0..10_000 {
            let Some(next) = self.core.next_deadline() else {
                break;
            };
            self.now = next.max(self.now);
            self.core.expire(self.now, 100);
            self.drain();
        }
        assert!(self.core.is_empty(), "{:?}", self.core);
        self.checks.all_have_ended();
    }
}

/// A datagram, or a message on a stream.
fn arrival(source: std::net::SocketAddr, flags: u8) -> Arrival {
    let is_stream = flags & 1 != 0;
    Arrival {
        source,
        local: address(HOST),
        transport: if is_stream {
            Transport::Tcp
        } else {
            Transport::Udp
        },
        connection: is_stream.then_some(ConnectionId(1)),
    }
}

/// Up to 18 targets, of which 16 are permitted.
fn targets(input: &mut Input<'_>) -> Vec<Target<u8>> {
    let count = input.number() % 19;
    let target = |_| {
        let flags = input.number();
        Target {
            rank: flags >> 1 & 3,
            no_answer: match flags >> 3 & 3 {
                0 | 1 => None,
                2 => Some(Duration::from_secs(4)),
                _ => Some(Duration::from_millis(100)),
            },
            ring: match flags >> 5 & 1 {
                0 => Duration::from_secs(185),
                _ => Duration::from_secs(10),
            },
            ..Target::new(flags & 1)
        }
    };
    (0..count).map(target).collect()
}
