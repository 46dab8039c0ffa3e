//! Waits for conditions, with a time limit, and never for a fixed time.

use std::time::{Duration, Instant};

/// How long a condition may take. The limit is generous, because test machines are slow and shared; it is reached only by tests that fail.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Time between two calls of a probe.
const BETWEEN_CALLS: Duration = Duration::from_millis(2);

/// Calls `probe` until it returns a value.
///
/// # Panics
/// After `PATIENCE`, with `what` in the message.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, &mut probe).unwrap_or_else(|| panic!("gave up waiting until {what}"))
}

/// Calls `is_so` until it returns true.
///
/// # Panics
/// After `PATIENCE`, with `what` in the message.
pub fn until_true(what: &str, mut is_so: impl FnMut() -> bool) {
    until(what, || is_so().then_some(()));
}

/// The same in a task, which lets others run between two calls.
///
/// # Panics
/// After `PATIENCE`, with `what` in the message.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(BETWEEN_CALLS).await;
    }
}

/// The same as [`until`] with another limit; none if it is over.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(BETWEEN_CALLS);
    }
}
