//! What clients send while this host asks them for less (RFC 7339, RFC 7415): how many requests of those that cannot be asked are refused, and how many
//! a second come from those that are asked by rate.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use portcullis_rate::{Clock, Limit, Meter, Order, Throttle, Weight};
use portcullis_sip::{Message, Offer};

use crate::weight::weight_of;

/// Clients whose requests are counted; 8 bytes each. Two clients in one place count as one: each of them may then send less than it might.
const PLACES: usize = 4_096;

/// How long the last look at the load counts, in milliseconds. There is one each second.
const VALIDITY: u32 = 3_000;

/// What the clients of this host send, for all workers.
#[derive(Debug)]
pub struct ClientLoad {
    meters: Box<[Meter]>,
    /// What is refused of those that cannot be asked.
    refused: Throttle,
    /// Whether anything is: as long as nothing is, a request costs nothing.
    refuses: AtomicBool,
    clock: Clock,
    /// Nobody outside can choose addresses that share a place.
    hasher: RandomState,
}

impl Default for ClientLoad {
    fn default() -> Self {
        Self {
            meters: (0..PLACES).map(|_| Meter::default()).collect(),
            refused: Throttle::default(),
            refuses: AtomicBool::new(false),
            clock: Clock::new(),
            hasher: RandomState::new(),
        }
    }
}

impl ClientLoad {
    /// Counts a request of a client that is asked by rate.
    pub fn note(&self, source: IpAddr, now: Instant) {
        let place = self.hasher.hash_one(source) as usize % PLACES;
        self.meters[place].note(self.clock.at(now));
    }

    /// What each of these clients has sent in the last second.
    pub fn rates(&self, now: Instant) -> Vec<u32> {
        let now = self.clock.at(now);
        let rates = self.meters.iter().map(|meter| meter.last(now));
        rates.filter(|rate| *rate > 0).collect()
    }

    /// Refuses this percentage of the new requests of clients that cannot be asked to keep them back.
    pub fn refuse(&self, loss: u8, now: Instant) {
        let order = Order {
            limit: Limit::Loss(loss),
            validity: VALIDITY,
            sequence: None,
        };
        let _always = self.refused.obey(order, self.clock.at(now));
        self.refuses.store(loss > 0, Ordering::Relaxed);
    }

    /// Whether this request is refused because the host is overloaded and its sender does not support overload control: otherwise such a client would
    /// have an advantage over those that do (RFC 7339 §5.10.2). Requests within dialogs and emergencies never are.
    #[inline]
    pub fn refuses(&self, request: Message<'_>, now: impl FnOnce() -> Instant) -> bool {
        self.refuses.load(Ordering::Relaxed)
            && weight_of(request) == Some(Weight::New)
            && !Offer::of_request(request).is_some()
            && (self.refused).keeps_back(Weight::New, self.clock.at(now()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_sip::{Framing, Index, Limits, scan};

    use super::*;

    /// How many of a hundred such requests are refused.
    fn refused(load: &ClientLoad, method: &str, via: &str, to: &str, now: Instant) -> usize {
        let text = format!(
            "{method} sip:b@c SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1{via}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:b@c>{to}\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n\r\n"
        );
        let mut index = Index::default();
        let limits = Limits::default();
        scan(text.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
        let message = Message::new(text.as_bytes(), &index);
        (0..100).filter(|_| load.refuses(message, || now)).count()
    }

    #[test]
    fn a_client_that_cannot_be_asked_has_no_advantage() {
        let (load, now) = (ClientLoad::default(), Instant::now());
        assert_eq!(refused(&load, "INVITE", "", "", now), 0);
        load.refuse(35, now);
        assert_eq!(refused(&load, "INVITE", "", "", now), 35);
        assert_eq!(refused(&load, "REGISTER", ";oc-algo=\"loss\"", "", now), 35);
        for asked in [";oc", ";oc;oc-algo=\"loss\"", ";oc;oc-algo=\"rate,loss\""] {
            assert_eq!(refused(&load, "INVITE", asked, "", now), 0, "{asked}");
        }
        assert_eq!(refused(&load, "BYE", "", ";tag=2", now), 0);
        assert_eq!(refused(&load, "ACK", "", "", now), 0);
        load.refuse(0, now);
        assert_eq!(refused(&load, "INVITE", "", "", now), 0);
        load.refuse(50, now);
        let later = now + Duration::from_secs(4);
        assert_eq!(refused(&load, "INVITE", "", "", later), 0, "nobody looks");
    }

    #[test]
    fn the_requests_of_each_client_are_counted() {
        let (load, now) = (ClientLoad::default(), Instant::now());
        assert!(load.rates(now).is_empty());
        for (last, count) in [(1, 30), (2, 5)] {
            let source = IpAddr::from([192, 0, 2, last]);
            (0..count).for_each(|_| load.note(source, now));
        }
        let later = now + Duration::from_secs(1);
        let mut rates = load.rates(later);
        rates.sort_unstable();
        assert!(rates == [5, 30] || rates == [35], "{rates:?}");
        assert!(load.rates(later + Duration::from_secs(2)).is_empty());
    }
}
