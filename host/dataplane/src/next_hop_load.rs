//! What next hops say about their load (RFC 7339, RFC 7415), and how many requests to them are kept back.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use portcullis_rate::{Clock, Limit as Sent, Order, Throttle};
use portcullis_sip::{Destination, Limit, Message, Overload};

use crate::weight::weight_of;

/// Next hops that may ask for less at once; 64 bytes each. Further ones are not obeyed.
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
#[repr(align(64))]
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
    /// Notes what the next hop at this address says. What it says goes for its address and port, whatever the transport (RFC 7339 §5.4).
    pub fn note(&self, addr: SocketAddr, said: &Overload, now: Instant) {
        let now = self.clock.at(now);
        let hash = self.hash(addr);
        let place = match self.find(hash) {
            Some(place) => place,
            // Nothing to keep back, and nothing to end.
            None if said.limit == Limit::Loss(0) || said.validity == 0 => return,
            None => match self.claim(hash, now) {
                Some(place) => place,
                None => return,
            },
        };
        let order = Order {
            limit: match said.limit {
                Limit::Loss(loss) => Sent::Loss(loss),
                Limit::Rate(rate) => Sent::Rate(rate),
            },
            validity: said.validity,
            sequence: said.sequence,
        };
        let _unless_older = place.throttle.obey(order, now);
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// What the next hop asks for, if a request to this destination is kept back for that reason.
    #[inline]
    pub fn keeps_back(
        &self,
        request: Message<'_>,
        to: &Destination,
        now: impl FnOnce() -> Instant,
    ) -> Option<Limit> {
        if !self.is_used.load(Ordering::Relaxed) {
            return None;
        }
        let weight = weight_of(request)?;
        let place = self.find(self.hash(to.addr))?;
        let now = self.clock.at(now());
        let limit = match place.throttle.limit(now)? {
            Sent::Loss(loss) => Limit::Loss(loss),
            Sent::Rate(rate) => Limit::Rate(rate),
        };
        place.throttle.keeps_back(weight, now).then_some(limit)
    }

    /// Number of next hops that are asking for less now.
    pub fn asking(&self, now: Instant) -> usize {
        let now = self.clock.at(now);
        let asks = |place: &&Place| place.throttle.limit(now).is_some();
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

    fn hash(&self, addr: SocketAddr) -> u64 {
        self.hasher.hash_one(addr).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_sip::{Framing, Index, Limits, Transport, scan};

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
            limit: Limit::Loss(loss),
            validity: 500,
            sequence: Some(sequence),
        }
    }

    /// Calls `then` with a request that has such a line and such fields.
    fn with<R>(text: &str, then: impl FnOnce(Message<'_>) -> R) -> R {
        let (line, fields) = text.split_once("\r\n").unwrap();
        let (method, _) = line.split_once(' ').unwrap();
        let text = format!(
            "{line}\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n\
             Call-ID: 1\r\nCSeq: 1 {method}\r\n{fields}"
        );
        let mut index = Index::default();
        let limits = Limits::default();
        scan(text.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
        then(Message::new(text.as_bytes(), &index))
    }

    /// How many of a hundred of them are kept back.
    fn kept_back(load: &NextHopLoad, text: &str, port: u16, now: Instant) -> usize {
        with(text, |message| {
            let kept_back = |_: &i32| load.keeps_back(message, &to(port), || now).is_some();
            (0..100).filter(kept_back).count()
        })
    }

    const INVITE: &str = "INVITE sip:b@c SIP/2.0\r\nTo: <sip:b@c>\r\n\r\n";

    #[test]
    fn a_next_hop_is_obeyed_and_others_are_not_concerned() {
        let (load, now) = (NextHopLoad::default(), Instant::now());
        assert_eq!(kept_back(&load, INVITE, 5060, now), 0);
        load.note(addr(5060), &said(30, 1), now);
        assert_eq!(kept_back(&load, INVITE, 5060, now), 30);
        assert_eq!(kept_back(&load, INVITE, 5061, now), 0);
        assert_eq!(load.asking(now), 1);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            (kept_back(&load, INVITE, 5060, later), load.asking(later)),
            (0, 0)
        );
    }

    /// RFC 7339 §5.4, RFC 7415.
    #[test]
    fn a_rate_is_obeyed_over_every_transport_and_may_be_nothing() {
        let (load, now) = (NextHopLoad::default(), Instant::now());
        let rate = |rate, sequence| Overload {
            limit: Limit::Rate(rate),
            ..said(0, sequence)
        };
        load.note(addr(5060), &rate(20, 1), now);
        assert_eq!(load.asking(now), 1);
        assert_eq!(kept_back(&load, INVITE, 5060, now), 100 - 6);
        let mut stream = to(5060);
        stream.transport = Transport::Tcp;
        let limit = with(INVITE, |message| load.keeps_back(message, &stream, || now));
        assert_eq!(limit, Some(Limit::Rate(20)));
        let ack = INVITE.replace("INVITE", "ACK");
        assert_eq!(kept_back(&load, &ack, 5060, now), 0);
        load.note(addr(5060), &rate(0, 2), now);
        assert_eq!(kept_back(&load, INVITE, 5060, now), 100);
        let end = Overload {
            validity: 0,
            ..said(0, 3)
        };
        load.note(addr(5060), &end, now);
        assert_eq!(
            (load.asking(now), kept_back(&load, INVITE, 5060, now)),
            (0, 0)
        );
    }

    #[test]
    fn what_belongs_to_a_call_and_emergencies_go_first_and_an_ack_always() {
        let now = Instant::now();
        let kept = |loss, text: &str| {
            let load = NextHopLoad::default();
            load.note(addr(5060), &said(loss, 1), now);
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
            load.note(addr(port), &said(50, 1), now);
        }
        assert!(load.asking(now) > PLACES / 2 && load.asking(now) <= PLACES);
        // They are forgotten, and others take their places.
        let later = now + Duration::from_secs(120);
        load.note(addr(5060), &said(50, 1), later);
        assert_eq!(load.asking(later), 1);
    }
}
