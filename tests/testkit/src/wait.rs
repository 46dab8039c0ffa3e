//! Waits for conditions, with a time limit, and never for a fixed time.

use std::time::{Duration, Instant};

/// How long a condition may take. The limit is generous, because test machines are slow and shared; it is reached only by tests that fail.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Calls `probe` until it returns a value.
///
/// # Panics
/// After `PATIENCE`, with `what` in the message.
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
