//! The edits of a relayed request (RFC 3261 §16.6).

use std::net::SocketAddr;

use super::Proxy;
use super::branch::{Branch, Origin, Transaction};
use super::dialog;
use super::flow::{Flow, Token};
use super::identity::Place;
use super::plan::{Plan, Whereto};
use super::relay_error::RelayError;
use super::target::Target;
use crate::arrival::{Arrival, Destination};
use crate::cseq::MAX_FORWARDS;
use crate::edit::{Edits, Text, write_hex};
use crate::key::Key;
use crate::list::{Value, values};
use crate::name_addr::NameAddr;
use crate::overload::{Feedback, Offer, OverloadAlgorithm};
use crate::routes::{Choice, Routes};
use crate::scan::{HeaderName, Message, StartLine};
use crate::top_via::MOST_OFFERS;
use crate::uri::is_sips;

/// Request URI (3), new headers, top Via (2, and [`MOST_OFFERS`]), Max-Forwards, Max-Breadth, removed Routes (own ones and one more on lines of their own: 6), an
/// added Route and Content-Length.
const MOST_EDITS: usize = 16 + MOST_OFFERS;

/// The same, and each header line of a message that passes the scan.
const MOST_CHANGES: usize = MOST_EDITS + 256;

/// Maximum payload of a datagram: the length in the headers of IPv4 and UDP has 16 bits; for IPv6 it excludes the IP header.
const LARGEST_DATAGRAM_V4: usize = 65_535 - 20 - 8;
const LARGEST_DATAGRAM_V6: usize = 65_535 - 8;

/// A change to the header of a request that is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderChange<'a> {
    /// Adds a header field after all others.
    Add {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// Removes all header fields with this name, in full and compact form.
    Remove(&'a str),
}

/// How a request is relayed to one target.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'f> {
    /// Where it goes.
    pub target: Target<'f>,
    /// The request URI in place of the received one. It must be readable ([`is_readable_uri`](crate::is_readable_uri)).
    pub request_uri: Option<&'f [u8]>,
    /// Changes to the header, as for [`Proxy::relay_changed`].
    pub changes: &'f [HeaderChange<'f>],
    /// The branch to write and the target's share of Max-Breadth (RFC 5393 §5.3.3), which replaces the received value. ACK and CANCEL, which
    /// follow an INVITE and never fork, do not get a value that they have not. `None` for a stateless proxy, which never forks.
    pub branch: Option<(Branch, u8)>,
    /// Whether the sender is a client, whatever socket received the request: see [`Clients`](crate::Clients).
    pub is_of_client: bool,
    /// Which of the addresses of a name the request goes to.
    pub choice: Choice<'f>,
    /// Whether the next hop is asked to say when it is overloaded (RFC 7339), by the algorithm that
    /// [`Proxy::with_overload_control`] names: see [`Overload`](crate::Overload). A client is never asked.
    pub asks_for_load: bool,
}

/// Where a request goes that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The destination.
    pub to: Destination,
    /// Number of further addresses of the same next hop, where the request may go if this one fails (RFC 3263 §4.3).
    pub others: usize,
}

impl Forward<'_> {
    /// Without changes to request URI and header.
    pub fn new(target: Target<'_>, branch: Branch, breadth: u8) -> Forward<'_> {
        Forward {
            target,
            request_uri: None,
            changes: &[],
            branch: Some((branch, breadth)),
            is_of_client: false,
            choice: Choice::FIRST,
            asks_for_load: false,
        }
    }
}

/// Max-Breadth of a request without it (RFC 5393 §5.3.3).
pub const DEFAULT_BREADTH: u8 = 60;

impl Proxy {
    /// Writes a request for the next hop (RFC 3261 §16.4 to §16.6, §16.11): the received bytes with the edits that the RFC requires,
    /// everything else unchanged.
    ///
    /// A request uses the transport that is configured for its next hop or named in its URI, even above 1,300 bytes: switching to TCP
    /// (§18.1.1) requires a fallback to UDP when the next hop refuses TCP, and therefore state.
    ///
    /// # Errors
    /// When it must not or cannot be sent: [`RelayError::code`] is the response to the sender.
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

    /// Relays with changes to the header. Header fields that the proxy itself writes or reads on the way (Via, Route, Record-Route,
    /// Max-Forwards, Content-Length) must not be among them; the caller ensures that names are tokens and values are single lines.
    ///
    /// # Errors
    /// As [`Proxy::relay`], and [`RelayError::Unrelayable`] when the changes remove what the proxy itself changes.
    pub fn relay_changed(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        routes: &Routes,
        target: Target<'_>,
        changes: &[HeaderChange<'_>],
        out: &mut Vec<u8>,
    ) -> Result<Destination, RelayError> {
        let forward = Forward {
            target,
            request_uri: None,
            changes,
            branch: None,
            is_of_client: false,
            choice: Choice::FIRST,
            asks_for_load: false,
        };
        let forwarded = self.forward(message, arrival, routes, &forward, out);
        forwarded.map(|forwarded| forwarded.to)
    }

    /// Whether the sender of a request is a client because of the socket that received it. A next hop is none, and neither is a host of a
    /// domain, except over a transport that only clients use.
    pub fn is_client(&self, arrival: &Arrival, routes: &Routes) -> bool {
        let place = self.identity.place_of(arrival.transport, arrival.local);
        let is_stream = arrival.transport.is_reliable();
        place.is_some_and(|(_, place)| place.has_clients)
            && (arrival.transport.is_websocket()
                || !routes.is_source_of_host(arrival.source, is_stream))
    }

    /// Relays a request to one target. With a branch, it gets a mark that [`Proxy::is_loop`] finds.
    ///
    /// # Errors
    /// As [`Proxy::relay_changed`].
    pub fn forward(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        routes: &Routes,
        forward: &Forward<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Forwarded, RelayError> {
        out.clear();
        let relay = match forward.changes {
            [] => relay_by::<MOST_EDITS>,
            _ => relay_by::<MOST_CHANGES>,
        };
        relay(self, message, arrival, routes, forward, out)
    }
}

fn relay_by<const MOST: usize>(
    proxy: &Proxy,
    message: Message<'_>,
    arrival: &Arrival,
    routes: &Routes,
    forward: &Forward<'_>,
    out: &mut Vec<u8>,
) -> Result<Forwarded, RelayError> {
    let Forward {
        target,
        request_uri,
        changes,
        branch: fork,
        is_of_client,
        choice,
        asks_for_load,
    } = *forward;
    let top = proxy
        .top_via(message, arrival)
        .ok_or(RelayError::Unrelayable)?;
    let max_forwards = max_forwards(message)?;
    let whereto = Whereto {
        target,
        request_uri,
        choice,
    };
    let plan = Plan::of(proxy, message, arrival, routes, whereto)?;
    let has_breadth = message.header(HeaderName::MaxBreadth).is_some();
    let breadth = fork
        .map(|(_, breadth)| breadth)
        .filter(|_| has_breadth || may_fork(message));
    let is_of_client = is_of_client || proxy.is_client(arrival, routes);
    let feedback = proxy.feedback();
    let head = Head {
        proxy,
        message,
        arrival,
        plan: &plan,
        branch: match fork {
            Some((branch, _)) => branch,
            None => Transaction::of(proxy.keys.current(), message, &top).into(),
        },
        loop_mark: fork.map(|_| proxy.loop_mark(message, arrival)),
        breadth,
        back_to: proxy.back_to(&top, arrival, routes),
        owner: routes.owner(),
        client: is_of_client.then(|| Token {
            flow: Flow::of(proxy, arrival),
            owner: routes.owner(),
            minute: proxy.now(),
        }),
        adds_max_forwards: max_forwards.is_none(),
        asks: (proxy.overload_control.next_hops).filter(|_| asks_for_load && plan.token.is_none()),
        offer: match feedback {
            Feedback::Given(_) => Offer::of_via(&top.via),
            Feedback::Removed | Feedback::Untouched => Offer::default(),
        },
        changes,
    };
    let write_head = |out: &mut Vec<u8>| head.write(out);
    let write_tail = |out: &mut Vec<u8>| head.write_tail(out);

    let mut edits = Edits::<MOST>::new();
    let mut fits = edit_uri(message, &plan, &mut edits);
    let first_header = message
        .fields()
        .next()
        .map_or_else(|| message.header_end(), |field| field.line.start);
    fits &= edits.insert(first_header, Text::Written(&write_head));
    fits &= top.note_source(arrival.source, top.field.value_range.start, &mut edits);
    if feedback != Feedback::Untouched {
        // They are for this host only (RFC 7339 §5.6).
        let base = top.field.value_range.start;
        for place in top.offers() {
            fits &= edits.remove(base + place.start..base + place.end);
        }
    }
    if let (Some(number), Some(field)) = (max_forwards, message.header(HeaderName::MaxForwards)) {
        fits &= edits.replace(field.value_range, Text::Number(number));
    }
    if breadth.is_some() {
        // The field is written anew, once.
        for field in message.headers(HeaderName::MaxBreadth) {
            fits &= edits.remove(field.line);
        }
    }
    plan.removed_routes(message, |place| fits &= edits.remove(place));
    for change in changes {
        if let HeaderChange::Remove(name) = change {
            let mut lines = message.by_name(name).map(|field| field.line);
            // A name that occurs twice has been removed already.
            fits &= lines.all(|line| edits.has(&line) || edits.remove(line));
        }
    }
    fits &= edits.insert(message.header_end(), Text::Written(&write_tail));
    if !fits {
        return Err(RelayError::Unrelayable);
    }
    edits.apply(message.bytes(), out);
    let most = match plan.leg.addr {
        _ if plan.leg.transport.is_reliable() => usize::MAX,
        SocketAddr::V4(_) => LARGEST_DATAGRAM_V4,
        SocketAddr::V6(_) => LARGEST_DATAGRAM_V6,
    };
    if out.len() > most {
        return Err(RelayError::TooLarge(out.len()));
    }
    Ok(Forwarded {
        to: Destination {
            transport: plan.leg.transport,
            addr: plan.leg.addr,
            from: Some(plan.leg.place.addr),
            connection: plan.leg.connection,
            name: plan.leg.name,
            is_flow: plan.token.is_some(),
        },
        others: plan.leg.others,
    })
}

/// Max-Forwards as sent; `None` when the request has none.
fn max_forwards(message: Message<'_>) -> Result<Option<u32>, RelayError> {
    if message.header(HeaderName::MaxForwards).is_none() {
        return Ok(None);
    }
    let number = message
        .max_forwards()
        .and_then(|number| number.checked_sub(1));
    number
        .map(|number| Some(number.into()))
        .ok_or(RelayError::TooManyHops)
}

fn edit_uri<'a, const MOST: usize>(
    message: Message<'_>,
    plan: &Plan<'a>,
    edits: &mut Edits<'a, MOST>,
) -> bool {
    let Some(place) = message.uri_range() else {
        return false;
    };
    if let Some(uri) = plan.uri {
        return edits.replace(place, Text::Bytes(uri));
    }
    let cuts = plan.cut_from_uri.iter().filter(|cut| !cut.is_empty());
    let mut fits = true;
    for cut in cuts {
        fits &= edits.remove(place.start + cut.start..place.start + cut.end);
    }
    fits
}

/// The header lines that are added.
struct Head<'a> {
    proxy: &'a Proxy,
    message: Message<'a>,
    arrival: &'a Arrival,
    plan: &'a Plan<'a>,
    branch: Branch,
    /// See [`Proxy::is_loop`]; only a stateful proxy writes it.
    loop_mark: Option<u64>,
    /// Max-Breadth, if it is written.
    breadth: Option<u8>,
    /// The destination of the response.
    back_to: SocketAddr,
    /// The owner of the request: see [`Routes::owner`].
    owner: Option<u64>,
    /// The flow of the sender, if that is a client.
    client: Option<Token>,
    adds_max_forwards: bool,
    /// See [`Forward::asks_for_load`].
    asks: Option<OverloadAlgorithm>,
    /// What the sender offers of overload control.
    offer: Offer,
    changes: &'a [HeaderChange<'a>],
}

impl Head<'_> {
    /// Before all other headers: Via and Record-Route must precede others with the same name.
    fn write(&self, out: &mut Vec<u8>) {
        let leg = &self.plan.leg;
        let line_end = self.message.line_end().as_bytes();
        out.extend_from_slice(&leg.place.via);
        let key = self.proxy.keys.current();
        self.branch.write(key, out);
        let origin = Origin::of(&self.proxy.identity, self.arrival, self.proxy.now());
        let origin = origin.at(self.proxy.tag);
        origin.write(key, self.branch.transaction, self.back_to, out);
        if let Some(mark) = self.loop_mark {
            out.extend_from_slice(b";l=");
            write_hex(mark, out);
        }
        self.offer.write(out);
        if let Some(algorithm) = self.asks {
            out.extend_from_slice(algorithm.asks());
        }
        out.extend_from_slice(line_end);
        self.write_record_route(line_end, out);
        self.write_path(line_end, out);
        if self.adds_max_forwards {
            out.extend_from_slice(b"Max-Forwards: ");
            Text::Number(MAX_FORWARDS.into()).write(out);
            out.extend_from_slice(line_end);
        }
        if let Some(breadth) = self.breadth {
            Text::Labelled(b"Max-Breadth: ", breadth.into()).write(out);
            out.extend_from_slice(line_end);
        }
    }

    /// One value if the request leaves by the socket that received it; otherwise two, with that of the leaving side on top, so that each
    /// side gets a value that it can reach (RFC 5658). The first value has the seal of the dialog: requests in both directions return both
    /// values. A request with a `sips` URI gets `sips` values where the side has TLS (RFC 3261 §16.6(4)).
    ///
    /// Always two if a client is on either side: its value has the token of its flow, and the order of both values tells the direction of a
    /// request. A client can be reached in no other way, so its dialogs stay here even if the host records no routes.
    fn write_record_route(&self, line_end: &[u8], out: &mut Vec<u8>) {
        if !may_start_dialog(self.message) {
            return;
        }
        let has_flow = self.client.is_some() || self.plan.token.is_some();
        if !self.proxy.record_route && !has_flow {
            return;
        }
        let leaving = self.plan.leg.place;
        let is_sips = match self.message.start_line() {
            StartLine::Request { uri, .. } => is_sips(uri),
            StartLine::Response { .. } => false,
        };
        let coming = self
            .proxy
            .identity
            .place_of(self.arrival.transport, self.arrival.local);
        let coming = match coming {
            Some((_, place)) => (has_flow || !std::ptr::eq(place, leaving)).then_some(place),
            None => has_flow.then_some(leaving),
        };
        let key = self.proxy.keys.current();
        // The flow lasts as long as its present use.
        let callee = self.plan.token.map(|token| Token {
            minute: self.proxy.now(),
            ..token
        });
        let end: &[u8] = if coming.is_some() { b";r2=on>" } else { b">" };
        let sides = [
            Some((leaving, callee)),
            coming.map(|place| (place, self.client)),
        ];
        for (at, (place, token)) in sides.into_iter().flatten().enumerate() {
            out.extend_from_slice(b"Record-Route: ");
            write_own_uri(place, is_sips, token.as_ref(), key, out);
            if at == 0 {
                let beginning = dialog::Beginning {
                    origin: Origin::of(&self.proxy.identity, self.arrival, self.proxy.now()),
                    caller: self.arrival.source,
                    owner: self.owner,
                    hop: self.plan.hop,
                };
                beginning.write(key, self.message, out);
            }
            out.extend_from_slice(end);
            out.extend_from_slice(line_end);
        }
    }

    /// The values for the registrar of a client: requests to the client come back here, and to its flow (RFC 3327, RFC 5626 §5.1). As in
    /// Record-Route, the side of the registrar is on top if it is another socket: the registrar need not speak the transport of the client.
    /// Whether it keeps Path for a client that does not support that is up to the registrar.
    fn write_path(&self, line_end: &[u8], out: &mut Vec<u8>) {
        let StartLine::Request { method, uri, .. } = self.message.start_line() else {
            return;
        };
        let coming = self
            .proxy
            .identity
            .place_of(self.arrival.transport, self.arrival.local);
        let (Some(client), Some((_, coming)), b"REGISTER") = (&self.client, coming, method) else {
            return;
        };
        let (key, is_sips) = (self.proxy.keys.current(), is_sips(uri));
        // Both URIs have it: Kamailio looks for it in the topmost one.
        let end: &[u8] = match is_outbound(self.message) {
            true => b";ob>",
            false => b">",
        };
        let leaving = self.plan.leg.place;
        if !std::ptr::eq(leaving, coming) {
            out.extend_from_slice(b"Path: ");
            write_own_uri(leaving, is_sips, None, key, out);
            out.extend_from_slice(end);
            out.extend_from_slice(line_end);
        }
        out.extend_from_slice(b"Path: ");
        write_own_uri(coming, is_sips, Some(client), key, out);
        out.extend_from_slice(end);
        out.extend_from_slice(line_end);
    }

    /// After all other headers: added header fields, a Route that must be last, and the length that a stream needs.
    fn write_tail(&self, out: &mut Vec<u8>) {
        let line_end = self.message.line_end().as_bytes();
        for change in self.changes {
            if let HeaderChange::Add { name, value } = change {
                // The field occurs once (RFC 5393 §5.3.3), and the share of the target counts.
                if self.breadth.is_some() && name.eq_ignore_ascii_case("Max-Breadth") {
                    continue;
                }
                for part in [name.as_bytes(), b": ", value.as_bytes(), line_end] {
                    out.extend_from_slice(part);
                }
            }
        }
        if let Some(uri) = self.plan.add_route {
            out.extend_from_slice(b"Route: <");
            out.extend_from_slice(uri);
            out.push(b'>');
            out.extend_from_slice(line_end);
        }
        let lacks_length = self.message.header(HeaderName::ContentLength).is_none();
        if self.plan.leg.transport.is_reliable() && lacks_length {
            write_content_length(self.message, out);
        }
    }
}

/// Writes `<` and a URI of this host, with the token of a flow as its user part; parameters may follow.
fn write_own_uri(
    place: &Place,
    is_sips: bool,
    token: Option<&Token>,
    key: &Key,
    out: &mut Vec<u8>,
) {
    let (start, rest) = place.route(is_sips);
    out.extend_from_slice(start);
    if token.is_some_and(|token| token.write(key, out)) {
        out.push(b'@');
    }
    out.extend_from_slice(rest);
}

/// Whether a REGISTER asks for what RFC 5626 adds, and this host is the first hop (§4.2.1, §5.1).
fn is_outbound(message: Message<'_>) -> bool {
    let has_option = |value: Value<'_>| value.bytes.eq_ignore_ascii_case(b"outbound");
    let has_reg_id = |value: Value<'_>| {
        let contact = NameAddr::parse(value.bytes).ok();
        contact.is_some_and(|contact| contact.params.named("reg-id").is_some())
    };
    let all = |name| {
        let fields = message.headers(name);
        fields.flat_map(|field| values(field.value))
    };
    all(HeaderName::Via).take(2).count() == 1
        && all(HeaderName::Supported).any(has_option)
        && all(HeaderName::Contact).any(has_reg_id)
}

/// Writes the header line that a message needs on a stream.
pub(super) fn write_content_length(message: Message<'_>, out: &mut Vec<u8>) {
    let length = u32::try_from(message.body().len()).unwrap_or(u32::MAX);
    Text::Labelled(b"Content-Length: ", length).write(out);
    out.extend_from_slice(message.line_end().as_bytes());
}

fn may_fork(message: Message<'_>) -> bool {
    !matches!(
        message.start_line(),
        StartLine::Request {
            method: b"ACK" | b"CANCEL",
            ..
        }
    )
}

/// Whether the request may start a dialog (RFC 3261 §12.1, RFC 6665, RFC 3515).
fn may_start_dialog(message: Message<'_>) -> bool {
    let StartLine::Request { method, .. } = message.start_line() else {
        return false;
    };
    matches!(method, b"INVITE" | b"SUBSCRIBE" | b"REFER" | b"NOTIFY")
        && !dialog::to_has_tag(message)
}
