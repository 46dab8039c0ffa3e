use std::time::Duration;

use proptest::prelude::*;

use super::super::bucket::REMEMBERED;
use super::super::tables::FleetTables;
use super::*;
use crate::counters::Counters;

/// Hosts that exchange when a test says so, as the exchange does: totals by host, sums over the others.
struct Fleet {
    begun: Instant,
    hosts: Vec<(FleetTables, Counters)>,
    totals: Vec<HashMap<[u8; 16], (u64, Instant)>>,
}

impl Fleet {
    fn new(hosts: usize, most: usize) -> Self {
        let host = |_| {
            let tables = FleetTables::default();
            tables.set_hosts(Some(hosts));
            let table = tables.table("acme", most, &["limit-".to_owned()]);
            (tables, Counters::new(most).with_fleet(table))
        };
        let hosts: Vec<_> = (0..hosts).map(host).collect();
        Self {
            begun: Instant::now(),
            totals: vec![HashMap::new(); hosts.len()],
            hosts,
        }
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.begun + Duration::from_millis(milliseconds)
    }

    fn add(&self, host: usize, name: &str, amount: u64, milliseconds: u64) -> u64 {
        self.hosts[host]
            .1
            .add(name, amount, 10, self.at(milliseconds))
    }

    fn value(&self, host: usize, name: &str, milliseconds: u64) -> u64 {
        self.hosts[host].1.value(name, self.at(milliseconds))
    }

    fn takes(&self, host: usize, rate: f64, burst: u32, milliseconds: u64) -> bool {
        let now = self.at(milliseconds);
        self.hosts[host].1.rate_limit("limit-a", rate, burst, now)
    }

    fn exchange(&mut self, milliseconds: u64) {
        let now = self.at(milliseconds);
        for (host, (tables, _)) in self.hosts.iter().enumerate() {
            for item in tables.take_changes(1_000_000, now) {
                let ends = now + Duration::from_nanos(item.lasts);
                self.totals[host].insert(item.key, (item.value, ends));
            }
        }
        for (host, (tables, _)) in self.hosts.iter().enumerate() {
            let mut sums = HashMap::<[u8; 16], (u64, Instant)>::new();
            let others = self.totals.iter().enumerate();
            for (_, totals) in others.filter(|(other, _)| *other != host) {
                // What has ended is merged, too, as zero.
                for (key, (value, ends)) in totals {
                    let sum = sums.entry(*key).or_insert((0, now));
                    if *ends <= now {
                        continue;
                    }
                    *sum = (sum.0 + value, sum.1.max(*ends));
                }
            }
            let items = sums.into_iter().map(|(key, (value, ends))| FleetItem {
                key,
                value,
                lasts: u64::try_from((ends - now).as_nanos()).unwrap(),
            });
            tables.merge(items, now);
        }
    }

    fn hear(&self, hosts: Option<usize>) {
        for (tables, _) in &self.hosts {
            tables.set_hosts(hosts);
        }
    }
}

#[test]
fn a_counter_is_the_sum_over_the_hosts_after_an_exchange() {
    let mut fleet = Fleet::new(3, 100);
    assert_eq!(fleet.add(0, "limit-x", 2, 0), 2);
    assert_eq!(fleet.add(1, "limit-x", 3, 0), 3);
    assert_eq!(fleet.value(2, "limit-x", 0), 0);
    fleet.exchange(200);
    assert_eq!(
        fleet.add(0, "limit-x", 1, 200),
        6,
        "mine and the others at once"
    );
    assert_eq!(fleet.value(1, "limit-x", 200), 5);
    assert_eq!(fleet.value(2, "limit-x", 200), 5);
    fleet.exchange(400);
    for host in 0..3 {
        assert_eq!(fleet.value(host, "limit-x", 400), 6);
    }
    // A repetition changes nothing.
    fleet.exchange(600);
    assert_eq!(fleet.value(2, "limit-x", 600), 6);
    // Whoever comes later ends with the others.
    assert_eq!(fleet.add(2, "limit-x", 1, 9_000), 7);
    fleet.exchange(9_200);
    assert_eq!(fleet.value(0, "limit-x", 9_999), 7);
    for host in 0..3 {
        assert_eq!(fleet.value(host, "limit-x", 10_000), 0, "{host}");
    }
    assert_eq!(fleet.add(1, "limit-x", 1, 10_001), 1);
}

#[test]
fn names_without_the_prefix_stay_on_their_host() {
    let mut fleet = Fleet::new(2, 100);
    assert_eq!(fleet.add(0, "calls", 5, 0), 5);
    fleet.exchange(200);
    assert_eq!(fleet.value(1, "calls", 200), 0);
    assert_eq!(fleet.hosts[0].1.len(), 1);
}

#[test]
fn a_bucket_is_shared_however_the_requests_are_spread() {
    let mut fleet = Fleet::new(2, 100);
    // All requests on one host: it has the whole rate.
    let mut admitted = 0;
    for step in 0..1_000 {
        admitted += u32::from(fleet.takes(0, 10.0, 5, step * 10));
        if step % 20 == 19 {
            fleet.exchange(step * 10 + 5);
        }
    }
    assert_eq!(admitted, 5 + 99);
    // The other one, which has never used the limit, finds the bucket as empty as it is.
    fleet.exchange(10_000);
    let burst = (0..10).filter(|_| fleet.takes(1, 10.0, 5, 10_000)).count();
    assert_eq!(burst, 1, "a host that has never used the limit");
    fleet.exchange(10_200);
    let more = (0..10).filter(|_| fleet.takes(0, 10.0, 5, 10_200)).count();
    assert_eq!(more, 2, "what the other host took is taken here, too");
}

#[test]
fn while_the_others_are_not_heard_each_host_has_its_share_and_nothing_counts_twice_afterwards() {
    let mut fleet = Fleet::new(2, 100);
    let take_all = |fleet: &Fleet, from: u64, to: u64| {
        let mut taken = [0_u32; 2];
        for at in (from..to).step_by(10) {
            for (host, taken) in taken.iter_mut().enumerate() {
                *taken += u32::from(fleet.takes(host, 10.0, 4, at));
            }
        }
        taken
    };
    take_all(&fleet, 0, 200);
    fleet.exchange(200);
    fleet.hear(None);
    // The debt of the first burst is paid by then.
    let [one, other] = take_all(&fleet, 5_000, 25_000);
    assert!((100..=104).contains(&one), "{one}");
    assert!((100..=104).contains(&other), "{other}");
    fleet.hear(Some(2));
    fleet.exchange(25_000);
    // What each has taken of its share is no debt of the other: some tokens are there within a second.
    let [one, other] = take_all(&fleet, 25_000, 26_000);
    assert!(one + other >= 10, "{one} {other}");
}

#[test]
fn a_sum_that_falls_and_a_host_that_starts_again_take_nothing() {
    let tables = FleetTables::default();
    tables.set_hosts(Some(2));
    let table = tables.table("acme", 100, &[String::new()]);
    let counters = Counters::new(100).with_fleet(Arc::clone(&table));
    let now = table.begun + Duration::from_secs(1);
    assert!(counters.rate_limit("a", 1.0, 10, now));
    let item = tables.take_changes(10, now)[0];
    let hear = |value: u64, missing: u64| {
        let lasts = REMEMBERED.saturating_add(missing.saturating_mul(SECOND));
        let item = FleetItem {
            value,
            lasts,
            ..item
        };
        tables.merge([item], now);
    };
    hear(3, 3);
    hear(5, 5);
    hear(0, 0);
    hear(0, 0);
    let left = (0..20).filter(|_| counters.rate_limit("a", 1.0, 10, now));
    assert_eq!(left.count(), 10 - 1 - 5);
    // An absurd total blocks for a minute at most.
    hear(u64::MAX, u64::MAX);
    let later = now + Duration::from_secs(60 + 2 * 10);
    assert!(counters.rate_limit("a", 1.0, 10, later));
}

#[test]
fn changes_are_offered_once_and_in_parts() {
    let tables = FleetTables::default();
    let one = tables.table("one", 10_000, &["l".to_owned()]);
    let other = tables.table("other", 10_000, &["l".to_owned()]);
    let now = Instant::now();
    for n in 0..300 {
        one.add(&format!("l{n}"), 1, 60, now);
        other.add(&format!("l{n}"), 1, 60, now);
    }
    let mut keys = std::collections::HashSet::new();
    let mut offered = 0;
    loop {
        let items = tables.take_changes(70, now);
        assert!(items.len() <= 70);
        if items.is_empty() {
            break;
        }
        offered += items.len();
        keys.extend(items.iter().map(|item| item.key));
    }
    assert_eq!(
        (offered, keys.len()),
        (600, 600),
        "the same name of two seats is two counters"
    );
    one.add("l5", 1, 60, now);
    let items = tables.take_changes(70, now);
    assert_eq!((items.len(), items[0].value), (1, 2));
    drop((one, other));
    assert_eq!(tables.take_changes(70, now), []);
}

/// docs/fleet.md and defaults.toml say what one takes in a table that is between half full and full.
#[test]
fn an_entry_has_the_size_that_the_documentation_says() {
    let size = size_of::<(u128, Entry)>();
    assert!(size <= 96, "{size}");
}

#[test]
fn the_table_is_bounded_by_what_other_hosts_count_as_well() {
    let tables = FleetTables::default();
    let table = tables.table("acme", 160, &[String::new()]);
    let twin = FleetTables::default();
    let theirs = twin.table("acme", 100_000, &[String::new()]);
    let now = Instant::now();
    for n in 0..5_000 {
        theirs.add(&format!("{n}"), 1, 3600, now);
        table.add(&format!("own {n}"), 1, 3600, now);
        if n % 100 == 0 {
            tables.merge(twin.take_changes(100, now), now);
        }
    }
    assert!(table.len() <= 160, "{}", table.len());
    assert!(table.evicted() > 4_000);
    // More changes than there are entries.
    assert!(tables.take_changes(1_000_000, now).len() <= 160);
}

proptest! {
    /// docs/fleet.md states this bound.
    #[test]
    fn a_fleet_admits_at_most_one_burst_and_one_interval_more_for_each_other_host(
        hosts in 1..5_usize,
        rate in 1..200_u32,
        burst in 1..50_u32,
        interval in 100..250_u64,
        load in prop::collection::vec((0..5_usize, 0..30_u64), 1..1_500),
    ) {
        let mut fleet = Fleet::new(hosts, 100);
        let (mut at, mut next, mut admitted) = (0, interval, 0_u64);
        for (host, pause) in load {
            at += pause;
            while next <= at {
                fleet.exchange(next);
                next += interval;
            }
            admitted += u64::from(fleet.takes(host % hosts, rate.into(), burst, at));
            let (rate, burst) = (f64::from(rate), f64::from(burst));
            let single = burst + rate * at as f64 / 1000.0;
            let others = (hosts - 1) as f64 * (burst + rate * interval as f64 / 1000.0);
            prop_assert!(admitted as f64 <= single + others + hosts as f64, "{admitted} at {at}");
        }
    }
}

proptest! {
    /// What docs/fleet.md says about the time without Redis: once more the bound for each time, and shares that are rounded up.
    #[test]
    fn each_time_without_redis_adds_at_most_the_bound_once_more(
        hosts in 1..5_usize,
        rate in 1..200_u32,
        burst in 1..50_u32,
        interval in 100..250_u64,
        load in prop::collection::vec((0..5_usize, 0..30_u64, 0..60_u32), 1..1_500),
    ) {
        let mut fleet = Fleet::new(hosts, 100);
        let (mut at, mut next, mut admitted) = (0, interval, 0_u64);
        let (mut is_away, mut losses) = (false, 0_u32);
        for (host, pause, turn) in load {
            at += pause;
            if turn == 0 {
                is_away = !is_away;
                losses += u32::from(is_away);
                fleet.hear((!is_away).then_some(hosts));
                next = at;
            }
            while next <= at {
                if !is_away {
                    fleet.exchange(next);
                }
                next += interval;
            }
            admitted += u64::from(fleet.takes(host % hosts, rate.into(), burst, at));
            let (rate, burst) = (f64::from(rate), f64::from(burst));
            let single = burst + rate * at as f64 / 1000.0;
            let others = (hosts - 1) as f64 * (burst + rate * interval as f64 / 1000.0);
            let times = f64::from(1 + losses);
            let bound = single + times * (others + 2.0 * hosts as f64);
            prop_assert!(admitted as f64 <= bound, "{admitted} at {at}, more than {bound}");
        }
    }
}

/// A host whose bucket is full for a minute is forgotten by the others. What it has taken before is not taken from them again.
#[test]
fn tokens_that_the_others_have_forgotten_do_not_count_again() {
    let mut fleet = Fleet::new(2, 100);
    let mut now = 0;
    for _ in 0..100 {
        assert!(fleet.takes(0, 10.0, 10, now));
        fleet.exchange(now);
        now += 200;
    }
    // Also the other one has used the bucket.
    assert!(fleet.takes(1, 10.0, 10, now));
    for _ in 0..600 {
        now += 200;
        fleet.exchange(now);
    }
    assert!(fleet.takes(0, 10.0, 10, now));
    now += 1;
    fleet.exchange(now);
    let taken = (0..20).filter(|_| fleet.takes(1, 10.0, 10, now));
    assert_eq!(taken.count(), 9);
}
