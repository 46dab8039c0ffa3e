//! What a host knows of the bans of its fleet. Only the control side uses it.
//!
//! What is known about a source is the highest number of a command of an operator, and the ban with the highest [rank](SharedBan::rank). The ban counts
//! unless its number is lower than that of the command. Both are maxima, and what one host tells only rises, so all hosts come to the same result in whatever
//! order changes arrive, however often, and whatever their clocks say. A command has a higher number than all that its host knows of: a release ends the
//! bans before it, and those of which their hosts had not heard of the release.

use std::collections::{BTreeMap, BTreeSet};

use crate::bar::Reason;
use crate::host_names::{HostNames, pieces};
use crate::prefix::Prefix;
use crate::shared_ban::{HostId, Item, SharedBan, SharedCommand, Told};

/// Longest time for which a source is banned, in milliseconds: that of `ban` in the configuration.
const LONGEST: u64 = 86_400_000;

/// By how much the clock of another host may be fast, in milliseconds. A command from later than that is ignored.
const FAST: u64 = 86_400_000;

/// How long a command counts, in milliseconds: as long as a ban before it may last, and the clocks of hosts differ a little.
const COMMAND_TIME: u64 = LONGEST + 60_000;

/// By how much longer this host uses the number of a command for its own bans, in milliseconds: no host may count it longer than this one.
const OUTLIVES: u64 = 5_000;

/// Sources for which there is room beyond those of bans: operators have banned or released them.
const COMMANDS: usize = 1_024;

/// How long the name of a host counts, and when the host tells it again, in milliseconds.
const NAME_TIME: u64 = 60_000;
const NAME_AGAIN: u64 = 20_000;

/// The bans of all hosts.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// This host.
    host: HostId,
    /// How far the clock of the exchange is ahead of that of this host, in milliseconds.
    ahead: i64,
    /// When the name is told next, in milliseconds since 1970.
    name_due: u64,
    /// Most sources of bans.
    most: usize,
    known: BTreeMap<Prefix, Known>,
    /// The sources by the time from which nothing is known of them.
    ends: BTreeSet<(u64, Prefix)>,
    /// What has not been told of this host.
    untold: BTreeSet<(Prefix, What)>,
    names: HostNames,
    counts: FleetCounts,
}

/// What is known about a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The number of the last command; 0 without one.
    command: u64,
    /// Until when the command counts, in milliseconds since 1970.
    command_ends: u64,
    ban: Option<SharedBan>,
    /// The second in which the ban ends in the table of this host, as far as the others know of it; 0 if it is not there.
    row: u32,
}

/// What this host tells about a source. The ban is told first: the command alone would release the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Ban,
    Command,
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

impl Known {
    /// The ban that is in force.
    fn live(&self, now: u64) -> Option<SharedBan> {
        let least = match self.command_ends > now {
            true => self.command,
            false => 0,
        };
        let ban = self.ban?;
        (ban.ends > now && ban.command >= least).then_some(ban)
    }

    /// The highest number of a command that is known.
    fn number(&self) -> u64 {
        let of_ban = self.ban.map_or(0, |ban| ban.command);
        self.command.max(of_ban)
    }

    /// From when on nothing is known, in milliseconds since 1970.
    fn ends(&self) -> u64 {
        let of_ban = self.ban.map_or(0, |ban| ban.ends);
        let of_command = match self.command {
            0 => 0,
            _ => self.command_ends.saturating_add(OUTLIVES),
        };
        of_command.max(of_ban)
    }
}

impl Fleet {
    /// The bans of all hosts. Room for this many sources, and for some more that operators name.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            host: HostId::new(),
            ahead: 0,
            name_due: 0,
            most,
            known: BTreeMap::new(),
            ends: BTreeSet::new(),
            untold: BTreeSet::new(),
            names: HostNames::default(),
            counts: FleetCounts::default(),
        }
    }

    /// Notes how far the clock of the exchange is ahead of that of this host, in milliseconds.
    pub(crate) fn set_ahead(&mut self, ahead: i64) {
        self.ahead = ahead;
    }

    /// Notes that this host has banned a source up to this time, and up to this second of its table, unless that is known.
    pub(crate) fn banned(&mut self, source: Prefix, reason: Reason, ends: u64, row: u32, now: u64) {
        let known = self.known_of(source);
        let is_known = |ban: SharedBan| known.row == row || ban.ends >= ends;
        if known.live(now).is_some_and(is_known) {
            return;
        }
        let ban = SharedBan {
            source,
            host: self.host,
            command: known.number(),
            reason,
            ends,
        };
        let ban = Some(ban);
        let known = Known { ban, row, ..known };
        self.change(source, known, &[What::Ban], now);
    }

    /// Notes that an operator of this host has banned a source up to this time, and up to this second of its table.
    pub(crate) fn banned_by_operator(&mut self, source: Prefix, ends: u64, row: u32, now: u64) {
        let command = self.next_command(source, now);
        let ban = SharedBan {
            source,
            host: self.host,
            command,
            reason: Reason::Operator,
            ends,
        };
        let known = Known {
            command,
            command_ends: now + COMMAND_TIME,
            ban: Some(ban),
            row,
        };
        self.change(source, known, &[What::Ban, What::Command], now);
    }

    /// Notes that an operator of this host has released a source. False, and without effect, unless it is banned.
    pub(crate) fn released(&mut self, source: Prefix, now: u64) -> bool {
        let known = self.known_of(source);
        if known.live(now).is_none() {
            return false;
        }
        let known = Known {
            command: self.next_command(source, now),
            command_ends: now + COMMAND_TIME,
            row: 0,
            ..known
        };
        self.change(source, known, &[What::Command], now);
        true
    }

    /// Notes what other hosts have told. Returns what this host has to do: nothing about sources of which it knows as much.
    pub(crate) fn merge(&mut self, items: &[Item], now: u64) -> Vec<News> {
        let latest = self.exchange_time(now).saturating_add(FAST);
        let mut before = BTreeMap::new();
        for item in items {
            if self.names.note(*item) || item.value == 0 || item.ends <= now {
                continue;
            }
            match Told::of_item(*item).filter(|told| told.number() <= latest) {
                Some(told) => {
                    let live = self.known_of(told.source()).live(now);
                    if self.note(told, now) {
                        before.entry(told.source()).or_insert(live);
                    }
                }
                None => self.counts.invalid += 1,
            }
        }
        let news = before.into_iter().filter_map(|(source, before)| {
            let after = self.known_of(source).live(now);
            match after {
                Some(_) if after == before => None,
                Some(ban) => Some(News::Banned(ban)),
                // A ban that has not been told is one after the command.
                None => before.map(|_| News::Released(source)),
            }
        });
        news.collect()
    }

    /// Notes the second in which the ban of a source ends in the table of this host; 0 if it is not there.
    pub(crate) fn set_row(&mut self, source: Prefix, row: u32) {
        if let Some(known) = self.known.get_mut(&source) {
            known.row = row;
        }
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
            && let Some((source, what)) = self.untold.pop_first()
        {
            items.extend(self.told(source, what).map(Told::item));
        }
        items.truncate(most);
        items
    }

    /// The host that has banned this source, if it is another one.
    pub(crate) fn other_host(&self, source: Prefix) -> Option<HostId> {
        let known = self.known.get(&source)?;
        let ban = known.ban.filter(|ban| ban.command >= known.command)?;
        (ban.host != self.host).then_some(ban.host)
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

    fn known_of(&self, source: Prefix) -> Known {
        self.known.get(&source).copied().unwrap_or_default()
    }

    /// What this host tells about a source; `None` if another host has banned it meanwhile, with a higher rank.
    fn told(&self, source: Prefix, what: What) -> Option<Told> {
        let known = self.known.get(&source)?;
        match what {
            What::Ban => known.ban.filter(|ban| ban.host == self.host).map(Told::Ban),
            What::Command => Some(Told::Command(SharedCommand {
                source,
                host: self.host,
                number: known.command,
                ends: known.command_ends,
            })),
        }
    }

    /// Notes what another host has told. False if that is known, or without room.
    fn note(&mut self, told: Told, now: u64) -> bool {
        let known = self.known_of(told.source());
        let longest = now.saturating_add(COMMAND_TIME);
        let next = match told {
            Told::Command(told) if told.number > known.command => Known {
                command: told.number,
                command_ends: told.ends.min(longest),
                ..known
            },
            Told::Command(_) => return false,
            Told::Ban(ban) => {
                let ends = ban.ends.min(now.saturating_add(LONGEST));
                let ban = SharedBan { ends, ..ban };
                let is_higher = |known: SharedBan| known.ends <= now || known.rank() < ban.rank();
                if !known.ban.is_none_or(is_higher) {
                    return false;
                }
                Known {
                    ban: Some(ban),
                    ..known
                }
            }
        };
        let has_room = self.set(told.source(), next, now);
        self.counts.no_room += u64::from(!has_room && matches!(told, Told::Ban(_)));
        has_room
    }

    /// The number of a command that is given now.
    fn next_command(&self, source: Prefix, now: u64) -> u64 {
        let after = self.known_of(source).number() + 1;
        self.exchange_time(now).max(after)
    }

    fn exchange_time(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.ahead)
    }

    /// Notes a change by this host, of which it tells this.
    fn change(&mut self, source: Prefix, known: Known, what: &[What], now: u64) {
        match self.set(source, known, now) {
            true => self.untold.extend(what.iter().map(|what| (source, *what))),
            // The ban is one of this host only.
            false => self.counts.no_room += 1,
        }
    }

    /// False if there is no room.
    fn set(&mut self, source: Prefix, known: Known, now: u64) -> bool {
        let room = match known.number() {
            0 => self.most,
            _ => self.most.saturating_add(COMMANDS),
        };
        if self.known.len() >= room {
            self.forget_ended(now);
        }
        if self.known.len() >= room && !self.known.contains_key(&source) {
            return false;
        }
        if let Some(before) = self.known.insert(source, known) {
            self.ends.remove(&(before.ends(), source));
        }
        self.ends.insert((known.ends(), source));
        true
    }

    fn forget_ended(&mut self, now: u64) {
        while let Some(&(ends, source)) = self.ends.first()
            && ends <= now
        {
            self.ends.pop_first();
            self.known.remove(&source);
            for what in [What::Ban, What::Command] {
                self.untold.remove(&(source, what));
            }
        }
    }
}
