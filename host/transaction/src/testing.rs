//! A host for tests: transactions with a proxy, whose targets are next hops with numbers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_sip::{
    Arrival, ConnectionId, Forward, Framing, Index, Limits, Local, Message, Proxy, ProxyConfig,
    Routes, RoutesBuilder, Target as SipTarget, Transaction, Transport, scan,
};

use crate::config::Config;
use crate::event::{End, Event};
use crate::outbox::{Outbox, What};
use crate::plan::{Plan, StatusSet, Target};
use crate::slab::Id;
use crate::time::Time;
use crate::transactions::{Receipt, Transactions};

/// The address of the host.
pub(crate) const HOST: &str = "198.51.100.1:5060";
/// The address of the caller.
pub(crate) const CALLER: &str = "192.0.2.10:40000";
/// Number of the first target over TCP; those below have UDP.
pub(crate) const FIRST_TCP: usize = 8;

/// Transactions, and what is needed to drive them.
pub(crate) struct Host {
    pub(crate) core: Transactions<usize>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) now: Time,
    /// Number of the addresses of each target.
    pub(crate) addresses: usize,
    routes: Routes,
    index: Index,
    out: Vec<u8>,
    pub(crate) outbox: Outbox,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// In milliseconds.
    pub(crate) at: u64,
    pub(crate) what: What,
    pub(crate) branch: Option<u8>,
    pub(crate) to: SocketAddr,
    pub(crate) text: String,
}

/// What happened besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Ask,
    Outcome(usize, u16),
    Failover(u16, u16),
    Ended(End),
}

impl Host {
    pub(crate) fn new(config: Config) -> Self {
        let local = |transport| Local {
            transport,
            addr: HOST.parse().unwrap(),
            advertised: None,
        };
        let proxy = Arc::new(Proxy::new(ProxyConfig {
            locals: vec![local(Transport::Udp), local(Transport::Tcp)],
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
        for number in 0..2 * FIRST_TCP {
            let transport = if number < FIRST_TCP { "udp" } else { "tcp" };
            let uri = format!("sip:{};transport={transport}", callee(number));
            routes.hop(&number.to_string(), &uri).unwrap();
        }
        Self {
            core: Transactions::new(Arc::clone(&proxy), config),
            proxy,
            now: Time::ZERO,
            addresses: 1,
            routes: routes.build(&HashMap::new()),
            index: Index::default(),
            out: Vec::new(),
            outbox: Outbox::default(),
        }
    }

    /// Receives a message.
    pub(crate) fn receive(&mut self, bytes: &[u8], arrival: &Arrival) -> Receipt {
        scan(
            bytes,
            Framing::Datagram,
            &Limits::default(),
            &mut self.index,
        )
        .unwrap();
        let message = Message::new(bytes, &self.index);
        self.core.receive(self.now, message, arrival)
    }

    /// Receives a new request and makes a transaction of it.
    pub(crate) fn begin(&mut self, bytes: &[u8], arrival: &Arrival) -> Id {
        let Receipt::New(name) = self.receive(bytes, arrival) else {
            panic!("not a new request");
        };
        let message = Message::new(bytes, &self.index);
        let back = self.proxy.way_up(message, arrival, &self.routes).unwrap();
        self.core
            .begin(self.now, name, message, arrival, back, false)
            .unwrap()
    }

    /// Writes the request for a target and sends it.
    pub(crate) fn forward(&mut self, id: Id, branch: u8) -> bool {
        let Some(job) = self.core.job(id, branch) else {
            return false;
        };
        scan(
            job.request,
            Framing::Datagram,
            &Limits::default(),
            &mut self.index,
        )
        .unwrap();
        let message = Message::new(job.request, &self.index);
        let name = job.target.to_string();
        let to = self
            .proxy
            .forward(
                message,
                job.arrival,
                &self.routes,
                &Forward::new(SipTarget::NextHop(&name), job.branch, job.breadth),
                &mut self.out,
            )
            .unwrap();
        let tried = self.core.tried(id, branch).count();
        let mut to = to.to;
        to.addr.set_port(to.addr.port() + tried as u16);
        let followed = (tried + 1 < self.addresses).then_some(Duration::from_secs(4));
        self.core
            .forward_first(self.now, id, branch, &self.out, to, followed)
    }

    /// Everything that was sent and told; targets get their requests at once.
    pub(crate) fn drain(&mut self) -> (Vec<Sent>, Vec<Told>) {
        let (mut sent, mut told) = (Vec::new(), Vec::new());
        loop {
            self.core.take_sends(&mut self.outbox);
            for outgoing in self.outbox.iter() {
                sent.push(Sent {
                    at: self.now.as_millis(),
                    what: outgoing.what,
                    branch: outgoing.branch,
                    to: outgoing.to.addr,
                    text: String::from_utf8(outgoing.bytes.to_vec()).unwrap(),
                });
            }
            match self.core.poll_event() {
                None => return (sent, told),
                Some(Event::Start { id, branch, .. }) => assert!(self.forward(id, branch)),
                Some(Event::Ask { .. }) => told.push(Told::Ask),
                Some(Event::Failover { from, attempt, .. }) => {
                    told.push(Told::Failover(from.addr.port(), attempt.code));
                }
                Some(Event::Outcome {
                    target, attempt, ..
                }) => {
                    told.push(Told::Outcome(target, attempt.code));
                }
                Some(Event::Ended { end, .. }) => told.push(Told::Ended(end)),
            }
        }
    }

    /// Lets time go on to this many milliseconds, and returns what happened until then.
    pub(crate) fn go_to(&mut self, millis: u64) -> (Vec<Sent>, Vec<Told>) {
        let end = Time::from_millis(millis);
        let (mut sent, mut told) = self.drain();
        while let Some(next) = self.core.next_deadline().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.core.expire(self.now, 100);
            let (more_sent, more_told) = self.drain();
            sent.extend(more_sent);
            told.extend(more_told);
        }
        self.now = end.max(self.now);
        (sent, told)
    }
}

/// The address of a target.
pub(crate) fn callee(number: usize) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, number as u8], 5060))
}

/// How messages of the caller come.
pub(crate) fn from_caller(transport: Transport) -> Arrival {
    Arrival {
        source: CALLER.parse().unwrap(),
        local: HOST.parse().unwrap(),
        transport,
        connection: transport.is_reliable().then_some(ConnectionId(1)),
    }
}

/// How messages of a target come.
pub(crate) fn from_callee(number: usize) -> Arrival {
    let is_stream = number >= FIRST_TCP;
    Arrival {
        source: callee(number),
        local: HOST.parse().unwrap(),
        transport: if is_stream {
            Transport::Tcp
        } else {
            Transport::Udp
        },
        connection: is_stream.then_some(ConnectionId(100 + number as u64)),
    }
}

/// Settings for a few transactions, whose tables are made quickly.
pub(crate) fn small() -> Config {
    Config {
        most: 100,
        absorbers: 100,
        ..Config::default()
    }
}

/// The names of this many transactions.
pub(crate) fn transactions(count: u64) -> Vec<Transaction> {
    let mut host = Host::new(Config::default());
    let names = (0..count).map(|call| {
        let text = request("INVITE", call, "");
        let Receipt::New(name) = host.receive(text.as_bytes(), &from_caller(Transport::Udp)) else {
            panic!("{call} is not new");
        };
        name.transaction
    });
    names.collect()
}

/// A request of the caller. `call` distinguishes calls.
pub(crate) fn request(method: &str, call: u64, more: &str) -> String {
    let transport = "UDP";
    format!(
        "{method} sip:callee@example.com SIP/2.0\r\nVia: SIP/2.0/{transport} {CALLER};branch=z9hG4bKcall{call};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:caller@example.net>;tag=from{call}\r\nTo: <sip:callee@example.com>\r\n\
         Call-ID: call{call}\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// A response of a target to a request as it was sent.
pub(crate) fn response(code: u16, sent: &str, tag: &str, more: &str) -> String {
    use std::fmt::Write;
    let mut text = format!("SIP/2.0 {code} Test\r\n");
    for line in sent
        .split("\r\n")
        .skip(1)
        .take_while(|line| !line.is_empty())
    {
        let name = line.split(':').next().unwrap_or_default();
        let is_copied = matches!(
            name,
            "Via" | "From" | "To" | "Call-ID" | "CSeq" | "Record-Route"
        );
        if !is_copied {
            continue;
        }
        text.push_str(line);
        if name == "To" && !line.contains(";tag=") && code != 100 {
            write!(text, ";tag={tag}").unwrap();
        }
        text.push_str("\r\n");
    }
    write!(text, "{more}Content-Length: 0\r\n\r\n").unwrap();
    text
}

/// The code of a response, or 0 for a request.
pub(crate) fn code(text: &str) -> u16 {
    let rest = text.strip_prefix("SIP/2.0 ").unwrap_or_default();
    rest.get(..3)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

/// The value of a header field.
pub(crate) fn header<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    lines.find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// A plan with these targets, each of its own rank, of which those but the last have four seconds.
pub(crate) fn serial(targets: &[usize]) -> Plan<usize> {
    let count = targets.len();
    let targets = targets.iter().enumerate().map(|(at, &to)| Target {
        rank: at as u8,
        no_answer: (at + 1 < count).then_some(Duration::from_secs(4)),
        ..Target::new(to)
    });
    Plan {
        targets: targets.collect(),
        retry_on: StatusSet::default(),
        ..Plan::new(Vec::new())
    }
}

/// A plan with these targets at once.
pub(crate) fn parallel(targets: &[usize]) -> Plan<usize> {
    Plan {
        targets: targets.iter().map(|&to| Target::new(to)).collect(),
        retry_on: StatusSet::EMPTY,
        ..Plan::new(Vec::new())
    }
}
