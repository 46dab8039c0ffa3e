//! Something that is repeated for as long as something else is measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

/// Runs `work` while `change` is repeated without a pause. Returns the result of `work`, and the duration of each change in seconds.
///
/// # Errors
/// Those of both.
pub(super) fn beside<T>(
    mut change: impl FnMut() -> Result<()> + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<f64>)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|threads| {
        let changes = threads.spawn(|| {
            let mut seconds = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                change()?;
                seconds.push(begun.elapsed().as_secs_f64());
            }
            anyhow::Ok(seconds)
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let seconds = changes
            .join()
            .ok()
            .context("the thread that changes the host has panicked")??;
        Ok((done?, seconds))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn changes_are_repeated_until_the_work_is_done() {
        let (sender, receiver) = mpsc::channel();
        let change = move || Ok(sender.send(())?);
        let work = || {
            (0..3).try_for_each(|_| receiver.recv())?;
            // The thread must not fail to send before it has seen that this is done.
            Ok(receiver)
        };
        let (_receiver, seconds) = beside(change, work).unwrap();
        assert!(seconds.len() >= 3);
    }

    #[test]
    fn a_change_that_fails_is_an_error() {
        let failed = beside(|| anyhow::bail!("no"), || Ok(()));
        // Work may be over before the first change.
        assert!(failed.is_err() || failed.is_ok_and(|(_, seconds)| seconds.is_empty()));
    }
}
