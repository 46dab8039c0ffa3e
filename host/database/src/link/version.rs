//! The versions of tables, recorded in the table `version`.

use super::{Column, Link};
use crate::{Failure, Name, Schema, shown};

/// The version of the address table in Kamailio 3 to 6.
pub const ADDRESS_VERSION: i64 = 6;

/// The version of the table of trusted peers in Kamailio 3 to 6.
pub const TRUSTED_VERSION: i64 = 6;

/// The version of the table of the dispatcher in Kamailio 3 to 6.
pub const DISPATCHER_VERSION: i64 = 4;

impl Link {
    /// Checks the version of a table. Kamailio refuses to start with another version, because the columns may have another meaning.
    ///
    /// # Errors
    /// When the version is missing or differs from the one whose columns are `known`, or the database fails.
    pub async fn check_version(
        &mut self,
        schema: &Schema,
        table: &Name,
        known: i64,
    ) -> Result<(), Failure> {
        let versions = &schema.version_table;
        let version = self.dialect().text(&Name::known("table_version"));
        let sql = format!(
            "SELECT {version} FROM {} WHERE table_name = {}",
            versions.quoted(),
            table.literal()
        );
        let mut found = None;
        let take =
            |[version]: [Column<'_>; 1]| found = found.take().or_else(|| Some(version.shown()));
        let asked = self.each(&sql, take).await;
        asked.map_err(|failure| failure.with_columns(schema))?;
        match found {
            Some(version) if version.parse() == Ok(known) => Ok(()),
            found => Err(Failure::Version {
                url: self.url().to_string(),
                table: table.to_string(),
                found: found.as_deref().map(shown),
                known,
                mend: mend(versions, table, known, found.is_some()),
            }),
        }
    }
}

/// What to do about a wrong or missing row in the table of versions.
fn mend(versions: &Name, table: &Name, known: i64, is_there: bool) -> String {
    match is_there {
        true => format!(
            "upgrade the database with Kamailio's tools; if the columns are those of version {known}, \
             UPDATE {versions} SET table_version = {known} WHERE table_name = '{table}'"
        ),
        false => format!(
            "if the table is Kamailio's, as of Kamailio 3 to 6, \
             INSERT INTO {versions} (table_name, table_version) VALUES ('{table}', {known})"
        ),
    }
}
