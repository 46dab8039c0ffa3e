//! Reading and writing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_address::DatabaseUrl;
use sha2::{Digest as _, Sha256};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Row as _};
use thiserror::Error;
use tokio::time::timeout;

use crate::link::on;
use crate::seat::{Generation, NewGeneration, Seat, Trial};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a file of SQLite may be locked by somebody else.
const BUSY: Duration = Duration::from_secs(5);

/// How often a push begins again that another one stood in the way of.
const TRIES: usize = 5;

/// The columns of a seat, in the order in which they are read.
const SEAT: &str = "`seat`, `last`, `active`, `previous`, `candidate`, `share`, `mode`, `revision`";

/// The same for a generation.
const GENERATION: &str =
    "`seat`, `number`, `digest`, `name`, `contract`, `author`, `note`, `created_at`, `signature`";

macro_rules! seat {
    ($row:expr) => {{
        let row = $row;
        let number = |at: usize| -> Result<Option<u64>, sqlx::Error> {
            Ok(row.try_get::<Option<i64>, _>(at)?.map(i64::unsigned_abs))
        };
        let share = row.try_get::<Option<i64>, _>(5)?;
        Ok::<_, sqlx::Error>(Seat {
            name: row.try_get(0)?,
            last: number(1)?.unwrap_or(0),
            active: number(2)?,
            previous: number(3)?,
            candidate: number(4)?.map(|number| (number, Trial::of(share))),
            mode: row.try_get(6)?,
            revision: number(7)?.unwrap_or(0),
        })
    }};
}

macro_rules! generation {
    ($row:expr) => {{
        let row = $row;
        Ok::<_, sqlx::Error>(Generation {
            seat: row.try_get(0)?,
            number: row.try_get::<i64, _>(1)?.unsigned_abs(),
            digest: row.try_get(2)?,
            name: row.try_get(3)?,
            contract: row.try_get(4)?,
            author: row.try_get(5)?,
            note: row.try_get(6)?,
            created_at: row.try_get::<i64, _>(7)?.unsigned_abs(),
            signature: row.try_get(8)?,
        })
    }};
}

/// The statements of a push, in a transaction; the number of the generation.
macro_rules! push_in {
    ($work:expr, $store:expr, $new:expr, $digest:expr, $now:expr, $keep:expr) => {{
        let (work, new, digest, now) = ($work, $new, $digest, signed($now));
        let ignore = ignoring(&$store.url);
        let done = async {
            let artifact = format!(
                "INSERT {ignore} INTO `portcullis_artifact` (`digest`, `bytes`, `created_at`) VALUES (?, ?, ?)"
            );
            let artifact = sqlx::query(sqlx::AssertSqlSafe(artifact)).bind(digest).bind(new.bytes);
            artifact.bind(now).execute(&mut **work).await?;
            let seat = format!(
                "INSERT {ignore} INTO `portcullis_seat` (`seat`, `last`, `revision`, `changed_by`, `changed_at`) \
                 VALUES (?, 0, 0, ?, ?)"
            );
            let seat = sqlx::query(sqlx::AssertSqlSafe(seat)).bind(new.seat).bind(new.author);
            seat.bind(now).execute(&mut **work).await?;
            // Whoever pushes at the same time waits here for the number.
            let count = "UPDATE `portcullis_seat` SET `last` = `last` + 1 WHERE `seat` = ?";
            sqlx::query(count).bind(new.seat).execute(&mut **work).await?;
            let last = sqlx::query_scalar("SELECT `last` FROM `portcullis_seat` WHERE `seat` = ?");
            let number: i64 = last.bind(new.seat).fetch_one(&mut **work).await?;
            let insert = sqlx::AssertSqlSafe(format!(
                "INSERT INTO `portcullis_generation` ({GENERATION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ));
            let insert = sqlx::query(insert).bind(new.seat).bind(number).bind(digest).bind(new.name);
            let insert = insert.bind(new.contract).bind(new.author).bind(new.note).bind(now).bind(new.signature);
            insert.execute(&mut **work).await?;
            let prune = sqlx::query(PRUNE).bind(new.seat).bind(number - i64::from($keep));
            prune.execute(&mut **work).await?;
            sqlx::query(ORPHANS).execute(&mut **work).await?;
            Ok::<_, sqlx::Error>(number)
        };
        done.await
    }};
}

/// Where pushed policies are. Holds no connection: each operation opens its own.
#[derive(Clone, Debug)]
pub struct Store {
    url: DatabaseUrl,
}

/// One connection.
pub(crate) enum Link {
    MySql(Box<MySqlConnection>),
    Sqlite(Box<SqliteConnection>),
}

/// Why something can't be stored or read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no connection.
    #[error("can't reach the database {url}: {cause}")]
    Unreachable {
        /// The database.
        url: String,
        /// What the driver says.
        cause: String,
    },
    /// The tables are not there.
    #[error("the database {url} has no tables for policies: `portcullis db migrate` makes them")]
    NoTables {
        /// The database.
        url: String,
    },
    /// A statement failed.
    #[error("the database {url} failed: {cause}{}", hint(.cause))]
    Failed {
        /// The database.
        url: String,
        /// What the driver says.
        cause: String,
    },
    /// A file is not what it was.
    #[error("the policy sha256:{digest} is damaged in the database {url}: push it again")]
    Damaged {
        /// The database.
        url: String,
        /// What its digest should be.
        digest: String,
    },
    /// A file is not there.
    #[error("the policy sha256:{digest} is not in the database {url}: push it again")]
    NoArtifact {
        /// The database.
        url: String,
        /// Its digest.
        digest: String,
    },
}

impl Store {
    /// The store in this database.
    pub fn new(url: DatabaseUrl) -> Self {
        Self { url }
    }

    /// A number that grows with every change of a seat.
    ///
    /// # Errors
    /// When the database can't be reached or has no such tables.
    pub async fn revision(&self) -> Result<u64, StoreError> {
        let mut link = self.open().await?;
        let sum = "SELECT CAST(COALESCE(SUM(`revision`), 0) AS CHAR) FROM `portcullis_seat`";
        let sum: String = on!(&mut link, link => {
            sqlx::query_scalar(sum).fetch_one(&mut **link).await.map_err(|error| self.failed(&error))?
        });
        link.close().await;
        Ok(sum.parse().unwrap_or(0))
    }

    /// All seats that anything was ever pushed to.
    ///
    /// # Errors
    /// As [`Store::revision`].
    pub async fn seats(&self) -> Result<Vec<Seat>, StoreError> {
        let mut link = self.open().await?;
        let query = sqlx::AssertSqlSafe(format!(
            "SELECT {SEAT} FROM `portcullis_seat` ORDER BY `seat`"
        ));
        let seats = on!(&mut link, link => {
            let rows = sqlx::query(query).fetch_all(&mut **link).await;
            let rows = rows.map_err(|error| self.failed(&error))?;
            rows.iter().map(|row| seat!(row)).collect::<Result<Vec<_>, _>>()
        });
        link.close().await;
        seats.map_err(|error| self.failed(&error))
    }

    /// The last generations of a seat, the newest first.
    ///
    /// # Errors
    /// As [`Store::revision`].
    pub async fn generations(&self, seat: &str, most: u32) -> Result<Vec<Generation>, StoreError> {
        let mut link = self.open().await?;
        let query = sqlx::AssertSqlSafe(format!(
            "SELECT {GENERATION} FROM `portcullis_generation` WHERE `seat` = ? ORDER BY `number` DESC LIMIT ?"
        ));
        let generations = on!(&mut link, link => {
            let rows = sqlx::query(query).bind(seat).bind(most).fetch_all(&mut **link).await;
            let rows = rows.map_err(|error| self.failed(&error))?;
            rows.iter().map(|row| generation!(row)).collect::<Result<Vec<_>, _>>()
        });
        link.close().await;
        generations.map_err(|error| self.failed(&error))
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
        let mut link = self.open().await?;
        let query = sqlx::AssertSqlSafe(format!(
            "SELECT {GENERATION} FROM `portcullis_generation` WHERE `seat` = ? AND `number` = ?"
        ));
        let found = on!(&mut link, link => {
            let row = sqlx::query(query).bind(seat).bind(signed(number)).fetch_optional(&mut **link).await;
            let row = row.map_err(|error| self.failed(&error))?;
            row.map(|row| generation!(row)).transpose()
        });
        link.close().await;
        found.map_err(|error| self.failed(&error))
    }

    /// The file of this digest.
    ///
    /// # Errors
    /// When it is not there, or is not what it was.
    pub async fn artifact(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        let mut link = self.open().await?;
        let query = "SELECT `bytes` FROM `portcullis_artifact` WHERE `digest` = ?";
        let bytes: Option<Vec<u8>> = on!(&mut link, link => {
            let found = sqlx::query_scalar(query).bind(digest).fetch_optional(&mut **link).await;
            found.map_err(|error| self.failed(&error))?
        });
        link.close().await;
        let (url, digest) = (self.url.to_string(), digest.to_owned());
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
            let pushed = on!(&mut link, link => {
                let mut work = link.begin().await.map_err(|error| self.failed(&error))?;
                let pushed = push_in!(&mut work, self, new, &digest, now, keep);
                match pushed {
                    Ok(number) => work.commit().await.map(|()| number),
                    Err(error) => Err(error),
                }
            });
            link.close().await;
            match pushed {
                Ok(number) => break number,
                // Two who push at once may stand in each other's way; the server lets one of them begin again.
                Err(error) if is_deadlock(&error) && tries < TRIES => tries += 1,
                Err(error) => return Err(self.failed(&error)),
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
        let mut link = self.open().await?;
        let candidate = after.candidate;
        let changed = on!(&mut link, link => {
            let update = sqlx::query(update)
                .bind(after.active.map(signed))
                .bind(after.previous.map(signed))
                .bind(candidate.map(|(number, _)| signed(number)))
                .bind(candidate.and_then(|(_, trial)| trial.share()))
                .bind(&after.mode)
                .bind(by)
                .bind(signed(now()))
                .bind(&after.name)
                .bind(signed(before.revision));
            let done = update.execute(&mut **link).await;
            done.map_err(|error| self.failed(&error))?.rows_affected()
        });
        link.close().await;
        Ok(changed > 0)
    }

    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    pub(crate) async fn open(&self) -> Result<Link, StoreError> {
        let opened = async {
            match &self.url {
                DatabaseUrl::MySql(url) => {
                    let options: MySqlConnectOptions = url.connect_options();
                    let link = MySqlConnection::connect_with(&options).await?;
                    Ok::<_, sqlx::Error>(Link::MySql(Box::new(link)))
                }
                DatabaseUrl::Sqlite(path) => {
                    let options = SqliteConnectOptions::new()
                        .filename(path)
                        .busy_timeout(BUSY);
                    let link = SqliteConnection::connect_with(&options).await?;
                    Ok(Link::Sqlite(Box::new(link)))
                }
            }
        };
        let unreachable = |cause: String| StoreError::Unreachable {
            url: self.url.to_string(),
            cause,
        };
        match timeout(CONNECT + BUSY, opened).await {
            Ok(opened) => opened.map_err(|error| unreachable(error.to_string())),
            Err(_elapsed) => Err(unreachable(format!("no answer within {CONNECT:?}"))),
        }
    }

    pub(crate) fn failed(&self, error: &sqlx::Error) -> StoreError {
        let (url, cause) = (self.url.to_string(), error.to_string());
        // 42S02 is MySQL's "no such table", whose number is 1146.
        let code = error.as_database_error().and_then(|error| error.code());
        let is_absent = code.as_deref() == Some("42S02") || cause.contains("no such table");
        match is_absent {
            true => StoreError::NoTables { url },
            false => StoreError::Failed { url, cause },
        }
    }
}

impl Link {
    pub(crate) async fn close(self) {
        // The server notices either way; this is only politer.
        let _closed = match self {
            Self::MySql(link) => link.close().await,
            Self::Sqlite(link) => link.close().await,
        };
    }
}

/// Forgets generations of a seat up to a number, but for those that do something.
const PRUNE: &str = "DELETE FROM `portcullis_generation` WHERE `seat` = ? AND `number` <= ? \
     AND `number` NOT IN (SELECT COALESCE(`active`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`) \
     AND `number` NOT IN (SELECT COALESCE(`previous`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`) \
     AND `number` NOT IN (SELECT COALESCE(`candidate`, 0) FROM `portcullis_seat` WHERE `portcullis_seat`.`seat` = `portcullis_generation`.`seat`)";

/// Forgets files that no generation has.
const ORPHANS: &str = "DELETE FROM `portcullis_artifact` WHERE `digest` NOT IN (SELECT `digest` FROM `portcullis_generation`)";

/// MySQL's error 1213, and what SQLite says when it can't become the writer.
fn is_deadlock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "5" | "517"))
}

pub(crate) fn ignoring(url: &DatabaseUrl) -> &'static str {
    match url {
        DatabaseUrl::MySql(_) => "IGNORE",
        DatabaseUrl::Sqlite(_) => "OR IGNORE",
    }
}

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

/// What to do about some of what databases say.
fn hint(cause: &str) -> &'static str {
    match cause {
        cause if cause.contains("max_allowed_packet") => {
            "; the policy is larger than the server takes at once: raise `max_allowed_packet` there"
        }
        cause if cause.contains("denied") || cause.contains("readonly") => {
            "; that needs the right to write the tables portcullis_artifact, portcullis_generation, portcullis_seat and portcullis_tenant"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests;
