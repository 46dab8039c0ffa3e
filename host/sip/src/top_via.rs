//! The Via of the previous hop: the destination of a reply, and the values that the receiver adds to it.

use std::net::{IpAddr, SocketAddr};

use crate::arrival::{Arrival, Destination, Transport};
use crate::edit::{Edits, Text};
use crate::overload::{Demand, is_feedback};
use crate::scan::{Field, HeaderName, Message};
use crate::via::Via;

/// The default port of SIP over UDP and TCP (RFC 3261 §19.1.2).
pub(crate) const DEFAULT_PORT: u16 = Transport::Udp.default_port();

/// Parameters of overload control that a client may write into its Via: `oc`, `oc-algo`, and two that belong into responses only.
pub(crate) const MOST_OFFERS: usize = 4;

/// The first value of the first Via header.
pub(crate) struct TopVia<'a> {
    pub(crate) via: Via<'a>,
    pub(crate) field: Field<'a>,
    /// Whether the request is treated as if it had `rport`.
    forces_rport: bool,
    /// What this host asks of its clients now.
    pub(crate) asked: Option<Demand>,
}

impl<'a> TopVia<'a> {
    /// `None` if the first Via is missing or cannot be parsed.
    pub(crate) fn of(message: Message<'a>) -> Option<Self> {
        Self::with(message, false, None)
    }

    /// The same for a host that asks this of its clients; with `forces_rport`, treated as if it had `rport`.
    #[inline]
    pub(crate) fn with(
        message: Message<'a>,
        forces_rport: bool,
        asked: Option<Demand>,
    ) -> Option<Self> {
        let field = message.header(HeaderName::Via)?;
        Some(Self {
            via: Via::parse(field.value).ok()?,
            field,
            forces_rport,
            asked,
        })
    }

    /// The bytes of the message to cut in order to remove this value: its line, or the value with its comma if others follow on the line.
    pub(crate) fn place_of_first(&self) -> std::ops::Range<usize> {
        match self.via.next {
            Some(at) => self.field.value_range.start..self.field.value_range.start + at,
            None => self.field.line.clone(),
        }
    }

    /// Where the values of each Via header field begin that follow this one: in its own field behind it, and at the start of all others.
    pub(crate) fn rest_of_fields(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.via.next.unwrap_or(self.field.value.len());
        std::iter::once(first).chain(std::iter::repeat(0))
    }

    /// Whether responses go to the source port of the request (RFC 3581 §4).
    fn is_symmetric(&self) -> bool {
        self.forces_rport || self.via.rport().is_some()
    }

    /// Whether the Via follows the grammar as far as a proxy relies on it: no empty parameters and no empty second value (RFC 4475
    /// §3.1.2.1). A parser could skip these, but the sender should learn of the error.
    pub(crate) fn is_well_formed(&self) -> bool {
        let next = |at| {
            let next = self.field.value.get(at..);
            next.is_some_and(|next| Via::parse(next).is_ok())
        };
        self.via.has_no_empty_params() && self.via.next.is_none_or(next)
    }

    /// Records the source of the request: `rport` is filled in if requested, or added if forced, and `received` is added in these cases or
    /// if sent-by differs from the source address (RFC 3261 §18.2.1, RFC 3581 §4). Values written by the sender are replaced. `base` is the
    /// offset of the header's value in the bytes that the edits apply to. False when the edits do not fit.
    #[must_use]
    pub(crate) fn note_source<const MOST: usize>(
        &self,
        source: SocketAddr,
        base: usize,
        edits: &mut Edits<'_, MOST>,
    ) -> bool {
        let shift = |place: std::ops::Range<usize>| base + place.start..base + place.end;
        let mut fits = true;
        let rport = Text::Labelled(b";rport=", source.port().into());
        match self.via.rport_range() {
            Some(place) => fits &= edits.replace(shift(place), rport),
            None if self.forces_rport => {
                fits &= edits.insert(base + self.via.range.end, rport);
            }
            None => {}
        }
        let received = Text::Address(b";received=", source.ip());
        match self.via.received_range() {
            Some(place) => fits &= edits.replace(shift(place), received),
            None if self.is_symmetric() || !self.says(source.ip()) => {
                fits &= edits.insert(base + self.via.range.end, received);
            }
            None => {}
        }
        fits
    }

    /// Writes what this host asks of the sender of the request in place of the sender's offer (RFC 7339 §4.1). `write` is
    /// [`Overload::write`](crate::Overload). False when the edits do not fit.
    #[must_use]
    pub(crate) fn note_overload<'e, const MOST: usize>(
        &self,
        write: &'e dyn Fn(&mut Vec<u8>),
        edits: &mut Edits<'e, MOST>,
    ) -> bool {
        let mut text = Text::Written(write);
        self.offers().all(|place| {
            let text = std::mem::replace(&mut text, Text::Nothing);
            edits.replace(place, text)
        })
    }

    /// The parameters of overload control that the sender of the request has written, up to [`MOST_OFFERS`].
    pub(crate) fn offers(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<'a> {
        let params = self.via.params.clone().filter(is_feedback);
        params.map(|param| param.range).take(MOST_OFFERS)
    }

    /// The destination of a reply of our own, as for Kamailio's `sl_reply`: the source address; the source port if `rport` requests it,
    /// otherwise the port of sent-by. On streams the reply uses the connection of the request; the address is used if that is closed (RFC
    /// 3261 §18.2.2). `maddr` is not followed: a reply never goes to a third party.
    pub(crate) fn reply_to(&self, arrival: &Arrival) -> Destination {
        let default = arrival.transport.default_port();
        let sent_by = self.via.port.unwrap_or(default);
        let is_symmetric = !arrival.transport.is_reliable() && self.is_symmetric();
        let port = if is_symmetric {
            arrival.source.port()
        } else {
            sent_by
        };
        Destination {
            transport: arrival.transport,
            addr: SocketAddr::new(arrival.source.ip(), port),
            from: Some(arrival.local),
            connection: arrival.connection,
            name: None,
            is_flow: false,
        }
    }

    fn says(&self, source: IpAddr) -> bool {
        self.via
            .host
            .ip()
            .is_some_and(|ip| ip.to_canonical() == source)
    }
}
