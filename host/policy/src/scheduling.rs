//! How the system's scheduler treats a thread.
//!
//! Under EEVDF (Linux 6.12 and later), a thread that wakes up preempts a running one whose time slice is longer. The usual slice is some
//! milliseconds, and may last until the next tick of the scheduler. A short slice needs no privilege, because the share of the processor
//! stays the same. Older kernels ignore slices.

use std::io;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal};
#[cfg(target_os = "linux")]
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
#[cfg(target_os = "linux")]
use nix::time::ClockId;

/// The slice of the policy clock. It is the shortest one that the kernel grants, so that the clock preempts a worker whose policy overruns
/// its deadline.
pub(crate) const CLOCK: Duration = Duration::from_micros(100);

/// The slice of a worker: longer than that of the policy clock, and shorter than that of threads that reload tables or compile policies
/// on the same processor.
pub const WORKER: Duration = Duration::from_micros(400);

/// The slice of a thread in the background. It is longer than that of a worker, which therefore preempts such a thread, and not much longer
/// than [`YIELDS`]: from Linux 6.18 on, a thread that yields gives up the rest of its slice for good.
#[cfg(target_os = "linux")]
const BACKGROUND: Duration = Duration::from_micros(500);

/// Interval of [`yield_at_intervals`]: a worker waits about this long for the processor, in place of a tick of the scheduler.
#[cfg(target_os = "linux")]
const YIELDS: Duration = Duration::from_micros(300);

/// The processor time in nanoseconds that the yielding thread had used when it last yielded.
#[cfg(target_os = "linux")]
static YIELDED_AT: AtomicU64 = AtomicU64::new(0);

/// Requests a time slice for the calling thread. Has no effect on threads with another scheduling policy than the usual one.
///
/// # Errors
/// If the system refuses it. The slice is unchanged then.
#[cfg(target_os = "linux")]
pub fn request(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = slice.as_nanos() as u64;
    set(&attributes)
}

/// Makes the calling thread one that never preempts others when it wakes up (`SCHED_BATCH`), with this niceness or its own, whichever is
/// larger. Threads and processes that it starts inherit this.
///
/// # Errors
/// If the system refuses it.
#[cfg(target_os = "linux")]
pub fn to_background(niceness: u8) -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy == libc::SCHED_IDLE as u32 {
        return Ok(());
    }
    attributes.sched_policy = libc::SCHED_BATCH as u32;
    attributes.sched_priority = 0;
    attributes.sched_nice = attributes.sched_nice.max(niceness.into());
    attributes.sched_runtime = BACKGROUND.as_nanos() as u64;
    set(&attributes)
}

/// Returns the attributes of the calling thread.
#[allow(unsafe_code, reason = "the system call has no safe wrapper")]
#[cfg(target_os = "linux")]
fn attributes() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: all fields are integers, for which zero is valid.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attributes` is writable and `size` bytes long; 0 is the calling thread.
    done(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    attributes.size = size;
    Ok(attributes)
}

#[allow(unsafe_code, reason = "the system call has no safe wrapper")]
#[cfg(target_os = "linux")]
fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: `attributes` is readable and its `size` field is its size; 0 is the calling thread.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) })
}

#[cfg(target_os = "linux")]
fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Yields the processor at intervals while the calling thread computes, until the result is dropped. For long work of a library, whose
/// loops cannot yield.
///
/// Linux lets a running thread keep the processor until the next tick of the scheduler, up to 4 ms later, at any niceness. A worker that
/// lost the processor to this thread would handle no request until then. The thread is interrupted by the signal `SIGALRM`, which the
/// process must not use otherwise. One thread of a process may yield in this way.
///
/// The timer runs while the thread waits for the processor, because one that follows the processor time fires at ticks only. A thread that
/// has just received the processor keeps it, or it would never get further on a busy machine.
///
/// # Errors
/// If the system refuses the timer.
#[cfg(target_os = "linux")]
pub fn yield_at_intervals() -> io::Result<Yields> {
    let handler = SigHandler::Handler(give_way);
    // Reads and writes go on after the signal.
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    #[allow(unsafe_code, reason = "nix has no safe function for this")]
    // SAFETY: the handler calls only functions that are async-signal-safe.
    let _before = unsafe { nix::sys::signal::sigaction(Signal::SIGALRM, &action) }?;
    let notify = SigevNotify::SigevSignal {
        signal: Signal::SIGALRM,
        si_value: 0,
    };
    // nix has a constructor of this only for some C libraries, and not for musl.
    let mut event = SigEvent::new(notify).sigevent();
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_notify_thread_id = nix::unistd::gettid().as_raw();
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::from(&event))?;
    let interval = Expiration::Interval(YIELDS.into());
    timer.set(interval, TimerSetTimeFlags::empty())?;
    Ok(Yields { _timer: timer })
}

/// The timer of [`yield_at_intervals`].
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Yields {
    _timer: Timer,
}

/// Handles the signal. Both system calls always succeed on Linux with these arguments, so that `errno` stays as it is.
#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "the standard library does not document its own functions as async-signal-safe"
)]
extern "C" fn give_way(_signal: libc::c_int) {
    #[cfg(test)]
    tests::SIGNALS.fetch_add(1, Ordering::Relaxed);
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes a `timespec` to memory that is one. POSIX lists the function as async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut used) };
    let used = used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64;
    // A thread that started later than the last one to yield has used less.
    let worked = used.checked_sub(YIELDED_AT.load(Ordering::Relaxed));
    if worked.is_some_and(|worked| worked < YIELDS.as_nanos() as u64 / 2) {
        return;
    }
    YIELDED_AT.store(used, Ordering::Relaxed);
    // SAFETY: the system call has no arguments.
    unsafe { libc::sched_yield() };
    #[cfg(test)]
    tests::YIELDED.fetch_add(1, Ordering::Relaxed);
}

/// Does nothing on other systems.
#[cfg(not(target_os = "linux"))]
pub fn request(_slice: Duration) -> io::Result<()> {
    Ok(())
}

/// Does nothing on other systems.
#[cfg(not(target_os = "linux"))]
pub fn to_background(_niceness: u8) -> io::Result<()> {
    Ok(())
}

/// Does nothing on other systems.
#[cfg(not(target_os = "linux"))]
pub fn yield_at_intervals() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    pub(super) static SIGNALS: AtomicU64 = AtomicU64::new(0);
    pub(super) static YIELDED: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn every_thread_may_shorten_its_slice() {
        for slice in [WORKER, CLOCK] {
            let thread = std::thread::spawn(move || request(slice));
            thread.join().unwrap().unwrap();
        }
    }

    /// A worker may not keep the processor when the deadline of its policy has passed.
    #[test]
    fn the_clock_preempts_workers() {
        assert!(CLOCK < WORKER);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_background_thread_starts_is_in_the_background() {
        let started = std::thread::spawn(|| {
            to_background(19).unwrap();
            // The larger niceness stays.
            to_background(3).unwrap();
            std::thread::spawn(attributes).join().unwrap()
        });
        let attributes = started.join().unwrap().unwrap();
        assert_eq!(attributes.sched_policy, libc::SCHED_BATCH as u32);
        assert_eq!(attributes.sched_nice, 19);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_computes_yields_at_intervals_and_one_that_waits_does_not() {
        let signals = || SIGNALS.load(Ordering::Relaxed);
        let yielded = || YIELDED.load(Ordering::Relaxed);
        let give_up = Instant::now() + Duration::from_secs(10);
        let yields = yield_at_intervals().unwrap();
        while yielded() < 3 && Instant::now() < give_up {}
        assert!(yielded() >= 3, "{}", yielded());
        let (signals_before, yielded_before) = (signals(), yielded());
        while signals() < signals_before + 200 && Instant::now() < give_up {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        drop(yields);
        let (received, yielded) = (signals() - signals_before, yielded() - yielded_before);
        assert!(received >= 200, "{received}");
        assert!(yielded <= received / 2, "{yielded} of {received}");
    }
}
