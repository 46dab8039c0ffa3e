//! The database behind the commands that read and change its tables.

use std::future::Future;

use anyhow::bail;
use portcullis_address::Database;

/// An SQLite file that does not exist: opening it would create it.
pub(super) fn is_absent(database: &Database) -> bool {
    let file = database.url().file();
    database.address_file().is_none() && file.is_some_and(|file| !file.exists())
}

/// # Errors
/// If the database does not exist. `creator` is the command that creates it.
pub(super) fn must_be_there(database: &Database, creator: &str) -> anyhow::Result<()> {
    if is_absent(database) {
        bail!(
            "{} does not exist: `{creator}` creates it, or set another `url` in [database]",
            database.url()
        );
    }
    Ok(())
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}
