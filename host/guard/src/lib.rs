//! What strangers do: floods, scans and guesses. Counts evidence for each source in a table of fixed size, and holds or bans sources.
//!
//! A source is an IPv4 address or an IPv6 /64. Time and addresses are parameters; all numbers are changed by any worker without a lock.
//!
//! The source address of a datagram may be forged. Evidence from datagrams therefore never bans a source, with one exception
//! ([`Guard::confirm`]): it *holds* the source. A held source is still served, but what nobody can tell from forged requests is limited to
//! a few requests a second. A peer of a stream has proved its address; its evidence bans the source, from which nothing is accepted for a
//! while.
//!
//! Hosts of a fleet exchange their bans ([`Guard::share`]). Holds and evidence stay on their host.
//!
//! [`Unproved`] bounds what is sent to sources that have not proved their address.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod bar;
mod fleet;
mod host_names;
mod marks;
#[cfg(all(test, loom))]
mod models;
mod prefix;
mod seconds;
mod shared_ban;
#[cfg(all(test, not(loom)))]
mod shared_bans;
mod source;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
mod unproved;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use portcullis_rate::{Clock, Due, Journal, Noted, SECOND, each};

pub use bar::{Kind, Reason};
pub use fleet::FleetCounts;
pub use prefix::Prefix;
pub use shared_ban::{HostId, Item};
pub use unproved::{Unasked, Unproved};

use bar::Bar;
use fleet::{Fleet, News};
use marks::Marks;
use seconds::{second, seconds};
use source::{Seen, Source, Thresholds};
use table::Table;

/// Challenges that are remembered for all sources together.
const NONCES: usize = 1 << 15;

/// Users of sources that are remembered for all sources together.
const USERS: usize = 1 << 17;

/// Bans between two exchanges with other hosts that are found without a look through the table.
const NOTES: usize = 1_024;

/// Expensive checks per second whether a source is exempt, and at once.
const CHECKS_PER_SECOND: u32 = 200;
const CHECKS_BURST: u64 = 50;

/// Nanoseconds.
const MILLISECOND: u64 = SECOND / 1_000;

/// Time in which the answer to a challenge counts as one, in seconds.
const NONCE_TIME: u32 = 60;

/// Time for which a user is remembered that was served at a source, in seconds.
const USER_TIME: u32 = 2 * 3_600;

/// What a source may do. A number 0 switches a limit off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of a window in which evidence is counted.
    pub within: Duration,
    /// Refusals in a window.
    pub refusals: u16,
    /// Different users that were refused in a window; at most [`Limits::MOST_USERS`].
    pub users: u16,
    /// Challenges without a success in a window.
    pub challenges: u16,
    /// Malformed messages and unknown methods in a window.
    pub malformed: u16,
    /// Messages per second.
    pub rate: u32,
    /// Messages at once, above the rate.
    pub burst: u32,
    /// How long a source is held or banned.
    pub ban: Duration,
    /// Requests per second of a held source that nothing tells from forged ones.
    pub held_rate: u32,
    /// Sources that the table has room for.
    pub sources: usize,
}

impl Limits {
    /// The largest number of different users that can be counted.
    pub const MOST_USERS: u16 = source::MOST_USERS;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(30),
            refusals: 20,
            users: 10,
            challenges: 100,
            malformed: 20,
            rate: 200,
            burst: 2_000,
            ban: Duration::from_secs(300),
            held_rate: 2,
            sources: 100_000,
        }
    }
}

/// How sure it is that a message is from the address that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A datagram: anybody may have sent it.
    Datagram,
    /// A message in a stream: its peer has completed a handshake.
    Stream,
}

/// What a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A request for this user (a hash of the name) was refused: 403, 404 or the like.
    Refusal(u64),
    /// The same, and the host itself refused an INVITE: the refusal will be acknowledged.
    RefusedInvite(u64),
    /// A request was answered with a challenge: 401 or 407.
    Challenge,
    /// A request with credentials was successful.
    Success,
    /// A message could not be parsed, violates a rule, or has an unknown method.
    Malformed,
}

/// Whether a message is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Pass,
    /// The source is banned.
    Banned(Reason),
    /// The source is above its rate.
    Excess,
}

/// A source that is held or banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barred {
    /// The source.
    pub source: Prefix,
    /// Whether it is held or banned.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// For how long still.
    pub remaining: Duration,
    /// Messages that were dropped since.
    pub dropped: u64,
    /// The other host of the fleet that has banned it; `None` if it was this one.
    pub host: Option<HostId>,
}

/// A source with evidence that is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The source.
    pub source: Prefix,
    /// Refusals, challenges and malformed messages in this window.
    pub evidence: u64,
    /// Time until the window ends.
    pub remaining: Duration,
}

/// The evidence about all sources.
#[derive(Debug)]
pub struct Guard {
    thresholds: Thresholds,
    /// Nanoseconds that a message takes at the rate; `None` without a limit.
    each: Option<u64>,
    /// Nanoseconds that the messages of a burst take.
    burst: u64,
    /// The same for requests of held sources.
    held_each: u64,
    ban: u32,
    table: Table,
    nonces: Marks,
    users: Marks,
    clock: Clock,
    hasher: RandomState,
    /// The expensive checks whether a source is exempt.
    checks: Due,
    /// The second after which no source is held or banned, unless one is added.
    barred_until: AtomicU64,
    /// Bans by operators.
    commanded: AtomicU64,
    /// What is exchanged with other hosts; empty if nothing is.
    sharing: OnceLock<Sharing>,
}

/// What is exchanged with other hosts.
#[derive(Debug)]
struct Sharing {
    /// Sources that workers have banned.
    journal: Journal,
    /// Only the control side locks it.
    fleet: Mutex<Fleet>,
}

impl Guard {
    /// The longest time for which a source is banned: a day.
    pub const LONGEST_BAN: Duration = Duration::from_secs(86_400);

    /// With these limits, from this moment on.
    pub fn new(limits: &Limits, now: Instant) -> Self {
        let each_message = each(limits.rate);
        Self {
            thresholds: Thresholds {
                within: seconds(limits.within).max(1),
                refusals: limits.refusals,
                users: limits.users.min(Limits::MOST_USERS),
                challenges: limits.challenges,
                malformed: limits.malformed,
            },
            each: (limits.rate > 0).then_some(each_message),
            burst: each_message.saturating_mul(u64::from(limits.burst.max(1))),
            held_each: each(limits.held_rate),
            ban: seconds(limits.ban).max(1),
            table: Table::new(limits.sources),
            nonces: Marks::new(NONCES),
            users: Marks::new(USERS),
            clock: Clock::starting(now),
            hasher: RandomState::new(),
            checks: Due::default(),
            barred_until: AtomicU64::new(0),
            commanded: AtomicU64::new(0),
            sharing: OnceLock::new(),
        }
    }

    /// Exchanges bans with other hosts from now on: [`Guard::take_bans`] and [`Guard::merge_bans`].
    pub fn share(&self) {
        let sharing = Sharing {
            journal: Journal::new(NOTES),
            fleet: Mutex::new(Fleet::new(self.table.rows())),
        };
        let _shared_before = self.sharing.set(sharing);
    }

    /// Counts a message of this source, before it is parsed.
    #[inline]
    pub fn admit(&self, ip: IpAddr, now: Instant) -> Admission {
        let now = self.clock.at(now);
        let prefix = Prefix::of(ip);
        let hash = self.hash(prefix);
        let Some(source) = self.table.find_or_claim(prefix, hash, second(now)) else {
            return Admission::Pass;
        };
        if self.is_any_barred(now)
            && let Some(Bar {
                kind: Kind::Banned,
                reason,
                ..
            }) = source.bar(hash, second(now))
        {
            source.count_dropped();
            return Admission::Banned(reason);
        }
        match source.take(now, self.each, self.burst) {
            true => Admission::Pass,
            false => Admission::Excess,
        }
    }

    /// Counts evidence. Returns why the source is to be barred ([`Guard::bar`]) if there is enough of it, unless it is exempt
    /// ([`Guard::forget`]).
    pub fn note(&self, ip: IpAddr, evidence: Evidence, now: Instant) -> Option<Reason> {
        let now = second(self.clock.at(now));
        let prefix = Prefix::of(ip);
        let source = self.table.find_or_claim(prefix, self.hash(prefix), now)?;
        let seen = match evidence {
            Evidence::Refusal(user) => Seen::Refusal(self.bit(prefix, user)),
            Evidence::RefusedInvite(user) => {
                source.expect_ack(now, &self.thresholds);
                Seen::Refusal(self.bit(prefix, user))
            }
            Evidence::Challenge => Seen::Challenge,
            Evidence::Success => Seen::Success,
            Evidence::Malformed => Seen::Malformed,
        };
        source.note(seen, now, &self.thresholds)
    }

    /// Notes that the source has acknowledged a refusal of the host, with the host's own tag: it has received the refusal, so its address is
    /// not forged. Returns why it is to be banned if there are enough of these.
    pub fn confirm(&self, ip: IpAddr, now: Instant) -> Option<Reason> {
        let now = second(self.clock.at(now));
        let prefix = Prefix::of(ip);
        let source = self.table.find(prefix, self.hash(prefix))?;
        source.confirm(now, &self.thresholds)
    }

    /// Holds or bans a source. Returns false if it already was: then only its time begins again. A banned source is not held.
    pub fn bar(&self, ip: IpAddr, kind: Kind, reason: Reason, now: Instant) -> bool {
        let now = second(self.clock.at(now));
        let prefix = Prefix::of(ip);
        let hash = self.hash(prefix);
        let Some(source) = self.table.find_or_claim(prefix, hash, now) else {
            return false;
        };
        let end = now.saturating_add(self.ban);
        self.barred_until
            .fetch_max(u64::from(end), Ordering::Relaxed);
        let is_new = source.set_bar(hash, Bar { kind, reason, end }, now);
        if kind == Kind::Banned
            && let Some(sharing) = self.sharing.get()
        {
            sharing.journal.note(prefix.number());
        }
        is_new
    }

    /// Whether a held source may have one more request that nothing tells from forged ones.
    pub fn take_held(&self, ip: IpAddr, now: Instant) -> bool {
        let prefix = Prefix::of(ip);
        let Some(source) = self.table.find(prefix, self.hash(prefix)) else {
            return true;
        };
        source.take_held(self.clock.at(now), self.held_each)
    }

    /// Whether the source may be compared with a long list of exempt ones now: once a second for each source, and 200 times for all.
    pub fn take_check(&self, ip: IpAddr, now: Instant) -> bool {
        let now = self.clock.at(now);
        let prefix = Prefix::of(ip);
        let source = self.table.find(prefix, self.hash(prefix));
        let each = each(CHECKS_PER_SECOND);
        source.is_none_or(|source| source.take_check(second(now)))
            && self.checks.take(now, each, CHECKS_BURST * each)
    }

    /// Whether the source is held or banned at least as strictly as this.
    pub fn is_barred(&self, ip: IpAddr, kind: Kind, now: Instant) -> bool {
        let now = self.clock.at(now);
        if !self.is_any_barred(now) {
            return false;
        }
        let prefix = Prefix::of(ip);
        let hash = self.hash(prefix);
        let bar = self.table.find(prefix, hash);
        let bar = bar.and_then(|source| source.bar(hash, second(now)));
        bar.is_some_and(|bar| bar.kind >= kind)
    }

    /// Removes all evidence about a source, and its ban: it is exempt.
    pub fn forget(&self, ip: IpAddr) {
        let prefix = Prefix::of(ip);
        if let Some(source) = self.table.find(prefix, self.hash(prefix)) {
            source.forget();
        }
    }

    /// Bans a source for this time because an operator says so, whatever it has done; at most [`Guard::LONGEST_BAN`]. A hold or ban of the source is replaced,
    /// also by a shorter one. Returns false, without effect, if the table has no room for it. Whether the source is exempt is up to the caller. `unix` is the
    /// same time as `now`, in milliseconds since 1970. For the control side.
    pub fn ban(&self, ip: IpAddr, time: Duration, now: Instant, unix: u64) -> bool {
        let now = self.clock.at(now);
        let prefix = Prefix::of(ip);
        let time = seconds(time.min(Self::LONGEST_BAN)).max(1);
        let end = second(now).saturating_add(time);
        // Nothing of other hosts comes in between.
        let mut fleet = self.fleet();
        if !self.set_ban(prefix, Reason::Operator, end, second(now)) {
            return false;
        }
        self.commanded.fetch_add(1, Ordering::Relaxed);
        if let Some(fleet) = &mut fleet {
            fleet.banned_by_operator(prefix, unix_of(end, now, unix), end, unix);
        }
        true
    }

    /// Ends the hold or ban of a source, and removes all evidence about it. Returns false if it was neither held nor banned. `unix` is the same time as `now`,
    /// in milliseconds since 1970. For the control side.
    pub fn release(&self, ip: IpAddr, now: Instant, unix: u64) -> bool {
        let now = second(self.clock.at(now));
        let prefix = Prefix::of(ip);
        let hash = self.hash(prefix);
        let mut fleet = self.fleet();
        let mut was_barred = false;
        if let Some(source) = self.table.find(prefix, hash) {
            was_barred = source.bar(hash, now).is_some();
            source.forget();
        }
        // Other hosts may have banned a source that is exempt here.
        let is_told = fleet
            .as_mut()
            .is_some_and(|fleet| fleet.released(prefix, unix));
        was_barred || is_told
    }

    /// Number of bans by operators of this host.
    pub fn commanded(&self) -> u64 {
        self.commanded.load(Ordering::Relaxed)
    }

    /// The sources that are held or banned. Takes time in proportion to the size of the table, unless there are none.
    pub fn barred(&self, now: Instant) -> Vec<Barred> {
        let now = self.clock.at(now);
        if !self.is_any_barred(now) {
            return Vec::new();
        }
        let now = second(now);
        let fleet = self.fleet();
        let all = self.table.all().filter_map(|source| {
            let prefix = source.prefix()?;
            let bar = source.bar(self.hash(prefix), now)?;
            Some(Barred {
                source: prefix,
                kind: bar.kind,
                reason: bar.reason,
                remaining: Duration::from_secs(bar.end.saturating_sub(now).into()),
                dropped: source.dropped(),
                host: match bar.kind {
                    Kind::Held => None,
                    Kind::Banned => fleet.as_ref().and_then(|fleet| fleet.other_host(prefix)),
                },
            })
        });
        all.collect()
    }

    /// The sources against which there is evidence in this window, and which are neither held nor banned. Takes time in proportion to the size of the
    /// table.
    pub fn suspects(&self, now: Instant) -> Vec<Suspect> {
        let now = second(self.clock.at(now));
        let within = self.thresholds.within;
        let remaining = Duration::from_secs(u64::from(within - now % within));
        let all = self.table.all().filter_map(|row| {
            let source = row.prefix()?;
            let evidence = row.evidence(now, &self.thresholds);
            (evidence > 0 && !row.is_barred(now)).then_some(Suspect {
                source,
                evidence,
                remaining,
            })
        });
        all.collect()
    }

    /// Remembers a challenge that is sent to this address.
    pub fn note_nonce(&self, ip: IpAddr, nonce: &[u8], now: Instant) {
        let now = second(self.clock.at(now));
        let hash = self.hasher.hash_one((Prefix::of(ip), nonce));
        self.nonces.set(hash, now, now.saturating_add(NONCE_TIME));
    }

    /// Whether this challenge was sent to this address and has not been answered before.
    pub fn take_nonce(&self, ip: IpAddr, nonce: &[u8], now: Instant) -> bool {
        let hash = self.hasher.hash_one((Prefix::of(ip), nonce));
        self.nonces.take(hash, second(self.clock.at(now)))
    }

    /// Remembers that a request of this source, with this Call-ID and this number in CSeq, has passed because it answers a challenge. If it is
    /// challenged again, its answer was wrong, and the answer to the new challenge is no proof: otherwise whoever guesses passwords would pass
    /// with each guess.
    pub fn note_answer(&self, ip: IpAddr, call: (&[u8], u32), now: Instant) {
        let now = second(self.clock.at(now));
        let hash = self.hasher.hash_one((Prefix::of(ip), call));
        self.nonces.set(hash, now, now.saturating_add(NONCE_TIME));
    }

    /// Whether a request with this Call-ID and CSeq has passed because it answers a challenge.
    pub fn is_answer(&self, ip: IpAddr, call: (&[u8], u32), now: Instant) -> bool {
        let hash = self.hasher.hash_one((Prefix::of(ip), call));
        self.nonces.has(hash, second(self.clock.at(now)))
    }

    /// Remembers that this user (a hash of the name) was served at this address.
    pub fn note_user(&self, ip: IpAddr, user: u64, now: Instant) {
        let now = second(self.clock.at(now));
        let hash = self.hasher.hash_one((Prefix::of(ip), user));
        self.users.set(hash, now, now.saturating_add(USER_TIME));
    }

    /// Whether this user was served at this address in the last two hours.
    pub fn knows_user(&self, ip: IpAddr, user: u64, now: Instant) -> bool {
        let hash = self.hasher.hash_one((Prefix::of(ip), user));
        self.users.has(hash, second(self.clock.at(now)))
    }

    /// A keyed hash of the name of a user.
    pub fn user(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Counts a message of a held source that was dropped.
    pub fn count_dropped(&self, ip: IpAddr) {
        let prefix = Prefix::of(ip);
        if let Some(source) = self.table.find(prefix, self.hash(prefix)) {
            source.count_dropped();
        }
    }

    /// At most this many items for the other hosts that have not been taken: bans and releases of this host, and its name, which is `name`. `unix` is the
    /// same time as `now`, in milliseconds since 1970. For the control side.
    pub fn take_bans(&self, name: &str, most: usize, now: Instant, unix: u64) -> Vec<Item> {
        let (Some(sharing), Some(mut fleet)) = (self.sharing.get(), self.fleet()) else {
            return Vec::new();
        };
        let now = self.clock.at(now);
        let Noted {
            numbers,
            is_incomplete,
        } = sharing.journal.take();
        let mut sources: Vec<_> = numbers.into_iter().filter_map(Prefix::of_number).collect();
        if is_incomplete {
            sources.extend(self.table.all().filter_map(Source::prefix));
        }
        for source in sources {
            if let Some(Bar { reason, end, .. }) = self.ban_of(source, second(now)) {
                fleet.banned(source, reason, unix_of(end, now, unix), end, unix);
            }
        }
        fleet.take(name, most, unix)
    }

    /// Takes over what other hosts have done, unless something later is known: bans of sources that are not exempt, with the same end, and releases.
    /// The items may come in any order, and more than once. For the control side.
    pub fn merge_bans(
        &self,
        items: &[Item],
        is_exempt: impl Fn(IpAddr) -> bool,
        now: Instant,
        unix: u64,
    ) {
        let Some(mut fleet) = self.fleet() else {
            return;
        };
        let now = self.clock.at(now);
        for news in fleet.merge(items, unix) {
            match news {
                News::Banned(ban) if is_exempt(ban.source.ip()) => {
                    fleet.count(|counts| counts.exempt += 1);
                }
                News::Banned(ban) => {
                    let left = ban.ends.saturating_sub(unix).saturating_mul(MILLISECOND);
                    let end = second(now.saturating_add(left).saturating_add(SECOND - 1));
                    let is_new = self.ban_of(ban.source, second(now)).is_none();
                    if self.set_ban(ban.source, ban.reason, end, second(now)) {
                        fleet.set_row(ban.source, end);
                        fleet.count(|counts| counts.banned += u64::from(is_new));
                    } else {
                        fleet.count(|counts| counts.no_room += 1);
                    }
                }
                News::Released(prefix) => {
                    fleet.set_row(prefix, 0);
                    let row = self.table.find(prefix, self.hash(prefix));
                    if let Some(row) = row
                        && self.ban_of(prefix, second(now)).is_some()
                    {
                        row.forget();
                        fleet.count(|counts| counts.released += 1);
                    }
                }
            }
        }
    }

    /// Notes how far the clock of the exchange is ahead of that of this host, in milliseconds: of two commands of operators about one source, the later one by
    /// that clock counts. For the control side.
    pub fn set_exchange_clock(&self, ahead: i64) {
        if let Some(mut fleet) = self.fleet() {
            fleet.set_ahead(ahead);
        }
    }

    /// What has become of the bans of other hosts; `None` if bans are not shared.
    pub fn fleet_counts(&self) -> Option<FleetCounts> {
        Some(self.fleet()?.counts())
    }

    /// The name of another host: `#` and a number until the host has told its name. Text of another host: escape it.
    pub fn host_name(&self, host: HostId) -> String {
        let fleet = self.fleet();
        fleet.map_or_else(String::new, |fleet| fleet.name(host))
    }

    /// Bans a source up to this second, whatever was before. False if there is no room.
    fn set_ban(&self, prefix: Prefix, reason: Reason, end: u32, now: u32) -> bool {
        let hash = self.hash(prefix);
        let Some(source) = self.table.find_or_claim(prefix, hash, now) else {
            return false;
        };
        self.barred_until
            .fetch_max(u64::from(end), Ordering::Relaxed);
        let bar = Bar {
            kind: Kind::Banned,
            reason,
            end,
        };
        source.replace_bar(hash, bar, now);
        true
    }

    /// The ban of a source, if it is banned.
    fn ban_of(&self, prefix: Prefix, now: u32) -> Option<Bar> {
        let hash = self.hash(prefix);
        let bar = self.table.find(prefix, hash)?.bar(hash, now)?;
        (bar.kind == Kind::Banned).then_some(bar)
    }

    fn fleet(&self) -> Option<MutexGuard<'_, Fleet>> {
        let sharing = self.sharing.get()?;
        Some(sharing.fleet.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[inline]
    fn is_any_barred(&self, now: u64) -> bool {
        self.barred_until.load(Ordering::Relaxed) > u64::from(second(now))
    }

    #[inline]
    fn hash(&self, prefix: Prefix) -> u64 {
        self.hasher.hash_one(prefix)
    }

    /// The bit of a user in the set of a source.
    fn bit(&self, prefix: Prefix, user: u64) -> u8 {
        let hash = self.hasher.hash_one((prefix, user));
        (hash % u64::from(source::USER_BITS)) as u8
    }
}

/// The time of this second in milliseconds since 1970. `now` (nanoseconds of the clock) and `unix` are the same time.
fn unix_of(end: u32, now: u64, unix: u64) -> u64 {
    let left = (u64::from(end) * SECOND).saturating_sub(now);
    unix + left / MILLISECOND
}

/// The size that the documentation names.
#[cfg(not(all(test, loom)))]
const _: () = assert!(size_of::<source::Source>() == 64);
