//! Threads that load tables: as many as concurrent loads, and reused.
//!
//! A new thread for each load would use more memory: the allocator assigns an arena to each new thread, and every arena retains the memory
//! that a table once occupied.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::DatabaseError;

type Job = Box<dyn FnOnce(&Runtime) + Send>;

/// Idle threads, in the order in which they became idle; the last one is reused first.
static IDLE: Mutex<Vec<Sender<Job>>> = Mutex::new(Vec::new());

/// Runs a load on one of these threads.
///
/// # Errors
/// Those of the load, or if no thread can be started, or if the load panics.
pub(super) async fn on_a_thread<T, F>(
    load: impl FnOnce() -> F + Send + 'static,
) -> Result<T, DatabaseError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DatabaseError>>,
{
    let (done, loaded) = oneshot::channel();
    let job = move |runtime: &Runtime| {
        let result = runtime.block_on(load());
        // The caller may be gone.
        let _unasked = done.send(result);
    };
    start(Box::new(job)).map_err(|error| DatabaseError::Build(error.to_string()))?;
    let ended = || DatabaseError::Build("the thread that loads the table ended early".to_owned());
    loaded.await.map_err(|_| ended())?
}

fn start(mut job: Job) -> io::Result<()> {
    loop {
        let Some(idle) = IDLE.lock().pop() else {
            return spawn(job);
        };
        match idle.send(job) {
            Ok(()) => return Ok(()),
            // That thread has ended.
            Err(unsent) => job = unsent.0,
        }
    }
}

fn spawn(first: Job) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (jobs, next) = channel();
    std::thread::Builder::new()
        .name("address-load".to_owned())
        .spawn(move || work(&runtime, first, &jobs, &next))
        .map(drop)
}

/// Works until the process ends, or until a load panics.
fn work(runtime: &Runtime, first: Job, jobs: &Sender<Job>, next: &Receiver<Job>) {
    first(runtime);
    loop {
        IDLE.lock().push(jobs.clone());
        let Ok(job) = next.recv() else {
            return;
        };
        job(runtime);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use portcullis_testkit::wait::eventually;

    use super::*;

    #[tokio::test]
    async fn a_thread_is_reused_unless_it_panicked() {
        let id = || async { Ok(std::thread::current().id()) };
        let mut threads = HashSet::new();
        for _ in 0..20 {
            threads.insert(on_a_thread(id).await.unwrap());
            // The thread becomes idle shortly after its result arrives.
            eventually("the thread is idle", || !IDLE.lock().is_empty()).await;
        }
        // Other tests may use further threads.
        assert!(threads.len() < 20, "{threads:?}");

        let panicking = on_a_thread::<(), _>(|| async { panic!("a test of panics") });
        let error = panicking.await.unwrap_err().to_string();
        assert!(error.contains("ended early"), "{error}");
        on_a_thread(id).await.unwrap();
    }
}
