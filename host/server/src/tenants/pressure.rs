//! Whether a worker keeps up with what comes, and how far tenants are held back while it does not.

use std::time::{Duration, Instant};

/// A worker that had something to do all this time does not keep up: a full turn of its sockets takes less.
const BEHIND: Duration = Duration::from_millis(1);

/// What a further such time multiplies the weight by.
const TIGHTEN: f64 = 1.25;

/// What each step without one multiplies it by: half as much after one and a half seconds. Slowly, as trying out how much is too
/// much costs others a millisecond each time.
const EASE: f64 = 0.995;
const EASE_EACH: Duration = Duration::from_millis(10);

/// How long a tenant counts that sends nothing any more.
const WINDOW: Duration = Duration::from_millis(100);

/// How heavily the time of policies weighs on one worker. While the worker keeps up, that is 1 and nobody is held back. When it
/// does not, the weight grows until it does, and shrinks slowly afterwards: at a weight of 4, a policy gets a quarter of the time,
/// and only those feel it that take more. It never grows beyond the number of tenants that send: an equal part is everybody's.
#[derive(Debug)]
pub struct Pressure {
    begun: Instant,
    /// As many as the worker had when it was looked at last.
    pauses: u64,
    busy_since: Instant,
    weight: f64,
    eased: Instant,
    window: u64,
    /// Tenants that were seen in this window and in the one before.
    seen: (u32, u32),
}

impl Pressure {
    /// That of a worker without work.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            pauses: 0,
            busy_since: now,
            weight: 1.0,
            eased: now,
            window: 0,
            seen: (0, 0),
        }
    }

    /// Looks at the worker when a request is there. `pauses` counts the times that it had nothing to do.
    #[inline]
    pub fn look(&mut self, now: Instant, pauses: u64) {
        let window = self.window_of(now);
        if window != self.window {
            let before = match window == self.window + 1 {
                true => self.seen.0,
                false => 0,
            };
            (self.window, self.seen) = (window, (0, before));
        }
        if pauses != self.pauses {
            (self.pauses, self.busy_since) = (pauses, now);
        } else if now.saturating_duration_since(self.busy_since) > BEHIND {
            self.busy_since = now;
            self.weight = (self.weight * TIGHTEN).min(self.most());
            self.eased = now;
        }
        if self.weight > 1.0 {
            self.ease(now);
        }
    }

    /// A tenant that was not seen in this window sends something.
    pub(super) fn meet(&mut self) {
        self.seen.0 += 1;
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

    fn ease(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.eased);
        let steps = (since.as_nanos() / EASE_EACH.as_nanos()).min(10_000) as i32;
        if steps > 0 {
            self.weight = (self.weight * EASE.powi(steps)).max(1.0);
            self.eased += EASE_EACH * steps.unsigned_abs();
        }
    }

    /// Who is alone is not held back: nobody else would have the time.
    fn most(&self) -> f64 {
        match self.seen.0.max(self.seen.1) {
            0 | 1 => 1.0,
            tenants => f64::from(tenants),
        }
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
        pressure.look(at(0), 0);
        pressure.meet();
        pressure.meet();
        pressure.look(at(1), 0);
        assert_eq!(pressure.weight(), 1.0);
        for busy in [2, 4, 6] {
            pressure.look(at(busy), 0);
        }
        assert!(pressure.weight() > 1.9, "{}", pressure.weight());
        for busy in 8..90 {
            pressure.look(at(busy), 0);
        }
        assert_eq!(pressure.weight(), 2.0, "the number of tenants");
        pressure.look(at(430), 1);
        assert!(pressure.weight() < 1.8, "{}", pressure.weight());
        pressure.look(at(2000), 2);
        assert_eq!(pressure.weight(), 1.0);
    }

    #[test]
    fn a_worker_that_pauses_has_none() {
        let begun = Instant::now();
        let mut pressure = Pressure::new(begun);
        pressure.meet();
        pressure.meet();
        for n in 0..1000 {
            pressure.look(begun + BEHIND * n, n.into());
        }
        assert_eq!(pressure.weight(), 1.0);
    }

    #[test]
    fn who_is_alone_is_not_held_back() {
        let begun = Instant::now();
        let mut pressure = Pressure::new(begun);
        pressure.meet();
        for n in 0..90 {
            pressure.look(begun + 2 * BEHIND * n, 0);
        }
        assert_eq!(pressure.weight(), 1.0);
    }
}
