//! Reading and writing.

mod tenants;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_database::{
    Connections, DatabaseUrl, Failure, Link, Name, ReadError, Record, Value,
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

pub use tenants::StoredTenant;

use crate::error::StoreError;
use crate::seat::{Generation, Kept, NewGeneration, Seat, Trial};

/// How long an answer to a statement may take. A connection that is slower is given up, and the next operation opens another one.
const ANSWER: Duration = Duration::from_secs(5);

/// The bytes of a file that come or go in a second at least: a large file may take longer than a statement.
const LEAST_SPEED: usize = 1 << 20;

/// How long a file of SQLite may be locked by somebody else.
const BUSY: Duration = Duration::from_secs(5);

/// How often a push begins again that another one stood in the way of.
const TRIES: usize = 5;

/// The table of files, which who writes files holds: one who stores a file that is there already must not lose it to another one who
/// removes those without a generation.
static ARTIFACTS: Name = Name::known("portcullis_artifact");

/// The columns of a seat, in the order in which they are read.
const SEAT: &str =
    "`seat`, `last`, `active`, `previous`, `candidate`, `share`, `mode`, `revision`, `changed_by`";

/// The same for a generation.
const GENERATION: &str =
    "`seat`, `number`, `digest`, `name`, `contract`, `author`, `note`, `created_at`, `signature`";

/// Where pushed policies are. Each operation takes a connection of its own.
#[derive(Clone, Debug)]
pub struct Store {
    connections: Connections,
}

impl Store {
    /// The store in this database, or over these connections.
    pub fn new(connections: impl Into<Connections>) -> Self {
        Self {
            connections: connections.into(),
        }
    }

    /// A number that grows with every change of a seat.
    ///
    /// # Errors
    /// When the database can't be reached or has no such tables.
    pub async fn revision(&self) -> Result<u64, StoreError> {
        self.sum_of_revisions("portcullis_seat").await
    }

    /// All seats that anything was ever pushed to.
    ///
    /// # Errors
    /// As [`Store::revision`].
    pub async fn seats(&self) -> Result<Vec<Seat>, StoreError> {
        let query = format!("SELECT {SEAT} FROM `portcullis_seat` ORDER BY `seat`");
        self.rows(&query, &[], seat).await
    }

    /// The last generations of a seat, the newest first.
    ///
    /// # Errors
    /// As [`Store::revision`].
    pub async fn generations(&self, seat: &str, most: u32) -> Result<Vec<Generation>, StoreError> {
        let query = format!(
            "SELECT {GENERATION} FROM `portcullis_generation` WHERE `seat` = ? ORDER BY `number` DESC LIMIT ?"
        );
        let values = [seat.into(), i64::from(most).into()];
        self.rows(&query, &values, generation).await
    }

    /// One generation of a seat; none if it was never pushed, or is pruned.
    ///
    /// # Errors
    /// As [`Store::revision`].
    pub async fn generation(
        &self,
        seat: &str,
        number: u64,
    ) -> Result<Option<Generation>, StoreError> {
        let query = format!(
            "SELECT {GENERATION} FROM `portcullis_generation` WHERE `seat` = ? AND `number` = ?"
        );
        let values = [seat.into(), signed(number).into()];
        let found = self.rows(&query, &values, generation).await?;
        Ok(found.into_iter().next())
    }

    /// The file of this digest.
    ///
    /// # Errors
    /// When it is not there, or is not what it was.
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

    /// Stores a policy as the next generation of its seat, which goes on as it is. Of what there is then, the `keep` newest generations
    /// stay, and those that do something.
    ///
    /// # Errors
    /// When it can't be written; then nothing is.
    pub async fn push(&self, new: &NewGeneration<'_>, keep: u32) -> Result<Generation, StoreError> {
        let digest = digest_of(new.bytes);
        let now = now();
        let mut tries = 0;
        let number = loop {
            let mut link = self.open().await?;
            let pushing = push(&mut link, new, &digest, signed(now), keep);
            match self.whole(new.bytes.len(), pushing).await {
                Ok(number) => {
                    link.release().await;
                    break number;
                }
                // Two who push at once may stand in each other's way; the server lets one of them begin again.
                Err(Failure::Conflict { .. }) if tries < TRIES => tries += 1,
                Err(failure) => return Err(failure.into()),
            }
        };
        Ok(Generation {
            seat: new.seat.to_owned(),
            number: number.unsigned_abs(),
            digest,
            name: new.name.to_owned(),
            contract: new.contract.to_owned(),
            author: new.author.to_owned(),
            note: new.note.to_owned(),
            signature: new.signature.to_owned(),
            created_at: now,
        })
    }

    /// Stores which generation of a seat does what. True if it was as `before` says until then; if not, nothing is stored: somebody
    /// else was faster.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn replace(&self, before: &Seat, after: &Seat, by: &str) -> Result<bool, StoreError> {
        let update = "UPDATE `portcullis_seat` SET `active` = ?, `previous` = ?, `candidate` = ?, `share` = ?, `mode` = ?, \
                      `revision` = `revision` + 1, `changed_by` = ?, `changed_at` = ? WHERE `seat` = ? AND `revision` = ?";
        let [active, previous, candidate, share, mode] = roles(after);
        let values = [
            active,
            previous,
            candidate,
            share,
            mode,
            by.into(),
            signed(now()).into(),
            (&after.name).into(),
            signed(before.revision).into(),
        ];
        let mut link = self.open().await?;
        let changed = link.execute(update, &values).await?;
        link.release().await;
        Ok(changed > 0)
    }

    /// Takes over what a host kept in memory of a seat, with its numbers, and which of it does what; `seat` has revision 1 then. False
    /// if something was pushed to the seat by others: then nothing is stored.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn adopt(
        &self,
        seat: &Seat,
        generations: &[Kept<'_>],
        by: &str,
    ) -> Result<bool, StoreError> {
        let bytes = generations.iter().map(|kept| kept.new.bytes.len()).sum();
        let mut link = self.open().await?;
        let adopting = adopt(&mut link, seat, generations, by);
        let adopted = self.whole(bytes, adopting).await?;
        // Where somebody was faster, the end of the connection undoes what was begun.
        link.release().await;
        Ok(adopted)
    }

    pub(crate) fn url(&self) -> &DatabaseUrl {
        self.connections.url()
    }

    pub(crate) async fn open(&self) -> Result<Link, StoreError> {
        Ok(self.connections.take(self.patience(0)).await?)
    }

    pub(crate) async fn rows<T>(
        &self,
        query: &str,
        values: &[Value<'_>],
        read: impl Fn(&Record) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut link = self.open().await?;
        let rows = link.rows(query, values, read).await?;
        link.release().await;
        Ok(rows)
    }

    /// The sum of the column `revision`, which never falls.
    pub(crate) async fn sum_of_revisions(&self, table: &str) -> Result<u64, StoreError> {
        let sum = self
            .connections
            .dialect()
            .as_text("COALESCE(SUM(`revision`), 0)");
        let query = format!("SELECT {sum} FROM `{table}`");
        let sums = self.rows(&query, &[], |row| row.text(0)).await?;
        let sum = sums.into_iter().flatten().next();
        Ok(sum.and_then(|sum| sum.parse().ok()).unwrap_or(0))
    }

    /// Several statements that carry so many bytes and take no longer than one that does.
    async fn whole<T>(
        &self,
        bytes: usize,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let patience = self.patience(bytes);
        match timeout(patience, work).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Failure::Hung {
                url: self.url().to_string(),
                seconds: patience.as_secs(),
            }),
        }
    }

    /// How long a statement may take that carries so many bytes. SQLite waits for other writers meanwhile, and says so.
    fn patience(&self, bytes: usize) -> Duration {
        let busy = match self.url().file() {
            None => Duration::ZERO,
            Some(_) => BUSY,
        };
        ANSWER + busy + Duration::from_secs((bytes / LEAST_SPEED) as u64)
    }
}

/// The statements of a push, in one transaction; the number of the generation.
async fn push(
    link: &mut Link,
    new: &NewGeneration<'_>,
    digest: &str,
    now: i64,
    keep: u32,
) -> Result<i64, Failure> {
    // The limit is that of the whole.
    link.set_limit(Duration::MAX);
    link.begin_write(Some(&ARTIFACTS)).await?;
    insert_artifact(link, digest, new.bytes, now).await?;
    insert_seat(link, new.seat, new.author, now).await?;
    // Whoever pushes at the same time waits here for the number.
    let count = "UPDATE `portcullis_seat` SET `last` = `last` + 1 WHERE `seat` = ?";
    link.execute(count, &[new.seat.into()]).await?;
    let last = "SELECT `last` FROM `portcullis_seat` WHERE `seat` = ?";
    let number = link
        .row(last, &[new.seat.into()], |row| row.integer(0))
        .await?;
    let number = number.flatten().unwrap_or(0);
    insert_generation(link, new, number, digest, now).await?;
    let up_to = number - i64::from(keep);
    link.execute(PRUNE, &[new.seat.into(), up_to.into()])
        .await?;
    link.execute(ORPHANS, &[]).await?;
    link.commit().await?;
    Ok(number)
}

/// The statements that take over what a host kept in memory, in one transaction; whether nobody was faster.
async fn adopt(
    link: &mut Link,
    seat: &Seat,
    generations: &[Kept<'_>],
    by: &str,
) -> Result<bool, Failure> {
    let now = signed(now());
    link.set_limit(Duration::MAX);
    link.begin_write(Some(&ARTIFACTS)).await?;
    insert_seat(link, &seat.name, by, now).await?;
    let update = "UPDATE `portcullis_seat` SET `last` = ?, `active` = ?, `previous` = ?, `candidate` = ?, `share` = ?, \
                  `mode` = ?, `revision` = 1, `changed_by` = ?, `changed_at` = ? \
                  WHERE `seat` = ? AND `last` = 0 AND `revision` = 0";
    let [active, previous, candidate, share, mode] = roles(seat);
    let values = [
        signed(seat.last).into(),
        active,
        previous,
        candidate,
        share,
        mode,
        by.into(),
        now.into(),
        (&seat.name).into(),
    ];
    if link.execute(update, &values).await? == 0 {
        return Ok(false);
    }
    for kept in generations {
        let digest = digest_of(kept.new.bytes);
        let (number, at) = (signed(kept.number), signed(kept.created_at));
        insert_artifact(link, &digest, kept.new.bytes, at).await?;
        insert_generation(link, &kept.new, number, &digest, at).await?;
    }
    link.commit().await?;
    Ok(true)
}

/// Stores a file, if it is not there yet.
async fn insert_artifact(
    link: &mut Link,
    digest: &str,
    bytes: &[u8],
    now: i64,
) -> Result<(), Failure> {
    let row = "`portcullis_artifact` (`digest`, `bytes`, `created_at`) VALUES (?, ?, ?)";
    let insert = link.dialect().insert_if_absent(row);
    let values = [digest.into(), bytes.into(), now.into()];
    link.execute(&insert, &values).await.map(drop)
}

/// Makes the row of a seat, if it is not there yet.
async fn insert_seat(link: &mut Link, seat: &str, by: &str, now: i64) -> Result<(), Failure> {
    let row = "`portcullis_seat` (`seat`, `last`, `revision`, `changed_by`, `changed_at`) VALUES (?, 0, 0, ?, ?)";
    let insert = link.dialect().insert_if_absent(row);
    let values = [seat.into(), by.into(), now.into()];
    link.execute(&insert, &values).await.map(drop)
}

/// Stores a generation under its number.
async fn insert_generation(
    link: &mut Link,
    new: &NewGeneration<'_>,
    number: i64,
    digest: &str,
    now: i64,
) -> Result<(), Failure> {
    let insert = format!(
        "INSERT INTO `portcullis_generation` ({GENERATION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let values = [
        new.seat.into(),
        number.into(),
        digest.into(),
        new.name.into(),
        new.contract.into(),
        new.author.into(),
        new.note.into(),
        now.into(),
        new.signature.into(),
    ];
    link.execute(&insert, &values).await.map(drop)
}

/// The values of the columns `active` to `mode` of a seat.
fn roles(seat: &Seat) -> [Value<'_>; 5] {
    let candidate = seat.candidate;
    [
        seat.active.map(signed).into(),
        seat.previous.map(signed).into(),
        candidate.map(|(number, _)| signed(number)).into(),
        candidate.and_then(|(_, trial)| trial.share()).into(),
        (&seat.mode).into(),
    ]
}

fn seat(row: &Record) -> Result<Seat, ReadError> {
    let number = |at| Ok(row.integer(at)?.map(i64::unsigned_abs));
    let share = row.integer(5)?;
    Ok(Seat {
        name: row.text(0)?.unwrap_or_default(),
        last: number(1)?.unwrap_or(0),
        active: number(2)?,
        previous: number(3)?,
        candidate: number(4)?.map(|number| (number, Trial::of(share))),
        mode: row.text(6)?,
        revision: number(7)?.unwrap_or(0),
        changed_by: row.text(8)?.unwrap_or_default(),
    })
}

fn generation(row: &Record) -> Result<Generation, ReadError> {
    let text = |at| Ok(row.text(at)?.unwrap_or_default());
    let number = |at| Ok(row.integer(at)?.unwrap_or(0).unsigned_abs());
    Ok(Generation {
        seat: text(0)?,
        number: number(1)?,
        digest: text(2)?,
        name: text(3)?,
        contract: text(4)?,
        author: text(5)?,
        note: text(6)?,
        created_at: number(7)?,
        signature: text(8)?,
    })
}

/// Forgets generations of a seat up to a number, but for those that do something.
const PRUNE: &str = "DELETE FROM `portcullis_generation` WHERE `seat` = ? AND `number` <= ? \
     AND `number` NOT IN (SELECT COALESCE(`active`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`) \
     AND `number` NOT IN (SELECT COALESCE(`previous`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`) \
     AND `number` NOT IN (SELECT COALESCE(`candidate`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`)";

/// Forgets files that no generation has.
const ORPHANS: &str = "DELETE FROM `portcullis_artifact` WHERE `digest` NOT IN (SELECT `digest` FROM `portcullis_generation`)";

fn digest_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// No number comes near to the end of either.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
