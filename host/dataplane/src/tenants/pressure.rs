//! Detects an overloaded worker, and determines how far tenants are throttled meanwhile.

use std::time::{Duration, Instant};

use super::processor::Processor;
use super::sources::Places;

/// A worker that has not been idle for this time is overloaded: one turn of all its sockets takes less.
const BEHIND: Duration = Duration::from_millis(1);

/// Factor applied to the weight after each further interval of overload.
const TIGHTEN: f64 = 1.25;

/// Factor applied to the weight at each step without overload: it halves in one and a half seconds. The decay is slow, because each probe
/// of how much is too much costs other tenants a millisecond.
const EASE: f64 = 0.995;
const EASE_EACH: Duration = Duration::from_millis(10);

/// A worker that was idle at times and used less than this share of a processor in a window is clearly not overloaded: what delayed it was
/// no tenant. The weight then decays faster, by this factor for each window.
const EASY: f64 = 0.5;
const RELIEVE: f64 = 0.5;

/// How far ahead of its share a tenant may get under overload, in CPU time of the worker. Otherwise the allowance is larger.
const BURST: Duration = Duration::from_millis(10);

/// CPU time that a tenant may always use at once: some tens of typical calls, including its first ones, which create the sandbox. With many
/// tenants an equal share is small, and a single call would exceed the allowance.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The maximum of unused CPU time that a tenant may save up since the worker was last idle. A flood of cheap calls uses this much once
/// before it is throttled, and requests of others wait in the kernel's buffer meanwhile.
const CREDIT: Duration = Duration::from_millis(20);

/// Time after which a tenant that sends nothing no longer counts.
const WINDOW: Duration = Duration::from_millis(100);

/// Places per row for the sources of all tenants, if time is limited.
const PLACES: usize = 1024;

/// The weight of policy time on one worker. It is 1, without throttling, while the worker is not overloaded. Under overload the weight
/// grows until the worker keeps up, and decays slowly afterwards: at a weight of 4, a policy gets a quarter of the time, which affects only
/// tenants that use more. The weight never exceeds the value that leaves an equal share to each active tenant: their number, or more if the
/// worker has the processor only for a part of the time. With several tenants, at least two are assumed active; otherwise a tenant queued
/// behind another would never be counted.
#[derive(Debug)]
pub struct Pressure {
    begun: Instant,
    /// Number of idle parks of the worker at the last look.
    pauses: u64,
    busy_since: Instant,
    /// Time of the first request after the worker was last idle. Requests that have waited since then were sent while the worker was busy.
    paused_at: Instant,
    weight: f64,
    /// The fraction of time in which the worker has the processor, as of the start of this window or the last increase of the weight.
    part: f64,
    eased: Instant,
    window: u64,
    /// Tenants seen in this window and in the previous one.
    seen: (usize, usize),
    /// Number of tenants.
    tenants: usize,
    processor: Processor,
    /// Use of the worker's time by the sources of all tenants.
    places: Places,
}

impl Pressure {
    /// The pressure of an idle worker.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            pauses: 0,
            busy_since: now,
            paused_at: now,
            weight: 1.0,
            part: 1.0,
            eased: now,
            window: 0,
            seen: (0, 0),
            tenants: 1,
            processor: Processor::new(),
            places: Places::new(PLACES),
        }
    }

    /// Updates the pressure when a request arrives. `pauses` is the worker's count of idle parks, `tenants` the number of tenants including
    /// the operator, and `time` reads the CPU time of its thread.
    #[inline]
    pub fn look(
        &mut self,
        now: Instant,
        pauses: u64,
        tenants: usize,
        time: impl FnOnce() -> Option<Duration>,
    ) {
        self.tenants = tenants;
        if tenants < 2 {
            // With a single tenant, nobody else needs the time.
            self.weight = 1.0;
            return;
        }
        let window = self.window_of(now);
        if window != self.window {
            self.turn(window);
        }
        self.processor.look(now, pauses, time);
        if pauses != self.pauses {
            (self.pauses, self.busy_since) = (pauses, now);
            self.paused_at = now;
        } else if now.saturating_duration_since(self.busy_since) > BEHIND {
            self.busy_since = now;
            self.part = self.processor.part();
            self.weight = (self.weight * TIGHTEN).min(self.most());
            self.eased = now;
        }
        if self.weight > 1.0 {
            self.ease(now);
        }
    }

    /// CPU time of a call with this duration that ends now; `time` as above.
    #[inline]
    pub fn cost(
        &mut self,
        took: Duration,
        now: Instant,
        time: impl FnOnce() -> Option<Duration>,
    ) -> Duration {
        match self.tenants < 2 {
            true => took,
            false => self.processor.cost(took, now, self.pauses, time),
        }
    }

    /// Counts a tenant that has not been seen in this window.
    pub(super) fn meet(&mut self) {
        self.seen.0 += 1;
    }

    /// Use of the worker's time by sources, if it is limited.
    #[inline]
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Number of the current window.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// The current weight of time, at least 1.
    #[inline]
    pub(super) fn weight(&self) -> f64 {
        self.weight
    }

    /// How far ahead a tenant may get under overload.
    #[inline]
    pub(super) fn burst(&self) -> Duration {
        BURST.max(AT_ONCE.mul_f64(self.weight)).div_f64(self.part)
    }

    /// How far behind `now` a tenant may be that used less than its share under overload: the time since the worker was last idle. After a
    /// stall, all requests sent meanwhile arrive at once, which alone is no overload.
    #[inline]
    pub(super) fn credit(&self, now: Instant) -> Duration {
        let most = CREDIT.mul_f64(self.weight / self.part);
        now.saturating_duration_since(self.paused_at).min(most)
    }

    fn ease(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.eased);
        let steps = (since.as_nanos() / EASE_EACH.as_nanos()).min(10_000) as i32;
        if steps > 0 {
            self.weight = (self.weight * EASE.powi(steps)).max(1.0);
            self.eased += EASE_EACH * steps.unsigned_abs();
        }
    }

    fn turn(&mut self, window: u64) {
        let is_next = window == self.window + 1;
        let before = match is_next {
            true => self.seen.0,
            false => 0,
        };
        (self.window, self.seen) = (window, (0, before));
        if let Some((used, true)) = self.processor.turn(is_next)
            && used < EASY
        {
            self.weight = (self.weight * RELIEVE).max(1.0);
        }
        self.part = self.processor.part();
        self.weight = self.weight.min(self.most());
    }

    /// The weight that leaves an equal share to each active tenant.
    fn most(&self) -> f64 {
        self.seen.0.max(self.seen.1).max(2) as f64 / self.part
    }

    /// From 1, so that window 0 means a tenant that was never seen.
    fn window_of(&self, now: Instant) -> u64 {
        let windows = now.saturating_duration_since(self.begun).as_nanos() / WINDOW.as_nanos();
        u64::try_from(windows).unwrap_or(u64::MAX - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_the_worker_has_no_pause_and_goes_when_it_has() {
        let begun = Instant::now();
        let mut pressure = Pressure::new(begun);
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        pressure.look(at(0), 0, 5, || None);
        pressure.meet();
        pressure.meet();
        pressure.look(at(1), 0, 5, || None);
        assert_eq!(pressure.weight(), 1.0);
        for busy in [2, 4, 6] {
            pressure.look(at(busy), 0, 5, || None);
        }
        assert!(pressure.weight() > 1.9, "{}", pressure.weight());
        for busy in 8..90 {
            pressure.look(at(busy), 0, 5, || None);
        }
        assert_eq!(pressure.weight(), 2.0, "the number of tenants");
        pressure.look(at(430), 1, 5, || None);
        assert!(pressure.weight() < 1.8, "{}", pressure.weight());
        pressure.look(at(2000), 2, 5, || None);
        assert_eq!(pressure.weight(), 1.0);
    }

    #[test]
    fn a_worker_that_pauses_has_none() {
        let begun = Instant::now();
        let mut pressure = Pressure::new(begun);
        pressure.meet();
        pressure.meet();
        for n in 0..1000 {
            pressure.look(begun + BEHIND * n, n.into(), 5, || None);
        }
        assert_eq!(pressure.weight(), 1.0);
    }

    #[test]
    fn who_is_alone_is_not_held_back() {
        for (tenants, most) in [(1, 1.0), (2, 2.0), (5, 2.0)] {
            let begun = Instant::now();
            let mut pressure = Pressure::new(begun);
            pressure.meet();
            for n in 0..90 {
                pressure.look(begun + 2 * BEHIND * n, 0, tenants, || None);
            }
            assert_eq!(pressure.weight(), most);
        }
    }
}
