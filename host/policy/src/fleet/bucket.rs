//! A token bucket of the fleet, as one host sees it.
//!
//! Each token counts once on every host, in whatever order hosts lose each other and find each other again:
//!
//! - While the others are heard, a token is taken from the bucket of all and added to the total of this host, which the others are told. They take from
//!   their copies by how much the sum of the totals has grown.
//! - While they are not heard, a token is taken from a share, and is in no total. When the others are heard again, what of the share is still
//!   missing is taken from the bucket of all, and only then added to the total.
//!
//! So a total never has a token that its host has counted otherwise, and it never falls as long as the others remember it. Whoever hears it first or last
//! takes the same.

use super::footing::Peers;

const SECOND: u64 = 1_000_000_000;

/// How long the other hosts know of a bucket after it is full again.
pub(super) const REMEMBERED: u64 = 60 * SECOND;

/// A bucket owes at most what it refills in this time, beyond one burst for each host: tokens that others have taken. More can only be an error.
const MOST_OWED: u64 = 60 * SECOND;

/// The longest time between two exchanges.
const LONGEST_INTERVAL: u64 = 5 * SECOND;

/// How much times of other hosts may differ from those of this one, after the exchange has translated them.
const CLOCKS: u64 = SECOND / 10;

/// A token bucket, from which the others take as well. All times are nanoseconds of one clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// The theoretical arrival time (generic cell rate algorithm, ITU-T I.371) of the bucket of all, as far as this host has heard.
    due: u64,
    /// The same of the share of this host, each of whose tokens takes as many times longer as there are shares. It begins where `due` is, so that all
    /// shares together have what the bucket had.
    share: u64,
    /// Number of shares; 0 if no token was taken from a share since the others were heard.
    shares: u32,
    /// Tokens of all of them by the last call; `each` is 0 before the first.
    burst: u32,
    /// Nanoseconds per token.
    each: u64,
    /// The total of this host: tokens that it has taken from the bucket of all.
    taken: u64,
    /// When the others forget `taken`; `u64::MAX` until they are told.
    forgotten: u64,
    /// The sum of the totals of the others by the last news.
    seen: u64,
}

impl Bucket {
    /// Takes one token; false if there is none.
    pub(super) fn take(&mut self, each: u64, burst: u32, peers: Peers, now: u64) -> bool {
        if let Peers::Heard { .. } = peers {
            self.join(now);
        }
        let is_first = self.each == 0;
        self.each = each;
        self.burst = burst;
        if is_first {
            // The bound was not known when the others were heard.
            self.due = self.due.min(now.saturating_add(self.most_missing(peers)));
        }
        match peers {
            Peers::Heard { .. } => self.take_of_all(now),
            Peers::Silent { hosts } => self.take_of_share(hosts, now),
        }
    }

    /// The total of this host while the others are heard, and until when they have to remember it.
    pub(super) fn tell(&mut self, now: u64) -> (u64, u64) {
        self.join(now);
        self.forgotten = self.due.max(now).saturating_add(REMEMBERED);
        (self.taken, self.forgotten)
    }

    /// The others have taken this many tokens in total, which they remember for so long. What they have taken since the last news is taken here, too.
    pub(super) fn hear(&mut self, total: u64, lasts: u64, peers: Peers, now: u64) {
        // The copy of the bucket that is the emptiest among those of the others.
        let missing = lasts.saturating_sub(REMEMBERED);
        let news = total.saturating_sub(self.seen);
        self.seen = total;
        if self.each == 0 {
            self.due = self.due.max(now.saturating_add(missing));
            return;
        }
        if news == 0 {
            return;
        }
        let most_missing = self.most_missing(peers);
        let missing = missing.min(most_missing);
        // At most so much is missing of what each of the others has taken. Older tokens have come back.
        let possible = |hosts: u32, missing: u64| {
            let others = u64::from(hosts.max(2) - 1);
            missing.saturating_mul(others)
        };
        let taken = self.each.saturating_mul(news);
        match peers {
            Peers::Heard { hosts } => {
                self.join(now);
                let taken = taken.min(possible(hosts, missing.saturating_add(CLOCKS)));
                let most = now.saturating_add(most_missing).max(self.due);
                self.due = self.due.max(now).saturating_add(taken).min(most);
            }
            Peers::Silent { hosts } => {
                // Most of it may be from long ago: no more can be missing than all tokens, or than is missing on the others.
                let before = self.due.max(now);
                let most = now.saturating_add(self.whole(hosts).max(missing));
                let due = before.saturating_add(taken.min(possible(hosts, missing)));
                self.due = due.min(most).max(before);
                let more = self.due - before;
                self.share = self.share.max(before).saturating_add(more);
            }
        }
    }

    /// Whether the bucket has no effect any more.
    pub(super) fn is_full(&self, now: u64) -> bool {
        self.due <= now && (self.shares == 0 || self.share <= now)
    }

    fn take_of_all(&mut self, now: u64) -> bool {
        let due = self.due.max(now).saturating_add(self.each);
        if due - now > self.each.saturating_mul(self.burst.into()) {
            return false;
        }
        self.due = due;
        self.count(1, now);
        true
    }

    fn take_of_share(&mut self, shares: u32, now: u64) -> bool {
        let each = self.each.saturating_mul(shares.into());
        if self.shares != shares {
            let missing = each.saturating_mul(self.missing_of_share(now));
            self.share = self.due.max(now).saturating_add(missing);
            self.shares = shares;
        }
        let share = self.share.max(now).saturating_add(each);
        if share - now > each.saturating_mul(self.burst.div_ceil(shares).into()) {
            return false;
        }
        self.share = share;
        true
    }

    /// The others are heard: what is missing of the share is missing in the bucket of all.
    fn join(&mut self, now: u64) {
        let tokens = self.missing_of_share(now);
        self.shares = 0;
        if tokens > 0 {
            let missing = self.each.saturating_mul(tokens);
            self.due = self.due.max(now).saturating_add(missing);
            self.count(tokens, now);
        }
    }

    /// Tokens that were taken from the share and have not come back, rounded up. What was missing before the share began comes back first.
    fn missing_of_share(&self, now: u64) -> u64 {
        let each = self.each.saturating_mul(self.shares.into());
        match each {
            0 => 0,
            each => self.share.saturating_sub(self.due.max(now)).div_ceil(each),
        }
    }

    fn count(&mut self, tokens: u64, now: u64) {
        if self.forgotten <= now.saturating_add(LONGEST_INTERVAL) {
            // Hosts that have forgotten the old total would take a larger one for new.
            self.taken = 0;
            self.forgotten = u64::MAX;
        }
        self.taken = self.taken.saturating_add(tokens);
    }

    /// The most that can be missing, in nanoseconds. Others say more only by an error, for example when a clock was set.
    fn most_missing(&self, peers: Peers) -> u64 {
        let (Peers::Heard { hosts } | Peers::Silent { hosts }) = peers;
        let bursts = self.whole(hosts).saturating_mul(hosts.into());
        bursts.saturating_add(MOST_OWED)
    }

    /// Nanoseconds of the tokens of all shares.
    fn whole(&self, shares: u32) -> u64 {
        let tokens = u64::from(self.burst.div_ceil(shares)) * u64::from(shares);
        self.each.saturating_mul(tokens)
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            due: 0,
            share: 0,
            shares: 0,
            burst: 0,
            each: 0,
            taken: 0,
            forgotten: u64::MAX,
            seen: 0,
        }
    }
}

#[cfg(test)]
mod tests;
