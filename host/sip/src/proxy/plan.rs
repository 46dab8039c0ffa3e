//! The destination of a request and the resulting changes: request URI and Routes (RFC 3261 §16.4 to §16.6).

use std::ops::Range;

use super::Proxy;
use super::dialog::DialogSeal;
use super::flow::{Flow, Token};
use super::legs::{Leg, Legs, host_of_maddr};
use super::own_route::{OWN_ROUTES, uri_of_route};
use super::relay_error::RelayError;
use super::target::Target;
use crate::arrival::Arrival;
use crate::list::values;
use crate::routes::{Choice, Routes};
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
        let legs = Legs {
            proxy,
            message,
            arrival,
            routes,
            choice: whereto.choice,
        };
        Planner { legs }.plan(uri, whereto.target, whereto.request_uri)
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
        planner.legs.leg_of_token(token)?;
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

struct Planner<'a, 'r> {
    legs: Legs<'a, 'r>,
}

impl<'a, 'r> Planner<'a, 'r> {
    /// For questions about the Route values of a request.
    fn new(
        proxy: &'a Proxy,
        message: Message<'a>,
        arrival: &'r Arrival,
        routes: &'a Routes,
    ) -> Self {
        let legs = Legs {
            proxy,
            message,
            arrival,
            routes,
            choice: Choice::FIRST,
        };
        Self { legs }
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
                match self.legs.proxy.dialog(self.legs.message) {
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
                self.legs.leg_of_token(&token)?
            }
            (None, Target::NextHop(name), _) => self.legs.leg_to_named(name)?,
            (None, Target::Uri(text), _) => {
                let text = text.as_bytes();
                let refused = || RelayError::NotPermitted(RelayError::shown(text));
                let uri = Uri::parse(text).map_err(|_| refused())?;
                self.legs
                    .leg_if_permitted(&uri, text)?
                    .ok_or_else(refused)?
            }
            (None, _, Some(route)) => {
                let next = read_route(route)?;
                if !next.is_loose_router() {
                    // The next hop is a strict router: it expects itself in the request URI (§16.6(6)).
                    add_route = Some(uri);
                    uri = route;
                    routes.ours += 1;
                }
                self.legs.leg_by_route(&next, route, dialog)?
            }
            (None, _, None) => self.legs.leg_by_uri(request.as_ref(), uri, dialog)?,
        };
        let leg = match token {
            Some(_) => leg,
            None => self.legs.named(self.legs.leg_by_flow(leg, dialog), dialog),
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
                && self.legs.proxy.identity.is_our_uri(uri)
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
            self.legs
                .proxy
                .identity
                .is_us(host, uri.port, uri.port_or_default())
        }) && uri.known_transport() == Some(self.legs.arrival.transport);
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
            if !self.legs.proxy.identity.is_our_uri(&read) {
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
        let Ok(token) = Token::read(&self.legs.proxy.keys, user) else {
            return Err(RelayError::ForgedFlow(RelayError::shown(user)));
        };
        // The routes of the operator have no owner.
        let owner = self.legs.routes.owner();
        if owner.is_some() && owner != token.owner {
            return Err(RelayError::ForeignFlow(RelayError::shown(user)));
        }
        if self.legs.proxy.age(token.minute) >= self.legs.proxy.flow_minutes {
            return Err(RelayError::FlowGone("its token has expired"));
        }
        Ok(Some(token))
    }

    fn route_values(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = self.legs.message.headers(HeaderName::Route);
        fields
            .flat_map(|field| values(field.value))
            .map(|value| value.bytes)
    }

    /// A request URI taken from a Route, or written by a policy, obeys the rules for one that is received: a host without TLS must not send a
    /// `sips` URI (RFC 5630 §5.3), and a request URI has no headers (RFC 3261 §19.1.1).
    fn check_request_uri(&self, uri: &[u8]) -> Result<(), RelayError> {
        match read_request_uri(uri)? {
            Some(new) if new.scheme == Scheme::Sips && !self.legs.proxy.identity.has_tls() => {
                Err(RelayError::UnsupportedScheme(RelayError::shown(uri)))
            }
            Some(new) if new.headers.is_some() => Err(RelayError::BadUri(RelayError::shown(uri))),
            _ => Ok(()),
        }
    }
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
