//! What one part of this host has to store, and what the other hosts have stored, without sockets and clocks. All times are those of Redis, as Unix
//! time in milliseconds, unless a name says otherwise.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::shared::Change;

/// The key of an item.
pub(super) type Key = [u8; 16];

/// A process, by a random number.
pub(super) type Instance = [u8; 16];

/// Most items of this host, and most of the other hosts together.
const MOST_ITEMS: usize = 1 << 18;

/// An item ends after this time at the latest, whatever a part says.
const LONGEST_MS: u64 = 7 * 86_400_000;

/// What one part has to store, and what it has heard.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    mine: HashMap<Key, Mine>,
    /// Keys of `mine` that have to be stored, the oldest first.
    waiting: VecDeque<Key>,
    others: HashMap<Key, Vec<Field>>,
    /// Number of fields in `others`.
    fields: usize,
    /// The first end among the fields of each key.
    ends: BTreeSet<(u64, Key)>,
    /// Keys whose sum over the others may have changed.
    altered: HashSet<Key>,
    cursor: Cursor,
    /// Items for which there was no room.
    skipped: u64,
}

/// How far this host has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Changes when Redis has lost what it had. Empty before the first exchange.
    pub(super) epoch: String,
    /// The version that was read last.
    pub(super) version: u64,
}

/// What another host has stored for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// The host.
    pub(super) instance: Instance,
    /// Its total.
    pub(super) value: u64,
    /// When the total ends.
    pub(super) ends: u64,
}

/// What Redis answers to an exchange.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) epoch: String,
    pub(super) version: u64,
    /// The time of Redis.
    pub(super) now: u64,
    /// Number of hosts that take part, this one included.
    pub(super) hosts: usize,
    /// Changes for which Redis has no room.
    pub(super) refused: u64,
    /// Whether there is more to read.
    pub(super) more: bool,
    /// What other hosts have stored since the cursor.
    pub(super) fields: Vec<(Key, Field)>,
    /// Number of values that no host writes.
    pub(super) garbage: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mine {
    value: u64,
    ends: u64,
    /// Whether the item is in `waiting` or on its way.
    is_waiting: bool,
}

impl Ledger {
    /// Notes what has changed on this host. `ahead` is how far the clock of Redis is ahead of that of this host.
    pub(super) fn note(&mut self, changes: &[Change], now: u64, ahead: i64) {
        for change in changes {
            let ends = change.ends.saturating_add_signed(ahead);
            let ends = ends.min(now.saturating_add(LONGEST_MS));
            let room = self.mine.len() < MOST_ITEMS;
            match self.mine.get_mut(&change.key) {
                Some(mine) => {
                    mine.value = change.value;
                    mine.ends = ends;
                    if !mine.is_waiting {
                        mine.is_waiting = true;
                        self.waiting.push_back(change.key);
                    }
                }
                None if room => {
                    let mine = Mine {
                        value: change.value,
                        ends,
                        is_waiting: true,
                    };
                    self.mine.insert(change.key, mine);
                    self.waiting.push_back(change.key);
                }
                None => self.skipped += 1,
            }
        }
    }

    /// Takes at most `most` items to store. [`Ledger::stored`] or [`Ledger::lost`] must follow.
    pub(super) fn batch(&mut self, most: usize, now: u64) -> Vec<Change> {
        let mut batch = Vec::with_capacity(most.min(self.waiting.len()));
        while batch.len() < most
            && let Some(key) = self.waiting.pop_front()
        {
            let Some(mine) = self.mine.get(&key) else {
                continue;
            };
            if mine.ends <= now {
                self.mine.remove(&key);
                continue;
            }
            batch.push(Change {
                key,
                value: mine.value,
                ends: mine.ends,
            });
        }
        batch
    }

    /// Redis has stored these. What has changed meanwhile waits on.
    pub(super) fn stored(&mut self, batch: &[Change]) {
        for stored in batch {
            let Some(mine) = self.mine.get_mut(&stored.key) else {
                continue;
            };
            match (mine.value, mine.ends) == (stored.value, stored.ends) {
                true => mine.is_waiting = false,
                false => self.waiting.push_back(stored.key),
            }
        }
    }

    /// Whether Redis has stored these is not known. They are sent again.
    pub(super) fn lost(&mut self, batch: &[Change]) {
        for lost in batch.iter().rev() {
            if self.mine.contains_key(&lost.key) {
                self.waiting.push_front(lost.key);
            }
        }
    }

    /// Takes over what the other hosts have stored.
    pub(super) fn receive(&mut self, reply: &Reply) {
        if reply.epoch != self.cursor.epoch {
            // What the others had stays until they have stored it again, or until it ends: a sum that fell and rose would look like new events.
            if !self.cursor.epoch.is_empty() {
                self.store_again();
            }
            self.cursor.epoch.clone_from(&reply.epoch);
        }
        for (key, field) in &reply.fields {
            self.replace(key, *field);
        }
        self.cursor.version = reply.version;
    }

    /// The sums over the other hosts that have changed since the last call, with ends by the clock of this host.
    pub(super) fn sums(&mut self, now: u64, ahead: i64) -> Vec<Change> {
        while let Some(&(ends, key)) = self.ends.first()
            && ends <= now
        {
            self.ends.pop_first();
            self.altered.insert(key);
            let Some(fields) = self.others.get_mut(&key) else {
                continue;
            };
            let before = fields.len();
            fields.retain(|field| field.ends > now);
            self.fields -= before - fields.len();
            match first_end(fields) {
                Some(first) => {
                    self.ends.insert((first, key));
                }
                None => {
                    self.others.remove(&key);
                }
            }
        }
        let sum_of = |key: Key| {
            let fields = self.others.get(&key).map(Vec::as_slice).unwrap_or_default();
            let sum = fields
                .iter()
                .fold(0_u64, |sum, field| sum.saturating_add(field.value));
            let ends = fields.iter().map(|field| field.ends).max().unwrap_or(now);
            Change {
                key,
                value: sum,
                ends: ends.saturating_add_signed(ahead.saturating_neg()),
            }
        };
        let sums = self.altered.iter().map(|key| sum_of(*key)).collect();
        self.altered.clear();
        sums
    }

    /// Forgets what has ended on this host.
    pub(super) fn sweep(&mut self, now: u64) {
        self.mine.retain(|_, mine| mine.ends > now);
        self.waiting.retain(|key| self.mine.contains_key(key));
    }

    /// How far this host has read.
    pub(super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Number of items that wait to be stored.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Number of items of this host and of the other hosts.
    pub(super) fn items(&self) -> usize {
        self.mine.len() + self.fields
    }

    /// Number of items for which there was no room.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    fn store_again(&mut self) {
        for (key, mine) in &mut self.mine {
            if !mine.is_waiting {
                mine.is_waiting = true;
                self.waiting.push_back(*key);
            }
        }
    }

    fn replace(&mut self, key: &Key, field: Field) {
        let room = self.fields < MOST_ITEMS;
        let fields = self.others.entry(*key).or_default();
        let before = first_end(fields);
        let known = fields
            .iter_mut()
            .find(|known| known.instance == field.instance);
        match known {
            Some(known) => *known = field,
            None if room => {
                fields.push(field);
                self.fields += 1;
            }
            None => {
                self.skipped += 1;
                if fields.is_empty() {
                    self.others.remove(key);
                }
                return;
            }
        }
        let after = first_end(fields);
        if before != after {
            if let Some(before) = before {
                self.ends.remove(&(before, *key));
            }
            if let Some(after) = after {
                self.ends.insert((after, *key));
            }
        }
        self.altered.insert(*key);
    }
}

fn first_end(fields: &[Field]) -> Option<u64> {
    fields.iter().map(|field| field.ends).min()
}

#[cfg(test)]
mod tests;
