//! The proxy's rules: what becomes of a message (RFC 3261 §16.3 to §16.6, §16.11, §18.2).
//!
//! [`Proxy::receive`] looks at a message first. A request that nothing is wrong with is for the policy to judge; after that it
//! is rejected with [`Proxy::reject`] or sent on with [`Proxy::relay`]. Everything is stateless: a retransmission gets the
//! same answer or goes the same way as the first time, and a response finds its way back by its Vias alone.
//!
//! All of these write into a buffer of the caller's, whose former content is lost, and allocate nothing but what the buffer
//! needs to grow.

mod branch;
mod checks;
mod drop_reason;
mod identity;
mod plan;
mod relay;
mod relay_error;
mod response;
pub(crate) mod top_via;

use crate::arrival::{Arrival, Destination};
use crate::key::Key;
use crate::name_addr::NameAddr;
use crate::reason::standard_reason;
use crate::reply::Reply;
use crate::routes::Routes;
use crate::scan::{Fault, HeaderName, Message, ScanError, StartLine};
use branch::own_tag;
use checks::{Checked, Refusal};
use identity::Identity;
use top_via::TopVia;

pub use drop_reason::DropReason;
pub use identity::Local;
pub use relay_error::{RelayError, RelayErrorKind};

/// The rules of one host. Immutable; all workers share one.
#[derive(Debug)]
pub struct Proxy {
    identity: Identity,
    key: Key,
    record_route: bool,
    /// The whole Server line, or nothing.
    server_line: Box<[u8]>,
}

/// What a [`Proxy`] needs to know.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The sockets that the host listens on.
    pub locals: Vec<Local>,
    /// Further host names and addresses that mean this host: `HOST` on each of its ports, `HOST:PORT` on this one.
    pub aliases: Vec<String>,
    /// The secret behind To-tags and branches. Random for each start, or the same for all hosts that share an address.
    pub key: [u8; 16],
    /// Whether to stay in the path of a dialog's later requests (RFC 3261 §16.6(4)).
    pub record_route: bool,
    /// The Server header of replies of our own.
    pub server_header: Option<String>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A valid request: ask the policy, then [`Proxy::reject`] or [`Proxy::relay`] it.
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

/// Where a policy wants a request to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Where Route and request URI say, as far as the configuration permits, else to the default next hop.
    AsRouted,
    /// To the next hop of this name.
    NextHop(&'a str),
}

/// A change to the header of a request that is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderChange<'a> {
    /// A header field behind all others.
    Add {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// All header fields of this name go, in full and compact form.
    Remove(&'a str),
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
            identity: Identity::new(&config.locals, &config.aliases),
            key: Key::new(&config.key),
            record_route: config.record_route,
            server_line: server_line.unwrap_or_default().into(),
        }
    }

    /// First look at a datagram or a framed stream message, with what [`scan`](crate::scan()) said about it.
    ///
    /// What is looked at, in this order: whether an answer could go anywhere; for an ACK, whether it ends here; then what
    /// RFC 3261 §16.3 asks of a request. An answer of our own goes out for 400 (with a reason that says what is wrong), 416, 420,
    /// 483, 505, 513 and for an OPTIONS to the host itself; never to an ACK or a response.
    ///
    /// Of the URI schemes `sip` and `tel` are understood; `sips` is answered 416, since there is no TLS here and a request to
    /// it must not go on over anything less (RFC 5630 §5.3).
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

    /// Writes a rejection: the policy's verdict or the code of a [`RelayError`]. An empty `reason` stands for the standard
    /// phrase. Of `headers`, those that a reply of ours has anyway (Via, From, To, Call-ID, CSeq, Content-Length,
    /// Content-Type) and those whose name is no token are left out. A code outside 200 to 699 is no answer to anything and
    /// goes out as 500.
    ///
    /// None when nothing may be sent: to an ACK, to a response, and to a request without a readable Via.
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
        let top = TopVia::of(message)?;
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

    /// Writes a request as it goes to the next hop (RFC 3261 §16.4 to §16.6, §16.11): the received bytes with the edits that
    /// the RFC asks for, everything else as it came.
    ///
    /// A request goes over the transport that its next hop was configured with or its URI names, also above 1,300 bytes: to
    /// change to TCP there (§18.1.1) takes a way to come back when the next hop refuses TCP, which takes state.
    ///
    /// # Errors
    /// When it may not or can't be sent: [`RelayError::code`] is the answer for the sender.
    pub fn relay(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        routes: &Routes,
        target: Target<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Destination, RelayError> {
        self.relay_changed(message, arrival, routes, target, &[], out)
    }

    /// The same with changes to the header. Header fields that the proxy itself writes or reads on the way (Via, Route, Record-Route,
    /// Max-Forwards, Content-Length) must not be among them; the caller sees to it that names are tokens and values one line.
    ///
    /// # Errors
    /// As [`Proxy::relay`], and [`RelayError::Unrelayable`] when the changes take out what the proxy changes.
    pub fn relay_changed(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        routes: &Routes,
        target: Target<'_>,
        changes: &[HeaderChange<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Destination, RelayError> {
        out.clear();
        relay::relay(self, message, arrival, routes, target, changes, out)
    }

    fn request(
        &self,
        message: Message<'_>,
        method: &[u8],
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Received {
        let Some(top) = TopVia::of(message) else {
            return Received::Drop(DropReason::UnreadableVia);
        };
        let is_ack = method == b"ACK";
        if is_ack && self.is_ack_to_us(message, &top) {
            return Received::Absorbed;
        }
        match checks::check(&self.identity, message, scanned, &top) {
            Ok(Checked::Judge) => Received::Judge,
            Ok(Checked::OptionsToUs) => self.answer_options(message, &top, arrival, out),
            Err(_) if is_ack => Received::Drop(DropReason::BadAck),
            Err(refusal) => self.refuse(message, &top, arrival, &refusal, out),
        }
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

    /// The 200 to an OPTIONS (RFC 3261 §11.2). A proxy passes on every method and every body; Allow lists the methods that
    /// have a standard, since peers take a method that is not listed for forbidden.
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
        let tag = own_tag(&self.key, message, top);
        Reply::to(message, top, arrival, code, reason, tag, out)
    }

    /// Whether To has the tag that our reply to this ACK's INVITE had. An INVITE within a dialog has a To-tag already, which a
    /// reply keeps: the ACK to its rejection is not recognised and goes to the policy like any other.
    fn is_ack_to_us(&self, message: Message<'_>, top: &TopVia<'_>) -> bool {
        let to = message
            .header(HeaderName::To)
            .and_then(|to| NameAddr::parse(to.value).ok());
        let tag = to.and_then(|to| to.tag()).and_then(crate::edit::read_hex);
        tag.is_some_and(|tag| tag == own_tag(&self.key, message, top))
    }
}
