//! Rate-limited log lines for events that may occur thousands of times per second: the first immediately, then one per interval with a
//! count.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

/// Minimum interval between two log lines of the same kind.
const INTERVAL: Duration = Duration::from_secs(30);

/// Decides when an event of one kind is logged.
#[derive(Debug)]
pub struct Throttle(Mutex<State>);

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    unlogged: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Throttle {
    /// No events yet.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            last: None,
            unlogged: 0,
        }))
    }

    /// Counts one event. `Some` means that it is to be logged, with the number of events since the last line.
    pub fn event(&self) -> Option<u64> {
        self.event_at(Instant::now())
    }

    fn event_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let is_due = state.last.is_none_or(|last| now - last >= INTERVAL);
        if !is_due {
            state.unlogged += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.unlogged))
    }
}

/// Rate limit of the lines about missing descriptors.
static NO_DESCRIPTOR: Throttle = Throttle::new();

/// Whether a socket could not be created because the process (EMFILE) or the system (ENFILE) has no descriptor left, or no memory for one.
/// Logs it. `whom` is the requester.
pub fn descriptors_are_short(error: &io::Error, whom: &str) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    let is_short = matches!(
        number,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    );
    if is_short && let Some(unlogged) = NO_DESCRIPTOR.event() {
        warn!(
            event = "no_descriptor",
            %error,
            whom,
            unlogged,
            "A connection was not accepted: there is no descriptor for it. Raise the limit of open files (LimitNOFILE= in the \
             unit, `ulimit -Hn` in a shell; the system's is fs.file-max)."
        );
    }
    is_short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_at_once_and_the_others_are_counted() {
        let throttle = Throttle::new();
        let start = Instant::now();
        assert_eq!(throttle.event_at(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(throttle.event_at(start), None);
        }
        assert_eq!(throttle.event_at(start + INTERVAL), Some(1000));
        assert_eq!(throttle.event_at(start + INTERVAL), None);
        assert_eq!(throttle.event_at(start + 2 * INTERVAL), Some(1));
    }

    #[test]
    fn only_a_lack_of_descriptors_or_memory_is_one() {
        let is_short = |errno: Errno| {
            let error = io::Error::from_raw_os_error(errno as i32);
            descriptors_are_short(&error, "a test")
        };
        assert!(is_short(Errno::EMFILE) && is_short(Errno::ENFILE));
        assert!(!is_short(Errno::ECONNABORTED) && !is_short(Errno::EAGAIN));
    }
}
