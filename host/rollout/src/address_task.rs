//! Loading the tables and rules at the start of the host.

use std::sync::Arc;

use anyhow::anyhow;
use portcullis_address::{AddressBook, DatabaseError, Failure, RuleFolder, Table};
use portcullis_config::{DatabaseConfig, PermissionsConfig};

use crate::Registry;

/// The tables and rules of a host that starts.
#[derive(Debug)]
pub struct Opened {
    /// The tables and rules.
    pub book: Arc<AddressBook>,
    /// Parts that exist but cannot be used: the interface of the contract that needs the part, and the error.
    pub broken: Vec<(&'static str, DatabaseError)>,
}

/// Loads the addresses, the trusted peers and the rules. If `required` is false, an unreachable database leaves the tables empty until it
/// can be reached. A directory of rules that cannot be read is an error in any case, because without rules everything is allowed.
///
/// # Errors
/// If a part cannot be loaded. The error names the database and how to correct it, or the directory.
pub async fn open(
    config: &DatabaseConfig,
    permissions: &PermissionsConfig,
) -> anyhow::Result<Opened> {
    let memory = permissions.pattern_memory;
    let folder = RuleFolder::new(&permissions.folder).with_pattern_memory(memory);
    let database = config.database().with_pattern_memory(memory).kept();
    let book = AddressBook::with_rules(database, folder, config.book_options());
    let book = Arc::new(book);
    book.reload_rules().await?;
    if config.address_file.is_some() {
        // Creates the SQLite file, if there is none. An error is reported by the load below.
        let _made = book.database().make().await;
    }
    let addresses = book.reload().await.err();
    let trusted = book.reload_trusted().await.err();
    let mut opened = Opened {
        book,
        broken: Vec::new(),
    };
    // The address book logs the error, and its watch tries again.
    if !config.required {
        return Ok(opened);
    }
    match addresses {
        Some(error) if is_of_the_table(&error) => opened.broken.push(("permissions", error)),
        Some(error) => return Err(ends_the_start(&error)),
        None => {}
    }
    // Many databases have no trusted table, or the user may not read it: then there are no trusted peers. A trusted table with unexpected
    // columns is an error if a policy queries trusted peers.
    let trusted = trusted.filter(|error| is_of_the_table(error) && config.address_file.is_none());
    opened
        .broken
        .extend(trusted.map(|error| ("trusted", error)));
    Ok(opened)
}

impl Opened {
    /// Returns the tables and rules if every part can be used.
    ///
    /// # Errors
    /// If a part cannot be used. The error names the first such part.
    pub fn whole(self) -> anyhow::Result<Arc<AddressBook>> {
        match self.broken.first() {
            Some((_, error)) => Err(ends_the_start(error)),
            None => Ok(self.book),
        }
    }

    /// Checks that no policy needs a part that cannot be used. As in Kamailio, a part that is not queried may be in any state.
    ///
    /// # Errors
    /// If a policy needs such a part. The error names the part.
    pub fn must_do_for(&self, registry: &Registry) -> anyhow::Result<()> {
        for (interface, error) in &self.broken {
            if registry.asks_for(interface) {
                return Err(ends_the_start(error));
            }
            tracing::warn!(
                event = "unused_part_broken",
                interface,
                %error,
                "part of the database cannot be used; no policy queries it, so the host starts"
            );
        }
        Ok(())
    }
}

/// Whether the database answers and reports that the table differs from what is expected.
pub fn is_of_the_table(error: &DatabaseError) -> bool {
    matches!(
        error,
        DatabaseError::Database(Failure::Version { .. } | Failure::NoColumn { .. })
    )
}

fn ends_the_start(error: &DatabaseError) -> anyhow::Error {
    anyhow!("{error}; or set `required = false` in [database] to start with an empty table")
}

/// Describes the address table: its source, its number of rows, and how its changes are detected.
pub fn summary(book: &AddressBook) -> String {
    let snapshot = book.current();
    let skipped = match snapshot.counts.skipped {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    let seen = match book.status().changes_seen_by {
        Some(source) => format!(", changes detected by {source}"),
        None => String::new(),
    };
    format!(
        "{}{skipped} from {}{seen}",
        counts(&snapshot.table),
        book.database().address_source()
    )
}

/// Describes how many rows of each kind a table has.
pub fn counts(table: &Table) -> String {
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
    use portcullis_config::Config;

    use super::*;

    #[tokio::test]
    async fn an_unreachable_database_ends_the_start_only_if_it_is_required() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default().database;
        // A directory is not a database.
        config.url = DatabaseUrl::Sqlite(folder.path().to_owned()).into();
        let error = open(&config, &PermissionsConfig::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(folder.path().to_str().unwrap()) && error.contains("required = false"),
            "{error}"
        );
        config.required = false;
        let opened = open(&config, &PermissionsConfig::default()).await.unwrap();
        let book = opened.book;
        assert_eq!(book.current().generation, 0);
        assert!(summary(&book).starts_with("0 rows (0 hosts, 0 subnets, 0 names) from sqlite:"));
    }

    #[tokio::test]
    async fn an_unusable_trusted_table_is_reported_only_if_the_database_is_required() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default().database;
        config.url = DatabaseUrl::Sqlite(folder.path().join("table.db")).into();
        config.database().create_tables().await.unwrap();
        // The table exists, but not this column.
        config.schema.trusted.source = "peer".parse().unwrap();
        let permissions = PermissionsConfig::default();

        let opened = open(&config, &permissions).await.unwrap();
        let [("trusted", error)] = &opened.broken[..] else {
            panic!("{opened:?}");
        };
        assert!(error.to_string().contains("peer"), "{error}");
        config.required = false;
        let opened = open(&config, &permissions).await.unwrap();
        assert!(opened.broken.is_empty(), "{opened:?}");
        // Many of Kamailio's databases have no trusted table.
        config.required = true;
        config.schema.trusted = Default::default();
        config.schema.trusted.table = "nobody".parse().unwrap();
        let opened = open(&config, &permissions).await.unwrap();
        assert!(opened.broken.is_empty(), "{opened:?}");
    }
}
