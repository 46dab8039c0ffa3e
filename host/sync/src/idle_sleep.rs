//! Sleep of a thread that other threads need only while their work is running.

use std::sync::atomic::Ordering;

use crate::primitives::{AtomicBool, AtomicU64, Thread, one_total_order, park};

/// Lets one thread, the sleeper, sleep while no work is running. The thread that begins work wakes the sleeper.
///
/// The work of each of `STRIPES` groups of threads is counted on a cache line of its own.
#[derive(Debug)]
pub struct IdleSleep<const STRIPES: usize> {
    stripes: [Stripe; STRIPES],
    sleeps: AtomicBool,
    has_ended: AtomicBool,
}

/// Counts running work in its lower half and begun work in its upper half. On a cache line of its own, so that threads do not contend for it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// Work that is running. The sleeper does not sleep until this is dropped.
#[derive(Debug)]
pub struct Running<'s>(&'s Stripe);

/// The work of all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// How much is running.
    pub running: u64,
    /// A number that changes when work begins.
    pub begun: u64,
}

const BEGUN: u64 = 1 << 32;
const RUNNING: u64 = BEGUN - 1;

impl<const STRIPES: usize> IdleSleep<STRIPES> {
    /// No work is running, and the sleeper is awake.
    pub fn new() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Stripe::default()),
            sleeps: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Counts work that begins in this stripe, and wakes the sleeper if it sleeps.
    ///
    /// No work is running while the sleeper sleeps. This function first counts the work and then reads `sleeps`; [`IdleSleep::sleep`] first
    /// sets `sleeps` and then reads the counts. All four operations are sequentially consistent, so they have one total order, and in each
    /// order at least one side sees the other: either the sleeper sees the work and does not sleep, or this function sees that the
    /// sleeper sleeps and wakes it.
    #[inline]
    pub fn begin(&self, stripe: usize, sleeper: &Thread) -> Running<'_> {
        let stripe = &self.stripes[stripe % STRIPES];
        stripe.0.fetch_add(BEGUN + 1, Ordering::SeqCst);
        one_total_order();
        if self.sleeps.load(Ordering::SeqCst) {
            self.wake(sleeper);
        }
        Running(stripe)
    }

    /// Sleeps until work begins, unless some is running. Returns at once after [`IdleSleep::end`]. Only the sleeper may call this.
    pub fn sleep(&self) {
        self.sleeps.store(true, Ordering::SeqCst);
        one_total_order();
        if self.work().running > 0 || self.has_ended() {
            self.sleeps.store(false, Ordering::SeqCst);
            return;
        }
        // `park` may return spuriously.
        while self.sleeps.load(Ordering::SeqCst) {
            park();
        }
    }

    /// Whether the sleeper sleeps.
    pub fn sleeps(&self) -> bool {
        self.sleeps.load(Ordering::SeqCst)
    }

    /// The work of all stripes.
    pub fn work(&self) -> Work {
        let stripes = self.stripes.iter();
        let stripes = stripes.map(|stripe| stripe.0.load(Ordering::SeqCst));
        let none = Work {
            running: 0,
            begun: 0,
        };
        stripes.fold(none, |work, stripe| Work {
            running: work.running + (stripe & RUNNING),
            begun: work.begun.wrapping_add(stripe >> 32),
        })
    }

    /// Tells the sleeper to end, and wakes it if it sleeps.
    pub fn end(&self, sleeper: &Thread) {
        self.has_ended.store(true, Ordering::SeqCst);
        one_total_order();
        self.wake(sleeper);
    }

    /// Whether the sleeper is to end.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    #[cold]
    fn wake(&self, sleeper: &Thread) {
        if self.sleeps.swap(false, Ordering::SeqCst) {
            sleeper.unpark();
        }
    }
}

impl<const STRIPES: usize> Default for IdleSleep<STRIPES> {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        // Relaxed: the count orders nothing else.
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn work_of_all_stripes_is_counted() {
        let idle = IdleSleep::<2>::new();
        let own = thread::current();
        let before = idle.work();
        let first = idle.begin(0, &own);
        let second = idle.begin(3, &own);
        assert_eq!(idle.work().running, 2);
        drop(first);
        assert_eq!(idle.work().running, 1);
        drop(second);
        assert_eq!(idle.work().running, 0);
        assert_ne!(idle.work().begun, before.begun);
    }

    #[test]
    fn the_sleeper_does_not_sleep_while_work_is_running_nor_after_the_end() {
        let idle = IdleSleep::<2>::new();
        let own = thread::current();
        let running = idle.begin(1, &own);
        idle.sleep();
        assert!(!idle.sleeps());
        drop(running);
        idle.end(&own);
        idle.sleep();
        assert!(idle.has_ended() && !idle.sleeps());
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// A sleeper that sleeps once. loom fails a model whose threads all wait for ever.
    fn sleeper(idle: &Arc<IdleSleep<2>>) -> thread::JoinHandle<()> {
        let idle = Arc::clone(idle);
        thread::spawn(move || idle.sleep())
    }

    #[test]
    fn the_sleeper_does_not_sleep_through_work() {
        loom::model(|| {
            let idle = Arc::new(IdleSleep::new());
            let sleeper = sleeper(&idle);
            let running = idle.begin(0, sleeper.thread());
            sleeper.join().expect("the sleeper wakes up");
            drop(running);
            assert!(!idle.sleeps());
        });
    }

    #[test]
    fn work_that_ends_early_does_not_hide_other_work() {
        loom::model(|| {
            let idle = Arc::new(IdleSleep::new());
            let sleeper = sleeper(&idle);
            let other = {
                let (idle, sleeper) = (Arc::clone(&idle), sleeper.thread().clone());
                thread::spawn(move || drop(idle.begin(1, &sleeper)))
            };
            let running = idle.begin(0, sleeper.thread());
            sleeper.join().expect("the sleeper wakes up");
            drop(running);
            other.join().expect("the other thread ends");
        });
    }

    #[test]
    fn the_sleeper_does_not_sleep_through_the_end() {
        loom::model(|| {
            let idle = Arc::new(IdleSleep::new());
            let sleeper = sleeper(&idle);
            idle.end(sleeper.thread());
            sleeper.join().expect("the sleeper ends");
        });
    }
}
