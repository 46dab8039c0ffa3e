//! What a host knows of the bans of its fleet. Only the control side uses it.
//!
//! Of two changes of a source, the later one counts on every host, in whatever order and however often they arrive: the one with the higher
//! [rank](SharedBan::rank). A host ranks its own change above all that it knows of, so that a release ends a ban even if the clocks differ.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::bar::Reason;
use crate::host_names::{HostNames, pieces};
use crate::prefix::Prefix;
use crate::shared_ban::{HostId, Item, SharedBan};

/// Longest time for which a source is banned, in milliseconds: that of `ban` in the configuration.
const LONGEST: u64 = 86_400_000;

/// By how much the clock of another host may be fast, in milliseconds. A change from later than that is ignored.
const FAST: u64 = 86_400_000;

/// A ban that ends as much later is a change, in milliseconds.
const SAME: u64 = 2_000;

/// By how much a release outlives the ban, in milliseconds: the clocks of hosts differ a little.
const OUTLIVES: u64 = 5_000;

/// How long the name of a host counts, and when the host tells it again, in milliseconds.
const NAME_TIME: u64 = 60_000;
const NAME_AGAIN: u64 = 20_000;

/// The bans of all hosts.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// This host.
    host: HostId,
    /// When the name is told next, in milliseconds since 1970.
    name_due: u64,
    /// Most sources.
    most: usize,
    /// The change that counts for each source.
    known: BTreeMap<Prefix, SharedBan>,
    /// The same by their end.
    ends: BTreeSet<(u64, Prefix)>,
    /// Sources whose change by this host has not been told.
    untold: BTreeSet<Prefix>,
    /// Sources that an operator of this host has released since the last look.
    released: BTreeSet<Prefix>,
    names: HostNames,
    counts: FleetCounts,
}

/// What has become of the bans of other hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Sources that were banned because another host has banned them.
    pub banned: u64,
    /// Sources that were released because another host has released them.
    pub released: u64,
    /// Bans that were not taken over because the source is exempt here.
    pub exempt: u64,
    /// Bans that were not taken over, or not told, because there was no room.
    pub no_room: u64,
    /// Items that no host writes.
    pub invalid: u64,
}

/// What another host has done to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It has banned the source.
    Banned(SharedBan),
    /// It has released the source.
    Released(Prefix),
}

impl Fleet {
    /// The bans of all hosts. Room for this many sources.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            host: HostId::new(),
            name_due: 0,
            most,
            known: BTreeMap::new(),
            ends: BTreeSet::new(),
            untold: BTreeSet::new(),
            released: BTreeSet::new(),
            names: HostNames::default(),
            counts: FleetCounts::default(),
        }
    }

    /// Notes that this host has banned a source up to this time, unless that is known.
    pub(crate) fn banned(&mut self, source: Prefix, reason: Reason, ends: u64, now: u64) {
        let live = self.live(source, now);
        let is_known = live.is_some_and(|ban| ends < ban.ends + SAME);
        if !is_known {
            self.change(source, reason, false, ends, now);
        }
    }

    /// Notes that an operator of this host releases a source, for the next look.
    pub(crate) fn note_released(&mut self, source: Prefix) {
        if self.known.contains_key(&source) {
            self.released.insert(source);
        }
    }

    /// Takes the sources that operators have released.
    pub(crate) fn take_released(&mut self) -> BTreeSet<Prefix> {
        std::mem::take(&mut self.released)
    }

    /// Tells the others that this host has released a source. Without effect unless it is banned.
    pub(crate) fn released(&mut self, source: Prefix, now: u64) {
        if let Some(SharedBan { reason, ends, .. }) = self.live(source, now) {
            self.change(source, reason, true, ends + OUTLIVES, now);
        }
    }

    /// Notes a change of another host. Returns what this host has to do: nothing if it knows of a later change.
    pub(crate) fn merge(&mut self, item: Item, now: u64) -> Option<News> {
        if self.names.note(item) || item.value == 0 || item.ends <= now {
            return None;
        }
        let valid = |ban: &SharedBan| ban.stamp <= now + FAST;
        let Some(ban) = SharedBan::of_item(item).filter(valid) else {
            self.counts.invalid += 1;
            return None;
        };
        let ban = SharedBan {
            ends: ban.ends.min(now + LONGEST),
            ..ban
        };
        let known = self.known.get(&ban.source).copied();
        let ban = known.map_or(Some(ban), |known| joined(known, ban))?;
        if !self.set(ban, now) {
            self.counts.no_room += u64::from(!ban.is_lifted);
            return None;
        }
        match ban.host == self.host {
            true => self.untold.insert(ban.source),
            false => self.untold.remove(&ban.source),
        };
        Some(match ban.is_lifted {
            true => News::Released(ban.source),
            false => News::Banned(ban),
        })
    }

    /// At most this many items of this host, whose name this is, that have not been told.
    pub(crate) fn take(&mut self, name: &str, most: usize, now: u64) -> Vec<Item> {
        self.forget_ended(now);
        let mut items = Vec::new();
        if most > 0 && self.name_due <= now {
            self.name_due = now + NAME_AGAIN;
            items.extend(pieces(self.host, name, now + NAME_TIME));
        }
        while items.len() < most
            && let Some(source) = self.untold.pop_first()
        {
            items.extend(self.known.get(&source).map(SharedBan::item));
        }
        items.truncate(most);
        items
    }

    /// The host that has banned this source, if it is another one.
    pub(crate) fn other_host(&self, source: Prefix) -> Option<HostId> {
        let ban = self.known.get(&source)?;
        (ban.host != self.host && !ban.is_lifted).then_some(ban.host)
    }

    /// The name of a host: its number until it has told its name.
    pub(crate) fn name(&self, host: HostId) -> String {
        let name = self.names.name(host);
        name.unwrap_or_else(|| format!("#{:016x}", host.0))
    }

    pub(crate) fn counts(&self) -> FleetCounts {
        self.counts
    }

    /// Counts what has become of a ban of another host.
    pub(crate) fn count(&mut self, change: impl FnOnce(&mut FleetCounts)) {
        change(&mut self.counts);
    }

    /// The ban of a source, if it is banned.
    fn live(&self, source: Prefix, now: u64) -> Option<SharedBan> {
        let ban = *self.known.get(&source)?;
        (!ban.is_lifted && ban.ends > now).then_some(ban)
    }

    fn change(&mut self, source: Prefix, reason: Reason, is_lifted: bool, ends: u64, now: u64) {
        let after = self.known.get(&source).map_or(0, |known| known.stamp + 1);
        let ban = SharedBan {
            source,
            host: self.host,
            stamp: now.max(after),
            is_lifted,
            reason,
            ends,
        };
        match self.set(ban, now) {
            true => {
                self.untold.insert(source);
            }
            // The ban is one of this host only.
            false => self.counts.no_room += 1,
        }
    }

    /// False if there is no room.
    fn set(&mut self, ban: SharedBan, now: u64) -> bool {
        if self.known.len() >= self.most {
            self.forget_ended(now);
        }
        if self.known.len() >= self.most && !self.known.contains_key(&ban.source) {
            return false;
        }
        if let Some(before) = self.known.insert(ban.source, ban) {
            self.ends.remove(&(before.ends, ban.source));
        }
        self.ends.insert((ban.ends, ban.source));
        true
    }

    fn forget_ended(&mut self, now: u64) {
        while let Some(&(ends, source)) = self.ends.first()
            && ends <= now
        {
            self.ends.pop_first();
            self.known.remove(&source);
            self.untold.remove(&source);
        }
    }
}

/// The later one of two changes of a source. A release outlives each ban before it, and a ban is as long as another host has made it. `None` if that is
/// what was known.
fn joined(known: SharedBan, heard: SharedBan) -> Option<SharedBan> {
    let (later, earlier) = match known.rank().cmp(&heard.rank()) {
        Ordering::Less => (heard, known),
        Ordering::Equal => return None,
        Ordering::Greater => (known, heard),
    };
    let ends = match (later.is_lifted, earlier.is_lifted) {
        (true, false) => later.ends.max(earlier.ends + OUTLIVES),
        (true, true) | (false, false) => later.ends.max(earlier.ends),
        (false, true) => later.ends,
    };
    let joined = SharedBan { ends, ..later };
    (joined != known).then_some(joined)
}
