//! The destination of a request and the resulting changes: request URI and Routes (RFC 3261 §16.4 to §16.6).

use std::net::IpAddr;
use std::net::SocketAddr;
use std::ops::Range;

use super::Proxy;
use super::dialog::{Dialog, DialogSeal, End};
use super::flow::{Flow, Token};
use super::identity::Place;
use super::own_route::{OWN_ROUTES, uri_of_route};
use super::relay_error::RelayError;
use super::target::Target;
use crate::arrival::{Arrival, ConnectionId, Transport};
use crate::host::{Host, ip_address};
use crate::list::values;
use crate::name_addr::NameAddr;
use crate::routes::{Candidate, Choice, Hop, Permission, Rank, Routes};
use crate::scan::{HeaderName, Message, StartLine};
use crate::uri::{Scheme, Uri, UriError, is_other_uri, is_sips};

/// The destination of a request and the changes for it.
pub(super) struct Plan<'a> {
    /// The next hop.
    pub(super) leg: Leg<'a>,
    /// The mark of the configured next hop, if it is one.
    pub(super) hop: Option<u64>,
    /// The token of the flow, if the request goes along that of a client.
    pub(super) token: Option<Token>,
    /// The new request URI, if it differs from the received one.
    pub(super) uri: Option<&'a [u8]>,
    /// Parts of the received request URI to remove; empty ranges mean nothing.
    pub(super) cut_from_uri: [Range<usize>; 3],
    /// How many Route values to remove at the front.
    pub(super) first_routes: usize,
    /// Whether to remove the last Route value as well.
    pub(super) last_route: bool,
    /// The URI to add as the last Route value.
    pub(super) add_route: Option<&'a [u8]>,
}

/// One hop.
pub(super) struct Leg<'p> {
    pub(super) transport: Transport,
    pub(super) addr: SocketAddr,
    /// The socket to send from.
    pub(super) place: &'p Place,
    /// The stream to it, if a dialog knows one.
    pub(super) connection: Option<ConnectionId>,
    /// The mark of the name that led here; `None` for an address.
    pub(super) name: Option<u64>,
    /// See [`Forwarded::others`](super::Forwarded::others).
    pub(super) others: usize,
    /// See [`Plan::hop`].
    hop: Option<u64>,
}

/// What a decision says about the destination.
pub(super) struct Whereto<'f> {
    pub(super) target: Target<'f>,
    pub(super) request_uri: Option<&'f [u8]>,
    pub(super) choice: Choice<'f>,
}

impl<'a> Plan<'a> {
    pub(super) fn of(
        proxy: &'a Proxy,
        message: Message<'a>,
        arrival: &Arrival,
        routes: &'a Routes,
        whereto: Whereto<'a>,
    ) -> Result<Self, RelayError> {
        let StartLine::Request { uri, .. } = message.start_line() else {
            return Err(RelayError::Unrelayable);
        };
        let planner = Planner {
            proxy,
            message,
            arrival,
            routes,
            choice: whereto.choice,
        };
        planner.plan(uri, whereto.target, whereto.request_uri)
    }
}

/// The token of the flow of a client that a request goes along, whatever a policy decides; `None` if it goes along none.
pub(super) fn token_of_route(
    proxy: &Proxy,
    message: Message<'_>,
    arrival: &Arrival,
    routes: &Routes,
) -> Result<Option<Token>, RelayError> {
    let StartLine::Request { uri, .. } = message.start_line() else {
        return Err(RelayError::Unrelayable);
    };
    let planner = Planner::new(proxy, message, arrival, routes);
    let last = planner.last_route_if_strict(read_request_uri(uri)?.as_ref())?;
    let remaining = planner.routes_after_ours(last.is_some())?;
    let token = planner.token(own_user(uri, last, &remaining))?;
    if let Some(token) = &token {
        planner.leg_of_token(token)?;
    }
    Ok(token)
}

/// Whether a Route value of this host has the valid token of this flow.
pub(super) fn has_token_of(
    proxy: &Proxy,
    message: Message<'_>,
    arrival: &Arrival,
    routes: &Routes,
) -> bool {
    let flow = Flow::of(proxy, arrival);
    let planner = Planner::new(proxy, message, arrival, routes);
    let users = planner.route_values().take(OWN_ROUTES).filter_map(|value| {
        let uri = Uri::parse(uri_of_route(value).ok()?).ok()?;
        uri.user.filter(|_| proxy.identity.is_our_uri(&uri))
    });
    let mut tokens = users.filter_map(|user| planner.token(Some(user)).ok()?);
    tokens.any(|token| token.flow == flow)
}

/// The path to a next hop, for a request of this host itself.
pub(super) fn leg_to<'a>(
    proxy: &'a Proxy,
    message: Message<'a>,
    arrival: &Arrival,
    routes: &'a Routes,
    name: &str,
    choice: Choice<'_>,
) -> Result<Leg<'a>, RelayError> {
    let planner = Planner {
        proxy,
        message,
        arrival,
        routes,
        choice,
    };
    planner.leg_to_named(name)
}

struct Planner<'a, 'r> {
    proxy: &'a Proxy,
    message: Message<'a>,
    arrival: &'r Arrival,
    routes: &'a Routes,
    choice: Choice<'r>,
}

impl<'a, 'r> Planner<'a, 'r> {
    /// For questions about the Route values of a request.
    fn new(
        proxy: &'a Proxy,
        message: Message<'a>,
        arrival: &'r Arrival,
        routes: &'a Routes,
    ) -> Self {
        Self {
            proxy,
            message,
            arrival,
            routes,
            choice: Choice::FIRST,
        }
    }
}

impl<'a> Planner<'a, '_> {
    fn plan(
        &self,
        received: &'a [u8],
        target: Target<'_>,
        request_uri: Option<&'a [u8]>,
    ) -> Result<Plan<'a>, RelayError> {
        let mut uri = received;
        let mut request = read_request_uri(uri)?;
        let last = self.last_route_if_strict(request.as_ref())?;
        if let Some(last) = last {
            uri = last;
            request = read_request_uri(uri)?;
        }
        if let Some(new) = request_uri {
            uri = new;
            request = read_request_uri(uri)?;
        }
        let cut_from_uri = self.cut_own_maddr(request.as_mut(), uri);
        let mut routes = self.routes_after_ours(last.is_some())?;
        let mut add_route = None;
        let token = self.token(own_user(received, last, &routes))?;

        let dialog = match target {
            Target::Within(dialog) => Some(dialog),
            Target::AsRouted if routes.ours > 0 || last.is_some() => {
                match self.proxy.dialog(self.message) {
                    DialogSeal::Valid(dialog) => Some(dialog),
                    DialogSeal::None | DialogSeal::Forged | DialogSeal::Expired => None,
                }
            }
            Target::AsRouted | Target::NextHop(_) | Target::Uri(_) => None,
        };
        let leg = match (token, target, routes.next) {
            // A client is reached by its flow, whatever else names another place.
            (Some(token), _, next) => {
                if let Some(route) = next
                    && !read_route(route)?.is_loose_router()
                {
                    add_route = Some(uri);
                    uri = route;
                    routes.ours += 1;
                }
                self.leg_of_token(&token)?
            }
            (None, Target::NextHop(name), _) => self.leg_to_named(name)?,
            (None, Target::Uri(text), _) => {
                let text = text.as_bytes();
                let refused = || RelayError::NotPermitted(RelayError::shown(text));
                let uri = Uri::parse(text).map_err(|_| refused())?;
                self.leg_if_permitted(&uri, text)?.ok_or_else(refused)?
            }
            (None, _, Some(route)) => {
                let next = read_route(route)?;
                if !next.is_loose_router() {
                    // The next hop is a strict router: it expects itself in the request URI (§16.6(6)).
                    add_route = Some(uri);
                    uri = route;
                    routes.ours += 1;
                }
                self.leg_by_route(&next, route, dialog)?
            }
            (None, _, None) => self.leg_by_uri(request.as_ref(), uri, dialog)?,
        };
        let leg = match token {
            Some(_) => leg,
            None => self.named(self.leg_by_flow(leg, dialog), dialog),
        };
        let is_received = uri.as_ptr() == received.as_ptr();
        if !is_received {
            self.check_request_uri(uri)?;
        }
        if (is_sips(received) || is_sips(uri)) && !leg.transport.is_secure() {
            return Err(RelayError::Insecure(RelayError::shown(uri)));
        }
        Ok(Plan {
            hop: leg.hop,
            token,
            leg,
            uri: (!is_received).then_some(uri),
            cut_from_uri: if is_received {
                cut_from_uri
            } else {
                Default::default()
            },
            first_routes: routes.ours,
            last_route: last.is_some(),
            add_route,
        })
    }

    /// A strict router moved our own Record-Route value into the request URI and the request URI to the end of the Routes (§16.4). The
    /// value is recognised by its form, since a request URI that names this host may simply mean this host.
    fn last_route_if_strict(
        &self,
        request: Option<&Uri<'_>>,
    ) -> Result<Option<&'a [u8]>, RelayError> {
        let is_ours = |uri: &Uri<'_>| {
            uri.user.is_none_or(Token::is_meant)
                && uri.is_loose_router()
                && self.proxy.identity.is_our_uri(uri)
        };
        if !request.is_some_and(is_ours) {
            return Ok(None);
        }
        self.route_values().last().map(uri_of_route).transpose()
    }

    /// An `maddr` that names this host has served its purpose; so have the transport and port with it (§16.4).
    fn cut_own_maddr(&self, request: Option<&mut Uri<'_>>, text: &[u8]) -> [Range<usize>; 3] {
        let mut cuts: [Range<usize>; 3] = Default::default();
        let Some(uri) = request else {
            return cuts;
        };
        let maddr = uri.params.named("maddr");
        let host = maddr.as_ref().and_then(|maddr| host_of_maddr(maddr.value?));
        let is_ours = host.is_some_and(|host| {
            self.proxy
                .identity
                .is_us(host, uri.port, uri.port_or_default())
        }) && uri.known_transport() == Some(self.arrival.transport);
        let (Some(maddr), true) = (maddr, is_ours) else {
            return cuts;
        };
        cuts[1] = maddr.range;
        if let Some(transport) = uri.params.named("transport") {
            cuts[2] = transport.range;
        }
        if uri.port.is_some() {
            let host = text.get(uri.host_range.clone()).unwrap_or_default();
            let colon = host
                .iter()
                .rposition(|&byte| byte == b':')
                .unwrap_or(host.len());
            cuts[0] = uri.host_range.start + colon..uri.host_range.end;
        }
        cuts
    }

    /// Counts our own Route values at the front and finds the first one that is not ours.
    fn routes_after_ours(&self, without_last: bool) -> Result<Remaining<'a>, RelayError> {
        let mut ours = 0;
        let mut user = None;
        let mut values = self.route_values().peekable();
        while let Some(value) = values.next() {
            if without_last && values.peek().is_none() {
                break;
            }
            let route = uri_of_route(value)?;
            let read = read_route(route)?;
            if !self.proxy.identity.is_our_uri(&read) {
                return Ok(Remaining {
                    ours,
                    user,
                    next: Some(route),
                });
            }
            user = read.user;
            ours += 1;
            if ours > OWN_ROUTES {
                return Err(RelayError::Loop(RelayError::shown(route)));
            }
        }
        Ok(Remaining {
            ours,
            user,
            next: None,
        })
    }

    /// The token of the flow that the request goes along. Of the values of this host that follow each other, the last one names the side that
    /// the request leaves by: that of the flow of the sender is in front, so that it is not sent back. `user` is the user part of the last one.
    fn token(&self, user: Option<&[u8]>) -> Result<Option<Token>, RelayError> {
        let Some(user) = user.filter(|user| Token::is_meant(user)) else {
            return Ok(None);
        };
        let Ok(token) = Token::read(&self.proxy.keys, user) else {
            return Err(RelayError::ForgedFlow(RelayError::shown(user)));
        };
        // The routes of the operator have no owner.
        let owner = self.routes.owner();
        if owner.is_some() && owner != token.owner {
            return Err(RelayError::ForeignFlow(RelayError::shown(user)));
        }
        if self.proxy.age(token.minute) >= self.proxy.flow_minutes {
            return Err(RelayError::FlowGone("its token has expired"));
        }
        Ok(Some(token))
    }

    /// The path along the flow of a client, and no other.
    fn leg_of_token(&self, token: &Token) -> Result<Leg<'a>, RelayError> {
        let Flow {
            socket,
            addr,
            stream,
        } = token.flow;
        let place = self.proxy.identity.place(socket as usize);
        let place = place.filter(|place| {
            place.transport == token.flow.transport() && place.addr.is_ipv4() == addr.is_ipv4()
        });
        let place = place.ok_or(RelayError::FlowGone("its socket is not in `listen`"))?;
        if self.proxy.identity.listens_on(place.transport, addr) {
            return Err(RelayError::Loop(addr.to_string()));
        }
        Ok(Leg {
            transport: place.transport,
            addr,
            place,
            connection: stream.map(|stream| stream.connection),
            name: None,
            others: 0,
            hop: None,
        })
    }

    fn route_values(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = self.message.headers(HeaderName::Route);
        fields
            .flat_map(|field| values(field.value))
            .map(|value| value.bytes)
    }

    fn leg_to_named(&self, name: &str) -> Result<Leg<'a>, RelayError> {
        let hop = self.routes.hop(name);
        let hop = hop.ok_or_else(|| RelayError::UnknownNextHop(name.to_owned()))?;
        self.leg_to_hop(hop)
    }

    fn leg_to_hop(&self, hop: &Hop) -> Result<Leg<'a>, RelayError> {
        let candidates = hop.candidates.iter().copied();
        let at = hop.from.unwrap_or(self.arrival.local);
        let leg = self.leg_from(at, candidates, hop.uri.as_bytes())?;
        Ok(Leg {
            hop: Some(hop.mark),
            name: hop.name,
            ..leg
        })
    }

    fn leg_by_route(
        &self,
        next: &Uri<'_>,
        text: &[u8],
        dialog: Option<Dialog>,
    ) -> Result<Leg<'a>, RelayError> {
        if let Some(leg) = self.leg_if_permitted(next, text)? {
            return Ok(leg);
        }
        let refused = || match next.scheme {
            Scheme::Sips if !self.proxy.identity.has_tls() => {
                RelayError::UnsupportedScheme(RelayError::shown(text))
            }
            Scheme::Sip | Scheme::Sips => RelayError::NotPermitted(RelayError::shown(text)),
        };
        self.leg_within(dialog)?.ok_or_else(refused)
    }

    /// The path to the opposite end of the dialog, as it was when the dialog began; `None` if there is no dialog, or its first request went
    /// to no next hop, or to one that is no longer configured.
    fn leg_within(&self, dialog: Option<Dialog>) -> Result<Option<Leg<'a>>, RelayError> {
        match dialog.map(|dialog| dialog.toward) {
            None => Ok(None),
            Some(End::Callee(hop)) => {
                let hop = hop.and_then(|mark| self.routes.hop_of_mark(mark));
                hop.map(|hop| self.leg_to_hop(hop)).transpose()
            }
            Some(End::Caller(flow)) => {
                let (transport, addr) = (flow.transport(), flow.addr);
                let leg = self.leg([Candidate::plain(transport, addr)], b"the caller")?;
                Ok(Some(self.along(leg, flow)))
            }
        }
    }

    /// A path to the source of the caller's first request uses the caller's connection or socket: NATs and firewalls block anything else,
    /// and a connection opened by the caller is not found by its address.
    fn leg_by_flow(&self, leg: Leg<'a>, dialog: Option<Dialog>) -> Leg<'a> {
        match dialog.map(|dialog| dialog.toward) {
            Some(End::Caller(flow))
                if (leg.transport, leg.addr) == (flow.transport(), flow.addr) =>
            {
                self.along(leg, flow)
            }
            Some(End::Caller(_) | End::Callee(_)) | None => leg,
        }
    }

    /// The name that the peer has to prove over TLS, where a URI has its address only, as most values of Record-Route and many of Contact do: that of
    /// the next hop of the dialog, or the name that leads there. Certificates of SIP name domains (RFC 5922 §7), and seldom addresses.
    fn named(&self, leg: Leg<'a>, dialog: Option<Dialog>) -> Leg<'a> {
        if leg.name.is_some() || leg.connection.is_some() || !leg.transport.is_secure() {
            return leg;
        }
        let ip = leg.addr.ip();
        let hop = match dialog.map(|dialog| dialog.toward) {
            Some(End::Callee(hop)) => hop.and_then(|mark| self.routes.hop_of_mark(mark)),
            Some(End::Caller(_)) | None => None,
        };
        let is_there = |hop: &&Hop| hop.candidates.iter().any(|one| one.ip() == ip);
        let of_hop = hop.filter(is_there).and_then(|hop| hop.name);
        Leg {
            name: of_hop.or_else(|| self.routes.name_at(ip)),
            ..leg
        }
    }

    fn along(&self, leg: Leg<'a>, flow: Flow) -> Leg<'a> {
        let place = self.proxy.identity.place(flow.socket as usize);
        let place = place.filter(|place| {
            place.transport == leg.transport && place.addr.is_ipv4() == leg.addr.is_ipv4()
        });
        Leg {
            place: place.unwrap_or(leg.place),
            connection: flow.stream.map(|stream| stream.connection),
            ..leg
        }
    }

    fn leg_by_uri(
        &self,
        request: Option<&Uri<'_>>,
        text: &[u8],
        dialog: Option<Dialog>,
    ) -> Result<Leg<'a>, RelayError> {
        let is_ours =
            request.is_some_and(|uri| uri.maddr().is_none() && self.proxy.identity.is_our_uri(uri));
        if let (Some(uri), false) = (request, is_ours)
            && let Some(leg) = self.leg_if_permitted(uri, text)?
        {
            return Ok(leg);
        }
        if let Some(leg) = self.leg_within(dialog)? {
            return Ok(leg);
        }
        let Some(hop) = self.routes.default_hop() else {
            let text = RelayError::shown(text);
            return Err(match request {
                None => RelayError::UnsupportedScheme(text),
                Some(_) if is_ours => RelayError::NowhereToGo(text),
                Some(_) => RelayError::NotPermitted(text),
            });
        };
        let leg = self.leg_to_hop(hop)?;
        // Within a dialog the request URI names the other end. If requests may not go there, the default next hop is no substitute if it
        // has just sent this request. An ACK takes the path of its INVITE in any case.
        if !is_ours && self.is_from(&leg) && self.is_within_dialog() {
            return Err(RelayError::NotPermitted(RelayError::shown(text)));
        }
        Ok(leg)
    }

    /// The path to the destination of a URI; `None` if requests may not go there.
    fn leg_if_permitted(&self, uri: &Uri<'_>, text: &[u8]) -> Result<Option<Leg<'a>>, RelayError> {
        let Some(host) = uri.maddr().map_or(Some(uri.host), host_of_maddr) else {
            return Ok(None);
        };
        let port = uri.port_or_default();
        let permission = self.routes.permission(host, port);
        if !permission.is_granted() {
            return Ok(None);
        }
        if uri.scheme == Scheme::Sips && !self.proxy.identity.has_tls() {
            return Err(RelayError::UnsupportedScheme(RelayError::shown(text)));
        }
        let unsupported = || RelayError::UnsupportedTransport(RelayError::shown(text));
        let transport = uri.known_transport();
        // Only clients open connections of WebSocket: a flow leads to them, and no URI.
        let transport = transport.filter(|transport| !transport.is_websocket());
        let transport = transport.ok_or_else(unsupported)?;
        let leg = match permission {
            Permission::Refused => return Ok(None),
            Permission::Address(ip) => {
                let addr = SocketAddr::new(ip, port);
                self.leg([Candidate::plain(transport, addr)], text)?
            }
            Permission::Name(named) => {
                let is_chosen = uri.scheme == Scheme::Sips || uri.transport().is_some();
                let candidates = named.candidates(uri.port, is_chosen.then_some(transport));
                Leg {
                    name: Some(named.mark),
                    ..self.leg(candidates, text)?
                }
            }
        };
        Ok(Some(leg))
    }

    /// The first of these addresses in the order of the call that one of our sockets can reach. Our own addresses are left out.
    fn leg(
        &self,
        candidates: impl IntoIterator<Item = Candidate>,
        text: &[u8],
    ) -> Result<Leg<'a>, RelayError> {
        self.leg_from(self.arrival.local, candidates, text)
    }

    /// The same, from the socket with this address if it fits.
    fn leg_from(
        &self,
        at: SocketAddr,
        candidates: impl IntoIterator<Item = Candidate>,
        text: &[u8],
    ) -> Result<Leg<'a>, RelayError> {
        let identity = &self.proxy.identity;
        let (mut first, mut own, mut fitting) = (None, false, 0);
        let mut best: Option<(Option<Rank>, Candidate, &Place)> = None;
        for (index, candidate) in candidates.into_iter().enumerate() {
            first = first.or(Some(candidate));
            let Candidate {
                transport, addr, ..
            } = candidate;
            let Some(place) = identity.place_towards(transport, addr.ip(), at) else {
                continue;
            };
            if identity.listens_on(transport, addr) {
                own = true;
                continue;
            }
            if self.choice.was_tried(&candidate) {
                continue;
            }
            fitting += 1;
            // Most next hops have one address, which needs no rank.
            best = match best {
                None => Some((None, candidate, place)),
                Some((rank, known, at)) => {
                    let known_rank = rank.unwrap_or_else(|| self.rank(&known, 0));
                    let rank = self.rank(&candidate, index);
                    if rank < known_rank {
                        Some((Some(rank), candidate, place))
                    } else {
                        Some((Some(known_rank), known, at))
                    }
                }
            };
        }
        let Some((_, candidate, place)) = best else {
            return Err(match first {
                Some(_) if own => RelayError::Loop(RelayError::shown(text)),
                Some(Candidate {
                    transport, addr, ..
                }) if self.choice.tried.is_empty() => RelayError::NoSocket {
                    transport,
                    ip: addr.ip(),
                },
                Some(_) | None => RelayError::Unresolved(RelayError::shown(text)),
            });
        };
        Ok(Leg {
            transport: candidate.transport,
            addr: candidate.addr,
            place,
            connection: None,
            name: None,
            others: fitting - 1,
            hop: None,
        })
    }

    /// A request URI taken from a Route, or written by a policy, obeys the rules for one that is received: a host without TLS must not send a
    /// `sips` URI (RFC 5630 §5.3), and a request URI has no headers (RFC 3261 §19.1.1).
    fn check_request_uri(&self, uri: &[u8]) -> Result<(), RelayError> {
        match read_request_uri(uri)? {
            Some(new) if new.scheme == Scheme::Sips && !self.proxy.identity.has_tls() => {
                Err(RelayError::UnsupportedScheme(RelayError::shown(uri)))
            }
            Some(new) if new.headers.is_some() => Err(RelayError::BadUri(RelayError::shown(uri))),
            _ => Ok(()),
        }
    }

    /// The place of an address in the order of this call. The index of the first one need not be exact.
    fn rank(&self, candidate: &Candidate, index: usize) -> Rank {
        let call_id = self.message.header(HeaderName::CallId);
        let call_id = call_id.map_or(&b""[..], |field| field.value);
        let key = self.proxy.keys.current();
        let number = key.draw(key.call(call_id), candidate.service);
        let has_failed = (self.choice.has_failed)(candidate.transport, candidate.addr);
        Rank::of(candidate, index, has_failed, number)
    }

    /// Whether the request came from this destination; the source port of a stream is irrelevant.
    fn is_from(&self, leg: &Leg<'_>) -> bool {
        let source = self.arrival.source;
        leg.addr.ip() == source.ip()
            && (self.arrival.transport.is_reliable() || leg.addr.port() == source.port())
    }

    fn is_within_dialog(&self) -> bool {
        let start = self.message.start_line();
        let is_ack = matches!(start, StartLine::Request { method: b"ACK", .. });
        !is_ack && to_has_tag(self.message)
    }
}

/// Whether the request is within a dialog (RFC 3261 §12.2).
pub fn to_has_tag(message: Message<'_>) -> bool {
    let to = message
        .header(HeaderName::To)
        .and_then(|to| NameAddr::parse(to.value).ok());
    to.is_some_and(|to| to.tag().is_some())
}

/// The user part of the last value of this host: that of the side that the request leaves by.
fn own_user<'a>(
    received: &'a [u8],
    last: Option<&[u8]>,
    remaining: &Remaining<'a>,
) -> Option<&'a [u8]> {
    match (last, remaining.ours) {
        // The only value of ours is the request URI.
        (Some(_), 0) => Uri::parse(received).ok().and_then(|uri| uri.user),
        _ => remaining.user,
    }
}

/// The Route values after ours.
struct Remaining<'a> {
    ours: usize,
    /// The user part of the last one of ours.
    user: Option<&'a [u8]>,
    /// The URI of the first one.
    next: Option<&'a [u8]>,
}

/// Parses a request URI; `None` for another scheme, which names no host.
fn read_request_uri(uri: &[u8]) -> Result<Option<Uri<'_>>, RelayError> {
    if is_other_uri(uri) {
        return Ok(None);
    }
    Uri::parse(uri)
        .map(Some)
        .map_err(|_| RelayError::BadUri(RelayError::shown(uri)))
}

fn read_route(uri: &[u8]) -> Result<Uri<'_>, RelayError> {
    Uri::parse(uri).map_err(|error| match error {
        UriError::Scheme => RelayError::UnsupportedScheme(RelayError::shown(uri)),
        UriError::NoScheme
        | UriError::Character
        | UriError::User
        | UriError::Host
        | UriError::Port
        | UriError::Params => RelayError::BadRoute(RelayError::shown(uri)),
    })
}

fn host_of_maddr(maddr: &[u8]) -> Option<Host<'_>> {
    match ip_address(maddr) {
        Some(IpAddr::V4(ip)) => Some(Host::V4(ip)),
        Some(IpAddr::V6(ip)) => Some(Host::V6(ip)),
        None => Host::parse(maddr),
    }
}

impl Plan<'_> {
    /// Calls `remove` with every range of the message that belongs to removed Routes: whole header lines if no value stays, otherwise
    /// values with the comma that separates them from one that stays.
    pub(super) fn removed_routes(
        &self,
        message: Message<'_>,
        mut remove: impl FnMut(Range<usize>),
    ) {
        if self.first_routes == 0 && !self.last_route {
            return;
        }
        let fields = || message.headers(HeaderName::Route);
        let total: usize = fields().map(|field| values(field.value).count()).sum();
        let stays = self.first_routes..total - usize::from(self.last_route && total > 0);
        let mut number = 0;
        for field in fields() {
            let base = field.value_range.start;
            let (mut kept, mut all) = (None::<Range<usize>>, None::<Range<usize>>);
            for value in values(field.value) {
                let place = base + value.range.start..base + value.range.end;
                let widen = |range: Option<Range<usize>>| {
                    range.map_or_else(|| place.clone(), |range| range.start..place.end)
                };
                if stays.contains(&number) {
                    kept = Some(widen(kept));
                }
                all = Some(widen(all));
                number += 1;
            }
            match (kept, all) {
                (None, Some(_)) => remove(field.line),
                (Some(kept), Some(all)) => {
                    if all.start < kept.start {
                        remove(all.start..kept.start);
                    }
                    if kept.end < all.end {
                        remove(kept.end..all.end);
                    }
                }
                (_, None) => {}
            }
        }
    }
}
