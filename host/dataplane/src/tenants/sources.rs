//! Who sends a tenant's requests: what each source takes, so that one cannot take it all, and strangers not what is for those it knows.
//!
//! Whose a request is, is what it says ([`selector`](super::selector)), so whoever writes a tenant's domain into requests spends what the
//! tenant may take. Two things hold that within bounds, at a cost that is the same for every request. Sources that the tenant knows, which
//! are in its groups of the address table, may spend all of it, and others only what those leave. Within both kinds, a source that has had
//! more than an equal part gives way to those that have not while it gets tight.
//!
//! Sources are not remembered one by one: they share places in a table of fixed size, two each, chosen by a keyed hash, so that nobody can
//! aim at the places of another.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use portcullis_rate::{Active, Due, Seen};

/// Where a request of a tenant comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// A keyed hash of the address.
    hash: u64,
    kind: Kind,
}

/// Whether a tenant knows a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stranger,
    Known,
}

/// Makes [`Source`]s of addresses, each tenant by a key of its own.
#[derive(Debug, Default)]
pub(super) struct Sources(RandomState);

/// What sources have taken: two rows of places for each kind. A source has one in each row, and shares both with a certain other one
/// hardly ever.
#[derive(Debug)]
pub(super) struct Places {
    places: Box<[[Place; 2]]>,
    of_each_kind: usize,
}

#[derive(Debug, Default)]
struct Place {
    /// When what was taken would be due if every source of its kind had an equal part.
    due: Due,
    seen: Seen,
}

/// How many sources of each kind send at the moment.
#[derive(Debug, Default)]
pub(super) struct Crowds([Active; 2]);

/// How far ahead of what is due one bound may get, in nanoseconds, by who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// For a source that nobody else is beside.
    alone: u64,
    /// For whoever has not had more than an equal part.
    all: u64,
    /// For the others.
    greedy: u64,
    /// How far ahead of an equal part one may be.
    part: u64,
}

impl Sources {
    /// The source of this address. Of IPv6, all addresses of a /64 are one: that is what one subscriber has.
    pub(super) fn source(&self, ip: IpAddr, is_known: bool) -> Source {
        let hash = match ip.to_canonical() {
            IpAddr::V4(ip) => self.0.hash_one(u64::from(ip.to_bits())),
            // No prefix of a /64 is as small as a number of IPv4, but for those that nobody has.
            IpAddr::V6(ip) => self.0.hash_one((ip.to_bits() >> 64) as u64),
        };
        let kind = match is_known {
            true => Kind::Known,
            false => Kind::Stranger,
        };
        Source { hash, kind }
    }
}

impl Places {
    /// So many places in each row of each kind.
    pub(super) fn new(of_each_kind: usize) -> Self {
        Self {
            places: (0..2 * of_each_kind).map(|_| Default::default()).collect(),
            of_each_kind,
        }
    }

    fn of(&self, source: Source) -> [&Place; 2] {
        let first = match source.kind {
            Kind::Stranger => 0,
            Kind::Known => self.of_each_kind,
        };
        let at = |hash: u64| first + (hash % self.of_each_kind as u64) as usize;
        let (one, other) = (at(source.hash >> 32), at(source.hash & 0xffff_ffff));
        [&self.places[one][0], &self.places[other][1]]
    }

    /// How far ahead this source may get at the moment.
    #[inline]
    pub(super) fn room(&self, source: Source, crowds: &Crowds, now: u64, room: Room) -> u64 {
        let places = self.of(source);
        let crowd = &crowds.0[source.kind as usize];
        crowd.meet(&places[0].seen, now);
        if crowd.count(now) < 2 {
            return room.alone;
        }
        // What others have taken in one of its places is not held against it.
        match places.iter().all(|place| place.due.ahead(now) > room.part) {
            true => room.greedy,
            false => room.all,
        }
    }

    /// Notes that this source took what would last for so long if it were alone. No more than `most` is held against it: what it took
    /// while nobody else wanted it is no debt.
    #[inline]
    pub(super) fn charge(&self, source: Source, crowds: &Crowds, now: u64, took: u64, most: u64) {
        let count = crowds.0[source.kind as usize].count(now);
        for place in self.of(source) {
            place
                .due
                .charge_within(now, took.saturating_mul(count), most);
        }
    }
}

impl Room {
    /// The room of a bound that may get so far ahead, where one request takes `each`, for sources of this kind. Where a tenant knows none,
    /// there are no strangers to keep room from.
    #[inline]
    pub(super) fn new(ahead: u64, each: u64, kind: Kind, knows_some: bool) -> Self {
        // Whoever has had more than its part leaves a quarter, but has room for one request. Whoever comes when one source alone has
        // filled it all finds room for one.
        let within = |most: u64| {
            let greedy = (most - ahead / 4).max(each);
            Self {
                alone: most,
                all: most + each,
                greedy,
                part: ahead / 4,
            }
        };
        let all = ahead.max(each);
        match (knows_some, kind) {
            (false, _) => within(all),
            (true, Kind::Stranger) => within((ahead / 2).max(ahead / 4 + each)),
            (true, Kind::Known) => {
                let strangers = within((ahead / 2).max(ahead / 4 + each)).all;
                within(all.max(strangers + each + ahead / 4))
            }
        }
    }

    /// The same where what is left for those who have not had their part is on top: sources that all take alike have as much as one alone.
    #[inline]
    pub(super) fn beyond(ahead: u64, kind: Kind, knows_some: bool) -> Self {
        let room = Self::new(ahead + ahead / 3, 0, kind, knows_some);
        Self {
            alone: room.alone.min(ahead),
            ..room
        }
    }
}

impl Source {
    pub(super) fn kind(self) -> Kind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_take_alike_have_as_much_as_one_alone() {
        let room = Room::beyond(12_000, Kind::Stranger, false);
        assert_eq!(
            (room.alone, room.greedy, room.all),
            (12_000, 12_000, 16_000)
        );
        let known = Room::beyond(12_000, Kind::Known, true);
        assert_eq!((known.alone, known.greedy), (12_000, 12_000));
        let stranger = Room::beyond(12_000, Kind::Stranger, true);
        assert!(stranger.all < known.greedy && stranger.greedy > 0);
    }

    #[test]
    fn a_source_is_an_address_or_what_a_subscriber_has() {
        let sources = Sources::default();
        let of = |ip: &str| sources.source(ip.parse().unwrap(), false);
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::7"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(
            of("192.0.2.1"),
            Sources::default().source("192.0.2.1".parse().unwrap(), false)
        );
    }

    #[test]
    fn there_is_room_for_everyone_in_order() {
        for burst in 1..=40 {
            let each = 5_000_000;
            let room = |kind, knows| Room::new(burst * each, each, kind, knows);
            let alone = room(Kind::Stranger, false);
            let (stranger, known) = (room(Kind::Stranger, true), room(Kind::Known, true));
            assert!(each <= stranger.greedy && stranger.greedy + each <= stranger.all);
            assert!(
                stranger.all + each <= known.greedy.max(known.all),
                "{burst}"
            );
            assert!(known.greedy + each <= known.all && stranger.all < known.greedy);
            assert!(each <= alone.greedy && alone.greedy + each <= alone.all);
            assert_eq!(alone.alone, burst * each, "what is configured");
            if burst >= 8 {
                assert_eq!(known.alone, burst * each, "what is configured");
            }
        }
    }
}
