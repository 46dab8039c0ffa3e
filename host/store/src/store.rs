//! Reading and writing.

mod artifacts;
mod audit;
mod marks;
mod restored;
mod rollouts;
mod tenants;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_database::{
    Connections, DatabaseUrl, Failure, Link, ReadError, Record, Try, Unseen, Value,
};

pub use audit::MOST_NOTED;
pub use marks::{Mark, MarkWatch};
pub use restored::PutBack;
pub use rollouts::OPEN;
pub use tenants::StoredTenant;

use crate::artifact::{digest_of, keep_artifact};
use crate::error::StoreError;
use crate::seat::{Generation, Kept, NewGeneration, Seat, Trial};

/// Time limit for the answer to a statement. A connection that exceeds it is closed, and the next operation opens another one.
const ANSWER: Duration = Duration::from_secs(5);

/// Minimum transfer rate of a file, in bytes per second: a large file may take longer than a statement.
const LEAST_SPEED: usize = 1 << 20;

/// Time limit for locks held by others on an SQLite file.
const BUSY: Duration = Duration::from_secs(5);

/// The columns of a seat, in the order in which they are read.
const SEAT: &str = "`seat`, `last`, `active`, `previous`, `candidate`, `share`, `mode`, `revision`, `changed_by`, `changed_at`";

/// The same for a generation.
const GENERATION: &str =
    "`seat`, `number`, `digest`, `name`, `contract`, `author`, `note`, `created_at`, `signature`";

/// The database of pushed policies. Each operation uses its own connection.
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

    /// All seats with at least one push.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn seats(&self) -> Result<Vec<Seat>, StoreError> {
        let query = format!("SELECT {SEAT} FROM `portcullis_seat` ORDER BY `seat`");
        self.rows(&query, &[], seat).await
    }

    /// One seat; `None` if it has no row.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn seat(&self, name: &str) -> Result<Option<Seat>, StoreError> {
        let query = format!("SELECT {SEAT} FROM `portcullis_seat` WHERE `seat` = ?");
        let found = self.rows(&query, &[name.into()], seat).await?;
        Ok(found.into_iter().next())
    }

    /// The last generations of a seat, newest first.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn generations(&self, seat: &str, most: u32) -> Result<Vec<Generation>, StoreError> {
        let query = format!(
            "SELECT {GENERATION} FROM `portcullis_generation` WHERE `seat` = ? ORDER BY `number` DESC LIMIT ?"
        );
        let values = [seat.into(), i64::from(most).into()];
        self.rows(&query, &values, generation).await
    }

    /// One generation of a seat; `None` if it was never pushed, or has been deleted.
    ///
    /// # Errors
    /// As [`Store::mark`].
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

    /// Stores a policy as the next generation of its seat, without changing the roles. Afterwards, of all generations, the `keep` newest
    /// remain and those that have a role.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is stored.
    pub async fn push(&self, new: &NewGeneration<'_>, keep: u32) -> Result<Generation, StoreError> {
        let digest = digest_of(new.bytes);
        let now = now();
        // The number that the last try has taken: the generation is there if that try was committed although its answer was lost.
        let taken = AtomicI64::new(0);
        let number = self.connections.retried(async |one: Try| {
            let mut link = self.connections.take(self.patience(0)).await?;
            let earlier = match one.may_be_done {
                true => taken.load(Ordering::Relaxed),
                false => 0,
            };
            link.set_limit_of_all(self.patience(new.bytes.len()));
            let tries = (&taken, earlier);
            let number = push(&mut link, new, &digest, signed(now), keep, tries).await?;
            link.release().await;
            Ok::<_, Failure>(number)
        });
        let number = number.await?;
        // The policy is stored, whatever comes of this. Files that cannot be deleted now are found again by the next push.
        drop(self.delete_orphans().await);
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

    /// Stores the roles of a seat's generations. True if they were as in `before` until then; otherwise nothing is stored, because another
    /// host was first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn replace(&self, before: &Seat, after: &Seat, by: &str) -> Result<bool, StoreError> {
        let done = self.connections.retried(async |one: Try| {
            let mut link = self.connections.take(self.patience(0)).await?;
            let changed = replace_roles(&mut link, before, after, by).await?;
            let is_done = changed > 0
                || one.may_be_done && is_in(&mut link, after, before.revision + 1, by).await?;
            link.release().await;
            Ok::<_, Failure>(is_done)
        });
        Ok(done.await?)
    }

    /// Stores the generations that a host kept in memory for a seat, with their numbers and roles; `seat` then has revision 1. False if
    /// others have pushed to the seat: then nothing is stored.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn adopt(
        &self,
        seat: &Seat,
        generations: &[Kept<'_>],
        by: &str,
    ) -> Result<bool, StoreError> {
        let bytes = generations.iter().map(|kept| kept.new.bytes.len()).sum();
        let adopted = self.connections.retried(async |one: Try| {
            let mut link = self.connections.take(self.patience(0)).await?;
            if one.may_be_done && is_in(&mut link, seat, 1, by).await? {
                link.release().await;
                return Ok(true);
            }
            link.set_limit_of_all(self.patience(bytes));
            let adopted = adopt(&mut link, seat, generations, by).await?;
            // If another host was first, closing the connection rolls the transaction back.
            link.release().await;
            Ok::<_, Failure>(adopted)
        });
        Ok(adopted.await?)
    }

    /// Returns the connections, for other tables of the same database.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) fn url(&self) -> &DatabaseUrl {
        self.connections.url()
    }

    pub(crate) async fn open(&self) -> Result<Link, StoreError> {
        Ok(self.connections.take(self.patience(0)).await?)
    }

    /// The same for what no host reads again, and is no change of a table: the audit.
    pub(crate) async fn open_unseen(&self) -> Result<Unseen, StoreError> {
        Ok(self.connections.take_unseen(self.patience(0)).await?)
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

    /// Time limit of statements that transfer this many bytes. SQLite waits for other writers meanwhile, and reports it.
    fn patience(&self, bytes: usize) -> Duration {
        let busy = match self.url().file() {
            None => Duration::ZERO,
            Some(_) => BUSY,
        };
        ANSWER + busy + Duration::from_secs((bytes / LEAST_SPEED) as u64)
    }
}

/// Stores the file of a push, then its generation, in one transaction; returns the number of the generation.
async fn push(
    link: &mut Link,
    new: &NewGeneration<'_>,
    digest: &str,
    now: i64,
    keep: u32,
    (taken, earlier): (&AtomicI64, i64),
) -> Result<i64, Failure> {
    keep_artifact(link, digest, new.bytes).await?;
    link.begin_write(None).await?;
    if earlier > 0 {
        // Waits for an earlier try that is still being committed, before anything is read.
        let hold = "UPDATE `portcullis_seat` SET `last` = `last` WHERE `seat` = ?";
        link.execute(hold, &[new.seat.into()]).await?;
        if is_pushed(link, new, earlier, digest, now).await? {
            link.commit().await?;
            return Ok(earlier);
        }
    }
    insert_seat(link, new.seat, new.author, now).await?;
    // Concurrent pushes wait here for their number, before they lock anything else.
    let count = "UPDATE `portcullis_seat` SET `last` = `last` + 1 WHERE `seat` = ?";
    link.execute(count, &[new.seat.into()]).await?;
    let last = "SELECT `last` FROM `portcullis_seat` WHERE `seat` = ?";
    let number = link
        .row(last, &[new.seat.into()], |row| row.integer(0))
        .await?;
    let number = number.flatten().unwrap_or(0);
    taken.store(number, Ordering::Relaxed);
    insert_generation(link, new, number, digest, now).await?;
    let up_to = number - i64::from(keep);
    if up_to > 0 {
        let values = [new.seat.into(), up_to.into()];
        link.execute(PRUNE, &values).await?;
    }
    link.commit().await?;
    Ok(number)
}

/// Whether a generation is there exactly as it would be stored.
async fn is_pushed(
    link: &mut Link,
    new: &NewGeneration<'_>,
    number: i64,
    digest: &str,
    now: i64,
) -> Result<bool, Failure> {
    let query = format!(
        "SELECT {GENERATION} FROM `portcullis_generation` WHERE `seat` = ? AND `number` = ?"
    );
    let found = link
        .row(&query, &[new.seat.into(), number.into()], generation)
        .await?;
    let expected = Generation {
        seat: new.seat.to_owned(),
        number: number.unsigned_abs(),
        digest: digest.to_owned(),
        name: new.name.to_owned(),
        contract: new.contract.to_owned(),
        author: new.author.to_owned(),
        note: new.note.to_owned(),
        created_at: now.unsigned_abs(),
        signature: new.signature.to_owned(),
    };
    Ok(found == Some(expected))
}

/// Whether the roles of a seat are those that were to be stored with this revision.
async fn is_in(link: &mut Link, after: &Seat, revision: u64, by: &str) -> Result<bool, Failure> {
    let query = format!("SELECT {SEAT} FROM `portcullis_seat` WHERE `seat` = ?");
    let found = link.row(&query, &[(&after.name).into()], seat).await?;
    Ok(found.is_some_and(|found| {
        let roles = |seat: &Seat| {
            (
                seat.active,
                seat.previous,
                seat.candidate,
                seat.mode.clone(),
            )
        };
        found.revision == revision && found.changed_by == by && roles(&found) == roles(after)
    }))
}

/// Stores the files of generations from memory, then the generations, in one transaction; returns whether no other host was first.
async fn adopt(
    link: &mut Link,
    seat: &Seat,
    generations: &[Kept<'_>],
    by: &str,
) -> Result<bool, Failure> {
    let now = signed(now());
    let pushed =
        "SELECT 1 FROM `portcullis_seat` WHERE `seat` = ? AND (`last` > 0 OR `revision` > 0)";
    let values = [(&seat.name).into()];
    if !link.rows(pushed, &values, |_| Ok(())).await?.is_empty() {
        return Ok(false);
    }
    for kept in generations {
        keep_artifact(link, &digest_of(kept.new.bytes), kept.new.bytes).await?;
    }
    link.begin_write(None).await?;
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
        insert_generation(link, &kept.new, number, &digest, at).await?;
    }
    link.commit().await?;
    Ok(true)
}

/// Creates the row of a seat, if it does not exist yet.
///
/// An existing row is read without a lock first: the statement would take a shared lock, and two transactions that hold one and then update
/// the row deadlock.
async fn insert_seat(link: &mut Link, seat: &str, by: &str, now: i64) -> Result<(), Failure> {
    let exists = "SELECT 1 FROM `portcullis_seat` WHERE `seat` = ?";
    let found = link
        .row(exists, &[seat.into()], |row| row.integer(0))
        .await?;
    if found.is_some() {
        return Ok(());
    }
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
    let insert = format!("INSERT INTO {}", generation_row());
    let values = generation_values(new, number, digest, now);
    link.execute(&insert, &values).await.map(drop)
}

/// The row of a generation, as the text after `INSERT INTO`.
fn generation_row() -> String {
    format!("`portcullis_generation` ({GENERATION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
}

/// The values of that row.
fn generation_values<'v>(
    new: &NewGeneration<'v>,
    number: i64,
    digest: &'v str,
    now: i64,
) -> [Value<'v>; 9] {
    [
        new.seat.into(),
        number.into(),
        digest.into(),
        new.name.into(),
        new.contract.into(),
        new.author.into(),
        new.note.into(),
        now.into(),
        new.signature.into(),
    ]
}

/// Stores the roles of a seat's generations if the seat still has the revision of `before`. Returns the number of changed rows.
async fn replace_roles(
    link: &mut Link,
    before: &Seat,
    after: &Seat,
    by: &str,
) -> Result<u64, Failure> {
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
    link.execute(update, &values).await
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
        changed_at: number(9)?.unwrap_or(0),
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

/// Deletes generations of a seat up to a number, except those with a role.
const PRUNE: &str = "DELETE FROM `portcullis_generation` WHERE `seat` = ? AND `number` <= ? \
     AND `number` NOT IN (SELECT COALESCE(`active`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`) \
     AND `number` NOT IN (SELECT COALESCE(`previous`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`) \
     AND `number` NOT IN (SELECT COALESCE(`candidate`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`)";

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Numbers never approach the limits of either type.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
