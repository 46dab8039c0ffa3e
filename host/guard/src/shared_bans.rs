//! Several guards that exchange their bans, with injected time and an exchange that loses, delays and repeats.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::shared_ban::{SharedBan, Told};

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

    /// An operator bans a source on this host.
    fn command(&self, host: usize, ip: impl Into<IpAddr>, seconds: u64) {
        let time = Duration::from_secs(seconds);
        let has_room = self.guards[host].ban(ip.into(), time, self.now(), self.unix(host));
        assert!(has_room);
    }

    fn release(&self, host: usize, ip: impl Into<IpAddr>) -> bool {
        self.guards[host].release(ip.into(), self.now(), self.unix(host))
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
    assert!(hosts.release(1, SCANNER));
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
    assert!(hosts.release(1, [192, 0, 2, 10]));
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
    assert!(hosts.release(0, SCANNER));
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
    let ban = SharedBan {
        source: Prefix::of(SCANNER.into()),
        host: HostId(8),
        command: unix,
        reason: Reason::Flood,
        ends: unix + 60_000,
    };
    let good = Told::Ban(ban).item();
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
    let command = shared_ban::SharedCommand {
        source: ban.source,
        host: ban.host,
        number: unix + 2 * 86_400_000,
        ends: unix + 60_000,
    };
    let too_late = Told::Command(command).item();
    hosts.hear(0, &[nobody, reason, twice, too_late]);
    assert!(hosts.bans(0).is_empty());
    assert_eq!(hosts.guards[0].fleet_counts().unwrap().invalid, 4);
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
    assert_eq!(hosts.guards[0].fleet_counts().unwrap().invalid, 4);
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

#[test]
fn a_ban_by_an_operator_is_one_of_all_and_may_be_shorter_than_the_ban_before() {
    let mut hosts = Hosts::new(&[600_000, 0, 300_000]);
    let only = |seconds| BTreeMap::from([(Prefix::of(SCANNER.into()), seconds)]);
    hosts.command(0, SCANNER, 3_600);
    hosts.exchange();
    for host in 0..3 {
        assert_eq!(hosts.bans(host), only(3_600));
        let barred = hosts.guards[host].barred(hosts.now());
        assert_eq!(barred[0].reason, Reason::Operator);
    }
    // Evidence does not shorten it.
    hosts.time = 10_000;
    hosts.ban(2, SCANNER);
    hosts.exchange();
    assert!((0..3).all(|host| hosts.bans(host) == only(3_590)));
    // The last command counts, whatever the clocks say.
    hosts.command(1, SCANNER, 60);
    hosts.exchange();
    hosts.exchange();
    assert!((0..3).all(|host| hosts.bans(host) == only(60)));
    assert_eq!(hosts.guards[1].commanded(), 1);
    // The items of the long ban are still there when the short one is over, also for a host that comes then.
    hosts.time = 80_000;
    hosts.exchange();
    assert!((0..3).all(|host| hosts.bans(host).is_empty()));
    let mut later = Hosts::new(&[0]);
    later.time = hosts.time;
    later.start = hosts.start;
    let told: Vec<_> = hosts.told.iter().zip(&hosts.fast).collect();
    let items = told.into_iter().flat_map(|(items, fast)| {
        items.values().map(move |item| Item {
            ends: item.ends - fast,
            ..*item
        })
    });
    let items: Vec<_> = items.collect();
    assert!(items.iter().any(|item| item.ends > BEGIN + 3_000_000));
    let guard = Guard::new(&Limits::default(), later.start);
    guard.share();
    later.guards[0] = guard;
    later.hear(0, &items);
    assert!(later.bans(0).is_empty());
}

#[test]
fn of_two_commands_that_cross_the_later_one_counts_by_the_clock_of_the_exchange() {
    let fast = [600_000, 0];
    let mut hosts = Hosts::new(&fast);
    for (guard, fast) in hosts.guards.iter().zip(fast) {
        guard.set_exchange_clock(-i64::try_from(fast).unwrap());
    }
    hosts.command(0, SCANNER, 600);
    hosts.exchange();
    hosts.time = 1_000;
    // Neither hears of the other.
    hosts.command(0, SCANNER, 3_600);
    hosts.time = 2_000;
    assert!(hosts.release(1, SCANNER));
    hosts.exchange();
    assert!((0..2).all(|host| hosts.bans(host).is_empty()));
    hosts.command(1, SCANNER, 600);
    hosts.time = 3_000;
    hosts.command(0, SCANNER, 60);
    hosts.exchange();
    assert!((0..2).all(|host| hosts.bans(host).into_values().eq([60])));
}

#[test]
fn a_command_has_room_when_bans_have_none() {
    let mut fleet = Fleet::new(2);
    let source = |number: u8| Prefix::of(IpAddr::from([192, 0, 2, number]));
    for number in 1..=3 {
        fleet.banned(source(number), Reason::Flood, BEGIN + 60_000, 60, BEGIN);
    }
    assert_eq!(fleet.counts().no_room, 1);
    fleet.banned_by_operator(source(9), BEGIN + 60_000, 60, BEGIN);
    assert_eq!(fleet.counts().no_room, 1);
    let items = fleet.take("edge", 100, BEGIN);
    let told = items.into_iter().filter_map(Told::of_item);
    let told: Vec<_> = told.filter(|told| told.source() == source(9)).collect();
    assert!(
        matches!(told[..], [Told::Ban(_), Told::Command(_)]),
        "{told:?}"
    );
}

#[test]
fn a_host_where_the_source_is_exempt_releases_it_on_the_others() {
    let mut hosts = Hosts::new(&[0, 0]);
    hosts.ban(0, SCANNER);
    hosts.tell(0);
    let heard = hosts.heard(1);
    hosts.guards[1].merge_bans(&heard, |_| true, hosts.now(), hosts.unix(1));
    assert!(hosts.bans(1).is_empty());
    assert!(hosts.release(1, SCANNER));
    assert!(!hosts.release(1, SCANNER));
    hosts.exchange();
    assert!(hosts.bans(0).is_empty());
}

/// What happens in a test.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ban(usize, u8),
    /// An operator bans a source for these seconds.
    Command(usize, u8, u64),
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
        1 => (host(), 0_u8..4, 1_u64..900).prop_map(|(host, source, seconds)| Step::Command(host, source, seconds)),
        2 => (host(), 0_u8..4).prop_map(|(host, source)| Step::Release(host, source)),
        4 => host().prop_map(Step::Tell),
        4 => (host(), 1_usize..4).prop_map(|(host, lost)| Step::Hear(host, lost)),
        2 => host().prop_map(Step::HearOld),
        3 => (0_u16..20_000).prop_map(Step::Later),
    ]
}

impl Hosts {
    /// What happens to them. `error` is by how much a host is wrong about the clock of the exchange, in milliseconds, before every host has told and heard
    /// everything.
    fn play(&mut self, steps: &[Step], error: u64) {
        let mut old: Vec<Vec<Item>> = vec![Vec::new(); self.guards.len()];
        let ip = |source: u8| IpAddr::from([192, 0, 2, source]);
        for step in steps {
            match *step {
                Step::Ban(host, source) => self.ban(host, ip(source)),
                Step::Command(host, source, seconds) => self.command(host, ip(source), seconds),
                Step::Release(host, source) => {
                    self.release(host, ip(source));
                }
                Step::Tell(host) => self.tell(host),
                Step::Hear(host, lost) => {
                    let items = self.heard(host).into_iter().map(|item| Item {
                        ends: item.ends + error * host as u64,
                        ..item
                    });
                    let items: Vec<_> = items.collect();
                    let kept = (1..)
                        .zip(&items)
                        .filter(|(at, _)| lost == 1 || at % lost != 0);
                    let kept: Vec<_> = kept.map(|(_, item)| *item).collect();
                    self.hear(host, &kept);
                    old[host] = items;
                }
                Step::HearOld(host) => {
                    let items: Vec<_> = old[host].iter().rev().copied().collect();
                    self.hear(host, &items);
                }
                Step::Later(time) => self.time += u64::from(time),
            }
        }
        // What one host hears may make its own change, which is told in the next round, the last one.
        (0..3).for_each(|_| self.exchange());
    }
}

proptest! {
    /// Whatever was lost, late, repeated or in another order, and whatever the clocks say: when every host has told and heard everything, all have the same
    /// bans with the same ends.
    #[test]
    fn hosts_agree(steps in prop::collection::vec(step(), 0..80), fast in prop::array::uniform4(0_u64..600_000)) {
        let mut hosts = Hosts::new(&fast);
        hosts.play(&steps, 0);
        let first = hosts.bans(0);
        for host in 1..4 {
            prop_assert_eq!(&hosts.bans(host), &first);
        }
    }

    /// The same if each host is wrong about the clock of the exchange by some milliseconds, which shows as a second.
    #[test]
    fn hosts_agree_within_a_second_if_they_are_wrong_about_the_clock(
        steps in prop::collection::vec(step(), 0..80),
        fast in prop::array::uniform4(0_u64..600_000),
        error in 1_u64..20,
    ) {
        let mut hosts = Hosts::new(&fast);
        hosts.play(&steps, error);
        // A ban that is about to end may have ended on another host.
        let lasting = |host| -> BTreeMap<_, _> {
            let mut bans = hosts.bans(host);
            bans.retain(|_, remaining| *remaining > 2);
            bans
        };
        for (host, other) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (0, 3), (3, 0)] {
            let others = hosts.bans(other);
            for (source, remaining) in lasting(host) {
                let same = others.get(&source).is_some_and(|other| other.abs_diff(remaining) <= 1);
                prop_assert!(same, "{source}: {remaining} s on {host}, {:?} on {other}", others.get(&source));
            }
        }
    }

    /// What a host tells is read as it was told.
    #[test]
    fn a_ban_is_read_as_it_was_told(source: u32, host: u64, number in 0..1_u64 << 48, reason in 0_usize..6, is_command: bool, ends: u64) {
        let source = Prefix::of(IpAddr::V4(source.into()));
        let host = HostId(host & !1);
        let told = match is_command {
            true => Told::Command(shared_ban::SharedCommand { source, host, number, ends }),
            false => Told::Ban(SharedBan { source, host, command: number, reason: Reason::ALL[reason], ends }),
        };
        prop_assert_eq!(Told::of_item(told.item()), Some(told));
        prop_assert!(told.item().value > 0);
    }

    /// No item makes a host fail.
    #[test]
    fn any_item_is_read(key: [u8; 16], value: u64, ends: u64) {
        let hosts = Hosts::new(&[0]);
        hosts.hear(0, &[Item { key, value, ends }]);
        hosts.guards[0].barred(hosts.now());
    }
}
