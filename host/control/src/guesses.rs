//! Requests with a wrong token: a source that sends too many gets 429 for a while. A right token is accepted in any case.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong tokens that a source may send in `PERIOD`.
const MOST: u32 = 10;

const PERIOD: Duration = Duration::from_secs(60);

/// Most sources that are counted at the same time.
const SOURCES: usize = 4_096;

/// The sources of wrong tokens. Loopback addresses are not counted: a TLS proxy on this machine sends the requests of everybody.
#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<HashMap<IpAddr, Guessed>>);

#[derive(Clone, Copy, Debug)]
struct Guessed {
    since: Instant,
    count: u32,
}

impl Guesses {
    /// Returns after how many seconds this source may try again; `None` if it may now.
    pub(crate) fn blocked(&self, source: IpAddr, now: Instant) -> Option<u64> {
        let guesses = self.0.lock();
        let guessed = guesses.get(&network(source))?;
        let left = PERIOD.checked_sub(now.saturating_duration_since(guessed.since))?;
        (guessed.count >= MOST && !left.is_zero()).then(|| left.as_secs() + 1)
    }

    /// Counts a wrong token. Returns whether the source has just reached the limit.
    pub(crate) fn note(&self, source: IpAddr, now: Instant) -> bool {
        if source.to_canonical().is_loopback() {
            return false;
        }
        let is_over = |guessed: &Guessed| now.saturating_duration_since(guessed.since) >= PERIOD;
        let mut guesses = self.0.lock();
        if guesses.len() >= SOURCES {
            guesses.retain(|_, guessed| !is_over(guessed));
        }
        let key = network(source);
        if guesses.len() >= SOURCES && !guesses.contains_key(&key) {
            return false;
        }
        let fresh = Guessed {
            since: now,
            count: 0,
        };
        let guessed = guesses.entry(key).or_insert(fresh);
        if is_over(guessed) {
            *guessed = fresh;
        }
        guessed.count += 1;
        guessed.count == MOST
    }
}

/// An IPv4 address, or the /64 of an IPv6 address.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(addr) => addr.into(),
        IpAddr::V6(addr) => {
            let network = addr.to_bits() & (u128::MAX << 64);
            std::net::Ipv6Addr::from_bits(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_wrong_tokens_is_blocked_for_a_while() {
        let guesses = Guesses::default();
        let start = Instant::now();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let reached: Vec<_> = (0..MOST)
            .map(|_| guesses.note(ip("192.0.2.7"), start))
            .collect();
        assert_eq!(reached.iter().filter(|reached| **reached).count(), 1);
        assert_eq!(guesses.blocked(ip("192.0.2.7"), start), Some(61));
        assert_eq!(guesses.blocked(ip("192.0.2.8"), start), None);
        assert_eq!(guesses.blocked(ip("192.0.2.7"), start + PERIOD), None);
        assert!(!guesses.note(ip("192.0.2.7"), start + PERIOD));
        assert_eq!(guesses.blocked(ip("192.0.2.7"), start + PERIOD), None);
    }

    #[test]
    fn a_network_counts_as_one_and_loopback_not_at_all() {
        let guesses = Guesses::default();
        let now = Instant::now();
        for host in 0..MOST {
            guesses.note(format!("2001:db8::{host:x}").parse().unwrap(), now);
            guesses.note("127.0.0.1".parse().unwrap(), now);
        }
        assert!(
            guesses
                .blocked("2001:db8::ffff".parse().unwrap(), now)
                .is_some()
        );
        assert!(
            guesses
                .blocked("2001:db8:1::1".parse().unwrap(), now)
                .is_none()
        );
        assert!(guesses.blocked("127.0.0.1".parse().unwrap(), now).is_none());
    }

    #[test]
    fn the_number_of_sources_is_bounded() {
        let guesses = Guesses::default();
        let now = Instant::now();
        for host in 0..2 * SOURCES as u32 {
            guesses.note(
                std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).into(),
                now,
            );
        }
        assert_eq!(guesses.0.lock().len(), SOURCES);
    }
}
