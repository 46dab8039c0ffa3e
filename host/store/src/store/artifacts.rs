//! Reading and deleting files.

use portcullis_database::{Failure, Try};

use super::Store;
use crate::artifact::{UNUSED, digest_of};
use crate::error::StoreError;

impl Store {
    /// The file with this digest.
    ///
    /// # Errors
    /// When it does not exist, or does not match its digest.
    pub async fn artifact(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        let length = "SELECT LENGTH(`bytes`) FROM `portcullis_artifact` WHERE `digest` = ?";
        let query = "SELECT `bytes` FROM `portcullis_artifact` WHERE `digest` = ?";
        let values = [digest.into()];
        let mut link = self.open().await?;
        let length = link.row(length, &values, |row| row.integer(0)).await?;
        let length = length.flatten().unwrap_or(0);
        link.set_limit(self.patience(usize::try_from(length).unwrap_or(0)));
        let bytes = link.row(query, &values, |row| row.bytes(0)).await?;
        link.release().await;
        let (url, digest) = (self.url().to_string(), digest.to_owned());
        match bytes {
            Some(bytes) if digest_of(&bytes) == digest => Ok(bytes),
            Some(_) => Err(StoreError::Damaged { url, digest }),
            None => Err(StoreError::NoArtifact { url, digest }),
        }
    }

    /// Deletes the files that no generation has, and that no push has stored or renewed for a while. The list is read without locks, because a
    /// statement that finds and deletes them in one scan would wait for each file that another push has just written, and that push for this
    /// one.
    pub(super) async fn delete_orphans(&self) -> Result<(), StoreError> {
        let now = self.connections.dialect().milliseconds();
        let orphan = format!(
            "`created_at` < {now} / 1000 - {UNUSED} AND `digest` NOT IN (SELECT `digest` FROM `portcullis_generation`)"
        );
        let list = format!("SELECT `digest` FROM `portcullis_artifact` WHERE {orphan}");
        let delete = format!("DELETE FROM `portcullis_artifact` WHERE `digest` = ? AND {orphan}");
        let orphans = self.rows(&list, &[], |row| row.text(0)).await?;
        for digest in orphans.into_iter().flatten() {
            // A file that was renewed meanwhile on another node is a conflict, and is not old any more at the next try.
            let deleted = self.connections.retried(async |_: Try| {
                let mut link = self.connections.take(self.patience(0)).await?;
                link.execute(&delete, &[digest.as_str().into()]).await?;
                link.release().await;
                Ok::<_, Failure>(())
            });
            deleted.await?;
        }
        Ok(())
    }
}
