//! What is stored again after the database was replaced by an older backup.

use std::collections::BTreeMap;

use portcullis_database::{Failure, Link, ReadError, Record, Try};

use super::{Store, generation_row, generation_values, insert_seat, signed};
use crate::artifact::{digest_of, keep_artifact};
use crate::error::StoreError;
use crate::seat::Kept;

/// What has become of a generation that a host has and the database may have lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// The database has it, with the same file.
    IsThere,
    /// It was missing, and is stored again under its number, without a role.
    Stored,
    /// Its number has become that of another file.
    Taken {
        /// The SHA-256 of that file, in hexadecimal.
        digest: String,
    },
}

impl Store {
    /// The digests of all generations of a seat, by number.
    ///
    /// # Errors
    /// When the database cannot be reached or has no such tables.
    pub async fn digests(&self, seat: &str) -> Result<BTreeMap<u64, String>, StoreError> {
        let query = "SELECT `number`, `digest` FROM `portcullis_generation` WHERE `seat` = ?";
        let all = self.rows(query, &[seat.into()], numbered).await?;
        Ok(all.into_iter().collect())
    }

    /// Stores a generation again under its number, unless that number exists, and makes sure that no later push gets the number. May be called
    /// by several hosts at once, and again.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is stored.
    pub async fn put_back(&self, kept: &Kept<'_>) -> Result<PutBack, StoreError> {
        let digest = digest_of(kept.new.bytes);
        // A try that stored the generation before its connection was lost makes the next one find it.
        let put = async |_: Try| {
            let mut link = self.connections.take(self.patience(0)).await?;
            link.set_limit_of_all(self.patience(kept.new.bytes.len()));
            let is_stored = put_back(&mut link, kept, &digest).await?;
            link.release().await;
            Ok::<_, Failure>(is_stored)
        };
        if self.connections.retried(put).await? {
            return Ok(PutBack::Stored);
        }
        let mut all = self.digests(kept.new.seat).await?;
        Ok(match all.remove(&kept.number) {
            Some(other) if other != digest => PutBack::Taken { digest: other },
            Some(_) | None => PutBack::IsThere,
        })
    }
}

/// Stores the file of a generation, then the generation, in one transaction; returns whether the number was free.
async fn put_back(link: &mut Link, kept: &Kept<'_>, digest: &str) -> Result<bool, Failure> {
    let (number, at) = (signed(kept.number), signed(kept.created_at));
    keep_artifact(link, digest, kept.new.bytes).await?;
    link.begin_write(None).await?;
    insert_seat(link, kept.new.seat, kept.new.author, at).await?;
    // Pushes, and other hosts that do the same, wait here.
    let reserve = "UPDATE `portcullis_seat` SET `last` = CASE WHEN `last` < ? THEN ? ELSE `last` END WHERE `seat` = ?";
    let values = [number.into(), number.into(), kept.new.seat.into()];
    link.execute(reserve, &values).await?;
    let insert = link.dialect().insert_if_absent(&generation_row());
    let values = generation_values(&kept.new, number, digest, at);
    let inserted = link.execute(&insert, &values).await?;
    link.commit().await?;
    Ok(inserted > 0)
}

fn numbered(row: &Record) -> Result<(u64, String), ReadError> {
    let number = row.integer(0)?.unwrap_or(0).unsigned_abs();
    Ok((number, row.text(1)?.unwrap_or_default()))
}
