//! The clock thread that ends calls at their deadline. It ticks once a millisecond while a call runs.
//!
//! Between calls the clock naps: it wakes up every few milliseconds only, so that short calls at a thousand requests a second do not wake it
//! up as often as the workers. A nap is no longer than the first part of the deadline of any call, so the deadline of a call that begins
//! during a nap is checked in time. After [`IDLE`] ticks without a call the clock sleeps until the next call.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

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

/// A stripe counts running calls in its lower half and begun calls in its upper half.
const BEGUN: u64 = 1 << 32;
const RUNNING: u64 = BEGUN - 1;

/// Handle of the clock thread of one engine. The thread ends when the last handle is dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

struct Shared {
    /// When the clock was started.
    start: Instant,
    /// Ticks that have passed. Constant while the clock sleeps, and behind by less than `nap`.
    ticks: AtomicU64,
    /// Length of the current nap in ticks; 1 between naps.
    nap: AtomicU64,
    /// When the nap began, in nanoseconds since `start`.
    napping_since: AtomicU64,
    /// Maximum length of the next nap in ticks: no longer than the first part of the deadline of any call.
    longest_nap: AtomicU64,
    #[cfg(test)]
    wakes: AtomicU64,
    stripes: [Stripe; STRIPES],
    sleeps: AtomicBool,
    has_ended: AtomicBool,
}

/// On a cache line of its own, so that workers do not contend for it.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A running call. The clock does not sleep until this is dropped.
pub(crate) struct Running<'t>(&'t Stripe);

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
            ticks: AtomicU64::new(0),
            nap: AtomicU64::new(1),
            napping_since: AtomicU64::new(0),
            longest_nap: AtomicU64::new(LONGEST_NAP),
            #[cfg(test)]
            wakes: AtomicU64::new(0),
            stripes: std::array::from_fn(|_| Stripe::default()),
            sleeps: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
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
    ///
    /// No call runs while the clock sleeps. This function first counts the call and then reads `sleeps`; [`Shared::rest`] first sets
    /// `sleeps` and then reads the counts. All four operations are sequentially consistent, so they have one total order, and in each
    /// order at least one side sees the other: either the clock sees the call and does not sleep, or the call sees that the clock
    /// sleeps and wakes it.
    #[inline]
    pub(crate) fn begin(&self) -> Running<'_> {
        let stripe = &self.shared.stripes[stripe()];
        stripe.0.fetch_add(BEGUN + 1, Ordering::SeqCst);
        if self.shared.sleeps.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(stripe)
    }

    /// Whether the clock is asleep.
    pub(crate) fn sleeps(&self) -> bool {
        self.shared.sleeps.load(Ordering::SeqCst)
    }

    /// Number of ticks so far. A call ends when this reaches its deadline.
    #[inline]
    fn now(&self) -> u64 {
        self.shared.ticks.load(Ordering::Relaxed)
    }

    /// Number of ticks so far, including the elapsed part of a nap. The deadline of a call with `first` ticks counts from here.
    #[inline]
    fn begun(&self, first: u64) -> u64 {
        let Shared {
            start,
            ticks,
            nap,
            napping_since,
            longest_nap,
            ..
        } = &*self.shared;
        if first < longest_nap.load(Ordering::Relaxed) {
            self.shorten_naps(first);
        }
        // `nap` is read before `ticks`, which is written first when the nap ends. At worst a nap that has just ended is counted twice, and
        // the call gets a few ticks more, never less.
        let nap = nap.load(Ordering::Acquire);
        let passed = match nap {
            0 | 1 => 0,
            nap => {
                let since = Duration::from_nanos(napping_since.load(Ordering::Relaxed));
                passed_of(nap, start.elapsed().saturating_sub(since))
            }
        };
        ticks.load(Ordering::Relaxed) + passed
    }

    /// Limits naps for a call whose first part is shorter than the longest nap, and ends the current nap.
    #[cold]
    fn shorten_naps(&self, first: u64) {
        let longest_nap = &self.shared.longest_nap;
        longest_nap.fetch_min(first.max(1), Ordering::Relaxed);
        self.thread.unpark();
    }

    #[cold]
    fn wake(&self) {
        if self.shared.sleeps.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        self.wake();
    }
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        // Relaxed: the count orders nothing else.
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        let (mut begun, mut idle, mut nap) = (0, 0, 1);
        while !self.has_ended.load(Ordering::SeqCst) {
            let passed = self.nap(nap);
            let Some(engine) = engine.upgrade() else {
                return;
            };
            // The epoch makes each running call check its deadline.
            engine.increment_epoch();
            drop(engine);
            let (running, begun_now) = self.calls();
            idle = match running == 0 && begun_now == begun {
                true => idle + passed,
                false => 0,
            };
            begun = begun_now;
            nap = match running {
                0 => self.longest_nap.load(Ordering::Relaxed),
                _ => 1,
            };
            if idle >= IDLE {
                self.rest();
                (idle, nap) = (0, 1);
            }
        }
    }

    /// Parks for `ticks` ticks, or until a call with a shorter first part begins. Returns the ticks that passed.
    fn nap(&self, ticks: u64) -> u64 {
        let since = self.start.elapsed();
        let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.napping_since.store(nanoseconds, Ordering::Relaxed);
        self.nap.store(ticks, Ordering::Release);
        thread::park_timeout(TICK * u32::try_from(ticks).unwrap_or(1));
        // Time beyond the nap does not count: whatever keeps this thread from running usually keeps the calls from running, too.
        let passed = passed_of(ticks + 1, self.start.elapsed().saturating_sub(since));
        self.ticks.fetch_add(passed, Ordering::Relaxed);
        self.nap.store(1, Ordering::Release);
        #[cfg(test)]
        self.wakes.fetch_add(1, Ordering::Relaxed);
        passed
    }

    /// Parks until the next call, unless one is running. See [`Ticker::begin`].
    fn rest(&self) {
        // The policy that shortened the naps may have been replaced.
        self.longest_nap.store(LONGEST_NAP, Ordering::Relaxed);
        self.sleeps.store(true, Ordering::SeqCst);
        let (running, _) = self.calls();
        if running > 0 || self.has_ended.load(Ordering::SeqCst) {
            self.sleeps.store(false, Ordering::SeqCst);
            return;
        }
        // `park` may return spuriously.
        while self.sleeps.load(Ordering::SeqCst) {
            thread::park();
        }
    }

    /// Number of running calls, and a number that changes when a call begins.
    fn calls(&self) -> (u64, u64) {
        let stripes = self.stripes.iter();
        let stripes = stripes.map(|stripe| stripe.0.load(Ordering::SeqCst));
        stripes.fold((0, 0), |(running, begun), stripe| {
            let begun = u64::wrapping_add(begun, stripe >> 32);
            (running + (stripe & RUNNING), begun)
        })
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

/// Whole ticks in a duration, at most `bound - 1`.
fn passed_of(bound: u64, time: Duration) -> u64 {
    let ticks = time.as_nanos() / TICK.as_nanos();
    u64::try_from(ticks).unwrap_or(u64::MAX).min(bound - 1)
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

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
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
    fn the_deadline_of_a_call_that_begins_in_a_nap_counts_from_its_begin() {
        let passed = |nap, microseconds| passed_of(nap, Duration::from_micros(microseconds));
        assert_eq!(passed(4, 0), 0);
        assert_eq!(passed(4, 999), 0);
        assert_eq!(passed(4, 2_500), 2);
        // The clock is late: the nap counts as one that ends now.
        assert_eq!(passed(4, 3_999), 3);
        assert_eq!(passed(4, 100_000), 3);
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
        until(|| shared.nap.load(Ordering::Relaxed) == 1);
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
