//! Responses on their way back (RFC 3261 §16.11, §18.1.2, §18.2.2).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Proxy;
use super::branch::{Origin, Transaction};
use super::drop_reason::DropReason;
use super::top_via::{DEFAULT_PORT, TopVia};
use crate::arrival::{Arrival, Destination, Transport};
use crate::host::ip_address;
use crate::scan::{HeaderName, Message, ScanError};
use crate::via::Via;

impl Proxy {
    /// Writes a response without our Via and tells where the next one leads. The response itself is passed on whatever it
    /// says, 100 included: a stateless proxy has no one to keep it for.
    pub(super) fn way_back(
        &self,
        message: Message<'_>,
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Result<Destination, DropReason> {
        if scanned.is_err() || !message.start_line().is_sip_2() {
            return Err(DropReason::BadResponse);
        }
        let top = TopVia::of(message).ok_or(DropReason::BadResponse)?;
        if !self.identity.is_our_via(&top.via) {
            return Err(DropReason::ForeignResponse);
        }
        let transaction =
            Transaction::of_our(&self.key, &top.via).ok_or(DropReason::ForgedResponse)?;
        let next = match top.via.next {
            Some(at) => top.field.value.get(at..).unwrap_or_default(),
            None => {
                let second = message.headers(HeaderName::Via).nth(1);
                second.ok_or(DropReason::ResponseToUs)?.value
            }
        };
        let next = Via::parse(next).map_err(|_| DropReason::BadResponse)?;
        let origin = Origin::of_our(&self.key, &top.via, transaction);
        let destination = self
            .destination(&next, origin, arrival)
            .ok_or(DropReason::NoWayBack)?;

        let ours = match top.via.next {
            Some(at) => top.field.value_range.start..top.field.value_range.start + at,
            None => top.field.line,
        };
        let bytes = message.bytes();
        out.extend_from_slice(bytes.get(..ours.start).unwrap_or_default());
        out.extend_from_slice(bytes.get(ours.end..).unwrap_or_default());
        Ok(destination)
    }

    fn destination(
        &self,
        next: &Via<'_>,
        origin: Option<Origin>,
        arrival: &Arrival,
    ) -> Option<Destination> {
        // A request over a stream has its response over that stream, whatever the Via says: one that was taken out of TLS
        // before it came here says TLS.
        let connection = origin.and_then(|origin| origin.connection);
        let transport = match connection {
            Some(_) => Transport::Tcp,
            None => Transport::from_token(next.transport)?,
        };
        let addr = match transport {
            Transport::Udp => datagram_address(next)?,
            Transport::Tcp => stream_address(next)?,
        };
        if self.identity.listens_on(transport, addr) {
            return None;
        }
        // A response leaves from the socket that its request came to (RFC 3581 §4).
        let noted = origin.and_then(|origin| self.identity.place(origin.socket as usize));
        let place = noted
            .filter(|place| place.transport == transport)
            .or_else(|| {
                self.identity
                    .place_towards(transport, addr.ip(), arrival.local)
            });
        Some(Destination {
            transport,
            addr,
            from: place.map(|place| place.addr),
            connection,
        })
    }
}

/// `maddr`, else `received` with `rport`, else sent-by.
fn datagram_address(via: &Via<'_>) -> Option<SocketAddr> {
    let sent_by_port = via.port.unwrap_or(DEFAULT_PORT);
    if let Some(ip) = via.maddr().and_then(ip_address) {
        return usable(ip, sent_by_port);
    }
    let rport = via.rport().flatten();
    match via.received() {
        Some(ip) => usable(ip, rport.unwrap_or(sent_by_port)),
        None => usable(via.host.ip()?, rport.unwrap_or(sent_by_port)),
    }
}

/// `received`, else sent-by, always with the port of sent-by: the address to open a connection to when the one that the
/// request came over is gone.
fn stream_address(via: &Via<'_>) -> Option<SocketAddr> {
    usable(
        via.received().or_else(|| via.host.ip())?,
        via.port.unwrap_or(DEFAULT_PORT),
    )
}

/// No address to which a response could be one of many (RFC 4475 §3.3.10).
fn usable(ip: IpAddr, port: u16) -> Option<SocketAddr> {
    let ip = ip.to_canonical();
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    (!is_broadcast && !ip.is_multicast() && !ip.is_unspecified()).then(|| SocketAddr::new(ip, port))
}
