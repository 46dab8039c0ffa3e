//! Work on the rows of tables.

use portcullis_address::Database;
use portcullis_rpc::Fault;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::Control;

/// Does work on rows, wherever they are, on a thread that may block: reading a large table takes CPU time. The work is finished even if the client
/// that asked for it is gone.
///
/// # Errors
/// That of the work, or 500 if it panics.
pub(in crate::commands) async fn with_rows<R, T, F>(
    rows: R,
    work: impl FnOnce(R) -> F + Send + 'static,
) -> Result<T, Fault>
where
    R: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>>,
{
    let runtime = Handle::current();
    let done = spawn_blocking(move || runtime.block_on(work(rows)));
    done.await
        .map_err(|error| Fault::new(500, error.to_string()))?
}

/// The same for work that only reads. It ends when the client is gone: when this future is dropped.
///
/// # Errors
/// See [`with_rows`].
pub(in crate::commands) async fn read_rows<R, T, F>(
    rows: R,
    work: impl FnOnce(R) -> F + Send + 'static,
) -> Result<T, Fault>
where
    R: Send + 'static,
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>>,
{
    let (_client, gone) = oneshot::channel();
    with_rows(rows, |rows| unless_gone(gone, work(rows))).await
}

/// [`with_rows`] of the database of addresses.
///
/// # Errors
/// See [`with_rows`].
pub(in crate::commands) async fn with_database<T, F>(
    control: &Control,
    work: impl FnOnce(Database) -> F + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>>,
{
    with_rows(control.shared.addresses.database().clone(), work).await
}

/// [`read_rows`] of the database of addresses.
///
/// # Errors
/// See [`with_rows`].
pub(in crate::commands) async fn read_database<T, F>(
    control: &Control,
    work: impl FnOnce(Database) -> F + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>>,
{
    read_rows(control.shared.addresses.database().clone(), work).await
}

/// Does work until the other end of `gone` is dropped.
async fn unless_gone<T>(
    gone: oneshot::Receiver<()>,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::select! {
        done = work => done,
        _dropped = gone => Err(Fault::new(503, "the client is gone")),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn reading_ends_when_the_client_is_gone() {
        let (client, gone) = oneshot::channel();
        let mut work = pin!(unless_gone(gone, pending::<Result<(), Fault>>()));
        assert!(work.as_mut().now_or_never().is_none());
        drop(client);
        let ended = work.now_or_never().expect("it has ended");
        assert_eq!(ended.unwrap_err().code, 503);

        let (_client, gone) = oneshot::channel();
        let done = unless_gone(gone, async { Ok(7) }).now_or_never();
        assert_eq!(done, Some(Ok(7)));
    }
}
