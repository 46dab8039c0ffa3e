//! Waiting for a condition with a deadline, never for a length of time.

use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up on it. Generous, because test machines are slow and shared, and nobody waits
/// for it where things work.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks `probe` until it gives a value.
///
/// # Panics
/// When `PATIENCE` is over, with `what` in the message.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, &mut probe).unwrap_or_else(|| panic!("gave up waiting until {what}"))
}

/// The same with another limit; none if it is over.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
