//! The hosts that live, as workers see them.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use crate::keys::bytes_of;
use crate::socket::{Socket, fnv};

/// The hosts that live. It is replaced as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// This host, if it takes new requests.
    pub(crate) own: Option<Place>,
    pub(crate) peers: Box<[Peer]>,
}

/// Another host that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub(crate) addr: SocketAddr,
    /// Its tags, one for each key: that of the current key first.
    pub(crate) tags: Box<[NonZeroU32]>,
    pub(crate) session: u64,
    /// The names of its sockets, by their numbers.
    pub(crate) sockets: Box<[u64]>,
    /// Whether it takes new requests.
    pub(crate) serves: bool,
    pub(crate) place: Place,
}

/// What decides which requests a host gets: the same number at all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Table {
    /// The host with this tag, if it is another one, lives, and has this socket.
    pub fn with_tag(&self, tag: NonZeroU32, socket: Socket) -> Option<&Peer> {
        let mut peers = self.peers.iter();
        let peer = peers.find(|peer| peer.tags.contains(&tag))?;
        peer.has(socket).then_some(peer)
    }

    /// The host that a request with this transaction goes to, of those that take new requests and have this socket; `None` if that is this one. All hosts that see the same hosts alive choose the same one, and when a host comes or goes, only its own requests change their host
    /// (rendezvous hashing).
    pub fn chosen_for(&self, transaction: u64, socket: Socket) -> Option<&Peer> {
        let peers = self.peers.iter();
        let peers = peers.filter(|peer| peer.serves && peer.has(socket));
        let best = peers.max_by_key(|peer| peer.place.weight(transaction))?;
        let own = self.own.map(|own| own.weight(transaction));
        (own < Some(best.place.weight(transaction))).then_some(best)
    }

    /// How many other hosts live.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// The addresses of the other hosts that live.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.peers.iter().map(|peer| peer.addr)
    }
}

impl Peer {
    /// Whether it shares this socket.
    fn has(&self, socket: Socket) -> bool {
        let name = self.sockets.get(usize::from(socket.number));
        socket.name != 0 && name == Some(&socket.name)
    }
}

impl Place {
    /// The place of the host with this address.
    pub(crate) fn of(addr: SocketAddr) -> Self {
        Self(mixed(fnv(&bytes_of(addr))))
    }

    /// The host with the greatest weight gets the transaction. The number of a transaction is a keyed hash.
    fn weight(self, transaction: u64) -> u64 {
        mixed(self.0 ^ transaction)
    }
}

/// The finaliser of SplitMix64: each bit of the input changes half of the output.
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: Socket = Socket { number: 1, name: 7 };

    fn addr(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 5070).into()
    }

    fn peer(number: u8) -> Peer {
        Peer {
            addr: addr(number),
            tags: Box::new([NonZeroU32::new(number.into()).unwrap()]),
            session: 1,
            sockets: Box::new([0, SHARED.name]),
            serves: true,
            place: Place::of(addr(number)),
        }
    }

    /// What the host with this number sees of these.
    fn seen_by(own: u8, all: &[u8]) -> Table {
        let others = all.iter().filter(|number| **number != own);
        Table {
            own: all.contains(&own).then(|| Place::of(addr(own))),
            peers: others.map(|number| peer(*number)).collect(),
        }
    }

    fn chosen(table: &Table, own: u8, transaction: u64) -> SocketAddr {
        let peer = table.chosen_for(transaction, SHARED);
        peer.map_or_else(|| addr(own), |peer| peer.addr)
    }

    #[test]
    fn all_hosts_choose_the_same_one_and_each_gets_its_share() {
        let all = [1, 2, 3, 4];
        let mut shares = [0; 5];
        for transaction in (0..4_000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let choices = all.map(|own| chosen(&seen_by(own, &all), own, transaction));
            assert!(choices.iter().all(|choice| *choice == choices[0]));
            let number = all
                .iter()
                .find(|number| addr(**number) == choices[0])
                .unwrap();
            shares[usize::from(*number)] += 1;
        }
        assert!(
            shares[1..].iter().all(|share| (800..1_200).contains(share)),
            "{shares:?}"
        );
    }

    #[test]
    fn a_host_that_goes_takes_nothing_from_the_others() {
        let (before, after) = (seen_by(1, &[1, 2, 3]), seen_by(1, &[1, 3]));
        let mut moved = 0;
        for transaction in (0..3_000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let old = chosen(&before, 1, transaction);
            if old == addr(2) {
                moved += 1;
            } else {
                assert_eq!(chosen(&after, 1, transaction), old);
            }
        }
        assert!((800..1_200).contains(&moved), "{moved}");
    }

    #[test]
    fn a_host_that_drains_or_listens_elsewhere_gets_no_request_and_keeps_its_answers() {
        let tag = NonZeroU32::new(2).unwrap();
        let mut table = seen_by(1, &[1, 2]);
        let of_other = (0..).find(|n| table.chosen_for(*n, SHARED).is_some());
        let of_other = of_other.unwrap();
        let elsewhere = [
            Socket { number: 0, name: 0 },
            Socket { number: 0, name: 7 },
            Socket { number: 1, name: 8 },
            Socket { number: 2, name: 7 },
        ];
        for socket in elsewhere {
            assert_eq!(table.chosen_for(of_other, socket), None);
            assert_eq!(table.with_tag(tag, socket), None);
        }
        table.peers[0].serves = false;
        assert_eq!(table.chosen_for(of_other, SHARED), None);
        assert_eq!(table.with_tag(tag, SHARED).unwrap().addr, addr(2));
        // A host that drains itself leaves all new requests to the others.
        table.peers[0].serves = true;
        table.own = None;
        for transaction in 0..100 {
            assert!(table.chosen_for(transaction, SHARED).is_some());
        }
    }
}
