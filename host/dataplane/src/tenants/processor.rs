//! Measures how much of a processor a worker gets: other programs, and other virtual machines on the same hardware, compete for it.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Maximum age of the last reading when a call begins. A reading is a system call: half a microsecond on slow systems.
const READ_EACH: Duration = Duration::from_micros(250);

/// A shorter call is charged its wall time. A thread that was preempted does not run again within this time.
const LONG: Duration = Duration::from_micros(200);

/// Lower limit for the measured share of a processor.
const LEAST: f64 = 0.05;

/// CPU time of one worker, sampled from time to time.
#[derive(Debug)]
pub(super) struct Processor {
    last: Option<Reading>,
    /// The last sample of the previous window.
    turned: Option<Reading>,
    /// CPU and wall time accumulated over busy intervals, for the current and the previous window.
    busy: [Busy; 2],
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    time: Duration,
    pauses: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Busy {
    wall: Duration,
    processor: Duration,
}

impl Processor {
    pub(super) fn new() -> Self {
        Self {
            last: None,
            turned: None,
            busy: [Busy::default(); 2],
        }
    }

    /// Samples `time`, the thread's CPU time, if a sample is due. `pauses` is the worker's count of idle parks.
    #[inline]
    pub(super) fn look(
        &mut self,
        now: Instant,
        pauses: u64,
        time: impl FnOnce() -> Option<Duration>,
    ) {
        let age = |last: Reading| now.saturating_duration_since(last.at);
        if self.last.is_none_or(|last| age(last) > READ_EACH)
            && let Some(time) = time()
        {
            self.read(now, pauses, time);
        }
    }

    /// CPU time of a call that ends now. A short call is charged its wall time; a longer one the thread's CPU time since the last sample,
    /// less the work before the call, which is not subtracted if the worker was idle in between.
    #[inline]
    pub(super) fn cost(
        &mut self,
        took: Duration,
        now: Instant,
        pauses: u64,
        time: impl FnOnce() -> Option<Duration>,
    ) -> Duration {
        if took < LONG {
            return took;
        }
        let (Some(last), Some(time)) = (self.last, time()) else {
            return took;
        };
        self.read(now, pauses, time);
        let before = match last.pauses == pauses {
            true => now.saturating_duration_since(last.at).saturating_sub(took),
            false => Duration::ZERO,
        };
        let got = time.saturating_sub(last.time);
        took.min(got.saturating_sub(before))
    }

    /// Begins another window, the next one or a later one. Returns the processor share that the worker used in the window that ends, from 0
    /// to 1, and whether it was idle; `None` while nothing is known.
    pub(super) fn turn(&mut self, is_next: bool) -> Option<(f64, bool)> {
        let before = match is_next {
            true => self.busy[0],
            false => Busy::default(),
        };
        self.busy = [Busy::default(), before];
        let (last, turned) = (self.last?, self.turned);
        self.turned = self.last;
        let turned = turned?;
        let wall = last.at.saturating_duration_since(turned.at).as_secs_f64();
        let used = last.time.saturating_sub(turned.time).as_secs_f64();
        (wall > 0.0).then(|| (used / wall, last.pauses != turned.pauses))
    }

    /// The fraction of its busy time in which the worker had a processor; 1 while nothing is known.
    pub(super) fn part(&self) -> f64 {
        let [now, before] = self.busy;
        let wall = (now.wall + before.wall).as_secs_f64();
        let processor = (now.processor + before.processor).as_secs_f64();
        match wall > 0.0 {
            true => (processor / wall).clamp(LEAST, 1.0),
            false => 1.0,
        }
    }

    fn read(&mut self, at: Instant, pauses: u64, time: Duration) {
        let last = self.last.replace(Reading { at, time, pauses });
        if let Some(last) = last.filter(|last| last.pauses == pauses) {
            self.busy[0].wall += at.saturating_duration_since(last.at);
            self.busy[0].processor += time.saturating_sub(last.time);
        }
    }
}

/// CPU time of the calling thread, if the system provides it.
pub fn thread_time() -> Option<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    Some(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_long_call_costs_what_the_thread_got() {
        let begun = Instant::now();
        let mut processor = Processor::new();
        let at = |milliseconds| begun + milliseconds * MS;
        assert_eq!(processor.cost(12 * MS, at(0), 0, || Some(MS)), 12 * MS);
        processor.look(at(0), 0, || Some(5 * MS));
        assert_eq!(processor.cost(LONG / 2, at(1), 0, || None), LONG / 2);
        assert_eq!(processor.cost(12 * MS, at(12), 0, || None), 12 * MS);
        // Of 7 ms of the thread's, 4 passed before the call began, 2 ms each in the two calls after that.
        assert_eq!(processor.cost(8 * MS, at(12), 0, || Some(12 * MS)), 3 * MS);
        assert_eq!(processor.cost(5 * MS, at(17), 0, || Some(14 * MS)), 2 * MS);
        assert_eq!(processor.cost(8 * MS, at(30), 1, || Some(16 * MS)), 2 * MS);
        // More than all of it is none.
        assert_eq!(processor.cost(3 * MS, at(33), 1, || Some(26 * MS)), 3 * MS);
    }

    #[test]
    fn readings_are_taken_now_and_then() {
        let begun = Instant::now();
        let mut processor = Processor::new();
        let mut readings = 0;
        for microseconds in 0..10_000 {
            processor.look(begun + Duration::from_micros(microseconds), 0, || {
                readings += 1;
                Some(Duration::ZERO)
            });
        }
        assert_eq!(readings, 40);
    }

    #[test]
    fn the_part_is_that_of_busy_times_of_this_window_and_the_one_before() {
        let begun = Instant::now();
        let mut processor = Processor::new();
        assert_eq!(processor.part(), 1.0);
        let look = |processor: &mut Processor, at, pauses, time| {
            processor.look(begun + at * MS, pauses, || Some(time * MS));
        };
        look(&mut processor, 0, 0, 0);
        look(&mut processor, 10, 1, 1);
        assert_eq!(processor.part(), 1.0, "it had a pause");
        look(&mut processor, 20, 1, 6);
        assert_eq!(processor.part(), 0.5);
        processor.turn(true);
        look(&mut processor, 30, 1, 16);
        assert_eq!(processor.part(), 0.75);
        processor.turn(true);
        assert_eq!(processor.part(), 1.0);
        look(&mut processor, 1030, 1, 16);
        assert_eq!(processor.part(), LEAST);
        processor.turn(false);
        assert_eq!(processor.part(), 1.0);
    }

    #[test]
    fn the_system_tells() {
        let (before, begun) = (thread_time().unwrap(), Instant::now());
        while thread_time().unwrap() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "no time passes");
        }
    }
}
