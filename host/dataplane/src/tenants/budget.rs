//! The limits of one tenant: requests per second, a share of each worker's time, and a fair part of an overloaded worker.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_config::{Rate, TenantConfig};
use portcullis_policy::Share;

use portcullis_metrics::Shed;
use portcullis_rate as pace;
use portcullis_rate::{Clock, Due, nanoseconds};

use super::pressure::Pressure;
use super::sources::{Crowds, Places, Room, Source, Sources};

/// How far ahead of its share a tenant may get: the unused time of the last tenth of a second.
const BURST: Duration = Duration::from_millis(100);

/// Requests of a tenant whose calls take longer than this on average yield to those of other tenants. A typical policy takes a few
/// microseconds.
const SLOW: Duration = Duration::from_micros(25);

/// Weight of a new call in the moving average.
const WEIGHT: u64 = 8;

/// Places per row for the sources of a tenant with a rate.
const PLACES: usize = 64;

/// Enforces the limits of a tenant, and the fair shares of its sources (`sources`). Requests above a limit are rejected before they cost
/// anything.
///
/// All limits use the generic cell rate algorithm (ITU-T I.371), which stores one value per bucket: the theoretical arrival time.
#[derive(Debug)]
pub struct Budget {
    clock: Clock,
    requests: Option<Requests>,
    share: Share,
    sources: Sources,
    /// Whether there are known sources, which have priority.
    knows_some: bool,
    /// One element per worker, which is its only writer.
    times: Box<[Times]>,
}

#[derive(Debug)]
struct Requests {
    /// Nanoseconds per request.
    each: u64,
    /// Maximum nanoseconds ahead of now.
    ahead: u64,
    due: Due,
    places: Places,
    crowds: Crowds,
}

/// Aligned so that two workers never write to the same cache line. Nanoseconds since `begun`, except for window, mean and row.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Times {
    /// Theoretical arrival time at the tenant's share.
    share_due: AtomicU64,
    /// Theoretical arrival time with the worker's pressure as weight.
    fair_due: AtomicU64,
    /// Window of the worker in which the tenant was last seen.
    window: AtomicU64,
    /// Average duration of a call.
    mean: AtomicU64,
    /// The batch in which a request of the tenant was last deferred.
    row: AtomicU64,
    /// The sources, if their time is limited.
    crowds: Crowds,
}

impl Budget {
    /// The budget of a tenant, for this many workers.
    pub fn of(config: &TenantConfig, workers: usize) -> Self {
        Self {
            knows_some: !config.groups.is_empty(),
            ..Self::new(config.rate, config.cpu_share, workers)
        }
    }

    /// A budget with these limits, without known sources.
    fn new(rate: Option<Rate>, share: Share, workers: usize) -> Self {
        let requests = rate.map(|Rate { per_second, burst }| {
            let each = pace::each(per_second);
            Requests {
                each,
                ahead: each * u64::from(burst.max(1)),
                due: Due::default(),
                places: Places::new(PLACES),
                crowds: Crowds::default(),
            }
        });
        Self {
            clock: Clock::new(),
            requests,
            share,
            sources: Sources::default(),
            knows_some: false,
            times: (0..workers).map(|_| Times::default()).collect(),
        }
    }

    /// A budget without effective limits.
    pub fn unlimited(workers: usize) -> Self {
        Self::new(None, Share::ALL, workers)
    }

    /// Admits one request from this address. `is_known` returns whether the source is known to the tenant, and is called only if that makes
    /// a difference. The result is the argument for [`Budget::charge`].
    ///
    /// # Errors
    /// When the request exceeds the budget.
    #[inline]
    pub fn admit(
        &self,
        worker: usize,
        now: Instant,
        pressure: &mut Pressure,
        ip: IpAddr,
        is_known: impl FnOnce() -> bool,
    ) -> Result<Option<Source>, Shed> {
        let times = &self.times[worker];
        if times.window.load(Ordering::Relaxed) != pressure.window() {
            times.window.store(pressure.window(), Ordering::Relaxed);
            pressure.meet();
        }
        if self.requests.is_none() && !self.counts_time(pressure) {
            return Ok(None);
        }
        let source = self.sources.source(ip, self.knows_some && is_known());
        let now = self.clock.at(now);
        if self.counts_time(pressure) {
            self.admit_time(times, now, pressure, source)?;
        }
        match &self.requests {
            Some(requests) if !requests.take(now, source, self.knows_some) => Err(Shed::Rate),
            _ => Ok(Some(source)),
        }
    }

    /// Admits a further call for a request that was admitted: only the time counts.
    ///
    /// # Errors
    /// When the tenant has used up its time.
    pub fn admit_call(
        &self,
        worker: usize,
        now: Instant,
        pressure: &Pressure,
        ip: IpAddr,
    ) -> Result<Option<Source>, Shed> {
        if !self.counts_time(pressure) {
            return Ok(None);
        }
        let source = self.sources.source(ip, true);
        let times = &self.times[worker];
        self.admit_time(times, self.clock.at(now), pressure, source)?;
        Ok(Some(source))
    }

    /// Admits one request that follows its dialog, from a source that counts as known. Time shares do not apply: no policy is called, and
    /// rejecting an ACK or BYE would leave a call behind.
    ///
    /// # Errors
    /// When the request exceeds the rate.
    #[inline]
    pub fn admit_followed(&self, now: Instant, ip: IpAddr) -> Result<(), Shed> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        let source = self.sources.source(ip, true);
        match requests.take(self.clock.at(now), source, self.knows_some) {
            true => Ok(()),
            false => Err(Shed::Rate),
        }
    }

    /// Whether the time of calls is limited at the moment.
    #[inline]
    fn counts_time(&self, pressure: &Pressure) -> bool {
        self.share < Share::ALL || pressure.weight() > 1.0
    }

    fn admit_time(
        &self,
        times: &Times,
        now: u64,
        pressure: &Pressure,
        source: Source,
    ) -> Result<(), Shed> {
        let is_ahead = |due: &AtomicU64, room| {
            let room = pressure.places().room(source, &times.crowds, now, room);
            due.load(Ordering::Relaxed) > now.saturating_add(room)
        };
        let (kind, knows_some) = (source.kind(), self.knows_some);
        let share = || Room::new(nanoseconds(BURST), 0, kind, knows_some);
        if self.share < Share::ALL && is_ahead(&times.share_due, share()) {
            return Err(Shed::Share);
        }
        let fair = || Room::beyond(nanoseconds(pressure.burst()), kind, knows_some);
        if pressure.weight() > 1.0 && is_ahead(&times.fair_due, fair()) {
            return Err(Shed::Pressure);
        }
        Ok(())
    }

    /// Whether the tenant's calls are slow, so that they should yield to those of others.
    #[inline]
    pub fn is_slow(&self, worker: usize) -> bool {
        self.times[worker].mean.load(Ordering::Relaxed) > nanoseconds(SLOW)
    }

    /// Whether a request is to be deferred, in the worker's batch with this number, from 1. A tenant with a request in the batch defers its
    /// next ones too, so that its requests stay in order.
    #[inline]
    pub fn joins(&self, worker: usize, row: u64) -> bool {
        let times = &self.times[worker];
        let waits = self.is_slow(worker) || times.row.load(Ordering::Relaxed) == row;
        if waits {
            times.row.store(row, Ordering::Relaxed);
        }
        waits
    }

    /// Charges the CPU time of a call ([`Pressure::cost`]). `source` is the result of [`Budget::admit`].
    #[inline]
    pub fn charge(
        &self,
        worker: usize,
        begun: Instant,
        took: Duration,
        pressure: &Pressure,
        source: Option<Source>,
    ) {
        let times = &self.times[worker];
        let mean = times.mean.load(Ordering::Relaxed);
        let mean = mean - mean / WEIGHT + nanoseconds(took) / WEIGHT;
        times.mean.store(mean, Ordering::Relaxed);
        self.charge_beside(worker, begun, took, pressure, source);
    }

    /// The same for the host's work for a request outside of calls.
    #[inline]
    pub fn charge_beside(
        &self,
        worker: usize,
        begun: Instant,
        took: Duration,
        pressure: &Pressure,
        source: Option<Source>,
    ) {
        let times = &self.times[worker];
        let took = nanoseconds(took);
        let credit = nanoseconds(pressure.credit(begun));
        let begun = self.clock.at(begun);
        let charge = |due: &AtomicU64, since: u64, cost| {
            let from = due.load(Ordering::Relaxed).max(since);
            due.store(from.saturating_add(cost), Ordering::Relaxed);
        };
        let weighed = (took as f64 * pressure.weight()) as u64;
        charge(&times.fair_due, begun.saturating_sub(credit), weighed);
        let mut most = weighed;
        if self.share < Share::ALL {
            // At a share of a quarter, each nanosecond counts as four.
            let weight = u64::from(Share::ALL.hundredths());
            let share = u64::from(self.share.hundredths().max(1));
            let cost = took.saturating_mul(weight) / share;
            charge(&times.share_due, begun, cost);
            most = most.max(cost);
        }
        if let Some(source) = source
            && self.counts_time(pressure)
        {
            let places = pressure.places();
            places.charge(source, &times.crowds, begun, most, nanoseconds(BURST));
        }
    }
}

impl Requests {
    fn take(&self, now: u64, source: Source, knows_some: bool) -> bool {
        let room = Room::new(self.ahead, self.each, source.kind(), knows_some);
        let room = self.places.room(source, &self.crowds, now, room);
        let is_taken = self.due.take(now, self.each, room);
        if is_taken {
            let most = self.ahead.max(pace::SECOND);
            self.places
                .charge(source, &self.crowds, now, self.each, most);
        }
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        Share::parse(text).unwrap()
    }

    const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// As [`Budget::admit`] for one and the same source.
    fn admit(budget: &Budget, worker: usize, now: Instant, pressure: &mut Pressure) -> Admitted {
        budget.admit(worker, now, pressure, CALLER, || false)
    }

    type Admitted = Result<Option<Source>, Shed>;

    /// A stranger, by number.
    fn stranger(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xcb00_7100 + n).into()
    }

    /// Who sends, how many a second, and whether the tenant knows who it is.
    type Sender<'s> = (&'s dyn Fn(u64) -> IpAddr, u64, bool);

    /// How many requests of each sender are let in within ten seconds, after one second of all of them.
    fn let_in(budget: &Budget, senders: &[Sender<'_>]) -> Vec<u64> {
        let mut pressure = Pressure::new(budget.clock.begun());
        let mut let_in = vec![0; senders.len()];
        for microseconds in (0..11_000_000_u64).step_by(100) {
            let now = budget.clock.begun() + Duration::from_micros(microseconds);
            for (nth, (ip, rate, is_known)) in senders.iter().enumerate() {
                let each = 1_000_000 / rate;
                if !microseconds.is_multiple_of(each / 100 * 100) {
                    continue;
                }
                let ip = ip(microseconds / each);
                let admitted = budget.admit(0, now, &mut pressure, ip, || *is_known);
                let_in[nth] += u64::from(admitted.is_ok() && microseconds >= 1_000_000);
            }
        }
        let_in
    }

    fn knowing_some(budget: Budget) -> Budget {
        Budget {
            knows_some: true,
            ..budget
        }
    }

    fn rate_of(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate { per_second, burst })
    }

    #[test]
    fn a_known_caller_gets_its_answers_beside_a_flood_of_strangers() {
        let budget = || knowing_some(Budget::new(rate_of(200, 200), Share::ALL, 1));
        let caller: Sender<'_> = (&|_| CALLER, 50, true);
        let one: Sender<'_> = (&|_| stranger(0), 1000, false);
        // As spoofed as it gets: no source comes twice.
        let many: Sender<'_> = (&|n| stranger(n as u32), 1000, false);
        for (flood, burst) in [(one, 200), (many, 200), (one, 1), (many, 4)] {
            let budget = Budget {
                requests: Budget::new(rate_of(200, burst), Share::ALL, 1).requests,
                ..budget()
            };
            let got = let_in(&budget, &[caller, flood]);
            assert_eq!(got[0], 500, "{got:?}");
            assert!((1400..=1510).contains(&got[1]), "what is left: {got:?}");
        }
        // Those that it knows can have all of it.
        let busy: Sender<'_> = (&|_| CALLER, 500, true);
        let got = let_in(&budget(), &[busy, one]);
        assert!(got[0] >= 1900 && got[1] <= 60, "{got:?}");
    }

    #[test]
    fn one_source_of_a_public_tenant_does_not_take_what_others_want() {
        let budget = || Budget::new(rate_of(200, 200), Share::ALL, 1);
        let flood: Sender<'_> = (&|_| stranger(0), 1000, false);
        let callers = |n: u64| move |at| stranger(1 + (at % n) as u32);
        let got = let_in(&budget(), &[(&callers(1), 50, false), flood]);
        assert_eq!(got[0], 500, "{got:?}");
        // Twenty callers with five a second each.
        let got = let_in(&budget(), &[(&callers(20), 100, false), flood]);
        assert!(
            got[0] >= 900,
            "one or two of them may have bad luck: {got:?}"
        );
        assert!(got[1] >= 900, "what is left is there: {got:?}");
        // All want too much: equal parts.
        let got = let_in(&budget(), &[(&callers(1), 500, false), flood]);
        assert!(
            (0.7..1.4).contains(&(got[0] as f64 / got[1] as f64)),
            "{got:?}"
        );
    }

    #[test]
    fn a_share_of_the_time_is_the_known_callers_first() {
        let budget = knowing_some(Budget::new(None, share("25%"), 1));
        let mut pressure = Pressure::new(budget.clock.begun());
        let call = Duration::from_millis(1);
        let (mut known, mut strangers) = ((0, 0), (0, 0));
        // 100 calls a second of 1 ms from a known caller, and as many as it takes from others.
        for millisecond in 0..10_000_u64 {
            let now = budget.clock.begun() + Duration::from_millis(millisecond);
            let (ip, is_known, got) = match millisecond % 10 == 0 {
                true => (CALLER, true, &mut known),
                false => (stranger(millisecond as u32 % 3), false, &mut strangers),
            };
            got.0 += 1;
            if let Ok(source) = budget.admit(0, now, &mut pressure, ip, || is_known) {
                budget.charge(0, now, call, &pressure, source);
                got.1 += 1;
            }
        }
        assert_eq!(known, (1000, 1000));
        assert!((1400..=1620).contains(&strangers.1), "{strangers:?}");
    }

    #[test]
    fn requests_come_at_their_rate_and_in_bursts() {
        let rate = Rate {
            per_second: 100,
            burst: 5,
        };
        let budget = Budget::new(Some(rate), Share::ALL, 1);
        let mut pressure = Pressure::new(budget.clock.begun());
        let at = |milliseconds| budget.clock.begun() + Duration::from_millis(milliseconds);
        let mut admitted = |milliseconds, tries| {
            let tries = (0..tries).map(|_| admit(&budget, 0, at(milliseconds), &mut pressure));
            tries.filter(Result::is_ok).count()
        };
        assert_eq!(admitted(0, 20), 5);
        assert_eq!(admitted(0, 1), 0);
        assert_eq!(admitted(10, 20), 1);
        assert_eq!(admitted(1000, 20), 5);
        let second: usize = (1000..2000).map(|at| admitted(at, 3)).sum();
        assert!((99..=101).contains(&second), "{second}");
    }

    #[test]
    fn a_share_holds_over_time_and_for_each_worker_alone() {
        let budget = Budget::new(None, share("25%"), 2);
        let mut pressure = Pressure::new(budget.clock.begun());
        // Calls of 1 ms, one behind the other, as many as are let in.
        let (mut now, mut taken) = (budget.clock.begun(), Duration::ZERO);
        let call = Duration::from_millis(1);
        while now < budget.clock.begun() + Duration::from_secs(10) {
            if admit(&budget, 0, now, &mut pressure).is_ok() {
                budget.charge(0, now, call, &pressure, None);
                taken += call;
            }
            now += call;
        }
        let least = Duration::from_millis(2500);
        assert!(taken >= least && taken <= least + BURST, "{taken:?}");
        assert!(admit(&budget, 1, now, &mut pressure).is_ok());
    }

    #[test]
    fn nothing_is_saved_up() {
        let budget = Budget::new(None, share("50%"), 1);
        let mut pressure = Pressure::new(budget.clock.begun());
        let later = budget.clock.begun() + Duration::from_secs(3600);
        budget.charge(0, later, Duration::from_millis(51), &pressure, None);
        let at = |later, pressure: &mut _| admit(&budget, 0, later, pressure).err();
        assert_eq!(at(later, &mut pressure), Some(Shed::Share));
        assert_eq!(at(later + Duration::from_millis(3), &mut pressure), None);
    }

    #[test]
    fn who_is_slow_waits_and_stays_in_order() {
        let budget = Budget::unlimited(2);
        let pressure = Pressure::new(budget.clock.begun());
        let calls = |count, took| {
            for _ in 0..count {
                budget.charge(0, budget.clock.begun(), took, &pressure, None);
            }
        };
        assert!(!budget.joins(0, 1));
        calls(100, Duration::from_micros(24));
        assert!(!budget.joins(0, 1));
        calls(100, Duration::from_micros(40));
        assert!(budget.joins(0, 1));
        assert!(!budget.joins(1, 1), "the other worker's calls are its own");
        calls(100, Duration::from_micros(5));
        assert!(budget.joins(0, 1), "one of it is in the row");
        assert!(!budget.joins(0, 2));
    }

    #[test]
    fn without_bounds_everything_goes() {
        let budget = Budget::unlimited(1);
        let mut pressure = Pressure::new(budget.clock.begun());
        let now = budget.clock.begun();
        budget.charge(0, now, Duration::from_secs(3600), &pressure, None);
        assert_eq!(admit(&budget, 0, now, &mut pressure), Ok(None));
    }

    /// A processor that a worker has for some time, and then others have it for some time.
    struct Machine {
        now: Instant,
        processor: Duration,
        on: Duration,
        off: Duration,
        left: Duration,
    }

    impl Machine {
        fn run(&mut self, mut time: Duration) {
            self.processor += time;
            while time > self.left {
                time -= self.left;
                self.now += self.left + self.off;
                self.left = self.on;
            }
            self.now += time;
            self.left -= time;
        }
    }

    /// As [`simulate_on`], with the processor for the worker alone.
    fn simulate(tenants: &[(u64, Duration)]) -> Vec<(f64, usize)> {
        simulate_on(Duration::ZERO, tenants)
    }

    /// A worker with these budgets: at each call the next one's turn comes, for as many seconds of the worker's time. Each tenant
    /// sends so many requests a second and takes so much time for each. Others have the processor for `off` after 4 ms of use. Gives what
    /// each got, in parts of the time, and how many were turned away.
    fn simulate_on(off: Duration, tenants: &[(u64, Duration)]) -> Vec<(f64, usize)> {
        simulate_while(Duration::from_millis(4), off, tenants)
    }

    /// The same where others have the processor for `off` after the worker had it for `on`.
    fn simulate_while(
        on: Duration,
        off: Duration,
        tenants: &[(u64, Duration)],
    ) -> Vec<(f64, usize)> {
        const SEND: Duration = Duration::from_micros(5);
        let long = Duration::from_secs(4);
        let budgets: Vec<_> = tenants.iter().map(|_| Budget::unlimited(1)).collect();
        let begun = budgets[0].clock.begun();
        let mut pressure = Pressure::new(begun);
        let mut next = vec![begun; tenants.len()];
        let mut got = vec![(0.0, 0); tenants.len()];
        let mut pauses = 0;
        let mut machine = Machine {
            now: begun,
            processor: Duration::ZERO,
            on,
            off,
            left: on,
        };
        while machine.now < begun + long {
            let (nth, &due) = next.iter().enumerate().min_by_key(|(_, at)| **at).unwrap();
            if due > machine.now {
                machine.now = due;
                pauses += 1;
            }
            let (rate, cost) = tenants[nth];
            next[nth] += Duration::from_secs(1) / u32::try_from(rate).unwrap();
            let asked = machine.now;
            pressure.look(asked, pauses, tenants.len(), || Some(machine.processor));
            match admit(&budgets[nth], 0, asked, &mut pressure) {
                Ok(source) => {
                    machine.run(cost);
                    let took = machine.now - asked;
                    let charged = pressure.cost(took, machine.now, || Some(machine.processor));
                    budgets[nth].charge(0, asked, charged, &pressure, source);
                    got[nth].0 += cost.as_secs_f64() / long.as_secs_f64();
                }
                Err(shed) => {
                    assert_eq!(shed, Shed::Pressure);
                    got[nth].1 += 1;
                }
            }
            machine.run(SEND);
        }
        got
    }

    #[test]
    fn who_takes_too_much_gives_way_when_a_worker_does_not_keep_up() {
        let (calm, heavy) = (Duration::from_micros(5), Duration::from_micros(400));
        let got = simulate(&[(5_000, calm), (5_000, heavy), (2_000, calm)]);
        assert_eq!((got[0].1, got[2].1), (0, 0), "{got:?}");
        assert!(got[1].1 > 10_000, "{got:?}");
        // What the others leave is still its own.
        assert!((0.6..0.95).contains(&got[1].0), "{got:?}");
    }

    #[test]
    fn all_who_take_too_much_get_the_same() {
        let calm = Duration::from_micros(5);
        let heavy = [Duration::from_micros(400), Duration::from_millis(2)];
        let got = simulate(&[(5_000, calm), (5_000, heavy[0]), (5_000, heavy[1])]);
        assert_eq!(got[0].1, 0, "{got:?}");
        let ratio = got[1].0 / got[2].0;
        assert!((0.7..1.4).contains(&ratio), "{got:?}");
    }

    #[test]
    fn a_worker_that_keeps_up_turns_nobody_away() {
        let got = simulate(&[
            (1_000, Duration::from_micros(800)),
            (5_000, Duration::from_micros(5)),
        ]);
        assert_eq!((got[0].1, got[1].1), (0, 0), "{got:?}");
    }

    #[test]
    fn what_others_take_of_the_processor_is_nobodys_here() {
        let (light, calm) = (Duration::from_micros(20), Duration::from_micros(5));
        for off in [2, 12, 40].map(Duration::from_millis) {
            // Too much for the worker now, and of no tenant alone.
            let got = simulate_on(off, &[(20_000, calm), (200, light), (20_000, calm)]);
            assert_eq!(got[1].1, 0, "{off:?}: {got:?}");
        }
    }

    #[test]
    fn a_stall_turns_nobody_away_who_takes_little() {
        // Calls that hang until their deadline hold the worker up, one behind the other, while 2,000 others a second come.
        let (calm, hang) = (Duration::from_micros(15), Duration::from_millis(50));
        for others in 1..=6 {
            let mut tenants = vec![(2_000, calm), (50, calm)];
            tenants.extend(std::iter::repeat_n((25, hang), others));
            for off in [0, 4].map(Duration::from_millis) {
                let got = simulate_on(off, &tenants);
                assert_eq!((got[0].1, got[1].1), (0, 0), "{others} {off:?}: {got:?}");
            }
        }
    }

    #[test]
    fn a_worker_that_is_held_up_by_others_again_and_again_turns_nobody_away() {
        // Two parts in a hundred are its tenants'. Other programs have the processor for most of the time.
        let (calm, rare) = (Duration::from_micros(20), Duration::from_micros(20));
        for (on, off) in [(4, 40), (20, 80), (1, 19), (10, 300)] {
            let on = Duration::from_millis(on);
            let off = Duration::from_millis(off);
            let mut tenants = vec![(1_000, calm)];
            tenants.extend([(20, rare); 6]);
            let got = simulate_while(on, off, &tenants);
            assert_eq!(got[0].1, 0, "{on:?} {off:?}: {got:?}");
        }
    }

    #[test]
    fn who_takes_too_much_gives_way_when_there_is_less() {
        let (calm, heavy) = (Duration::from_micros(5), Duration::from_micros(400));
        let off = Duration::from_millis(4);
        let got = simulate_on(off, &[(5_000, calm), (5_000, heavy), (2_000, calm)]);
        assert_eq!((got[0].1, got[2].1), (0, 0), "{got:?}");
        // An equal part of what the worker has is its own.
        assert!((0.166..0.45).contains(&got[1].0), "{got:?}");
    }

    #[test]
    fn a_few_calls_of_one_among_many_are_not_too_much() {
        const TENANTS: usize = 100;
        let budget = Budget::unlimited(1);
        let mut pressure = Pressure::new(budget.clock.begun());
        let mut now = budget.clock.begun();
        for _ in 0..TENANTS {
            pressure.meet();
        }
        for _ in 0..40 {
            now += Duration::from_millis(2);
            pressure.look(now, 0, TENANTS, || None);
        }
        let call = Duration::from_micros(200);
        let mut calls = 0;
        while admit(&budget, 0, now, &mut pressure).is_ok() {
            budget.charge(0, now, call, &pressure, None);
            calls += 1;
        }
        // Ahead by 1 ms of the processor, and an equal part of the 80 ms without a pause.
        assert_eq!(calls, 5 + 4 + 1);
    }
}
