//! Work on the tables of the database.

use portcullis_address::Database;
use portcullis_rpc::Fault;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::Control;

/// Does work on the database on a thread that may block: reading a large table takes CPU time. The work is finished even if the client that
/// asked for it is gone.
///
/// # Errors
/// That of the work, or 500 if it panics.
pub(in crate::commands) async fn with_database<T, F>(
    control: &Control,
    work: impl FnOnce(Database) -> F + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>>,
{
    let database = control.shared.addresses.database().clone();
    let runtime = Handle::current();
    let done = spawn_blocking(move || runtime.block_on(work(database)));
    done.await
        .map_err(|error| Fault::new(500, error.to_string()))?
}
