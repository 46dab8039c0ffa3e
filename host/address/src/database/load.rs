//! Reading the rows.

use portcullis_database::{AddressNames, Failure, Link};

use super::loader::on_a_thread;
use super::loading::{Loaded, Loading, TextRow};
use super::{Absent, Database, DatabaseError};

impl Database {
    /// Reads all rows as a stream and makes a table of them, on a thread of its own, so that a million rows hold nobody up.
    /// A file of SQLite that is not there is made, with its tables.
    ///
    /// # Errors
    /// When the database fails or the table is not the one that is expected, or the file in its place has entries and none that
    /// can be used. A row that cannot be used is no error: it is left out and named.
    pub async fn load(&self) -> Result<Loaded, DatabaseError> {
        self.load_on_a_thread(Absent::Make).await
    }

    /// The same, but a file that is not there is an error: an empty table in place of one that serves would shut everybody
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
        self.each_text_row(absent, |row| loading.take(row, names))
            .await?;
        Ok(loading.finish())
    }

    pub(super) async fn each_text_row(
        &self,
        absent: Absent,
        mut each: impl FnMut(TextRow<'_>),
    ) -> Result<(), DatabaseError> {
        let mut link = self.open(absent).await?;
        let has_id = match self.has_id(&mut link).await {
            // Nobody answers anything else either.
            Err(DatabaseError::Database(failure)) if failure.is_away() => {
                return Err(failure.into());
            }
            has_id => has_id,
        };
        link.begin_read().await?;
        self.check_address_version(&mut link).await?;
        let rows = self.statements().rows(has_id?);
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

    /// Whether the rows have numbers of their own. A table may go without, but not without a column that the configuration names.
    ///
    /// To be asked before a transaction, which a statement that fails would end on some databases.
    async fn has_id(&self, link: &mut Link) -> Result<bool, DatabaseError> {
        let is_usual = self.schema.address.id == AddressNames::default().id;
        match link.run(&self.statements().probe_id()).await {
            Ok(_) => Ok(true),
            Err(Failure::NoColumn { .. }) if is_usual => Ok(false),
            Err(failure) => Err(self.told(failure)),
        }
    }
}
