//! The rules of a stateless proxy (RFC 3261 §16.3 to §16.6, §16.11, §18.2).
//!
//! [`Proxy::receive`] checks a message first. The policy decides on valid requests; [`Proxy::reject`] or [`Proxy::relay`] carries out its
//! verdict. No state is kept: a retransmission gets the same response or takes the same path as the first transmission, and a response
//! returns by its Vias alone.
//!
//! These functions write into a buffer of the caller, replacing its content, and allocate only to grow it.

mod branch;
mod checks;
mod dialog;
mod drop_reason;
mod flow;
mod flow_timer;
mod hop_by_hop;
mod identity;
mod legs;
mod minute;
mod own_route;
mod ping;
mod plan;
mod relay;
mod relay_error;
mod response;
mod response_changes;
mod route_flow;
mod stateful;
mod stream;
mod target;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::arrival::{Arrival, Destination, Transport};
use crate::key::{Keys, Request};
use crate::name_addr::NameAddr;
use crate::overload::{Asked, Demand, Feedback, OverloadControl};
use crate::reason::standard_reason;
use crate::reply::Reply;
use crate::scan::{Fault, HeaderName, Message, ScanError, StartLine};
use crate::steering::Steering;
use crate::top_via::TopVia;
use branch::{is_same_request, own_tag};
use checks::{Checked, Refusal};
use identity::Identity;
use minute::Minute;

pub use branch::{Branch, Transaction};
pub use dialog::{Dialog, DialogSeal, to_has_tag};
pub use drop_reason::DropReason;
pub use hop_by_hop::{shorten, write_ack, write_cancel};
pub use identity::Local;
pub use ping::Ping;
pub use relay::{DEFAULT_BREADTH, Forward, Forwarded, HeaderChange};
pub use relay_error::{RelayError, RelayErrorKind};
pub use response_changes::{ResponseChanges, write_response};
pub use route_flow::RouteFlow;
pub use stateful::RequestName;
pub use target::Target;

/// The rules of one host, shared by all workers. Only the time changes.
#[derive(Debug)]
pub struct Proxy {
    identity: Identity,
    force_rport: Box<[SocketAddr]>,
    keys: Keys,
    record_route: bool,
    /// How long the seal of a dialog is valid, in minutes.
    dialog_minutes: u32,
    /// How long a flow token is valid, in minutes.
    flow_minutes: u32,
    /// See [`Clients::flow_timer`].
    flow_timer: Option<u32>,
    /// The present [`Minute`].
    minute: AtomicU32,
    /// See [`Proxy::take_minutes_ahead`].
    minutes_ahead: AtomicU32,
    /// The whole Server line, or empty.
    server_line: Box<[u8]>,
    /// On which sides the host takes part in overload control.
    overload_control: OverloadControl,
    /// What clients are asked to keep back.
    asked: Asked,
    /// See [`Proxy::with_tag`].
    tag: Option<NonZeroU32>,
}

/// Configuration of a [`Proxy`].
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The sockets that the host listens on.
    pub locals: Vec<Local>,
    /// Further host names and addresses that mean this host: `HOST` on each of its ports, `HOST:PORT` on this one.
    pub aliases: Vec<String>,
    /// The secret for To-tags, branches and seals. Random for each start, or the same for all hosts that share an address and for all
    /// starts: a response, an ACK or a request within a dialog may reach another process than the one that wrote its values.
    pub key: [u8; 16],
    /// Previous secrets: values written with them are still accepted.
    pub earlier_keys: Vec<[u8; 16]>,
    /// How long the seal of a dialog is valid, in minutes from the request that began it.
    pub dialog_minutes: u32,
    /// Whether to stay in the path of a dialog's later requests (RFC 3261 §16.6(4)).
    pub record_route: bool,
    /// The Server header of replies of our own.
    pub server_header: Option<String>,
    /// The UDP sockets of `locals` for which responses go to the source port of a request, whether or not the request asks for it with
    /// `rport`: Kamailio's `force_rport()`.
    pub force_rport: Vec<SocketAddr>,
    /// The peers that are reached by the flow that they opened.
    pub clients: Clients,
}

/// The peers that are reached by the flow that they opened, and by nothing else (RFC 5626): phones behind NAT, browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// The sockets of `locals` whose peers are clients, except for the hosts of next hops and domains.
    pub sockets: Vec<(Transport, SocketAddr)>,
    /// How long a flow token is valid, in minutes from the request for which it was made.
    pub minutes: u32,
    /// Flow-Timer for clients that registered over TCP or TLS with outbound, in seconds: within this time they send keep-alives (RFC 5626 §5.4).
    /// `None`: they are not told.
    pub flow_timer: Option<u32>,
}

impl Default for Clients {
    /// No sockets, a week, and no Flow-Timer.
    fn default() -> Self {
        Self {
            sockets: Vec::new(),
            minutes: 7 * 24 * 60,
            flow_timer: None,
        }
    }
}

/// How far the clocks of two hosts may differ without a notice, in minutes.
const TOLERATED_MINUTES: u32 = 2;

/// The outcome of the first look at a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A valid request: call the policy, then [`Proxy::reject`] or [`Proxy::relay`] it.
    Judge,
    /// The buffer holds a reply of our own.
    Reply(Destination),
    /// The buffer holds a response on its way back.
    Forward(Destination),
    /// An ACK to a rejection of ours: it ends here.
    Absorbed,
    /// Nothing is sent.
    Drop(DropReason),
}

impl Proxy {
    /// The rules for this configuration.
    pub fn new(config: ProxyConfig) -> Self {
        let server_line = config
            .server_header
            .filter(|server| !server.is_empty())
            .map(|server| {
                let server = server.replace(['\r', '\n'], " ");
                format!("Server: {server}\r\n").into_bytes()
            });
        Self {
            identity: Identity::new(&config.locals, &config.aliases, &config.clients.sockets),
            force_rport: config.force_rport.into(),
            keys: Keys::new(&config.key, &config.earlier_keys),
            record_route: config.record_route,
            dialog_minutes: config.dialog_minutes,
            flow_minutes: config.clients.minutes,
            flow_timer: config.clients.flow_timer,
            minute: AtomicU32::new(0),
            minutes_ahead: AtomicU32::new(0),
            server_line: server_line.unwrap_or_default().into(),
            overload_control: OverloadControl::default(),
            asked: Asked::default(),
            tag: None,
        }
    }

    /// The same, as one of several hosts that pass messages to each other: the Via of each relayed request says with this tag which host has the
    /// transaction.
    #[must_use]
    pub fn with_tag(self, tag: Option<NonZeroU32>) -> Self {
        Self { tag, ..self }
    }

    /// The same, taking part in overload control (RFC 7339).
    #[must_use]
    pub fn with_overload_control(self, overload_control: OverloadControl) -> Self {
        Self {
            overload_control,
            ..self
        }
    }

    /// Sets the time, in seconds since 1970 (UTC), with which seals are stamped and by which they expire. Call it about once a second.
    pub fn set_time(&self, seconds: u64) {
        let minute = u32::try_from(seconds / 60).unwrap_or(u32::MAX);
        self.minute.store(minute, Ordering::Relaxed);
    }

    /// See [`Clients::flow_timer`].
    pub fn flow_timer(&self) -> Option<u32> {
        self.flow_timer
    }

    /// Whether the host listens on a socket with this address, over any transport.
    pub fn has_socket(&self, addr: SocketAddr) -> bool {
        self.identity.has_socket(addr)
    }

    /// Sets the percentage of requests that clients are asked to keep back (RFC 7339), in every response to a client that supports it. 0 while the
    /// host is not overloaded. `rate` is the most requests per second of each client, for those that are asked by rate (RFC 7415). `sequence` is
    /// greater than in the call before: hundred-thousandths of a second.
    pub fn ask_clients(&self, percent: u8, rate: u32, sequence: u64) {
        self.asked.set(percent, rate, sequence);
    }

    /// The percentage of requests that clients are asked to keep back now.
    pub fn asked_loss(&self) -> u8 {
        self.demand().map_or(0, Demand::loss)
    }

    /// Requests per second that each client may send that is asked by rate; 0 while the host is not overloaded, or asks nobody by rate.
    pub fn asked_rate(&self) -> u32 {
        self.demand().map_or(0, Demand::rate)
    }

    /// What becomes of overload control in the Vias of a message that is relayed now.
    pub fn feedback(&self) -> Feedback {
        let OverloadControl { next_hops, clients } = self.overload_control;
        match self.demand() {
            Some(demand) => Feedback::Given(demand),
            None if next_hops.is_some() || clients.is_some() => Feedback::Removed,
            None => Feedback::Untouched,
        }
    }

    /// What this host asks of its clients now.
    fn demand(&self) -> Option<Demand> {
        let algorithm = self.overload_control.clients?;
        self.asked.current(algorithm)
    }

    /// Which worker has the transaction of a message, for the kernel.
    pub fn steering(&self) -> &Steering {
        self.keys.current().steering()
    }

    /// The period of four minutes in which a receipt is given, or a client is pinged.
    fn period(&self) -> u32 {
        self.now().0 / 4
    }

    /// The periods whose receipts are accepted now. Clocks of hosts differ.
    fn accepted_periods(&self) -> [u32; 3] {
        let now = self.period();
        [now, now.saturating_sub(1), now.saturating_add(1)]
    }

    /// The most minutes by which a seal of the fleet was ahead of this host's clock since the last call; 0 if none was by more than two minutes.
    /// Nobody without the key can make such a seal: the clock of another host is ahead, or the clock of this one has been set back.
    pub fn take_minutes_ahead(&self) -> u32 {
        match self.minutes_ahead.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.minutes_ahead.swap(0, Ordering::Relaxed),
        }
    }

    /// The age in minutes of a seal that has been verified. One from the future is as good as new, because clocks of hosts differ; one that is far ahead
    /// is noted for [`Proxy::take_minutes_ahead`].
    fn age(&self, sealed: Minute) -> u32 {
        let now = self.now();
        let ahead = sealed.0.saturating_sub(now.0);
        if ahead > TOLERATED_MINUTES {
            self.minutes_ahead.fetch_max(ahead, Ordering::Relaxed);
        }
        sealed.age(now)
    }

    fn now(&self) -> Minute {
        Minute(self.minute.load(Ordering::Relaxed))
    }

    /// First look at a datagram or a framed stream message, with the result of [`scan`](crate::scan()).
    ///
    /// Checks, in this order: whether a response could be sent; for an ACK, whether it ends here; then the rules of RFC 3261 §16.3. The
    /// host responds itself with 400 (with a reason phrase that names the fault), 414, 416, 420, 483, 505 and 513, and to an OPTIONS to the
    /// host itself; never to an ACK or a response. If the top Via cannot be parsed, the response goes to the source of the request.
    ///
    /// A request URI with scheme `sips` is answered 416 by a host that listens on no TLS socket, because it must not relay such a request
    /// without TLS (RFC 5630 §5.3). A request URI with a scheme other than `sip` is routed by a Route or a next hop.
    pub fn receive(
        &self,
        message: Message<'_>,
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Received {
        out.clear();
        match scanned.err().map(|error| error.fault) {
            Some(Fault::Empty) => return Received::Drop(DropReason::KeepAlive),
            Some(Fault::NotSip) => return Received::Drop(DropReason::NotSip),
            _ if arrival.source.port() == 0 => return Received::Drop(DropReason::SourcePortZero),
            _ => {}
        }
        match message.start_line() {
            StartLine::Request { method, .. } => {
                self.request(message, method, scanned, arrival, out)
            }
            StartLine::Response { .. } => match self.way_back(message, scanned, arrival, out) {
                Ok(destination) => Received::Forward(destination),
                Err(reason) => Received::Drop(reason),
            },
        }
    }

    /// Writes a rejection: the policy's verdict or the code of a [`RelayError`]. An empty `reason` means the standard phrase. Of `headers`,
    /// those that a reply always has (Via, From, To, Call-ID, CSeq, Content-Length, Content-Type) and those whose name is not a token are
    /// left out. A code outside 200 to 699 is not a final response and is sent as 500.
    ///
    /// `None` when nothing may be sent: to an ACK, to a response, and to a request without a valid Via.
    pub fn reject<H: AsRef<str>>(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        code: u16,
        reason: &str,
        headers: &[(H, H)],
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        out.clear();
        let StartLine::Request { method, .. } = message.start_line() else {
            return None;
        };
        if method == b"ACK" || arrival.source.port() == 0 {
            return None;
        }
        let top = self.top_via(message, arrival)?;
        let (code, reason) = match reason {
            _ if !(200..700).contains(&code) => (500, standard_reason(500)),
            "" => (code, standard_reason(code)),
            _ => (code, reason),
        };
        let mut reply = self.reply(message, &top, arrival, code, reason, out);
        for (name, value) in headers {
            reply.header(name.as_ref(), value.as_ref());
        }
        reply.end(&self.server_line);
        Some(top.reply_to(arrival))
    }

    fn request(
        &self,
        message: Message<'_>,
        method: &[u8],
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Received {
        let is_ack = method == b"ACK";
        let Some(top) = self.top_via(message, arrival) else {
            return match message.header(HeaderName::Via) {
                Some(via) if !is_ack => self.refuse_via(message, via.value, scanned, arrival, out),
                _ => Received::Drop(DropReason::UnreadableVia),
            };
        };
        if is_ack && self.is_ack_to_us(message, &top, arrival) {
            return Received::Absorbed;
        }
        match checks::check(&self.identity, message, scanned, &top) {
            Ok(Checked::Judge) => Received::Judge,
            Ok(Checked::OptionsToUs) => self.answer_options(message, &top, arrival, out),
            Err(_) if is_ack => Received::Drop(DropReason::BadAck),
            Err(refusal) => self.refuse(message, &top, arrival, &refusal, out),
        }
    }

    /// The top Via of a request with this arrival; `None` if it cannot be parsed.
    fn top_via<'a>(&self, message: Message<'a>, arrival: &Arrival) -> Option<TopVia<'a>> {
        let is_forced =
            !arrival.transport.is_reliable() && self.force_rport.contains(&arrival.local);
        TopVia::with(message, is_forced, self.demand())
    }

    /// Responds to a request whose top Via cannot be parsed. The response goes to the source address: nothing else is known of the sender.
    fn refuse_via(
        &self,
        message: Message<'_>,
        via: &[u8],
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Received {
        let (code, reason) = match scanned {
            Err(error) => (error.fault.code(), error.fault.reason()),
            Ok(()) => (400, "Bad Via"),
        };
        let call_id = message.header(HeaderName::CallId);
        let call_id = call_id.map_or(&b""[..], |field| field.value);
        let tag = self.keys.current().tag(&Request {
            sent_by: b"",
            cseq: message.cseq().map_or(0, |cseq| cseq.number),
            fields: &[via, call_id],
        });
        Reply::to(message, None, arrival, code, reason, Some(tag), out).end(&self.server_line);
        Received::Reply(Destination {
            transport: arrival.transport,
            addr: arrival.source,
            from: Some(arrival.local),
            connection: arrival.connection,
            name: None,
            is_flow: false,
        })
    }

    fn refuse(
        &self,
        message: Message<'_>,
        top: &TopVia<'_>,
        arrival: &Arrival,
        refusal: &Refusal,
        out: &mut Vec<u8>,
    ) -> Received {
        let mut reply = self.reply(message, top, arrival, refusal.code, refusal.reason, out);
        if let Some(name) = refusal.unsupported {
            reply.unsupported(message, name);
        }
        reply.end(&self.server_line);
        Received::Reply(top.reply_to(arrival))
    }

    /// The 200 to an OPTIONS (RFC 3261 §11.2). A proxy relays every method and every body; Allow lists the standard methods, because
    /// peers treat a method that is not listed as forbidden.
    fn answer_options(
        &self,
        message: Message<'_>,
        top: &TopVia<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Received {
        const METHODS: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, REFER, MESSAGE, INFO, \
                               UPDATE, PRACK, PUBLISH";
        let mut reply = self.reply(message, top, arrival, 200, standard_reason(200), out);
        reply.header("Accept", "*/*");
        reply.header("Allow", METHODS);
        reply.header("Supported", "");
        reply.end(&self.server_line);
        Received::Reply(top.reply_to(arrival))
    }

    fn reply<'o>(
        &self,
        message: Message<'_>,
        top: &TopVia<'_>,
        arrival: &Arrival,
        code: u16,
        reason: &str,
        out: &'o mut Vec<u8>,
    ) -> Reply<'o> {
        let source = arrival.source.ip();
        let period = self.period();
        let tag = own_tag(self.keys.current(), message, top, source, period);
        Reply::to(message, Some(top), arrival, code, reason, Some(tag), out)
    }

    /// Whether To has the tag that our reply to this ACK's INVITE had, from wherever the ACK comes. An INVITE within a dialog already has a To-tag,
    /// which a reply keeps: the ACK to its rejection is not recognised and goes to the policy like any other request.
    fn is_ack_to_us(&self, message: Message<'_>, top: &TopVia<'_>, arrival: &Arrival) -> bool {
        let source = arrival.source.ip();
        to_tag(message).is_some_and(|tag| {
            let mut keys = self.keys.all();
            // The half that is compared depends on no period.
            keys.any(|key| is_same_request(tag, own_tag(key, message, top, source, 0)))
        })
    }

    /// Whether an ACK to a reply of ours ([`Received::Absorbed`]) proves that its source has received the reply: a forged ACK has the tag that was
    /// sent to another address, one that is older than four to eight minutes, or none of ours.
    pub fn proves_receipt(&self, ack: Message<'_>, arrival: &Arrival) -> bool {
        let source = arrival.source.ip();
        let Some((top, tag)) = self.top_via(ack, arrival).zip(to_tag(ack)) else {
            return false;
        };
        let mut keys = self.keys.all();
        let periods = self.accepted_periods();
        keys.any(|key| {
            let mut periods = periods.iter();
            periods.any(|period| tag == own_tag(key, ack, &top, source, *period))
        })
    }
}

/// The tag in To, if it may be one of ours.
fn to_tag(message: Message<'_>) -> Option<u64> {
    let to = NameAddr::parse(message.header(HeaderName::To)?.value).ok()?;
    crate::edit::read_hex(to.tag()?)
}
