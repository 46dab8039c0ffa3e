//! Which server is used: the choice, without sockets and clocks.

use std::time::{Duration, Instant};

/// Pause after the first failure of a server; it doubles with each further one, up to [`LONGEST_REST`].
const FIRST_REST: Duration = Duration::from_secs(1);

/// Longest pause of a server that has failed.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Pause between two tries of a preferred server that serves, while it has to prove itself.
const PROBES: Duration = Duration::from_secs(2);

/// How long a preferred server must serve before it is used again. The time doubles when the server fails soon after its return.
const STEADY: Duration = Duration::from_secs(10);

/// Longest of these times.
const LONGEST_STEADY: Duration = Duration::from_secs(600);

/// A server that fails within this time after its return returned too early.
const TOO_EARLY: Duration = Duration::from_secs(120);

/// The state of the servers of a cluster, by their place in the order of preference.
#[derive(Debug)]
pub(super) struct Choice {
    servers: Vec<Server>,
    /// The server in use; `None` before the first one served.
    current: Option<usize>,
}

#[derive(Debug)]
struct Server {
    /// Failures since it served last.
    failures: u32,
    /// Until when it is not tried if another server serves.
    rests_until: Option<Instant>,
    /// Since when it has served without a failure, as seen by probes.
    serves_since: Option<Instant>,
    /// When it is to be probed.
    probe_at: Option<Instant>,
    /// How long it has to serve before it is used again.
    steady: Duration,
    /// When it was used again after another server.
    returned: Option<Instant>,
    /// Why it was not used.
    trouble: Option<String>,
}

/// Another server is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The server before.
    pub(super) from: usize,
    /// The server in use.
    pub(super) to: usize,
    /// Whether the server before failed; otherwise the new one is preferred and serves again.
    pub(super) has_failed: bool,
}

impl Choice {
    pub(super) fn new(count: usize) -> Self {
        let server = || Server {
            failures: 0,
            rests_until: None,
            serves_since: None,
            probe_at: None,
            steady: STEADY,
            returned: None,
            trouble: None,
        };
        Self {
            servers: (0..count).map(|_| server()).collect(),
            current: None,
        }
    }

    /// The server in use, or the one that is tried first.
    pub(super) fn current(&self) -> usize {
        self.current.unwrap_or(0)
    }

    /// Why a server was not used at the last try; `None` if it served.
    pub(super) fn trouble(&self, server: usize) -> Option<&str> {
        self.servers[server].trouble.as_deref()
    }

    /// The servers in the order in which they are tried. A server that has failed rests, unless all of them do.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let rests = |at: &usize| self.servers[*at].rests(now);
        let all = self.current.into_iter().chain(0..self.servers.len());
        let mut order: Vec<usize> = Vec::new();
        for at in all {
            if !order.contains(&at) {
                order.push(at);
            }
        }
        let awake: Vec<_> = order.iter().copied().filter(|at| !rests(at)).collect();
        match awake.is_empty() {
            true => order,
            false => awake,
        }
    }

    /// Notes that a server has answered. Returns the change, if the server is used from now on in place of another one.
    pub(super) fn served(&mut self, server: usize, now: Instant) -> Option<Change> {
        let from = self.current;
        let is_current_fine = from.is_some_and(|at| at != server && self.servers[at].failures == 0);
        let one = &mut self.servers[server];
        one.failures = 0;
        one.rests_until = None;
        one.trouble = None;
        if is_current_fine {
            // An answer to what was asked before the change.
            return None;
        }
        self.current = Some(server);
        self.plan_probes(now);
        let from = from.filter(|from| *from != server)?;
        Some(Change {
            from,
            to: server,
            has_failed: true,
        })
    }

    /// Notes that a server has failed. It rests for longer with each failure.
    pub(super) fn failed(&mut self, server: usize, why: String, now: Instant) {
        let one = &mut self.servers[server];
        one.failures = one.failures.saturating_add(1);
        let rest = FIRST_REST.saturating_mul(1 << (one.failures - 1).min(10));
        let rest = rest.min(LONGEST_REST);
        one.rests_until = Some(now + rest);
        one.serves_since = None;
        one.probe_at = Some(now + rest);
        one.trouble = Some(why);
        let is_early = |at: Instant| now.saturating_duration_since(at) < TOO_EARLY;
        if one.returned.take().is_some_and(is_early) {
            one.steady = (one.steady * 2).min(LONGEST_STEADY);
        }
    }

    /// A preferred server that is to be tried now, while a less preferred one is in use. It is not named again before the result is noted or
    /// some time has passed.
    pub(super) fn probe(&mut self, now: Instant) -> Option<usize> {
        let current = self.current?;
        let due = |server: &Server| server.probe_at.is_none_or(|at| at <= now);
        let at = self.servers[..current].iter().position(due)?;
        self.servers[at].probe_at = Some(now + LONGEST_REST);
        Some(at)
    }

    /// Notes that a preferred server has served a probe. Returns the change, if it has proved itself and is used from now on.
    pub(super) fn proved(&mut self, server: usize, now: Instant) -> Option<Change> {
        let from = self.current.filter(|current| server < *current)?;
        let one = &mut self.servers[server];
        one.failures = 0;
        one.rests_until = None;
        one.trouble = None;
        one.probe_at = Some(now + PROBES);
        let since = *one.serves_since.get_or_insert(now);
        if now.saturating_duration_since(since) < one.steady {
            return None;
        }
        one.returned = Some(now);
        self.current = Some(server);
        self.plan_probes(now);
        Some(Change {
            from,
            to: server,
            has_failed: false,
        })
    }

    /// A preferred server begins to prove itself when another one is used.
    fn plan_probes(&mut self, now: Instant) {
        let current = self.current();
        for server in &mut self.servers[..current] {
            server.serves_since = None;
            server.probe_at.get_or_insert(now + PROBES);
        }
    }
}

impl Server {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(choice: &mut Choice, server: usize, now: Instant) {
        choice.failed(server, "no answer".to_owned(), now);
    }

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_next_server_is_used_at_once_and_a_late_answer_of_the_first_changes_nothing() {
        let (mut choice, now) = (Choice::new(3), Instant::now());
        assert_eq!(choice.order(now), [0, 1, 2]);
        assert_eq!(choice.served(0, now), None);
        fails(&mut choice, 0, now);
        assert_eq!(choice.trouble(0), Some("no answer"));
        assert_eq!(choice.order(now), [1, 2]);
        let change = choice.served(1, now);
        let expected = Change {
            from: 0,
            to: 1,
            has_failed: true,
        };
        assert_eq!(change, Some(expected));
        assert_eq!(choice.served(0, now), None);
        assert_eq!(choice.current(), 1);
        assert_eq!(choice.order(now), [1, 0, 2]);
    }

    #[test]
    fn a_server_rests_for_longer_with_each_failure_unless_all_do() {
        let (mut choice, start) = (Choice::new(2), Instant::now());
        choice.served(0, start);
        choice.served(1, start);
        let mut now = start;
        for rest in [1, 2, 4, 8, 16, 30, 30] {
            fails(&mut choice, 1, now);
            assert_eq!(choice.order(now + seconds(rest) / 2), [0], "{rest}");
            now += seconds(rest);
            assert_eq!(choice.order(now), [0, 1], "{rest}");
        }
        fails(&mut choice, 0, now);
        fails(&mut choice, 1, now);
        assert_eq!(choice.order(now), [0, 1]);
        // One server is always tried.
        let mut one = Choice::new(1);
        fails(&mut one, 0, now);
        assert_eq!(one.order(now), [0]);
    }

    /// Serves the probes until a time; returns the time of the change.
    fn prove(choice: &mut Choice, server: usize, begin: Instant, end: Instant) -> Option<Instant> {
        let mut now = begin;
        while now <= end {
            if choice.probe(now) == Some(server) && choice.proved(server, now).is_some() {
                return Some(now);
            }
            now += Duration::from_millis(100);
        }
        None
    }

    #[test]
    fn a_preferred_server_returns_when_it_has_served_for_a_while_and_later_each_time_it_fails() {
        let (mut choice, start) = (Choice::new(2), Instant::now());
        choice.served(0, start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..4 {
            fails(&mut choice, 0, now);
            choice.served(1, now);
            // Probes begin after the rest.
            assert_eq!(choice.probe(now), None);
            let back = prove(&mut choice, 0, now, now + seconds(300)).unwrap();
            waits.push((back - now).as_secs());
            assert_eq!(choice.current(), 0);
            assert_eq!(choice.served(0, back), None);
            now = back + seconds(5);
        }
        assert_eq!(waits, [11, 21, 41, 81]);
    }

    #[test]
    fn a_failure_during_the_probes_begins_them_again() {
        let (mut choice, start) = (Choice::new(2), Instant::now());
        choice.served(0, start);
        fails(&mut choice, 0, start);
        choice.served(1, start);
        assert_eq!(prove(&mut choice, 0, start, start + seconds(8)), None);
        let now = start + seconds(8);
        fails(&mut choice, 0, now);
        assert_eq!(prove(&mut choice, 0, now, now + seconds(10)), None);
        assert!(prove(&mut choice, 0, now, now + seconds(20)).is_some());
    }

    #[test]
    fn the_server_that_is_preferred_most_is_not_probed() {
        let (mut choice, now) = (Choice::new(3), Instant::now());
        choice.served(0, now);
        assert_eq!(choice.probe(now + seconds(60)), None);
    }
}
