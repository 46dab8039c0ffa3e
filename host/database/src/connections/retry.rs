//! Writes that are repeated.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Connections;
use crate::Failure;
use crate::failure::Retry;

/// How long a write that conflicts with others is tried again. In each conflict one of them is finished, so that each gets its turn.
const CONFLICTS: Duration = Duration::from_secs(30);

/// How long a write is tried again after a server has failed: a cluster needs some seconds to exclude a node that is gone.
const FAILOVER: Duration = Duration::from_secs(12);

/// The longest pause before the first retry; it doubles with each one, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause between two tries. Each pause is a random part of the longest one, so that those who conflict do not meet again.
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// The state of a write before one of its tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Whether an earlier try may have been committed: its connection ended before the answer. Then the write must first look whether what it
    /// would write is there.
    pub may_be_done: bool,
}

/// An error that may be a failure of the database.
pub trait HasFailure {
    /// The failure.
    fn failure(&self) -> Option<&Failure>;
}

impl HasFailure for Failure {
    fn failure(&self) -> Option<&Failure> {
        Some(self)
    }
}

impl Connections {
    /// Runs a write, and runs it again after a conflict with another transaction (a deadlock, or a conflict of a certification), on another
    /// server if the one in use does not write any more, and after the loss of a connection. The write takes its connection itself. A try that
    /// [may be done](Try::may_be_done) must not act twice.
    ///
    /// # Errors
    /// The error of the last try; that of the try whose result is unknown, if no server can be asked for it.
    pub async fn retried<T, E, F>(&self, write: impl Fn(Try) -> F) -> Result<T, E>
    where
        E: HasFailure,
        F: Future<Output = Result<T, E>>,
    {
        let begun = Instant::now();
        let mut longest = FIRST_PAUSE;
        // The error of a try that may have been committed.
        let mut unknown: Option<E> = None;
        loop {
            let may_be_done = unknown.is_some();
            let error = match write(Try { may_be_done }).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let retry = error.failure().map_or(Retry::No, Failure::retry);
            let is_in_time = |time: Duration| begun.elapsed() < time;
            let is_again = match retry {
                Retry::No => false,
                Retry::Conflict => is_in_time(CONFLICTS),
                Retry::Unknown => is_in_time(FAILOVER),
                Retry::Elsewhere => self.is_cluster() && is_in_time(FAILOVER),
                Retry::Later => (self.is_cluster() || may_be_done) && is_in_time(FAILOVER),
            };
            if !is_again {
                return Err(match (retry, unknown) {
                    (Retry::Later, Some(unknown)) => unknown,
                    _ => error,
                });
            }
            if retry == Retry::Unknown {
                unknown = Some(error);
            }
            self.note_retry();
            sleep(longest.mul_f64(fastrand::f64())).await;
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{DatabaseUrl, DatabaseUrls};

    /// Connections to servers that no other test has.
    fn connections(count: usize) -> Connections {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let database = NUMBER.fetch_add(1, Ordering::Relaxed);
        let url = |server: usize| -> DatabaseUrl {
            let url = format!("mysql://k:p@127.0.0.{server}:1/retry{database}");
            url.parse().unwrap()
        };
        let urls = DatabaseUrls::new((1..=count).map(url).collect()).unwrap();
        Connections::new(urls)
    }

    fn url() -> String {
        "mysql://k@h:3306/k".to_owned()
    }

    fn conflict() -> Failure {
        let cause = "Deadlock found when trying to get lock; try restarting transaction".to_owned();
        Failure::Conflict { url: url(), cause }
    }

    fn lost() -> Failure {
        let cause = "broken pipe".to_owned();
        Failure::Lost { url: url(), cause }
    }

    fn not_serving() -> Failure {
        let cause = "WSREP has not yet prepared node for application use".to_owned();
        Failure::NotServing { url: url(), cause }
    }

    fn unreachable() -> Failure {
        let cause = "refused".to_owned();
        Failure::Unreachable { url: url(), cause }
    }

    /// A write whose tries end with these errors, the first one last, and then succeed. Returns the argument of each try.
    async fn script(
        connections: &Connections,
        errors: Vec<Failure>,
    ) -> (Result<(), Failure>, Vec<bool>) {
        let errors = RefCell::new(errors);
        let tries = RefCell::new(Vec::new());
        let write = async |one: Try| {
            tries.borrow_mut().push(one.may_be_done);
            match errors.borrow_mut().pop() {
                Some(error) => Err(error),
                None => Ok(()),
            }
        };
        let result = connections.retried(write).await;
        (result, tries.into_inner())
    }

    #[tokio::test]
    async fn a_conflict_is_retried_and_nothing_was_done_before() {
        let one = connections(1);
        let (result, tries) = script(&one, vec![conflict(), conflict()]).await;
        assert_eq!((result, tries), (Ok(()), vec![false, false, false]));
        assert_eq!(one.servers().retries, 2);
    }

    #[tokio::test]
    async fn after_a_lost_connection_each_try_knows_that_the_write_may_be_done() {
        let one = connections(1);
        let (result, tries) = script(&one, vec![conflict(), lost()]).await;
        assert_eq!((result, tries), (Ok(()), vec![false, true, true]));
    }

    #[tokio::test]
    async fn another_server_is_asked_only_where_there_is_one() {
        let (result, tries) = script(&connections(1), vec![not_serving()]).await;
        assert_eq!((result, tries.len()), (Err(not_serving()), 1));
        let (result, tries) = script(&connections(2), vec![unreachable(), not_serving()]).await;
        assert_eq!((result, tries), (Ok(()), vec![false, false, false]));
        let (result, tries) = script(&connections(1), vec![unreachable()]).await;
        assert_eq!((result, tries.len()), (Err(unreachable()), 1));
    }

    #[tokio::test]
    async fn other_errors_are_not_retried() {
        let denied = || Failure::Denied {
            url: url(),
            cause: "no".to_owned(),
        };
        let (result, tries) = script(&connections(2), vec![denied()]).await;
        assert_eq!((result, tries.len()), (Err(denied()), 1));
    }
}
