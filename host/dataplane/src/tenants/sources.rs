//! Fair shares between the sources of a tenant's requests, so that no source uses up the budget, and strangers do not use up the part of
//! known sources.
//!
//! A request is assigned to a tenant by values that its sender chooses ([`selector`](super::selector)), so whoever writes a tenant's domain
//! into requests spends the tenant's budget. Two rules limit this, at the same cost for every request. Known sources, which are in the
//! tenant's groups of the address table, may use the whole budget, and strangers only what known sources leave. Within both classes, when
//! the budget gets scarce, a source above an equal share yields to those below it.
//!
//! Sources are not tracked one by one: they share places in a table of fixed size, two each, selected by a keyed hash, so that nobody can
//! choose addresses that collide with those of others.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use portcullis_rate::{Active, Due, Seen};

/// The source of a tenant's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// A keyed hash of the address.
    hash: u64,
    kind: Kind,
}

/// Whether a source is known to the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stranger,
    Known,
}

/// Creates [`Source`]s from addresses, with a key per tenant.
#[derive(Debug, Default)]
pub(super) struct Sources(RandomState);

/// The use by sources: two rows of places for each class. A source has one place in each row, and rarely shares both with the same other
/// source.
#[derive(Debug)]
pub(super) struct Places {
    places: Box<[[Place; 2]]>,
    of_each_kind: usize,
}

#[derive(Debug, Default)]
struct Place {
    /// Theoretical arrival time if every source of the class had an equal share.
    due: Due,
    seen: Seen,
}

/// Number of active sources of each class.
#[derive(Debug, Default)]
pub(super) struct Crowds([Active; 2]);

/// How far ahead of its theoretical arrival time a bucket may get, in nanoseconds, by kind of source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// For a source without competition.
    alone: u64,
    /// For a source below an equal share.
    all: u64,
    /// For other sources.
    greedy: u64,
    /// How far ahead of an equal share a source may be.
    part: u64,
}

impl Sources {
    /// The source with this address. All IPv6 addresses of a /64 are one source: a subscriber usually has one.
    pub(super) fn source(&self, ip: IpAddr, is_known: bool) -> Source {
        let hash = match ip.to_canonical() {
            IpAddr::V4(ip) => self.0.hash_one(u64::from(ip.to_bits())),
            // No /64 prefix is as small as an IPv4 number, except for unassigned ones.
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
    /// A table with this many places per row and class.
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
        // Use by others in one of its two places does not count against it.
        match places.iter().all(|place| place.due.ahead(now) > room.part) {
            true => room.greedy,
            false => room.all,
        }
    }

    /// Charges this source for what would last this long at the full rate. At most `most` is charged: what it used while nobody else
    /// competed is no debt.
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
    /// The limits of a bucket that may get this far ahead, where one request takes `each`, for sources of this class. A tenant without
    /// known sources reserves nothing for them.
    #[inline]
    pub(super) fn new(ahead: u64, each: u64, kind: Kind, knows_some: bool) -> Self {
        // A source above its share leaves a quarter free, but may always send one request. A new source finds room for one when a single
        // source has used all.
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

    /// The same with the reserve for sources below their share on top: sources with equal use together get as much as a single one.
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
