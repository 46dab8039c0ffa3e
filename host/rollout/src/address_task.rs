//! The address table of a running host: loaded at the start, and told of in a line.

use std::sync::Arc;

use anyhow::anyhow;
use portcullis_address::{AddressBook, DatabaseError, Failure, RuleFolder, Table};
use portcullis_config::{DatabaseConfig, PermissionsConfig};

use crate::Registry;

/// The tables of a host that starts.
#[derive(Debug)]
pub struct Opened {
    /// The tables and rules.
    pub book: Arc<AddressBook>,
    /// Parts that are there and can't be used: the interface of the contract that needs each, and what is wrong.
    pub broken: Vec<(&'static str, DatabaseError)>,
}

/// Loads the addresses, the trusted peers and the rules. Without a database that must be there this is an error, otherwise the tables
/// are empty until there is one. A folder of rules that can't be read is an error in any case: without rules everything is allowed.
///
/// # Errors
/// Names the database and both mends, or the folder.
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
        // Peers, policies and tenants are there. Who needs it tells what is wrong with it.
        let _made = book.database().make().await;
    }
    let addresses = book.reload().await.err();
    let trusted = book.reload_trusted().await.err();
    let mut opened = Opened {
        book,
        broken: Vec::new(),
    };
    // Told in the log by the book; the watch goes on trying.
    if !config.required {
        return Ok(opened);
    }
    match addresses {
        Some(error) if is_of_the_table(&error) => opened.broken.push(("permissions", error)),
        Some(error) => return Err(ends_the_start(&error)),
        None => {}
    }
    // A database without such a table trusts nobody, and neither does a user who may not read it: many do without. One that is there and
    // is another than is expected was meant to be used, if a policy asks for it.
    let trusted = trusted.filter(|error| is_of_the_table(error) && config.address_file.is_none());
    opened
        .broken
        .extend(trusted.map(|error| ("trusted", error)));
    Ok(opened)
}

impl Opened {
    /// The tables, if each of them can be used.
    ///
    /// # Errors
    /// Names the first that can't.
    pub fn whole(self) -> anyhow::Result<Arc<AddressBook>> {
        match self.broken.first() {
            Some((_, error)) => Err(ends_the_start(error)),
            None => Ok(self.book),
        }
    }

    /// Whether the policies can do without the parts that can't be used. As in Kamailio, what nobody asks for may be as it likes.
    ///
    /// # Errors
    /// Names the part that a policy asks for.
    pub fn must_do_for(&self, registry: &Registry) -> anyhow::Result<()> {
        for (interface, error) in &self.broken {
            if registry.asks_for(interface) {
                return Err(ends_the_start(error));
            }
            tracing::warn!(
                event = "unused_part_broken",
                interface,
                %error,
                "part of the database cannot be used; no policy asks for it, so the host starts"
            );
        }
        Ok(())
    }
}

/// Whether the database answers, and says that the table is another one than is expected.
fn is_of_the_table(error: &DatabaseError) -> bool {
    matches!(
        error,
        DatabaseError::Database(Failure::Version { .. } | Failure::NoColumn { .. })
    )
}

fn ends_the_start(error: &DatabaseError) -> anyhow::Error {
    anyhow!("{error}; or set `required = false` in [database] to start with an empty table")
}

/// Which table serves: where it comes from, how many rows it has, and how its changes are noticed.
pub fn summary(book: &AddressBook) -> String {
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
        let opened = open(&config, &PermissionsConfig::default()).await.unwrap();
        let book = opened.book;
        assert_eq!(book.current().generation, 0);
        assert!(summary(&book).starts_with("0 rows (0 hosts, 0 subnets, 0 names) from sqlite:"));
    }

    #[tokio::test]
    async fn a_trusted_table_that_cannot_be_used_is_told_unless_it_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default().database;
        config.url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
        config.database().create_tables().await.unwrap();
        // A table that is there, and has no such column.
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
        // One that is not there is what many a database of Kamailio has.
        config.required = true;
        config.schema.trusted = Default::default();
        config.schema.trusted.table = "nobody".parse().unwrap();
        let opened = open(&config, &permissions).await.unwrap();
        assert!(opened.broken.is_empty(), "{opened:?}");
    }
}
