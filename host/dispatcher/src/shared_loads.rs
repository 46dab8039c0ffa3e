//! The calls to destinations as the hosts of a fleet exchange them. Only the control side uses it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::sets::Sets;

/// An item of the exchange: what it is about, what it says, and until when it counts, in milliseconds since 1970. The exchange adds what several hosts
/// say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The mark of a destination or the key of a call, and which of them.
    pub key: [u8; 16],
    /// The calls to the destination; 1 for a call that has ended.
    pub value: u64,
    /// When the item is over.
    pub ends: u64,
}

/// How long a number of calls counts without another word of its host, and when a host tells it again, in milliseconds. The calls of a host that vanishes
/// count for the first of them.
const LOAD_TIME: u64 = 10_000;
const LOAD_AGAIN: u64 = 3_000;

/// How long the end of a call is told, in milliseconds: the host that counts the call may hear the others some time after this one does.
const END_TIME: u64 = 30_000;

/// The second half of keys.
const LOAD: u64 = 0;
const END: u64 = 1;

/// Most destinations of other hosts.
const MOST_OTHERS: usize = 1 << 18;

/// Most ends of calls that wait to be told.
const MOST_ENDS: usize = 1 << 14;

/// The calls that this host has told, and those that other hosts have.
#[derive(Debug, Default)]
pub(crate) struct SharedLoads {
    /// By the mark of the destination: the calls that the others know of, and when they are told again.
    told: BTreeMap<u64, (u32, u64)>,
    /// Keys of calls of other hosts that have ended here.
    ended: VecDeque<u64>,
    /// By the mark: the calls of all other hosts.
    others: HashMap<u64, u32>,
    /// The hosts that took part in the exchange last, with this one; 0 before.
    hosts: u32,
    /// Whether the other hosts are heard.
    is_heard: bool,
    /// Items for which there was no room.
    dropped: u64,
}

impl SharedLoads {
    /// At most this many items that the others do not know: calls to destinations, and calls that have ended. What does not fit is taken next time.
    pub(crate) fn take(&mut self, sets: &Sets, most: usize, now: u64) -> Vec<Item> {
        let mut items = Vec::new();
        for (mark, load) in sets.loads() {
            if items.len() >= most {
                return items;
            }
            let calls = load.own();
            let is_known = match self.told.get(&mark) {
                Some((told, due)) => *told == calls && *due > now,
                None => calls == 0,
            };
            if !is_known {
                items.push(self.tell(mark, calls, now));
            }
        }
        // The rows are gone, and so is the last call.
        let is_gone = |mark: &u64| sets.load_of_mark(*mark).is_none();
        let gone = self.told.keys().copied().filter(is_gone);
        let gone: Vec<_> = gone.take(most.saturating_sub(items.len())).collect();
        items.extend(gone.into_iter().map(|mark| self.tell(mark, 0, now)));
        // While nobody hears of them, they wait: a call whose end is lost counts for hours.
        let room = match self.is_heard {
            true => most.saturating_sub(items.len()).min(self.ended.len()),
            false => 0,
        };
        let ended = self.ended.drain(..room);
        items.extend(ended.map(|call| Item::of_end(call, now)));
        items
    }

    /// Notes that calls have ended that this host does not count: another one may. `has_lost` says that there were more of them.
    pub(crate) fn note_ended(&mut self, calls: &[u64], has_lost: bool) {
        let room = MOST_ENDS.saturating_sub(self.ended.len());
        self.ended.extend(calls.iter().take(room));
        let dropped = calls.len().saturating_sub(room) as u64;
        self.dropped += dropped + u64::from(has_lost);
    }

    /// Notes what the other hosts have told in total. Returns the keys of calls that have ended there.
    pub(crate) fn merge(&mut self, items: &[Item]) -> Vec<u64> {
        let mut ended = Vec::new();
        for item in items {
            let [first, second] = halves(item.key);
            match (second, u32::try_from(item.value).unwrap_or(u32::MAX)) {
                (LOAD, 0) => {
                    self.others.remove(&first);
                }
                (LOAD, calls) => self.set_others(first, calls),
                (END, 1..) => ended.push(first),
                // No item is there any more, or it is not one of these hosts.
                (_, _) => {}
            }
        }
        ended
    }

    /// Notes how many hosts take part, with this one; `None` if the others are not heard.
    pub(crate) fn set_hosts(&mut self, hosts: Option<usize>) {
        self.is_heard = hosts.is_some();
        if let Some(hosts) = hosts {
            self.hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
        }
    }

    /// Whether another host has calls, as far as is known.
    pub(crate) fn has_others(&self) -> bool {
        let may_have = !self.is_heard && self.hosts > 1;
        may_have || !self.others.is_empty()
    }

    /// Number of calls of all other hosts.
    pub(crate) fn calls_of_others(&self) -> u64 {
        self.others.values().copied().map(u64::from).sum()
    }

    /// Items for which there was no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lets the choice see the calls of the others. While they are not heard, each host has its share of `maxload`.
    pub(crate) fn publish(&self, sets: &Sets) {
        for (mark, load) in sets.loads() {
            match self.is_heard {
                true => load.set_others(self.others.get(&mark).copied().unwrap_or(0), 1),
                false => load.set_others(0, self.hosts.max(1)),
            }
        }
    }

    fn tell(&mut self, mark: u64, calls: u32, now: u64) -> Item {
        match calls {
            0 => self.told.remove(&mark),
            _ => self.told.insert(mark, (calls, now + LOAD_AGAIN)),
        };
        Item::of_load(mark, calls, now)
    }

    fn set_others(&mut self, mark: u64, calls: u32) {
        match self.others.len() < MOST_OTHERS || self.others.contains_key(&mark) {
            true => {
                self.others.insert(mark, calls);
            }
            false => self.dropped += 1,
        }
    }
}

impl Item {
    fn of_load(mark: u64, calls: u32, now: u64) -> Self {
        Self {
            key: key(mark, LOAD),
            value: calls.into(),
            ends: now + LOAD_TIME,
        }
    }

    fn of_end(call: u64, now: u64) -> Self {
        Self {
            key: key(call, END),
            value: 1,
            ends: now + END_TIME,
        }
    }
}

fn key(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

fn halves(key: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(key);
    [(whole >> 64) as u64, whole as u64]
}
