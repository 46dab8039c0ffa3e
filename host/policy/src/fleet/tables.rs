//! All tables of this host that the fleet counts together.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::counters::{FleetCounters, FleetItem};
use super::footing::Footing;

/// All tables of this host that the fleet counts together, one for each seat that has any.
#[derive(Debug, Default)]
pub struct FleetTables {
    footing: Arc<Footing>,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// By the upper bits of their keys. A seat may have two for a moment, while its configuration changes.
    by_seat: BTreeMap<u32, Vec<Weak<FleetCounters>>>,
    /// Where the next look for changes begins.
    next: u32,
}

impl FleetTables {
    /// Makes the table of a seat for at most `most` counters and rate limits whose names begin with one of the prefixes.
    pub fn table(&self, seat: &str, most: usize, prefixes: &[String]) -> Arc<FleetCounters> {
        let footing = Arc::clone(&self.footing);
        let table = Arc::new(FleetCounters::new(seat, most, prefixes, footing));
        let mut tables = self.tables.lock();
        let of_seat = tables.by_seat.entry(table.seat()).or_default();
        of_seat.retain(|table| table.strong_count() > 0);
        of_seat.push(Arc::downgrade(&table));
        table
    }

    /// What has changed on this host since the last call, at most `most` items.
    pub fn take_changes(&self, most: usize, now: Instant) -> Vec<FleetItem> {
        let mut items = Vec::new();
        let mut tables = self.tables.lock();
        let Tables { by_seat, next } = &mut *tables;
        by_seat.retain(|_, of_seat| {
            of_seat.retain(|table| table.strong_count() > 0);
            !of_seat.is_empty()
        });
        let from = *next;
        let in_turn = by_seat.range(from..).chain(by_seat.range(..from));
        for (seat, of_seat) in in_turn {
            if items.len() >= most {
                *next = *seat;
                break;
            }
            for table in of_seat.iter().filter_map(Weak::upgrade) {
                table.take_changes(&mut items, most, now);
            }
        }
        items
    }

    /// Takes over what the other hosts have in total, for each key that is in `others`. Keys of seats that this host does not have are skipped.
    pub fn merge(&self, others: impl IntoIterator<Item = FleetItem>, now: Instant) {
        let tables = self.tables.lock();
        for item in others {
            let [a, b, c, d, ..] = item.key;
            let seat = u32::from_be_bytes([a, b, c, d]) & !1;
            let of_seat = tables.by_seat.get(&seat).into_iter().flatten();
            for table in of_seat.filter_map(Weak::upgrade) {
                table.merge(&item, now);
            }
        }
    }

    /// The number of hosts that take part, this one included; `None`: the others are not heard, and each host limits its share.
    pub fn set_hosts(&self, hosts: Option<usize>) {
        self.footing.set_hosts(hosts);
    }
}
