//! The clock thread that ends calls at their deadline. It ticks once a millisecond while a call runs.
//!
//! Between calls the clock naps: it wakes up every few milliseconds only, so that short calls at a thousand requests a second do not wake it
//! up as often as the workers. A nap is no longer than the first part of the deadline of any call, so the deadline of a call that begins
//! during a nap is checked in time. After [`IDLE`] ticks without a call the clock sleeps until the next call.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use portcullis_sync::{IdleSleep, NapClock, Running};
use wasmtime::{Engine, EngineWeak};

use crate::scheduling;

/// The period of the clock.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call after which the clock sleeps. Waking it costs the next call a system call.
const IDLE: u64 = 100;

/// Maximum length of a nap in ticks.
const LONGEST_NAP: u64 = 8;

/// Number of stripes, each with the call counters of one thread. Larger than the usual number of workers.
const STRIPES: usize = 64;

/// Handle of the clock thread of one engine. The thread ends when the last handle is dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

struct Shared {
    /// When the clock was started.
    start: Instant,
    /// Counts ticks. Constant while the clock sleeps.
    clock: NapClock,
    /// Maximum length of the next nap in ticks: no longer than the first part of the deadline of any call.
    longest_nap: AtomicU64,
    #[cfg(test)]
    wakes: AtomicU64,
    /// Sleep while no call is running.
    idle: IdleSleep<STRIPES>,
}

/// The deadline of a call, in ticks.
#[derive(Default)]
pub(crate) struct End {
    ticker: Option<Arc<Ticker>>,
    at: Cell<u64>,
    /// Ticks that the call gets when it is still running at `at`. They count from the first check after `at`, because the thread may have
    /// been preempted until then.
    spare: Cell<u64>,
}

impl Ticker {
    /// Starts the thread that increments the epoch of the engine.
    ///
    /// This is an OS thread and not a task, because all workers may be busy in the policies that it interrupts.
    ///
    /// # Errors
    /// If the thread cannot be created.
    pub(crate) fn start(engine: &Engine) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            clock: NapClock::new(TICK),
            longest_nap: AtomicU64::new(LONGEST_NAP),
            #[cfg(test)]
            wakes: AtomicU64::new(0),
            idle: IdleSleep::new(),
        });
        let (its, engine) = (Arc::clone(&shared), engine.weak());
        let thread = thread::Builder::new()
            .name("policy-clock".into())
            .spawn(move || {
                if let Err(error) = scheduling::request(scheduling::CLOCK) {
                    tracing::debug!(event = "policy_clock_slow", %error, "no short time slice for the policy clock: deadlines are late on a busy processor");
                }
                its.run(&engine);
            })?;
        Ok(Arc::new(Self {
            shared,
            thread: thread.thread().clone(),
        }))
    }

    /// Counts a call that the calling thread begins, and wakes the clock if it sleeps.
    #[inline]
    pub(crate) fn begin(&self) -> Running<'_> {
        self.shared.idle.begin(stripe(), &self.thread)
    }

    /// Whether the clock is asleep.
    pub(crate) fn sleeps(&self) -> bool {
        self.shared.idle.sleeps()
    }

    /// Number of ticks so far. A call ends when this reaches its deadline.
    #[inline]
    fn now(&self) -> u64 {
        self.shared.clock.counted()
    }

    /// Number of ticks so far, including the elapsed part of a nap. The deadline of a call with `first` ticks counts from here.
    #[inline]
    fn begun(&self, first: u64) -> u64 {
        let shared = &*self.shared;
        if first < shared.longest_nap.load(Ordering::Relaxed) {
            self.shorten_naps(first);
        }
        shared.clock.passed(|| shared.start.elapsed())
    }

    /// Limits naps for a call whose first part is shorter than the longest nap, and ends the current nap.
    #[cold]
    fn shorten_naps(&self, first: u64) {
        let longest_nap = &self.shared.longest_nap;
        longest_nap.fetch_min(first.max(1), Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.idle.end(&self.thread);
    }
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        let (mut begun, mut idle, mut nap) = (0, 0, 1);
        while !self.idle.has_ended() {
            let passed = self.nap(nap);
            let Some(engine) = engine.upgrade() else {
                return;
            };
            // The epoch makes each running call check its deadline.
            engine.increment_epoch();
            drop(engine);
            let calls = self.idle.work();
            idle = match calls.running == 0 && calls.begun == begun {
                true => idle + passed,
                false => 0,
            };
            begun = calls.begun;
            nap = match calls.running {
                0 => self.longest_nap.load(Ordering::Relaxed),
                _ => 1,
            };
            if idle >= IDLE {
                // The policy that shortened the naps may have been replaced.
                self.longest_nap.store(LONGEST_NAP, Ordering::Relaxed);
                self.idle.sleep();
                (idle, nap) = (0, 1);
            }
        }
    }

    /// Parks for `ticks` ticks, or until a call with a shorter first part begins. Returns the ticks that passed.
    fn nap(&self, ticks: u64) -> u64 {
        let nap = self.clock.begin_nap(ticks, self.start.elapsed());
        thread::park_timeout(TICK * u32::try_from(ticks).unwrap_or(1));
        let passed = self.clock.end_nap(nap, self.start.elapsed());
        #[cfg(test)]
        self.wakes.fetch_add(1, Ordering::Relaxed);
        passed
    }
}

impl End {
    /// Sets the deadline of a call that begins now: after `first` ticks, and `spare` more if the call still runs then.
    #[inline]
    pub(crate) fn set(&self, first: u64, spare: u64) {
        let begun = self.ticker.as_ref().map_or(0, |ticker| ticker.begun(first));
        self.at.set(begun.saturating_add(first));
        self.spare.set(spare);
    }

    /// Sets the clock of this deadline.
    pub(crate) fn go_by(&mut self, ticker: &Arc<Ticker>) {
        let is_same = |own: &Arc<Ticker>| Arc::ptr_eq(own, ticker);
        if !self.ticker.as_ref().is_some_and(is_same) {
            self.ticker = Some(Arc::clone(ticker));
        }
    }

    /// Whether the deadline has not passed yet.
    #[inline]
    pub(crate) fn is_ahead(&self) -> bool {
        let now = self.now();
        if now >= self.at.get() {
            self.at.set(now.saturating_add(self.spare.take()));
        }
        self.at.get() > now
    }

    #[inline]
    fn now(&self) -> u64 {
        self.ticker.as_ref().map_or(0, |ticker| ticker.now())
    }
}

/// The stripe of the calling thread.
#[inline]
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::engine::on_demand;
    use crate::limits::Limits;

    fn engine() -> Engine {
        on_demand(&Limits::default()).unwrap()
    }

    /// Waits for a condition without a pause, with a limit far above the usual time.
    fn until(condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
            thread::yield_now();
        }
    }

    #[test]
    fn the_clock_sleeps_while_no_call_runs_and_not_otherwise() {
        let engine = engine();
        let ticker = Ticker::start(&engine).unwrap();
        for _ in 0..3 {
            until(|| ticker.sleeps());
            let before = ticker.now();
            let running = ticker.begin();
            assert!(!ticker.sleeps());
            until(|| ticker.now() > before + IDLE + 10);
            assert!(!ticker.sleeps(), "a call runs");
            drop(running);
        }
        until(|| ticker.sleeps());
        let before = ticker.now();
        drop(ticker.begin());
        until(|| ticker.sleeps());
        assert!(
            ticker.now() > before,
            "the clock ticked for a call that ended before it woke up"
        );
    }

    /// Calls that begin when the clock is about to sleep see it tick.
    #[test]
    fn a_call_that_begins_while_the_clock_falls_asleep_sees_it_tick() {
        let engine = engine();
        let ticker = Ticker::start(&engine).unwrap();
        let calls = || {
            for _ in 0..8 {
                until(|| ticker.sleeps());
                let running = ticker.begin();
                let before = ticker.now();
                until(|| ticker.now() > before);
                drop(running);
            }
        };
        thread::scope(|scope| {
            scope.spawn(calls);
            scope.spawn(calls);
        });
    }

    #[test]
    fn the_clock_thread_ends_with_its_last_handle() {
        let engine = engine();
        for sleeps in [false, true] {
            let ticker = Ticker::start(&engine).unwrap();
            if sleeps {
                until(|| ticker.sleeps());
            }
            let shared: Weak<Shared> = Arc::downgrade(&ticker.shared);
            drop(ticker);
            until(|| shared.upgrade().is_none());
        }
    }

    #[test]
    fn a_call_ends_after_its_ticks_and_gets_spare_ticks_once() {
        let engine = engine();
        let ticker = Ticker::start(&engine).unwrap();
        let mut end = End::default();
        end.go_by(&ticker);
        let _running = ticker.begin();
        end.set(3, 2);
        let begun = end.at.get() - 3;
        assert!(end.is_ahead());
        until(|| ticker.now() >= begun + 3);
        let seen = ticker.now();
        assert!(end.is_ahead(), "two spare ticks");
        assert!(end.at.get() >= seen + 2);
        until(|| ticker.now() >= end.at.get());
        assert!(!end.is_ahead());
        assert!(!end.is_ahead());
    }

    #[test]
    fn the_clock_naps_where_calls_are_short_and_ticks_while_one_runs() {
        let engine = engine();
        let ticker = Ticker::start(&engine).unwrap();
        let shared = &ticker.shared;
        let wakes_and_ticks = |until_ticks: u64, work: &dyn Fn()| {
            let (wakes, ticks) = (shared.wakes.load(Ordering::Relaxed), ticker.now());
            until(|| {
                work();
                ticker.now() >= ticks + until_ticks
            });
            let wakes = shared.wakes.load(Ordering::Relaxed) - wakes;
            (wakes, ticker.now() - ticks)
        };
        let (wakes, ticks) = wakes_and_ticks(200, &|| {
            drop(ticker.begin());
            thread::park_timeout(TICK / 10);
        });
        assert!(wakes * 2 < ticks, "{wakes} wakes, {ticks} ticks");

        let running = ticker.begin();
        until(|| shared.clock.nap() == 1);
        let begun = ticker.now();
        until(|| ticker.now() > begun);
        let (wakes, ticks) = wakes_and_ticks(50, &|| {});
        assert!(wakes + 1 >= ticks, "{wakes} wakes, {ticks} ticks");
        drop(running);
    }

    #[test]
    fn naps_are_no_longer_than_the_first_part_of_any_call() {
        let engine = engine();
        let ticker = Ticker::start(&engine).unwrap();
        let mut end = End::default();
        end.go_by(&ticker);
        let longest_nap = || ticker.shared.longest_nap.load(Ordering::Relaxed);
        let running = ticker.begin();
        for (first, longest) in [(100, LONGEST_NAP), (4, 4), (5, 4), (1, 1), (0, 1)] {
            end.set(first, 0);
            assert_eq!(longest_nap(), longest);
        }
        drop(running);
        until(|| ticker.sleeps());
        assert_eq!(longest_nap(), LONGEST_NAP, "after a rest");
    }
}
