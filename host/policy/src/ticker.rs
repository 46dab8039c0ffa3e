//! The clock that ends calls. It ticks once a millisecond while a call runs.
//!
//! Between calls it naps: where all calls are short it wakes up every few milliseconds, or a thousand requests a second would have it wake
//! up as often as the workers do. A nap is no longer than the first part of any call's time, so whoever begins in one is looked at in
//! time. After a while without calls the clock sleeps until the next one.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use wasmtime::{Engine, EngineWeak};

use crate::time_slice::be_prompt;

/// The period of the clock.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call after which the clock goes to sleep. To wake it costs the next call a system call.
const IDLE: u64 = 100;

/// Ticks of the longest nap.
const LONGEST_NAP: u64 = 8;

/// Threads that count their calls apart. Some more than a host has workers.
const STRIPES: usize = 64;

/// In a stripe: the calls that run are counted in the lower half, those that were begun in the upper one.
const BEGUN: u64 = 1 << 32;
const RUNNING: u64 = BEGUN - 1;

/// The clock of one engine. It ends when the last of these is gone.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

struct Shared {
    /// When the clock was made.
    start: Instant,
    /// Ticks that have passed. It stands still while the clock sleeps, and is behind by less than `nap`.
    ticks: AtomicU64,
    /// Ticks from the last time that the clock woke up to the next.
    nap: AtomicU64,
    /// When the nap began, in nanoseconds from `start`.
    napping_since: AtomicU64,
    /// How long the next nap may be, in ticks: no longer than the first part of any call's time.
    longest_nap: AtomicU64,
    #[cfg(test)]
    wakes: AtomicU64,
    stripes: [Stripe; STRIPES],
    sleeps: AtomicBool,
    has_ended: AtomicBool,
}

/// On a cache line of its own, so that workers don't wait for each other.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A call that runs: until this is dropped, the clock does not sleep.
pub(crate) struct Running<'t>(&'t Stripe);

/// When a call ends.
#[derive(Default)]
pub(crate) struct End {
    ticker: Option<Arc<Ticker>>,
    at: Cell<u64>,
    /// Ticks that the call gets when it is seen to go on after that. They begin then and not before: somebody else may have had the
    /// processor all the time.
    spare: Cell<u64>,
}

impl Ticker {
    /// Starts the thread that moves the engine's epoch on.
    ///
    /// A thread of the system and not a task: the workers that it interrupts may all be inside policies.
    ///
    /// # Errors
    /// When the system gives no thread.
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
                if let Err(error) = be_prompt() {
                    tracing::debug!(event = "policy_clock_slow", %error, "no short time slice for the policy clock: deadlines are late on a busy processor");
                }
                its.run(&engine);
            })?;
        Ok(Arc::new(Self {
            shared,
            thread: thread.thread().clone(),
        }))
    }

    /// Notes that the calling thread begins a call, and wakes the clock if it sleeps.
    ///
    /// No call runs while the clock sleeps: here the call is counted first and the clock looked at second, there ([`Shared::rest`]) the
    /// sleep is announced first and the calls are looked at second. All four are sequentially consistent, so there is one order of
    /// them, and in each order at least one side sees the other: either the clock sees the call and does not sleep, or the call
    /// sees that it sleeps and wakes it.
    #[inline]
    pub(crate) fn begin(&self) -> Running<'_> {
        let stripe = &self.shared.stripes[stripe()];
        stripe.0.fetch_add(BEGUN + 1, Ordering::SeqCst);
        if self.shared.sleeps.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(stripe)
    }

    /// Whether the clock sleeps.
    pub(crate) fn sleeps(&self) -> bool {
        self.shared.sleeps.load(Ordering::SeqCst)
    }

    /// Ticks that the clock has counted. A call whose end this reaches is over.
    #[inline]
    fn now(&self) -> u64 {
        self.shared.ticks.load(Ordering::Relaxed)
    }

    /// The same with what has passed of a nap: where the time of a call begins that has `first` ticks at first.
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
        // Read before `ticks`, which is written before it when the nap ends: at worst the nap that has just ended is counted twice, and the
        // call gets a few ticks more, never less.
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

    /// A call must be looked at sooner than the clock would wake up.
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
        // What the call did may be seen as late as it likes.
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
            // A call that runs looks at its end now.
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

    /// Sleeps for so many ticks, or until a call comes that does not have as many. Gives those that passed.
    fn nap(&self, ticks: u64) -> u64 {
        let since = self.start.elapsed();
        let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.napping_since.store(nanoseconds, Ordering::Relaxed);
        self.nap.store(ticks, Ordering::Release);
        thread::park_timeout(TICK * u32::try_from(ticks).unwrap_or(1));
        // Whoever keeps this thread from its processor keeps calls from theirs, as a rule: what is beyond the nap does not count.
        let passed = passed_of(ticks + 1, self.start.elapsed().saturating_sub(since));
        self.ticks.fetch_add(passed, Ordering::Relaxed);
        self.nap.store(1, Ordering::Release);
        #[cfg(test)]
        self.wakes.fetch_add(1, Ordering::Relaxed);
        passed
    }

    /// Sleeps until the next call, unless there is one. See [`Ticker::begin`].
    fn rest(&self) {
        // The policy that had naps shortened may be gone.
        self.longest_nap.store(LONGEST_NAP, Ordering::Relaxed);
        self.sleeps.store(true, Ordering::SeqCst);
        let (running, _) = self.calls();
        if running > 0 || self.has_ended.load(Ordering::SeqCst) {
            self.sleeps.store(false, Ordering::SeqCst);
            return;
        }
        // A thread may be woken by nobody.
        while self.sleeps.load(Ordering::SeqCst) {
            thread::park();
        }
    }

    /// The calls that run, and a number that changes when one begins.
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
    /// Sets the end of a call that begins now: after `first` ticks, and `spare` more if it goes on then.
    #[inline]
    pub(crate) fn set(&self, first: u64, spare: u64) {
        let begun = self.ticker.as_ref().map_or(0, |ticker| ticker.begun(first));
        self.at.set(begun.saturating_add(first));
        self.spare.set(spare);
    }

    /// Goes by this clock from now on.
    pub(crate) fn go_by(&mut self, ticker: &Arc<Ticker>) {
        let is_same = |own: &Arc<Ticker>| Arc::ptr_eq(own, ticker);
        if !self.ticker.as_ref().is_some_and(is_same) {
            self.ticker = Some(Arc::clone(ticker));
        }
    }

    /// Whether the call may go on.
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

/// Whole ticks of a time, fewer than `bound`.
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

    fn until(what: impl Fn() -> bool) {
        while !what() {
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
            "it ticked for a call that was over before it woke"
        );
    }

    /// Calls that begin whenever the clock is about to sleep all see it tick.
    #[test]
    fn no_call_is_left_without_a_clock() {
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
    fn the_clock_ends_when_nobody_needs_it() {
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
    fn a_call_ends_after_its_ticks_and_has_those_to_spare_only_once() {
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
        assert!(end.is_ahead(), "it has two more");
        assert!(end.at.get() >= seen + 2);
        until(|| ticker.now() >= end.at.get());
        assert!(!end.is_ahead());
        assert!(!end.is_ahead());
    }

    #[test]
    fn a_call_that_begins_in_a_nap_has_its_time_from_there_on() {
        let passed = |nap, microseconds| passed_of(nap, Duration::from_micros(microseconds));
        assert_eq!(passed(4, 0), 0);
        assert_eq!(passed(4, 999), 0);
        assert_eq!(passed(4, 2_500), 2);
        // The clock is late: the nap counts as if it ended now.
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
