//! What may be sent over UDP to a source that has not proved its address: anybody can send a datagram with the address of somebody else, and what it
//! is answered with goes to that one.
//!
//! Each such source has an account. What comes from it may go back to it, and beside that a small allowance; all of it in a limited number of
//! datagrams. The table of accounts has a fixed size, and a source has its account by a keyed hash: sources that share one share its allowance, and
//! nobody outside can find two that do.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_rate::{Allowance, Balance, Clock, Due, SECOND, each};

use crate::marks::Marks;
use crate::prefix::Prefix;
use crate::seconds::{second, seconds};

/// Accounts: 32 bytes each.
const ACCOUNTS: usize = 1 << 14;

/// Sources that are remembered to have proved their address: 8 bytes each.
const PROVED: usize = 1 << 16;

/// The largest UDP datagram: the answer to it may be as large.
const DATAGRAM: u32 = 65_535;

/// How long a proof holds.
const PROOF: Duration = Duration::from_secs(600);

/// How long it is remembered that a source needs no proof, because the operator knows it.
const KNOWN: Duration = Duration::from_secs(2);

/// Parts of the allowance of which one comes back each second.
const PARTS: u32 = 8;

/// Seconds' worth of datagrams that may go out at once.
const AT_ONCE: u64 = 4;

/// Messages that nobody has asked for again: once in this time to each source, and this many at once.
const REPEAT: u64 = 16 * SECOND;
const REPEATS: u64 = 2;

/// The same for all sources together: per second, and at once.
const ALL_REPEATS_PER_SECOND: u32 = 200;
const ALL_REPEATS: u64 = 400;

/// Bytes that a message within a dialog restores: its sender knows the dialog, as the other end does.
const OF_DIALOG: u32 = 2_048;

/// What may be sent to a source that has not proved its address, although its datagrams have not paid for it. A number 0 switches a limit off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unasked {
    /// Bytes beside those that it has sent, at least [`Unasked::FEWEST_BYTES`]. An eighth of them comes back each second.
    pub bytes: u32,
    /// Datagrams per second; four times as many at once.
    pub datagrams: u32,
}

impl Unasked {
    /// Fewest bytes that are a limit.
    pub const FEWEST_BYTES: u32 = PARTS * Allowance::FEWEST;
}

impl Default for Unasked {
    fn default() -> Self {
        Self {
            bytes: 4_096,
            datagrams: 400,
        }
    }
}

/// The accounts of all sources that have not proved their address.
#[derive(Debug)]
pub struct Unproved {
    /// `None` without a limit.
    allowed: Option<Allowance>,
    /// Nanoseconds that a datagram takes; `None` without a limit.
    each: Option<u64>,
    accounts: Box<[Account]>,
    proved: Marks,
    repeats: Due,
    clock: Clock,
    hasher: RandomState,
}

/// What may be sent to one source.
#[derive(Debug, Default)]
#[cfg_attr(not(all(test, loom)), repr(align(32)))]
struct Account {
    balance: Balance,
    datagrams: Due,
    /// What nobody has asked for again.
    repeats: Due,
}

impl Unproved {
    /// With these limits, from this moment on.
    pub fn new(limits: &Unasked, now: Instant) -> Self {
        let bytes = limits.bytes.max(Unasked::FEWEST_BYTES);
        let allowed = (limits.bytes > 0).then_some(Allowance {
            bytes,
            per_second: bytes / PARTS,
            kept: DATAGRAM,
        });
        Self {
            allowed,
            each: (limits.datagrams > 0).then(|| each(limits.datagrams)),
            accounts: (0..ACCOUNTS).map(|_| Account::default()).collect(),
            proved: Marks::new(PROVED),
            repeats: Due::default(),
            clock: Clock::starting(now),
            hasher: RandomState::new(),
        }
    }

    /// Notes a datagram of this many bytes from this source.
    #[inline]
    pub fn received(&self, ip: IpAddr, bytes: usize, now: Instant) {
        let Some(allowed) = &self.allowed else {
            return;
        };
        let (now, hash) = (self.clock.at(now), self.hash(ip));
        if !self.is_proved(hash, now) {
            self.account(hash)
                .balance
                .receive(now, short(bytes), allowed);
        }
    }

    /// Takes back what [`Unproved::received`] has noted: the datagram was passed to another host, which notes it as well.
    pub fn passed_on(&self, ip: IpAddr, bytes: usize, now: Instant) {
        let Some(allowed) = &self.allowed else {
            return;
        };
        let (now, hash) = (self.clock.at(now), self.hash(ip));
        if !self.is_proved(hash, now) {
            let balance = &self.account(hash).balance;
            let _is_there = balance.spend(now, short(bytes), allowed);
        }
    }

    /// Whether a datagram of this many bytes may be sent to this source; if so, it counts.
    #[inline]
    pub fn may_send(&self, ip: IpAddr, bytes: usize, now: Instant) -> bool {
        let (now, hash) = (self.clock.at(now), self.hash(ip));
        if self.is_proved(hash, now) {
            return true;
        }
        let Account {
            balance, datagrams, ..
        } = self.account(hash);
        if let Some(each) = self.each
            && !datagrams.take(now, each, AT_ONCE * SECOND)
        {
            return false;
        }
        let is_paid = self
            .allowed
            .as_ref()
            .is_none_or(|allowed| balance.spend(now, short(bytes), allowed));
        if let Some(each) = self.each
            && !is_paid
        {
            datagrams.give_back(each);
        }
        is_paid
    }

    /// Whether a message may be sent to this source once more although nobody has asked for it: timer G, or a 2xx that its callee repeats.
    pub fn may_repeat(&self, ip: IpAddr, now: Instant) -> bool {
        let (now, hash) = (self.clock.at(now), self.hash(ip));
        if self.allowed.is_none() || self.is_proved(hash, now) {
            return true;
        }
        let all = each(ALL_REPEATS_PER_SECOND);
        let account = self.account(hash);
        if !account.repeats.take(now, REPEAT, REPEATS * REPEAT) {
            return false;
        }
        let is_within = self.repeats.take(now, all, ALL_REPEATS * all);
        if !is_within {
            account.repeats.give_back(REPEAT);
        }
        is_within
    }

    /// Notes that the source has proved its address: by something that only a receiver of a message to it can know, or with a handshake.
    pub fn prove(&self, ip: IpAddr, now: Instant) {
        self.trust(ip, PROOF, now);
    }

    /// Notes that the source needs no proof for a short time: the operator knows it.
    pub fn trust_briefly(&self, ip: IpAddr, now: Instant) {
        self.trust(ip, KNOWN, now);
    }

    /// Notes a message with the seal of a dialog that the source has begun. The other end of the dialog knows the seal as well, so this proves little:
    /// some of the allowance is restored.
    pub fn knows_dialog(&self, ip: IpAddr, now: Instant) {
        let Some(allowed) = &self.allowed else {
            return;
        };
        let (now, hash) = (self.clock.at(now), self.hash(ip));
        if !self.is_proved(hash, now) {
            let account = self.account(hash);
            account.balance.restore(now, OF_DIALOG, allowed);
            // An ACK says that a copy has come, or none is needed any more.
            account.repeats.give_back(REPEAT);
        }
    }

    fn trust(&self, ip: IpAddr, time: Duration, now: Instant) {
        let (now, hash) = (second(self.clock.at(now)), self.hash(ip));
        let end = now.saturating_add(seconds(time));
        if time > KNOWN || !self.proved.has(hash, now) {
            self.proved.set(hash, now, end);
        }
    }

    #[inline]
    fn is_proved(&self, hash: u64, now: u64) -> bool {
        self.proved.has(hash, second(now))
    }

    fn account(&self, hash: u64) -> &Account {
        // The other half finds the row of a proof.
        &self.accounts[hash as usize % ACCOUNTS]
    }

    fn hash(&self, ip: IpAddr) -> u64 {
        self.hasher.hash_one(Prefix::of(ip))
    }
}

fn short(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The size that the documentation names.
#[cfg(not(all(test, loom)))]
const _: () = assert!(size_of::<Account>() == 32);

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn accounts(bytes: u32, datagrams: u32) -> (Unproved, Instant) {
        let now = Instant::now();
        (Unproved::new(&Unasked { bytes, datagrams }, now), now)
    }

    #[test]
    fn the_answer_to_a_datagram_may_be_as_large_and_a_little_larger() {
        let (all, now) = accounts(1_024, 0);
        for bytes in [100, 1_500, 60_000] {
            all.received(ip(1), bytes, now);
            assert!(all.may_send(ip(1), bytes, now), "{bytes}");
        }
        assert!(all.may_send(ip(1), 1_024, now));
        assert!(!all.may_send(ip(1), 1, now));
        assert!(all.may_send(ip(1), 128, now + Duration::from_secs(1)));
        assert!(!all.may_send(ip(1), 1, now + Duration::from_secs(1)));
        assert!(all.may_send(ip(2), 1_024, now), "another source");
    }

    #[test]
    fn a_datagram_that_was_passed_to_another_host_pays_for_nothing_here() {
        let (all, now) = accounts(1_024, 0);
        all.received(ip(1), 3_000, now);
        all.passed_on(ip(1), 3_000, now);
        assert!(!all.may_send(ip(1), 1_025, now));
        assert!(all.may_send(ip(1), 1_024, now));
        // There is nothing left to take back.
        all.passed_on(ip(1), 3_000, now);
        all.received(ip(1), 500, now);
        assert!(all.may_send(ip(1), 500, now));
    }

    #[test]
    fn datagrams_are_counted_and_what_is_not_sent_is_not() {
        let (all, now) = accounts(1_024, 5);
        let sent = |now| (0..100).filter(|_| all.may_send(ip(1), 10, now)).count();
        assert!(!all.may_send(ip(1), 2_000, now), "too large");
        assert_eq!(sent(now), 20);
        assert_eq!(sent(now + Duration::from_secs(1)), 5);
    }

    #[test]
    fn a_proof_holds_for_ten_minutes_and_for_its_source() {
        let (all, now) = accounts(128, 1);
        all.prove(ip(1), now);
        let after = |seconds| now + Duration::from_secs(seconds);
        for at in [now, after(599)] {
            assert!((0..100).all(|_| all.may_send(ip(1), 1_000, at) && all.may_repeat(ip(1), at)));
        }
        assert!(!all.may_send(ip(1), 1_000, after(601)));
        assert!(!all.may_send(ip(2), 1_000, now));
        all.trust_briefly(ip(2), now);
        assert!(all.may_send(ip(2), 1_000, after(1)) && !all.may_send(ip(2), 1_000, after(3)));
        // It does not shorten a proof.
        all.trust_briefly(ip(1), now);
        assert!(all.may_send(ip(1), 1_000, after(500)));
    }

    #[test]
    fn what_nobody_asked_for_again_is_rare() {
        let (all, now) = accounts(4_096, 0);
        let repeated = |last, now| (0..20).filter(|_| all.may_repeat(ip(last), now)).count();
        assert_eq!(repeated(1, now), 2);
        assert_eq!(repeated(1, now + Duration::from_secs(15)), 0);
        assert_eq!(repeated(1, now + Duration::from_secs(16)), 1);
        // All sources together.
        let now = now + Duration::from_secs(100);
        let all_sources = (0..10_000_u32).map(|n| IpAddr::V4((0x0a00_0000 + n).into()));
        let sent = all_sources.filter(|ip| all.may_repeat(*ip, now)).count();
        assert_eq!(sent, 400);
        let (unlimited, now) = accounts(0, 0);
        assert!((0..100).all(|_| unlimited.may_repeat(ip(1), now)));
        assert!((0..100).all(|_| unlimited.may_send(ip(1), 60_000, now)));
    }

    #[test]
    fn the_seal_of_a_dialog_restores_a_part_of_the_allowance() {
        let (all, now) = accounts(4_096, 0);
        assert!(all.may_send(ip(1), 4_096, now) && !all.may_send(ip(1), 1, now));
        all.knows_dialog(ip(1), now);
        assert!(all.may_send(ip(1), 2_048, now) && !all.may_send(ip(1), 1, now));
        (0..100).for_each(|_| all.knows_dialog(ip(1), now));
        assert!(!all.may_send(ip(1), 4_097, now) && all.may_send(ip(1), 4_096, now));
    }

    proptest! {
        /// The bound that the host promises, for any order of datagrams in both directions, and any pauses.
        #[test]
        fn no_more_goes_out_than_has_come_in_beside_the_allowance(
            steps in prop::collection::vec((0_u64..2_000, 0_usize..3_000, 0_usize..9_000), 1..200),
            bytes in 128_u32..20_000,
            datagrams in 1_u32..50,
        ) {
            let (all, begun) = accounts(bytes, datagrams);
            let mut now = begun;
            let (mut incoming, mut outgoing, mut count) = (0, 0, 0);
            for (millis, received, answer) in steps {
                now += Duration::from_millis(millis);
                if received > 0 {
                    all.received(ip(1), received, now);
                    incoming += received as u64;
                }
                if all.may_send(ip(1), answer, now) {
                    outgoing += answer as u64;
                    count += 1;
                }
                let elapsed = (now - begun).as_millis() as u64;
                let restored = elapsed * u64::from(bytes / PARTS) / 1_000;
                prop_assert!(outgoing <= incoming + u64::from(bytes) + restored + u64::from(bytes / PARTS));
                let most = u64::from(datagrams) * (AT_ONCE * 1_000 + elapsed) / 1_000;
                prop_assert!(count <= most + 1, "{count} in {elapsed} ms");
            }
        }
    }
}
