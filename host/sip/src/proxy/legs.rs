//! The paths that a request can take: along the flow of a client, to a next hop, or to the address of a URI, from one of the own sockets.

use std::net::{IpAddr, SocketAddr};

use super::Proxy;
use super::dialog::{Dialog, End, to_has_tag};
use super::flow::{Flow, Token};
use super::identity::Place;
use super::relay_error::RelayError;
use crate::arrival::{Arrival, ConnectionId, Transport};
use crate::host::{Host, ip_address};
use crate::routes::{Candidate, Choice, Hop, Permission, Rank, Routes};
use crate::scan::{HeaderName, Message, StartLine};
use crate::uri::{Scheme, Uri};

/// One hop.
pub(super) struct Leg<'p> {
    pub(super) transport: Transport,
    pub(super) addr: SocketAddr,
    /// The socket to send from.
    pub(super) place: &'p Place,
    /// The stream to it, if the dialog has one.
    pub(super) connection: Option<ConnectionId>,
    /// The mark of the name that led here; `None` for an address.
    pub(super) name: Option<u64>,
    /// See [`Forwarded::others`](super::Forwarded::others).
    pub(super) others: usize,
    /// The mark of the configured next hop, if it is one.
    pub(super) hop: Option<u64>,
}

/// Finds the path of one request.
pub(super) struct Legs<'a, 'r> {
    pub(super) proxy: &'a Proxy,
    pub(super) message: Message<'a>,
    pub(super) arrival: &'r Arrival,
    pub(super) routes: &'a Routes,
    pub(super) choice: Choice<'r>,
}

impl<'a> Legs<'a, '_> {
    /// The path along the flow of a client, and no other.
    pub(super) fn leg_of_token(&self, token: &Token) -> Result<Leg<'a>, RelayError> {
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

    pub(super) fn leg_to_named(&self, name: &str) -> Result<Leg<'a>, RelayError> {
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

    pub(super) fn leg_by_route(
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
    pub(super) fn leg_by_flow(&self, leg: Leg<'a>, dialog: Option<Dialog>) -> Leg<'a> {
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
    pub(super) fn named(&self, leg: Leg<'a>, dialog: Option<Dialog>) -> Leg<'a> {
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

    pub(super) fn leg_by_uri(
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
    pub(super) fn leg_if_permitted(
        &self,
        uri: &Uri<'_>,
        text: &[u8],
    ) -> Result<Option<Leg<'a>>, RelayError> {
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

/// The path to a next hop, for a request of this host itself.
pub(super) fn leg_to<'a>(
    proxy: &'a Proxy,
    message: Message<'a>,
    arrival: &Arrival,
    routes: &'a Routes,
    name: &str,
    choice: Choice<'_>,
) -> Result<Leg<'a>, RelayError> {
    let legs = Legs {
        proxy,
        message,
        arrival,
        routes,
        choice,
    };
    legs.leg_to_named(name)
}

/// The host that an `maddr` parameter names, with or without brackets around an IPv6 address.
pub(super) fn host_of_maddr(maddr: &[u8]) -> Option<Host<'_>> {
    match ip_address(maddr) {
        Some(IpAddr::V4(ip)) => Some(Host::V4(ip)),
        Some(IpAddr::V6(ip)) => Some(Host::V6(ip)),
        None => Host::parse(maddr),
    }
}
