//! The address table of a running host: loaded at the start, and told of in a line.

use std::sync::Arc;

use anyhow::anyhow;
use portcullis_address::{AddressBook, DatabaseError, RuleFolder, Table};

use crate::config::{DatabaseConfig, PermissionsConfig};

/// Loads the addresses, the trusted peers and the rules. Without a database that must be there this is an error, otherwise the tables
/// are empty until there is one. A folder of rules that can't be read is an error in any case: without rules everything is allowed.
///
/// # Errors
/// Names the database and both mends, or the folder.
pub(crate) async fn open(
    config: &DatabaseConfig,
    permissions: &PermissionsConfig,
) -> anyhow::Result<Arc<AddressBook>> {
    let folder = RuleFolder::new(&permissions.folder);
    let book = AddressBook::with_rules(config.database(), folder, config.book_options());
    let book = Arc::new(book);
    book.reload_rules().await?;
    if config.address_file.is_some() {
        // Peers, policies and tenants are there. Who needs it tells what is wrong with it.
        let _made = book.database().make().await;
    }
    let addresses = book.reload().await;
    let trusted = book.reload_trusted().await.map(drop);
    // A database without such a table trusts nobody, and neither does a user who may not read it: many do without. One that is there and
    // is another than is expected was meant to be used.
    let is_broken = |error: &DatabaseError| {
        matches!(
            error,
            DatabaseError::Version { .. } | DatabaseError::NoColumn { .. }
        ) && config.address_file.is_none()
    };
    let broken = addresses.err().or_else(|| trusted.err().filter(is_broken));
    match broken {
        Some(error) if config.required => Err(anyhow!(
            "{error}; or set `required = false` in [database] to start with an empty table"
        )),
        // Told in the log by the book; the watch goes on trying.
        Some(_) | None => Ok(book),
    }
}

/// Which table serves: where it comes from, how many rows it has, and how its changes are noticed.
pub(crate) fn summary(book: &AddressBook) -> String {
    let snapshot = book.current();
    let skipped = match snapshot.counts.skipped {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    let seen = match book.status().changes_seen_by {
        Some(source) => format!(", changes seen by {source}"),
        None => String::new(),
    };
    format!(
        "{}{skipped} from {}{seen}",
        counts(&snapshot.table),
        book.database().address_source()
    )
}

/// How many rows of each kind a table has.
pub(crate) fn counts(table: &Table) -> String {
    let number = |n: usize, noun: &str| match n {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    };
    format!(
        "{} ({}, {}, {})",
        number(table.len(), "row"),
        number(table.host_count(), "host"),
        number(table.subnet_count(), "subnet"),
        number(table.domain_count(), "name")
    )
}

#[cfg(test)]
mod tests {
    use portcullis_address::DatabaseUrl;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_database_that_is_not_there_ends_the_start_unless_it_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default().database;
        // A folder is no database.
        config.url = DatabaseUrl::Sqlite(folder.path().to_owned());
        let error = open(&config, &PermissionsConfig::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(folder.path().to_str().unwrap()) && error.contains("required = false"),
            "{error}"
        );
        config.required = false;
        let book = open(&config, &PermissionsConfig::default()).await.unwrap();
        assert_eq!(book.current().generation, 0);
        assert!(summary(&book).starts_with("0 rows (0 hosts, 0 subnets, 0 names) from sqlite:"));
    }

    #[tokio::test]
    async fn a_trusted_table_that_cannot_be_used_ends_the_start_unless_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default().database;
        config.url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
        config.database().create_tables().await.unwrap();
        // A table that is there, and has no such column.
        config.schema.trusted.source = "peer".parse().unwrap();
        let permissions = PermissionsConfig::default();

        let error = open(&config, &permissions).await.unwrap_err().to_string();
        assert!(
            error.contains("peer") && error.contains("required = false"),
            "{error}"
        );
        config.required = false;
        open(&config, &permissions).await.unwrap();
        // One that is not there is what many a database of Kamailio has.
        config.required = true;
        config.schema.trusted = Default::default();
        config.schema.trusted.table = "nobody".parse().unwrap();
        open(&config, &permissions).await.unwrap();
    }
}
