//! Several guards that exchange their bans, with injected time and an exchange that loses, delays and repeats.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The time at which tests begin, in milliseconds since 1970.
const BEGIN: u64 = 1_800_000_000_000;

const SCANNER: [u8; 4] = [192, 0, 2, 9];

/// Hosts, and what each has told.
struct Hosts {
    guards: Vec<Guard>,
    /// By how much the clock of each host is fast, in milliseconds.
    fast: Vec<u64>,
    told: Vec<BTreeMap<[u8; 16], Item>>,
    start: Instant,
    /// Milliseconds since the start.
    time: u64,
}

impl Hosts {
    fn new(fast: &[u64]) -> Self {
        let limits = Limits {
            sources: 1_000,
            ..Limits::default()
        };
        let start = Instant::now();
        let guards = fast.iter().map(|_| Guard::new(&limits, start));
        let guards = guards.inspect(Guard::share);
        Self {
            guards: guards.collect(),
            fast: fast.to_vec(),
            told: fast.iter().map(|_| BTreeMap::new()).collect(),
            start,
            time: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.time)
    }

    fn unix(&self, host: usize) -> u64 {
        BEGIN + self.time + self.fast[host]
    }

    fn ban(&self, host: usize, ip: impl Into<IpAddr>) {
        self.guards[host].bar(ip.into(), Kind::Banned, Reason::Users, self.now());
    }

    fn tell(&mut self, host: usize) {
        let name = format!("edge-{host}");
        let items = self.guards[host].take_bans(&name, 100, self.now(), self.unix(host));
        self.told[host].extend(items.into_iter().map(|item| (item.key, item)));
    }

    /// What the others have told, by the clock of this host.
    fn heard(&self, host: usize) -> Vec<Item> {
        let others = (0..self.guards.len()).filter(|other| *other != host);
        let items = others.flat_map(|other| {
            self.told[other].values().map(move |item| Item {
                ends: item.ends - self.fast[other] + self.fast[host],
                ..*item
            })
        });
        items.collect()
    }

    fn hear(&self, host: usize, items: &[Item]) {
        self.guards[host].merge_bans(items, |_| false, self.now(), self.unix(host));
    }

    /// Every host tells and hears everything.
    fn exchange(&mut self) {
        (0..self.guards.len()).for_each(|host| self.tell(host));
        (0..self.guards.len()).for_each(|host| self.hear(host, &self.heard(host)));
    }

    fn bans(&self, host: usize) -> BTreeMap<Prefix, u64> {
        let barred = self.guards[host].barred(self.now()).into_iter();
        let banned = barred.filter(|one| one.kind == Kind::Banned);
        banned
            .map(|one| (one.source, one.remaining.as_secs()))
            .collect()
    }
}

fn is_banned(hosts: &Hosts, host: usize, ip: impl Into<IpAddr>) -> bool {
    hosts.guards[host].is_barred(ip.into(), Kind::Banned, hosts.now())
}

#[test]
fn a_ban_of_one_host_is_one_of_all_with_the_same_end_and_says_whose_it_is() {
    let mut hosts = Hosts::new(&[0, 0, 0]);
    let v6: IpAddr = "2001:db8:1:2::3".parse().unwrap();
    hosts.ban(0, SCANNER);
    hosts.time = 40_000;
    hosts.ban(1, v6);
    hosts.exchange();
    for host in 0..3 {
        let expected = [(Prefix::of(SCANNER.into()), 260), (Prefix::of(v6), 300)];
        assert_eq!(hosts.bans(host), expected.into());
        for barred in hosts.guards[host].barred(hosts.now()) {
            let owner = usize::from(barred.source == Prefix::of(v6));
            let name = barred.host.map(|id| hosts.guards[host].host_name(id));
            let expected = (owner != host).then(|| format!("edge-{owner}"));
            assert_eq!((barred.reason, name), (Reason::Users, expected));
        }
    }
    assert_eq!(hosts.guards[2].fleet_counts().unwrap().banned, 2);
    hosts.time = 300_000;
    assert!((0..3).all(|host| !is_banned(&hosts, host, SCANNER)));
}

#[test]
fn a_release_on_any_host_is_one_on_all_even_if_its_clock_is_slow() {
    let minutes = 600_000;
    let mut hosts = Hosts::new(&[minutes, 0, minutes / 2]);
    hosts.ban(0, SCANNER);
    hosts.exchange();
    assert!((0..3).all(|host| is_banned(&hosts, host, SCANNER)));
    hosts.time = 1_000;
    assert!(hosts.guards[1].release(SCANNER.into(), hosts.now()));
    hosts.exchange();
    assert!((0..3).all(|host| !is_banned(&hosts, host, SCANNER)));
    // The items of the ban are still there. Nobody bans the source because of them.
    hosts.exchange();
    assert!((0..3).all(|host| !is_banned(&hosts, host, SCANNER)));
    // What it does next bans it again, on the host with the slowest clock.
    hosts.ban(1, SCANNER);
    hosts.exchange();
    assert!((0..3).all(|host| is_banned(&hosts, host, SCANNER)));
}

#[test]
fn a_host_that_comes_later_hears_of_bans_and_releases() {
    let mut hosts = Hosts::new(&[0, 0, 0]);
    hosts.ban(0, SCANNER);
    hosts.ban(0, [192, 0, 2, 10]);
    hosts.tell(0);
    hosts.hear(1, &hosts.heard(1));
    assert!(hosts.guards[1].release([192, 0, 2, 10].into(), hosts.now()));
    hosts.tell(1);
    let mut items = hosts.heard(2);
    items.reverse();
    hosts.hear(2, &items);
    let only = [(Prefix::of(SCANNER.into()), 300)];
    assert_eq!(hosts.bans(2), only.into());
}

#[test]
fn an_exempt_source_is_not_banned_and_a_hold_stays_on_its_host() {
    let mut hosts = Hosts::new(&[0, 0]);
    hosts.ban(0, SCANNER);
    hosts.guards[0].bar(
        [192, 0, 2, 10].into(),
        Kind::Held,
        Reason::Users,
        hosts.now(),
    );
    hosts.tell(0);
    let heard = hosts.heard(1);
    let is_exempt = |ip: IpAddr| ip == IpAddr::from(SCANNER);
    hosts.guards[1].merge_bans(&heard, is_exempt, hosts.now(), hosts.unix(1));
    assert!(hosts.guards[1].barred(hosts.now()).is_empty());
    assert_eq!(hosts.guards[1].fleet_counts().unwrap().exempt, 1);
    // A hold of a host that hears of a release goes on.
    let mut hosts = Hosts::new(&[0, 0]);
    hosts.ban(0, SCANNER);
    hosts.tell(0);
    hosts.guards[0].release(SCANNER.into(), hosts.now());
    hosts.time = 10;
    hosts.tell(0);
    hosts.guards[1].bar(SCANNER.into(), Kind::Held, Reason::Users, hosts.now());
    hosts.hear(1, &hosts.heard(1));
    assert!(hosts.guards[1].is_barred(SCANNER.into(), Kind::Held, hosts.now()));
}

#[test]
fn what_no_host_writes_is_counted_and_has_no_effect() {
    let hosts = Hosts::new(&[0]);
    let unix = hosts.unix(0);
    let ban = shared_ban::SharedBan {
        source: Prefix::of(SCANNER.into()),
        host: HostId(7),
        stamp: unix,
        is_lifted: false,
        reason: Reason::Flood,
        ends: unix + 60_000,
    };
    let good = ban.item();
    let nobody = Item {
        key: [0; 16],
        ..good
    };
    let reason = Item {
        value: good.value | 0xf,
        ..good
    };
    // Two processes that would have the same number: the exchange adds what they tell.
    let twice = Item {
        value: 2 * good.value,
        ..good
    };
    hosts.hear(0, &[nobody, reason, twice]);
    assert!(hosts.bans(0).is_empty());
    assert_eq!(hosts.guards[0].fleet_counts().unwrap().invalid, 3);
    let gone = Item { value: 0, ..good };
    let over = Item { ends: unix, ..good };
    hosts.hear(0, &[gone, over]);
    assert!(hosts.bans(0).is_empty());
    // A ban lasts for a day at most.
    let long = Item {
        ends: u64::MAX,
        ..good
    };
    hosts.hear(0, &[long]);
    assert_eq!(hosts.bans(0), [(ban.source, 86_400)].into());
    assert_eq!(hosts.guards[0].fleet_counts().unwrap().invalid, 3);
}

#[test]
fn more_bans_than_the_journal_has_room_for_are_told_and_the_table_stays_as_large_as_it_is() {
    let limits = Limits {
        sources: 4_000,
        ..Limits::default()
    };
    let now = Instant::now();
    let [from, to] = [(); 2].map(|()| Guard::new(&limits, now));
    for guard in [&from, &to] {
        guard.share();
    }
    let banned = (0..100_000_u32)
        .filter(|number| {
            let ip = IpAddr::V4((0x0a00_0000 + number).into());
            from.bar(ip, Kind::Banned, Reason::Flood, now)
        })
        .count();
    assert_eq!(banned, 4_000);
    let mut items = Vec::new();
    loop {
        let more = from.take_bans("a", 100, now, BEGIN);
        assert!(more.len() <= 100);
        if more.is_empty() {
            break;
        }
        items.extend(more);
    }
    // One is the name.
    assert_eq!(items.len(), 4_001);
    to.merge_bans(&items, |_| false, now, BEGIN);
    let counts = to.fleet_counts().unwrap();
    assert_eq!(counts.banned + counts.no_room, 4_000);
    assert_eq!(to.barred(now).len() as u64, counts.banned);
    assert!(counts.no_room > 0, "other buckets are full there");
}

/// What happens in a test.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ban(usize, u8),
    Release(usize, u8),
    Tell(usize),
    /// A host hears what the others have told. Every n-th item is lost, none for 1.
    Hear(usize, usize),
    /// What the host would have heard some time ago, in reverse order.
    HearOld(usize),
    Later(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 0_usize..4;
    prop_oneof![
        3 => (host(), 0_u8..4).prop_map(|(host, source)| Step::Ban(host, source)),
        2 => (host(), 0_u8..4).prop_map(|(host, source)| Step::Release(host, source)),
        4 => host().prop_map(Step::Tell),
        4 => (host(), 1_usize..4).prop_map(|(host, lost)| Step::Hear(host, lost)),
        2 => host().prop_map(Step::HearOld),
        3 => (0_u16..20_000).prop_map(Step::Later),
    ]
}

proptest! {
    /// Whatever was lost, late or repeated: when every host has told and heard everything, the same sources are banned on all. Of two bans of one source
    /// that cross, a host may keep the end of either, so the ends differ by no more than the time between such bans. The clocks differ by less than
    /// is told as large (`exchange_clock`).
    #[test]
    fn hosts_agree(steps in prop::collection::vec(step(), 0..80), fast in prop::array::uniform4(0_u64..2_000)) {
        let mut hosts = Hosts::new(&fast);
        let mut old: Vec<Vec<Item>> = vec![Vec::new(); 4];
        let ip = |source: u8| IpAddr::from([192, 0, 2, source]);
        for step in steps {
            match step {
                Step::Ban(host, source) => hosts.ban(host, ip(source)),
                Step::Release(host, source) => {
                    hosts.guards[host].release(ip(source), hosts.now());
                }
                Step::Tell(host) => hosts.tell(host),
                Step::Hear(host, lost) => {
                    let items = hosts.heard(host);
                    let kept = (1..).zip(&items).filter(|(at, _)| lost == 1 || at % lost != 0);
                    let kept: Vec<_> = kept.map(|(_, item)| *item).collect();
                    hosts.hear(host, &kept);
                    old[host] = items;
                }
                Step::HearOld(host) => {
                    let items: Vec<_> = old[host].iter().rev().copied().collect();
                    hosts.hear(host, &items);
                }
                Step::Later(time) => hosts.time += u64::from(time),
            }
        }
        // What one host hears may make its own change, which is told in the next round, the last one.
        (0..3).for_each(|_| hosts.exchange());
        // A ban that is about to end may end a little earlier on one host.
        let lasting = |host| -> BTreeMap<_, _> {
            let mut bans = hosts.bans(host);
            bans.retain(|_, remaining| *remaining > 5);
            bans
        };
        let between = hosts.time / 1_000;
        let first = lasting(0);
        for host in 1..4 {
            let other = lasting(host);
            let about = |bans: &BTreeMap<Prefix, u64>, also: &BTreeMap<Prefix, u64>| {
                bans.iter().all(|(source, remaining)| {
                    also.get(source).map_or(*remaining <= 8 + between, |other| other.abs_diff(*remaining) <= 3 + between)
                })
            };
            prop_assert!(about(&first, &other) && about(&other, &first), "{first:?} {other:?}");
        }
    }

    /// What a host tells is read as it was told.
    #[test]
    fn a_ban_is_read_as_it_was_told(source: u32, host: u64, stamp in 0..1_u64 << 48, reason in 0_usize..5, is_lifted: bool, ends: u64) {
        let ban = shared_ban::SharedBan {
            source: Prefix::of(IpAddr::V4(source.into())),
            host: HostId(host),
            stamp,
            is_lifted,
            reason: Reason::ALL[reason],
            ends,
        };
        prop_assert_eq!(shared_ban::SharedBan::of_item(ban.item()), Some(ban));
    }

    /// No item makes a host fail.
    #[test]
    fn any_item_is_read(key: [u8; 16], value: u64, ends: u64) {
        let hosts = Hosts::new(&[0]);
        hosts.hear(0, &[Item { key, value, ends }]);
        hosts.guards[0].barred(hosts.now());
    }
}
