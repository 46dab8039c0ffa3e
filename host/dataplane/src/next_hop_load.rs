//! What next hops say about their load (RFC 7339), and how many requests to them are kept back.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use portcullis_rate::{Clock, Order, Throttle, Weight};
use portcullis_sip::{Destination, Message, Overload, StartLine, Transport, to_has_tag};

/// Next hops that may ask for less at once; 32 bytes each. Further ones are not obeyed.
const PLACES: usize = 1_024;

/// Places in which a next hop may be.
const WAYS: usize = 8;

/// The next hops that have asked for fewer requests lately.
#[derive(Debug)]
pub struct NextHopLoad {
    places: Box<[Place]>,
    /// Whether any has ever asked: as long as none has, a request costs nothing.
    is_used: AtomicBool,
    clock: Clock,
    /// Nobody outside can choose addresses that share places.
    hasher: RandomState,
}

/// A next hop that has asked.
#[derive(Debug, Default)]
#[repr(align(32))]
struct Place {
    /// The hash of its address; 0 for a free place.
    owner: AtomicU64,
    throttle: Throttle,
}

impl Default for NextHopLoad {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| Place::default()).collect(),
            is_used: AtomicBool::new(false),
            clock: Clock::new(),
            hasher: RandomState::new(),
        }
    }
}

impl NextHopLoad {
    /// Notes what the next hop at this address says.
    pub fn note(&self, transport: Transport, addr: SocketAddr, said: &Overload, now: Instant) {
        let now = self.clock.at(now);
        let hash = self.hash(transport, addr);
        let place = match self.find(hash) {
            Some(place) => place,
            // Nothing to keep back, and nothing to end.
            None if said.loss == 0 || said.validity == 0 => return,
            None => match self.claim(hash, now) {
                Some(place) => place,
                None => return,
            },
        };
        let order = Order {
            loss: said.loss,
            validity: said.validity,
            sequence: said.sequence,
        };
        let _unless_older = place.throttle.obey(order, now);
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// Whether a request to this destination is kept back, and the percentage that the next hop asks for.
    #[inline]
    pub fn keeps_back(
        &self,
        request: Message<'_>,
        to: &Destination,
        now: impl FnOnce() -> Instant,
    ) -> Option<u8> {
        if !self.is_used.load(Ordering::Relaxed) {
            return None;
        }
        let weight = weight_of(request)?;
        let place = self.find(self.hash(to.transport, to.addr))?;
        let now = self.clock.at(now());
        let loss = place.throttle.loss(now);
        place.throttle.keeps_back(weight, now).then_some(loss)
    }

    /// Number of next hops that are asking for less now.
    pub fn asking(&self, now: Instant) -> usize {
        let now = self.clock.at(now);
        let asks = |place: &&Place| place.throttle.loss(now) > 0;
        self.places.iter().filter(asks).count()
    }

    fn find(&self, hash: u64) -> Option<&Place> {
        let owns = |place: &&Place| place.owner.load(Ordering::Relaxed) == hash;
        self.row(hash).find(owns)
    }

    /// A place for a next hop that has none; `None` if others have all.
    fn claim(&self, hash: u64, now: u64) -> Option<&Place> {
        self.row(hash).find(|place| {
            let old = place.owner.load(Ordering::Relaxed);
            if old != 0 && !place.throttle.is_forgotten(now) {
                return false;
            }
            let claimed =
                place
                    .owner
                    .compare_exchange(old, hash, Ordering::Relaxed, Ordering::Relaxed);
            if claimed.is_ok() {
                place.throttle.clear();
            }
            claimed.is_ok()
        })
    }

    fn row(&self, hash: u64) -> impl Iterator<Item = &Place> {
        let first = hash as usize % PLACES;
        (0..WAYS).map(move |nth| &self.places[(first + nth) % PLACES])
    }

    fn hash(&self, transport: Transport, addr: SocketAddr) -> u64 {
        self.hasher.hash_one((transport, addr)).max(1)
    }
}

/// How important a request is. `None`: it is never kept back, because the other side waits for it (ACK, CANCEL).
fn weight_of(request: Message<'_>) -> Option<Weight> {
    let StartLine::Request { method, uri, .. } = request.start_line() else {
        return None;
    };
    match method {
        b"ACK" | b"CANCEL" => None,
        _ if to_has_tag(request) || is_emergency(request, uri) => Some(Weight::Urgent),
        _ => Some(Weight::New),
    }
}

/// Whether somebody calls for help: the service URN (RFC 5031), `Priority: emergency` (RFC 3261 §20.26), or a priority for emergencies (RFC 4412,
/// RFC 7135).
fn is_emergency(request: Message<'_>, uri: &[u8]) -> bool {
    const SERVICE: &[u8] = b"urn:service:sos";
    let begins = |text: &[u8]| {
        let start = text.get(..SERVICE.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(SERVICE))
    };
    let is = |name: &str, wanted: fn(&[u8]) -> bool| {
        let mut fields = request.by_name(name);
        fields.any(|field| wanted(field.value))
    };
    begins(uri)
        || is("Priority", |value| value.eq_ignore_ascii_case(b"emergency"))
        || is("Resource-Priority", |value| {
            let start = value.get(..5);
            start.is_some_and(|start| start.eq_ignore_ascii_case(b"esnet"))
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_sip::{Framing, Index, Limits, scan};

    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn to(port: u16) -> Destination {
        Destination {
            transport: Transport::Udp,
            addr: addr(port),
            from: None,
            connection: None,
            name: None,
            is_flow: false,
        }
    }

    fn said(loss: u8, sequence: u64) -> Overload {
        Overload {
            loss,
            validity: 500,
            sequence: Some(sequence),
        }
    }

    /// How many of a hundred requests with such a line and such fields are kept back.
    fn kept_back(load: &NextHopLoad, text: &str, port: u16, now: Instant) -> usize {
        let (line, fields) = text.split_once("\r\n").unwrap();
        let (method, _) = line.split_once(' ').unwrap();
        let text = format!(
            "{line}\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n\
             Call-ID: 1\r\nCSeq: 1 {method}\r\n{fields}"
        );
        let mut index = Index::default();
        let limits = Limits::default();
        scan(text.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
        let message = Message::new(text.as_bytes(), &index);
        (0..100)
            .filter(|_| load.keeps_back(message, &to(port), || now).is_some())
            .count()
    }

    const INVITE: &str = "INVITE sip:b@c SIP/2.0\r\nTo: <sip:b@c>\r\n\r\n";

    #[test]
    fn a_next_hop_is_obeyed_and_others_are_not_concerned() {
        let (load, now) = (NextHopLoad::default(), Instant::now());
        assert_eq!(kept_back(&load, INVITE, 5060, now), 0);
        load.note(Transport::Udp, addr(5060), &said(30, 1), now);
        assert_eq!(kept_back(&load, INVITE, 5060, now), 30);
        assert_eq!(kept_back(&load, INVITE, 5061, now), 0);
        assert_eq!(load.asking(now), 1);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            (kept_back(&load, INVITE, 5060, later), load.asking(later)),
            (0, 0)
        );
    }

    #[test]
    fn what_belongs_to_a_call_and_emergencies_go_first_and_an_ack_always() {
        let now = Instant::now();
        let kept = |loss, text: &str| {
            let load = NextHopLoad::default();
            load.note(Transport::Udp, addr(5060), &said(loss, 1), now);
            // As many new requests.
            kept_back(&load, INVITE, 5060, now);
            kept_back(&load, text, 5060, now)
        };
        for text in [
            "BYE sip:b@c SIP/2.0\r\nTo: <sip:b@c>;tag=1\r\n\r\n",
            "INVITE urn:service:sos.fire SIP/2.0\r\nTo: <sip:b@c>\r\n\r\n",
            "INVITE sip:b@c SIP/2.0\r\nTo: <sip:b@c>\r\nPriority: emergency\r\n\r\n",
            "INVITE sip:b@c SIP/2.0\r\nTo: <sip:b@c>\r\nResource-Priority: esnet.0\r\n\r\n",
        ] {
            assert_eq!(kept(40, text), 0, "{text}");
            assert!(kept(100, text) > 90, "{text}");
        }
        for method in ["ACK", "CANCEL"] {
            let text = INVITE.replace("INVITE", method);
            assert_eq!(kept(100, &text), 0, "{method}");
        }
    }

    #[test]
    fn a_table_that_is_full_obeys_those_that_it_knows() {
        let (load, now) = (NextHopLoad::default(), Instant::now());
        for port in 1..20_000 {
            load.note(Transport::Udp, addr(port), &said(50, 1), now);
        }
        assert!(load.asking(now) > PLACES / 2 && load.asking(now) <= PLACES);
        // They are forgotten, and others take their places.
        let later = now + Duration::from_secs(120);
        load.note(Transport::Tcp, addr(5060), &said(50, 1), later);
        assert_eq!(load.asking(later), 1);
    }
}
