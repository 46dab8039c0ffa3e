//! Responses on their path back (RFC 3261 §16.11, §18.1.2, §18.2.2).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Proxy;
use super::branch::{Branch, Claim, Origin};
use super::drop_reason::DropReason;
use super::flow_timer::{is_due, write_flow_timer};
use super::relay::write_content_length;
use super::stream::Stream;
use crate::arrival::{Arrival, Destination};
use crate::host::{Host, ip_address};
use crate::key::Key;
use crate::overload::{Feedback, Returning};
use crate::routes::Routes;
use crate::scan::{HeaderName, Message, ScanError};
use crate::top_via::{DEFAULT_PORT, TopVia};
use crate::via::Via;

impl Proxy {
    /// Writes a response without our Via and returns the destination that the next Via names. Every status is passed on, 100
    /// included, because a stateless proxy has no transaction that could absorb it.
    pub(super) fn way_back(
        &self,
        message: Message<'_>,
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Result<Destination, DropReason> {
        if scanned.is_err() {
            return Err(DropReason::BadResponse);
        }
        let (top, branch, key) = self.our_via(message)?;
        let next = match top.via.next {
            Some(at) => top.field.value.get(at..).unwrap_or_default(),
            None => {
                let second = message.headers(HeaderName::Via).nth(1);
                second.ok_or(DropReason::ResponseToUs)?.value
            }
        };
        let next = Via::parse_returned(next).map_err(|_| DropReason::BadResponse)?;
        let claim = Claim::of(&top.via).ok_or(DropReason::TurnedResponse)?;
        let ways = ways_back(&next, claim.origin);
        if ways == [None, None] {
            return Err(DropReason::NoWayBack);
        }
        let is_sealed = |back_to: &SocketAddr| claim.holds(key, branch.transaction, *back_to);
        let back_to = ways.into_iter().flatten().find(is_sealed);
        let back_to = back_to.ok_or(DropReason::TurnedResponse)?;
        if self.age(claim.origin.minute) > MOST_MINUTES {
            return Err(DropReason::LateResponse);
        }
        let destination = self
            .destination(back_to, claim.origin, arrival)
            .ok_or(DropReason::NoWayBack)?;

        let ours = top.place_of_first();
        let bytes = message.bytes();
        out.extend_from_slice(bytes.get(..ours.start).unwrap_or_default());
        let mut rest = ours.end;
        let feedback = self.feedback();
        if feedback != Feedback::Untouched {
            let mut returning = Returning::new(feedback, &top.via);
            let fields = message.headers(HeaderName::Via);
            for (field, at) in fields.zip(top.rest_of_fields()) {
                returning.write(bytes, &field, at, &mut rest, out);
            }
        }
        let lacks_length = message.header(HeaderName::ContentLength).is_none();
        let transport = destination.transport;
        if transport.is_reliable() && (lacks_length || is_due(message, transport)) {
            let header_end = message.header_end();
            out.extend_from_slice(bytes.get(rest..header_end).unwrap_or_default());
            write_flow_timer(message, transport, self.flow_timer, out);
            if lacks_length {
                // A datagram may do without; on a stream the next message would be taken for the body (RFC 3261 §18.3).
                write_content_length(message, out);
            }
            rest = header_end;
        }
        out.extend_from_slice(bytes.get(rest..).unwrap_or_default());
        Ok(destination)
    }

    /// The top Via of a message, which this host wrote, its branch, and the key of its seal.
    pub(super) fn our_via<'m>(
        &self,
        message: Message<'m>,
    ) -> Result<(TopVia<'m>, Branch, &Key), DropReason> {
        if !message.start_line().is_sip_2() {
            return Err(DropReason::BadResponse);
        }
        let top = TopVia::of(message).ok_or(DropReason::BadResponse)?;
        if !self.identity.is_our_via(&top.via) {
            return Err(DropReason::ForeignResponse);
        }
        let (branch, key) =
            Branch::of_our(&self.keys, &top.via).ok_or(DropReason::ForgedResponse)?;
        Ok((top, branch, key))
    }

    /// The destination of the response to a request (RFC 3261 §18.2.2): the source of the request, as for a response of our own; `maddr`
    /// only if requests may go there, too. The address that [`ways_back`] will find in the Via.
    pub(super) fn back_to(
        &self,
        top: &TopVia<'_>,
        arrival: &Arrival,
        routes: &Routes,
    ) -> SocketAddr {
        let source = top.reply_to(arrival).addr;
        let maddr = match arrival.connection {
            Some(_) => None,
            None => by_maddr(&top.via),
        };
        let is_permitted = |to: &SocketAddr| {
            let host = match to.ip() {
                IpAddr::V4(ip) => Host::V4(ip),
                IpAddr::V6(ip) => Host::V6(ip),
            };
            routes.permission(host, to.port()).is_granted()
        };
        maddr.filter(is_permitted).unwrap_or(source)
    }

    fn destination(
        &self,
        back_to: SocketAddr,
        origin: Origin,
        arrival: &Arrival,
    ) -> Option<Destination> {
        // The response to a request over a stream uses that stream, and the response to a datagram is a datagram, whatever the Via says: a
        // request decrypted before it came here says TLS.
        let transport = Stream::transport(origin.stream);
        if self.identity.listens_on(transport, back_to) {
            return None;
        }
        // A response is sent from the socket that received its request (RFC 3581 §4).
        let noted = self.identity.place(origin.socket as usize);
        let place = noted
            .filter(|place| place.transport == transport)
            .or_else(|| {
                self.identity
                    .place_towards(transport, back_to.ip(), arrival.local)
            });
        Some(Destination {
            transport,
            addr: back_to,
            from: place.map(|place| place.addr),
            connection: origin.stream.map(|stream| stream.connection),
            name: None,
            is_flow: false,
        })
    }
}

/// Maximum time for a response, in minutes: longer than any call rings or waits in a queue.
const MOST_MINUTES: u32 = 24 * 60;

/// The possible destinations of a Via: for a stream the address for a new connection if that of the request is gone; for a datagram
/// `received` with `rport`, otherwise sent-by, or `maddr`.
fn ways_back(via: &Via<'_>, origin: Origin) -> [Option<SocketAddr>; 2] {
    let host = via.received().or_else(|| via.host.ip());
    let default = Stream::transport(origin.stream).default_port();
    let sent_by_port = via.port.unwrap_or(default);
    if origin.stream.is_some() {
        return [host.and_then(|ip| usable(ip, sent_by_port)), None];
    }
    let port = via.rport().flatten().unwrap_or(sent_by_port);
    [host.and_then(|ip| usable(ip, port)), by_maddr(via)]
}

fn by_maddr(via: &Via<'_>) -> Option<SocketAddr> {
    let ip = via.maddr().and_then(ip_address)?;
    usable(ip, via.port.unwrap_or(DEFAULT_PORT))
}

/// Whether the address is unicast: a response to a broadcast or multicast address would be amplified (RFC 4475 §3.3.10).
fn usable(ip: IpAddr, port: u16) -> Option<SocketAddr> {
    let ip = ip.to_canonical();
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    (!is_broadcast && !ip.is_multicast() && !ip.is_unspecified()).then(|| SocketAddr::new(ip, port))
}
