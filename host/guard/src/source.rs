//! What is known about one source: a row of 64 bytes.

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use portcullis_rate::Due;

use crate::bar::{Bar, Kind, Reason};
use crate::prefix::Prefix;

/// Bits of the set of users of a source. Users may share a bit, so a set of this many bits counts too few users, never too many.
pub(crate) const USER_BITS: u8 = 48;

/// The largest number of users that the set can count in practice.
pub(crate) const MOST_USERS: u16 = 32;

/// Evidence that is enough to bar a source; 0 means never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    /// Length of a window in seconds.
    pub(crate) within: u32,
    pub(crate) refusals: u16,
    pub(crate) users: u16,
    pub(crate) challenges: u16,
    pub(crate) malformed: u16,
}

/// Evidence about one source.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// A refusal of a request for the user with this bit.
    Refusal(u8),
    Challenge,
    Success,
    Malformed,
}

/// A row of the table. A row that changes hands while another worker counts may get one count of the source before: it decides nothing, and a
/// bar has a mark of its owner.
#[derive(Debug, Default)]
#[cfg_attr(not(all(test, loom)), repr(align(64)))]
pub(crate) struct Source {
    /// [`Prefix::number`]; 0 for a free row.
    number: AtomicU64,
    /// See [`Bar::packed`].
    bar: AtomicU64,
    /// The messages.
    rate: Due,
    /// The requests of the source while it is held.
    held: Due,
    /// The window, and the numbers of refusals, challenges and malformed messages in it: 16 bits each.
    tally: AtomicU64,
    /// The window, and the set of users in it: 16 and 48 bits.
    users: AtomicU64,
    /// The window, the refusals of INVITE in it that have not been acknowledged, and those that have: 16 bits each.
    acks: AtomicU64,
    /// The second of the last check whether the source is exempt, and the messages dropped since it was barred: 32 bits each.
    notes: AtomicU64,
}

impl Source {
    #[inline]
    pub(crate) fn is_of(&self, prefix: Prefix) -> bool {
        self.number.load(Ordering::Relaxed) == prefix.number()
    }

    pub(crate) fn prefix(&self) -> Option<Prefix> {
        Prefix::of_number(self.number.load(Ordering::Relaxed))
    }

    /// Takes the row for another source. False if a third one has just taken it.
    pub(crate) fn claim(&self, prefix: Prefix) -> bool {
        let old = self.number.load(Ordering::Relaxed);
        let claimed = self.number.compare_exchange(
            old,
            prefix.number(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if claimed.is_ok() {
            self.forget();
        }
        claimed.is_ok()
    }

    /// Removes everything that was counted, and the bar.
    pub(crate) fn forget(&self) {
        self.rate.clear();
        self.held.clear();
        for number in [&self.bar, &self.tally, &self.users, &self.acks, &self.notes] {
            number.store(0, Ordering::Relaxed);
        }
    }

    /// The hold or ban of the source with this hash.
    #[inline]
    pub(crate) fn bar(&self, hash: u64, now: u32) -> Option<Bar> {
        Bar::unpacked(self.bar.load(Ordering::Relaxed), hash, now)
    }

    /// Whether the row is held or banned, whoever it belongs to.
    pub(crate) fn is_barred(&self, now: u32) -> bool {
        Bar::end_of(self.bar.load(Ordering::Relaxed)) > now
    }

    /// Holds or bans the source. False if it already was. A hold does not replace a ban.
    pub(crate) fn set_bar(&self, hash: u64, bar: Bar, now: u32) -> bool {
        let mut is_new = true;
        let next = |packed: u64| {
            let old = Bar::unpacked(packed, hash, now);
            is_new = old.is_none_or(|old| old.kind < bar.kind);
            match old {
                Some(old) if old.kind > bar.kind => None,
                Some(old) if old.kind == bar.kind => {
                    let end = old.end.max(bar.end);
                    Some(Bar { end, ..old }.packed(hash))
                }
                Some(_) | None => Some(bar.packed(hash)),
            }
        };
        let _unless_banned = update(&self.bar, next);
        if is_new {
            self.begin_bar();
        }
        is_new
    }

    /// Holds or bans the source up to the end of this bar, whatever was before.
    pub(crate) fn replace_bar(&self, hash: u64, bar: Bar, now: u32) {
        let before = self.bar.swap(bar.packed(hash), Ordering::Relaxed);
        if Bar::unpacked(before, hash, now).is_none_or(|before| before.kind < bar.kind) {
            self.begin_bar();
        }
    }

    /// The evidence has had its effect, and nothing is dropped yet.
    fn begin_bar(&self) {
        let _always = update(&self.notes, |notes| Some(notes & !DROPPED));
        self.tally.store(0, Ordering::Relaxed);
        self.users.store(0, Ordering::Relaxed);
    }

    /// Counts a message; false if it is above the rate. Without a rate, only the time is noted.
    #[inline]
    pub(crate) fn take(&self, now: u64, each: Option<u64>, burst: u64) -> bool {
        match each {
            Some(each) => self.rate.take(now, each, burst),
            None => self.rate.take(now, 1, u64::MAX),
        }
    }

    /// Counts a request of the held source; false if it is above the rate of held sources. One request may be early.
    pub(crate) fn take_held(&self, now: u64, each: u64) -> bool {
        self.held.take(now, each, 2 * each)
    }

    /// Nanoseconds: about when the last message was counted.
    pub(crate) fn last_seen(&self) -> u64 {
        self.rate.ahead(0)
    }

    pub(crate) fn count_dropped(&self) {
        let more = |notes: u64| (notes & DROPPED != DROPPED).then_some(notes + 1);
        let _until_full = update(&self.notes, more);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.notes.load(Ordering::Relaxed) & DROPPED
    }

    /// Whether nobody has checked in this second, counted from 1, whether the source is exempt.
    pub(crate) fn take_check(&self, now: u32) -> bool {
        let second = u64::from(now.saturating_add(1)) << 32;
        update(&self.notes, |notes| {
            (notes & !DROPPED != second).then_some(second | notes & DROPPED)
        })
    }

    /// Counts evidence. Returns the reason if it is enough to bar the source.
    pub(crate) fn note(&self, seen: Seen, now: u32, most: &Thresholds) -> Option<Reason> {
        let window = window(now, most);
        let mut tally = Tally::default();
        let _always = update(&self.tally, |packed| {
            tally = Tally::unpacked(packed, window);
            match seen {
                Seen::Refusal(_) => tally.refusals = tally.refusals.saturating_add(1),
                Seen::Challenge => tally.challenges = tally.challenges.saturating_add(1),
                // Its own challenge, and that of a request with an old nonce before it.
                Seen::Success => tally.challenges = tally.challenges.saturating_sub(2),
                Seen::Malformed => tally.malformed = tally.malformed.saturating_add(1),
            }
            Some(tally.packed(window))
        });
        match seen {
            Seen::Refusal(bit) => {
                let users = self.add_user(bit, window);
                let is_scan = is_reached(users, most.users).then_some(Reason::Users);
                is_scan.or_else(|| {
                    is_reached(tally.refusals, most.refusals).then_some(Reason::Refusals)
                })
            }
            Seen::Challenge => {
                is_reached(tally.challenges, most.challenges).then_some(Reason::Challenges)
            }
            Seen::Success => None,
            Seen::Malformed => {
                is_reached(tally.malformed, most.malformed).then_some(Reason::Malformed)
            }
        }
    }

    /// Evidence of this window: refusals, challenges and malformed messages.
    pub(crate) fn evidence(&self, now: u32, most: &Thresholds) -> u64 {
        let Tally {
            refusals,
            challenges,
            malformed,
        } = Tally::unpacked(self.tally.load(Ordering::Relaxed), window(now, most));
        [refusals, challenges, malformed]
            .map(u64::from)
            .iter()
            .sum()
    }

    /// Adds a user to the set of this window. Returns the size of the set.
    fn add_user(&self, bit: u8, window: u16) -> u16 {
        let mut size = 0;
        let _always = update(&self.users, |packed| {
            let old = match (packed >> USER_BITS) as u16 == window {
                true => packed & USERS,
                false => 0,
            };
            let users = old | 1 << (bit % USER_BITS);
            size = users.count_ones() as u16;
            Some(u64::from(window) << USER_BITS | users)
        });
        size
    }

    /// Notes that the source will acknowledge a refusal, if its address is not forged.
    pub(crate) fn expect_ack(&self, now: u32, most: &Thresholds) {
        let window = window(now, most);
        let _always = update(&self.acks, |packed| {
            let mut acks = Acks::unpacked(packed, window);
            acks.expected = acks.expected.saturating_add(1);
            Some(acks.packed(window))
        });
    }

    /// Counts an ACK to a refusal. Returns the reason if these are enough to ban the source.
    pub(crate) fn confirm(&self, now: u32, most: &Thresholds) -> Option<Reason> {
        let window = window(now, most);
        let mut confirmed = 0;
        let expected = update(&self.acks, |packed| {
            let mut acks = Acks::unpacked(packed, window);
            acks.expected = acks.expected.checked_sub(1)?;
            acks.confirmed = acks.confirmed.saturating_add(1);
            confirmed = acks.confirmed;
            Some(acks.packed(window))
        });
        (expected && is_reached(confirmed, most.refusals)).then_some(Reason::Refusals)
    }
}

/// The messages dropped, without the second.
const DROPPED: u64 = 0xffff_ffff;

/// The set of users, without the window.
const USERS: u64 = (1 << USER_BITS) - 1;

/// Evidence of one window.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    refusals: u16,
    challenges: u16,
    malformed: u16,
}

impl Tally {
    fn unpacked(packed: u64, window: u16) -> Self {
        if (packed >> 48) as u16 != window {
            return Self::default();
        }
        Self {
            refusals: (packed >> 32) as u16,
            challenges: (packed >> 16) as u16,
            malformed: packed as u16,
        }
    }

    fn packed(self, window: u16) -> u64 {
        let [window, refusals, challenges, malformed] =
            [window, self.refusals, self.challenges, self.malformed].map(u64::from);
        window << 48 | refusals << 32 | challenges << 16 | malformed
    }
}

/// Acknowledgements of one window.
#[derive(Clone, Copy, Debug, Default)]
struct Acks {
    expected: u16,
    confirmed: u16,
}

impl Acks {
    fn unpacked(packed: u64, window: u16) -> Self {
        if (packed >> 48) as u16 != window {
            return Self::default();
        }
        Self {
            expected: (packed >> 16) as u16,
            confirmed: packed as u16,
        }
    }

    fn packed(self, window: u16) -> u64 {
        u64::from(window) << 48 | u64::from(self.expected) << 16 | u64::from(self.confirmed)
    }
}

/// The number of the window, from 1: 0 is that of a row without evidence.
fn window(now: u32, most: &Thresholds) -> u16 {
    (now / most.within.max(1) % 0xfffe + 1) as u16
}

fn is_reached(count: u16, threshold: u16) -> bool {
    threshold > 0 && count >= threshold
}

/// Changes a number. False if `next` declines.
fn update(number: &AtomicU64, next: impl FnMut(u64) -> Option<u64>) -> bool {
    let changed = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    changed.is_ok()
}

/// Kinds are compared in [`Source::set_bar`].
const _: () = assert!((Kind::Held as u8) < Kind::Banned as u8);
