//! Hosts that lose each other and find each other again, in every order.

use super::*;

/// Nothing comes back while a test runs.
const EACH: u64 = 1_000 * SECOND;
const BURST: u32 = 30;
const NOW: u64 = 5 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Takes two tokens.
    Take,
    /// Does not hear the others any more.
    Lose,
    /// Exchanges. It hears the others afterwards.
    Exchange,
    /// Sends something that does not arrive yet, as far as the host can tell.
    Delay,
    /// What was delayed arrives.
    Arrive,
}

use Event::{Arrive, Delay, Exchange, Lose, Take};

/// What may happen on one host, in this order.
const LIVES: [&[Event]; 8] = [
    &[Lose, Take, Exchange, Exchange],
    &[Take, Lose, Exchange, Exchange],
    &[Lose, Exchange, Take, Exchange],
    &[Lose, Take, Exchange, Lose, Take, Exchange],
    &[Take, Delay, Lose, Arrive, Take, Exchange],
    &[Take, Delay, Lose, Take, Exchange, Arrive],
    &[Lose, Take, Exchange, Delay, Exchange, Arrive],
    &[Take, Exchange, Take],
];

/// A total, and when it ends.
type Told = (u64, u64);

#[derive(Clone)]
struct Host {
    bucket: Bucket,
    peers: Peers,
    /// What this host stores, and whether the store does not have it yet.
    mine: Option<Told>,
    is_waiting: bool,
    is_changed: bool,
    /// What it has read of each host. It stays when the store is empty.
    known: Vec<Option<Told>>,
    epoch: u32,
    number: u32,
    late: Option<(u32, Told)>,
}

#[derive(Clone)]
struct Fleet {
    hosts: Vec<Host>,
    /// What each host has stored, with the number of its last exchange.
    store: Vec<(u32, Option<Told>)>,
    epoch: u32,
    admitted: u64,
}

impl Fleet {
    /// All hosts hear each other, and each has taken one token.
    fn new(hosts: usize) -> Self {
        let host = Host {
            bucket: Bucket::default(),
            peers: Peers::Silent { hosts: 1 },
            mine: None,
            is_waiting: false,
            is_changed: false,
            known: vec![None; hosts],
            epoch: 0,
            number: 0,
            late: None,
        };
        let mut fleet = Self {
            hosts: vec![host; hosts],
            store: vec![(0, None); hosts],
            epoch: 0,
            admitted: 0,
        };
        fleet.settle();
        for at in 0..hosts {
            fleet.take(at);
        }
        fleet.settle();
        assert_eq!(fleet.admitted, hosts as u64);
        fleet
    }

    fn take(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let is_taken = host.bucket.take(EACH, BURST, host.peers, NOW);
        host.is_changed |= is_taken;
        self.admitted += u64::from(is_taken);
    }

    /// What the host sends: its changes while it hears the others, and what was not stored before.
    fn request(&mut self, at: usize) -> (u32, Option<Told>) {
        let host = &mut self.hosts[at];
        if host.is_changed && matches!(host.peers, Peers::Heard { .. }) {
            host.is_changed = false;
            host.mine = Some(host.bucket.tell(NOW));
            host.is_waiting = true;
        }
        host.number += 1;
        let sent = host.mine.filter(|_| host.is_waiting);
        (host.number, sent)
    }

    fn arrive(&mut self, at: usize, number: u32, sent: Option<Told>) {
        let (last, stored) = &mut self.store[at];
        if number > *last {
            *last = number;
            *stored = sent.or(*stored);
        }
    }

    fn exchange(&mut self, at: usize) {
        let (number, sent) = self.request(at);
        self.arrive(at, number, sent);
        let hosts = self.hosts.len() as u32;
        let host = &mut self.hosts[at];
        host.is_waiting = host.epoch != self.epoch;
        host.epoch = self.epoch;
        let others = self.store.iter().enumerate();
        for (other, (_, stored)) in others.filter(|(other, _)| *other != at) {
            host.known[other] = stored.or(host.known[other]);
        }
        let known = host.known.iter().flatten();
        let (total, ends) = known.fold((0, NOW), |(total, ends), (value, end)| {
            (total + value, ends.max(*end))
        });
        host.bucket.hear(total, ends - NOW, host.peers, NOW);
        host.peers = Peers::Heard { hosts };
    }

    fn go(&mut self, at: usize, event: Event) {
        match event {
            Take => (0..2).for_each(|_| self.take(at)),
            Lose => {
                let hosts = self.hosts.len() as u32;
                self.hosts[at].peers = Peers::Silent { hosts };
            }
            Exchange => self.exchange(at),
            Delay => {
                let (number, sent) = self.request(at);
                self.hosts[at].late = sent.map(|sent| (number, sent));
            }
            Arrive => {
                if let Some((number, sent)) = self.hosts[at].late.take() {
                    self.arrive(at, number, Some(sent));
                }
            }
        }
    }

    /// Redis starts again without what it had.
    fn forget(&mut self) {
        self.epoch += 1;
        for stored in &mut self.store {
            *stored = (0, None);
        }
    }

    /// All hosts exchange until there is nothing new.
    fn settle(&mut self) {
        for _ in 0..4 {
            (0..self.hosts.len()).for_each(|at| self.exchange(at));
        }
    }

    /// How many tokens this host takes for taken.
    fn missing(&self, at: usize) -> u64 {
        let bucket = &self.hosts[at].bucket;
        bucket.due.saturating_sub(NOW) / EACH + bucket.missing_of_share(NOW)
    }
}

/// Calls `visit` with every order of the events of the hosts, each of which keeps its own order.
fn orders(
    lives: &[&[Event]],
    fleet: &Fleet,
    done: &mut Vec<(usize, Event)>,
    forgets: usize,
) -> u64 {
    let mut next: Vec<usize> = vec![0; lives.len()];
    for (host, _) in &*done {
        next[*host] += 1;
    }
    let mut orders = 0;
    for (host, life) in lives.iter().enumerate() {
        let Some(event) = life.get(next[host]) else {
            continue;
        };
        let mut fleet = fleet.clone();
        if done.len() == forgets {
            fleet.forget();
        }
        fleet.go(host, *event);
        done.push((host, *event));
        for at in 0..lives.len() {
            let (missing, admitted) = (fleet.missing(at), fleet.admitted);
            assert!(
                missing <= admitted,
                "{at}: {missing} of {admitted}: {done:?}, {forgets}"
            );
        }
        orders += self::orders(lives, &fleet, done, forgets);
        done.pop();
    }
    if orders > 0 {
        return orders;
    }
    let mut fleet = fleet.clone();
    fleet.settle();
    for at in 0..lives.len() {
        let (missing, admitted) = (fleet.missing(at), fleet.admitted);
        assert_eq!(missing, admitted, "host {at}: {done:?}, {forgets}");
    }
    1
}

#[test]
fn each_token_counts_once_whichever_host_comes_back_first() {
    let mut all = 0;
    let two = Fleet::new(2);
    for one in LIVES {
        for other in LIVES {
            for forgets in 0..=one.len() + other.len() {
                all += orders(&[one, other], &two, &mut Vec::new(), forgets);
            }
        }
    }
    assert!(all > 100_000, "{all}");
    let three = Fleet::new(3);
    let [alone, unheard, later, ..] = LIVES;
    for lives in [[alone; 3], [alone, unheard, later]] {
        for forgets in [3, 6, 99] {
            orders(&lives, &three, &mut Vec::new(), forgets);
        }
    }
}

#[test]
fn what_was_missing_before_the_shares_is_divided_among_them_and_comes_back() {
    let each = SECOND;
    let (heard, silent) = (Peers::Heard { hosts: 3 }, Peers::Silent { hosts: 3 });
    let mut bucket = Bucket::default();
    assert!((0..12).all(|_| bucket.take(each, 30, heard, NOW)));
    // Of the ten tokens of a share, four are missing.
    assert!((0..6).all(|_| bucket.take(each, 30, silent, NOW)));
    assert!(!bucket.take(each, 30, silent, NOW));
    assert_eq!(bucket.missing_of_share(NOW), 6);
    // The twelve come back first, with the rate of all, and then those of the share with a third of it.
    let later = NOW + 12 * SECOND;
    assert_eq!(bucket.missing_of_share(later), 6);
    assert_eq!(bucket.missing_of_share(later + 3 * SECOND), 5);
    assert_eq!(bucket.missing_of_share(later + 18 * SECOND), 0);
    assert!(bucket.is_full(later + 18 * SECOND));
    let mut early = bucket;
    let (total, lasts) = early.tell(later + 3 * SECOND);
    assert_eq!(total, 12 + 5);
    assert_eq!(lasts, later + 3 * SECOND + 5 * SECOND + REMEMBERED);
    let (total, _) = bucket.tell(later + 18 * SECOND);
    assert_eq!(total, 12, "what has come back is not told any more");
}

#[test]
fn a_host_that_was_away_for_long_owes_no_more_than_an_empty_bucket() {
    let each = SECOND / 10;
    let heard = Peers::Heard { hosts: 2 };
    let (mut one, mut other) = (Bucket::default(), Bucket::default());
    assert!(one.take(each, 20, heard, NOW));
    let mut now = NOW;
    // The other host takes all there is.
    for _ in 0..20_000 {
        other.take(each, 20, heard, now);
        now += SECOND / 20;
    }
    let (total, ends) = other.tell(now);
    assert!(total > 9_000);
    one.hear(total, ends - now, Peers::Silent { hosts: 2 }, now);
    assert!(one.due <= now + 20 * each);
    assert!(one.due >= other.due, "the copy of the other is no fuller");
    assert!(one.take(each, 20, heard, now + each));
    // Of a bucket of which little is missing, little is taken.
    now += 100 * SECOND;
    assert!(other.take(each, 20, heard, now));
    let (total, ends) = other.tell(now);
    let mut third = one;
    third.seen = 0;
    third.hear(total, ends - now, Peers::Silent { hosts: 2 }, now);
    assert_eq!(third.due, now + each);
    // Tokens that were told late, and have come back since, are not taken again.
    let later = now + 100 * SECOND;
    let mut late = one;
    late.hear(total, ends - now, heard, now);
    let due = late.due;
    late.hear(total + 50, REMEMBERED, heard, later);
    assert!(late.due <= later + CLOCKS, "{} {due}", late.due);
}

#[test]
fn absurd_news_block_for_a_minute_and_the_bursts_of_all_hosts_at_most() {
    for peers in [Peers::Heard { hosts: 2 }, Peers::Silent { hosts: 2 }] {
        let at_most = NOW + MOST_OWED + 2 * 10 * SECOND;
        let (mut used, mut fresh) = (Bucket::default(), Bucket::default());
        assert!(used.take(SECOND, 10, peers, NOW));
        for bucket in [&mut used, &mut fresh] {
            bucket.hear(u64::MAX, u64::MAX, peers, NOW);
            assert!(!bucket.take(SECOND, 10, peers, NOW));
            assert!(bucket.take(SECOND, 10, peers, at_most), "{peers:?}");
        }
    }
}
