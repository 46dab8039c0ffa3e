//! Whether a worker keeps up with what comes, and how far tenants are held back while it does not.

use std::time::{Duration, Instant};

use super::processor::Processor;
use super::sources::Places;

/// A worker that had something to do all this time does not keep up: a full turn of its sockets takes less.
const BEHIND: Duration = Duration::from_millis(1);

/// What a further such time multiplies the weight by.
const TIGHTEN: f64 = 1.25;

/// What each step without one multiplies it by: half as much after one and a half seconds. Slowly, as trying out how much is too
/// much costs others a millisecond each time.
const EASE: f64 = 0.995;
const EASE_EACH: Duration = Duration::from_millis(10);

/// A worker that had pauses and used less than this of a processor in a window keeps up with ease: what held it up was no tenant. The weight
/// goes back faster then, by this factor for each window.
const EASY: f64 = 0.5;
const RELIEVE: f64 = 0.5;

/// How far ahead of its part a tenant may get meanwhile, in time that the worker has the processor. While a worker keeps up there is
/// more to be ahead of.
const BURST: Duration = Duration::from_millis(10);

/// How much of the processor's time it may take at once in any case: some tens of calls of an honest policy, its first ones too, which
/// make the sandbox. With many tenants an equal part is little, and a single call would be more than what is ahead of it.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The most of the processor's time that a tenant may have left for having taken less than its part since the worker's last pause. A
/// flood of cheap calls takes as much once before it is held back, and what others send meanwhile waits in the system's buffer.
const CREDIT: Duration = Duration::from_millis(20);

/// How long a tenant counts that sends nothing any more.
const WINDOW: Duration = Duration::from_millis(100);

/// Places in each row for the sources of all tenants, where time has a bound.
const PLACES: usize = 1024;

/// How heavily the time of policies weighs on one worker. While the worker keeps up, that is 1 and nobody is held back. When it
/// does not, the weight grows until it does, and shrinks slowly afterwards: at a weight of 4, a policy gets a quarter of the time,
/// and only those feel it that take more. It never grows beyond what leaves an equal part to each tenant that sends: their number, and
/// more if the worker has the processor for a part of the time only. Where there are several tenants, two send at any time, or one of
/// them would not come to be seen behind all that the other has sent.
#[derive(Debug)]
pub struct Pressure {
    begun: Instant,
    /// As many as the worker had when it was looked at last.
    pauses: u64,
    busy_since: Instant,
    /// When a request came after a pause last. What waits since then was sent while the worker was busy with something else.
    paused_at: Instant,
    weight: f64,
    /// The part of the time that the worker has the processor, as it was when this window began or the weight grew.
    part: f64,
    eased: Instant,
    window: u64,
    /// Tenants that were seen in this window and in the one before.
    seen: (usize, usize),
    /// Tenants that there are.
    tenants: usize,
    processor: Processor,
    /// What the sources of all tenants took of the worker's time.
    places: Places,
}

impl Pressure {
    /// That of a worker without work.
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

    /// Looks at the worker when a request is there. `pauses` counts the times that it had nothing to do, `tenants` there are with the
    /// operator, and `time` tells the processor time of its thread.
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
            // Nobody else would have the time, and nothing needs to be known.
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

    /// What a call that took so long and ends now took of the processor; `time` as above.
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

    /// A tenant that was not seen in this window sends something.
    pub(super) fn meet(&mut self) {
        self.seen.0 += 1;
    }

    /// What sources took of the worker's time, where it has a bound.
    #[inline]
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// The number of the window of the moment.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// How heavily time weighs at the moment, 1 or more.
    #[inline]
    pub(super) fn weight(&self) -> f64 {
        self.weight
    }

    /// How far ahead a tenant may get while time weighs more.
    #[inline]
    pub(super) fn burst(&self) -> Duration {
        BURST.max(AT_ONCE.mul_f64(self.weight)).div_f64(self.part)
    }

    /// How far behind `now` a tenant may be that took less than its part while time weighs more: as long as the worker had no pause. After
    /// a stall, all that was sent meanwhile comes at once, and that alone is not too much.
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

    /// What leaves an equal part to each tenant that sends.
    fn most(&self) -> f64 {
        self.seen.0.max(self.seen.1).max(2) as f64 / self.part
    }

    /// From 1, so that no window is that of a tenant that was never seen.
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
