//! How much of a processor a worker gets: other programs, and other machines on the same metal, may have it meanwhile.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How old the last reading may become when a call begins. One takes a system call: half a microsecond where that is slow.
const READ_EACH: Duration = Duration::from_micros(250);

/// A call that takes less is taken as it is. Who has lost the processor gets it back later than that.
const LONG: Duration = Duration::from_micros(200);

/// Less than this part of a processor is taken for this part.
const LEAST: f64 = 0.05;

/// The processor time of one worker, as it was read now and then.
#[derive(Debug)]
pub(super) struct Processor {
    last: Option<Reading>,
    /// The last reading of the window before.
    turned: Option<Reading>,
    /// What it came to while the worker always had something to do, in this window and in the one before.
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

    /// Reads `time`, the thread's processor time, if that is due. `pauses` counts the times that the worker had nothing to do.
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

    /// What a call that ends now took of the processor. Of one that was not long, that is the time that passed. Of another it is what
    /// the thread got since the last reading, without what it did before the call; or with it, if the worker had a pause meanwhile.
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

    /// Another window begins, the next one or one after that. Returns what the worker used of a processor in the one that ends, from 0 to
    /// 1, and whether it had a pause; none while nothing is known.
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

    /// The part of the time that the worker had a processor when it had something to do; 1 while nothing is known.
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

/// The processor time of the thread that asks, if the system tells.
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
        let before = thread_time().unwrap();
        while thread_time().unwrap() == before {}
    }
}
