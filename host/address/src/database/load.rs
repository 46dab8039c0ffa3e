//! Loads of the address table.

use portcullis_database::{AddressNames, Failure, Link, TextRow};

use super::loader::on_a_thread;
use super::loading::{Loaded, Loading};
use super::{Absent, Database, DatabaseError};

impl Database {
    /// Reads all rows as a stream and builds a table, on a thread of its own, so that a million rows do not delay other tasks. A missing
    /// SQLite file is created with its tables.
    ///
    /// # Errors
    /// If the database fails, the table is not the expected one, or the address file has no valid entries. An invalid row is not an error:
    /// it is skipped and reported.
    pub async fn load(&self) -> Result<Loaded, DatabaseError> {
        self.load_on_a_thread(Absent::Make).await
    }

    /// Like [`Database::load`], but a missing SQLite file is an error: an empty table in place of the current one would lock every caller
    /// out.
    pub(crate) async fn load_again(&self) -> Result<Loaded, DatabaseError> {
        self.load_on_a_thread(Absent::Refuse).await
    }

    async fn load_on_a_thread(&self, absent: Absent) -> Result<Loaded, DatabaseError> {
        let database = self.clone();
        on_a_thread(move || async move { database.load_here(absent).await }).await
    }

    async fn load_here(&self, absent: Absent) -> Result<Loaded, DatabaseError> {
        if let Some(file) = &self.address_file {
            return file.load();
        }
        let names = &self.schema.address;
        let mut loading = Loading::default();
        self.each_text_row(absent, |row| loading.take(&row, names))
            .await?;
        Ok(loading.finish())
    }

    pub(super) async fn each_text_row(
        &self,
        absent: Absent,
        mut each: impl FnMut(TextRow<'_, 6>),
    ) -> Result<(), DatabaseError> {
        let mut link = self.open(absent).await?;
        let has_id = match self.has_id(&mut link).await {
            // If the database is unreachable, further queries would fail too.
            Err(DatabaseError::Database(failure)) if failure.is_away() => {
                return Err(failure.into());
            }
            has_id => has_id,
        };
        link.begin_read().await?;
        self.check_address_version(&mut link).await?;
        let rows = self.statements().each().rows(has_id?);
        let mut number = 0;
        let read = link.each(&rows, |columns| {
            number += 1;
            each(TextRow::new(columns, number));
        });
        read.await.map_err(|failure| self.told(failure))?;
        link.commit().await?;
        link.release().await;
        Ok(())
    }

    /// Whether the rows have ids. The table may lack the column, but not if the configuration names it.
    ///
    /// Must be called outside a transaction, which a failing statement would end on some databases.
    pub(super) async fn has_id(&self, link: &mut Link) -> Result<bool, DatabaseError> {
        let is_usual = self.schema.address.id == AddressNames::default().id;
        match link.run(&self.statements().each().probe_id()).await {
            Ok(_) => Ok(true),
            Err(Failure::NoColumn { .. }) if is_usual => Ok(false),
            Err(failure) => Err(self.told(failure)),
        }
    }
}
