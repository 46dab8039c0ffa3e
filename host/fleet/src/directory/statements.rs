//! The statements.

use std::time::Duration;

use portcullis_database::{Connections, Failure, Link, ReadError, Record, Value};
use tokio::time::sleep;

use super::error::DirectoryError;
use super::row::{Announcement, Answer, HostRow, Wish, WishKind, is_fresh};

/// Time limit for the answer to a statement. A host that waits longer would count as gone anyway.
const ANSWER: Duration = Duration::from_secs(4);

/// A row that no host has written for this long is deleted.
pub const KEPT: Duration = Duration::from_hours(24);

/// How often a wish that conflicts with an announcement is tried.
const TRIES: u32 = 5;

/// The longest pause before the first retry of a wish; it doubles with each one.
const PAUSE: Duration = Duration::from_millis(20);

/// The table of hosts.
#[derive(Clone, Debug)]
pub struct Directory {
    connections: Connections,
}

impl Directory {
    /// The directory in this database, or over these connections.
    pub fn new(connections: impl Into<Connections>) -> Self {
        Self {
            connections: connections.into(),
        }
    }

    /// The database, without its password.
    pub fn url(&self) -> String {
        self.connections.url().to_string()
    }

    /// Writes the row of this host, and returns what the row said before. A process that has not written the row yet overwrites that of its
    /// predecessor, with its wish, and `is_known` is false.
    ///
    /// # Errors
    /// When the row cannot be written.
    pub async fn announce(
        &self,
        announcement: &Announcement<'_>,
        is_known: bool,
    ) -> Result<Answer, DirectoryError> {
        let mut link = self.connections.take_unseen(ANSWER).await?;
        let done = announce(&mut link, announcement, is_known).await;
        // A connection that does not answer is closed. After another failure it is kept: with SQLite, a new one lets the host read its tables again.
        if !matches!(done, Err(Failure::Hung { .. })) {
            link.release().await;
        }
        Ok(done?)
    }

    /// Writes the last state of a process, unless another one has taken the row over. Returns whether it was written.
    ///
    /// # Errors
    /// When the row cannot be written.
    pub async fn leave(
        &self,
        host: &str,
        instance: &str,
        state: &str,
    ) -> Result<bool, DirectoryError> {
        let now = self.connections.dialect().milliseconds();
        let update = format!(
            "UPDATE `portcullis_host` SET `state` = ?, `seen_at` = {now} WHERE `host` = ? AND `instance` = ?"
        );
        let values = [state.into(), host.into(), instance.into()];
        Ok(self.change(&update, &values).await? > 0)
    }

    /// All hosts, by name.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn hosts(&self) -> Result<Vec<HostRow>, DirectoryError> {
        let mut link = self.connections.take(ANSWER).await?;
        let now = link.dialect().milliseconds();
        let query = format!(
            "SELECT `host`, `instance`, `address`, `version`, `started_at`, `seen_at`, {now}, `state`, `wish`, `wished_by`, `wished_at` \
             FROM `portcullis_host` ORDER BY `host`"
        );
        let rows = link.rows(&query, &[], host).await?;
        link.release().await;
        Ok(rows)
    }

    /// Asks something of a process. Returns whether its row is still there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn wish(
        &self,
        host: &str,
        instance: &str,
        kind: WishKind,
        by: &str,
    ) -> Result<bool, DirectoryError> {
        let now = self.connections.dialect().milliseconds();
        let update = format!(
            "UPDATE `portcullis_host` SET `wish` = ?, `wished_by` = ?, `wished_at` = {now} WHERE `host` = ? AND `instance` = ?"
        );
        let by: String = by.chars().take(255).collect();
        let values = [
            kind.as_str().into(),
            (&by).into(),
            host.into(),
            instance.into(),
        ];
        Ok(self.change(&update, &values).await? > 0)
    }

    /// Takes a wish back. Returns whether there was one.
    ///
    /// # Errors
    /// As for [`wish`](Self::wish).
    pub async fn take_back(&self, host: &str, instance: &str) -> Result<bool, DirectoryError> {
        let update = "UPDATE `portcullis_host` SET `wish` = NULL, `wished_by` = NULL, `wished_at` = NULL \
                      WHERE `host` = ? AND `instance` = ? AND `wish` IS NOT NULL";
        let values = [host.into(), instance.into()];
        Ok(self.change(update, &values).await? > 0)
    }

    /// Removes the row of a host that is not alive. Returns whether it was removed.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn forget(&self, row: &HostRow) -> Result<bool, DirectoryError> {
        let delete =
            "DELETE FROM `portcullis_host` WHERE `host` = ? AND `instance` = ? AND `seen_at` = ?";
        let values = [
            (&row.host).into(),
            (&row.instance).into(),
            row.seen_at.into(),
        ];
        Ok(self.change(delete, &values).await? > 0)
    }

    /// Deletes rows that no host has written for [`KEPT`], and those from as far in the future, which a clock left that has been corrected.
    /// Returns their number.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub async fn remove_old(&self) -> Result<u64, DirectoryError> {
        let now = self.connections.dialect().milliseconds();
        let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        let delete = format!(
            "DELETE FROM `portcullis_host` WHERE `seen_at` < {now} - {kept} OR `seen_at` > {now} + {kept}"
        );
        self.change(&delete, &[]).await
    }

    /// Runs a statement, again if it conflicts with another transaction.
    async fn change(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, DirectoryError> {
        let mut longest = PAUSE;
        for _ in 1..TRIES {
            match self.change_once(sql, values).await {
                Err(Failure::Conflict { .. }) => {
                    sleep(longest.mul_f64(fastrand::f64())).await;
                    longest *= 2;
                }
                done => return Ok(done?),
            }
        }
        Ok(self.change_once(sql, values).await?)
    }

    async fn change_once(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, Failure> {
        let mut link = self.connections.take_unseen(ANSWER).await?;
        let changed = link.execute(sql, values).await?;
        link.release().await;
        Ok(changed)
    }
}

async fn announce(
    link: &mut Link,
    announcement: &Announcement<'_>,
    is_known: bool,
) -> Result<Answer, Failure> {
    let Announcement {
        host,
        instance,
        address,
        version,
        state,
        is_changed,
    } = *announcement;
    let now = link.dialect().milliseconds();
    let (written_by, answer) = before(link, announcement, is_known).await?;
    if written_by.as_deref() == Some(instance) {
        let (set, values) = match is_changed {
            true => ("`state` = ?, ", vec![state.into(), host.into()]),
            false => ("", vec![host.into()]),
        };
        let update =
            format!("UPDATE `portcullis_host` SET {set}`seen_at` = {now} WHERE `host` = ?");
        link.execute(&update, &values).await?;
        return Ok(answer);
    }
    // A process that takes the row over writes all of it. A wish to its predecessor ends.
    let values = [
        instance.into(),
        address.into(),
        version.into(),
        state.into(),
        host.into(),
    ];
    if written_by.is_some() {
        let update = format!(
            "UPDATE `portcullis_host` SET `instance` = ?, `address` = ?, `version` = ?, `started_at` = {now}, `seen_at` = {now}, \
             `state` = ?, `wish` = NULL, `wished_by` = NULL, `wished_at` = NULL WHERE `host` = ?"
        );
        link.execute(&update, &values).await?;
        return Ok(answer);
    }
    let row = format!(
        "`portcullis_host` (`instance`, `address`, `version`, `started_at`, `seen_at`, `state`, `host`) VALUES (?, ?, ?, {now}, {now}, ?, ?)"
    );
    let insert = link.dialect().insert_if_absent(&row);
    link.execute(&insert, &values).await?;
    Ok(answer)
}

/// The process that wrote the row last, `None` if there is no row, and what the row says.
async fn before(
    link: &mut Link,
    announcement: &Announcement<'_>,
    is_known: bool,
) -> Result<(Option<String>, Answer), Failure> {
    let now = link.dialect().milliseconds();
    let query = format!(
        "SELECT `instance`, `address`, `seen_at`, {now}, `wish`, `wished_by`, `wished_at` FROM `portcullis_host` WHERE `host` = ?"
    );
    let read = |row: &Record| {
        let written_by = row.text(0)?.unwrap_or_default();
        let is_mine = written_by == announcement.instance;
        let seen_at = row.integer(2)?.unwrap_or(0);
        let now = row.integer(3)?.unwrap_or(0);
        let is_twin = is_known && !is_mine && is_fresh(now.saturating_sub(seen_at));
        let twin = match is_twin {
            true => Some(row.text(1)?.unwrap_or_default()),
            false => None,
        };
        let wish = match is_mine {
            true => wish(row, 4)?,
            false => None,
        };
        Ok((Some(written_by), Answer { now, twin, wish }))
    };
    let read = link.row(&query, &[announcement.host.into()], read).await?;
    Ok(read.unwrap_or_default())
}

fn host(row: &Record) -> Result<HostRow, ReadError> {
    let text = |at| Ok(row.text(at)?.unwrap_or_default());
    let number = |at| Ok(row.integer(at)?.unwrap_or(0));
    let (seen_at, now) = (number(5)?, number(6)?);
    let state = text(7)?;
    Ok(HostRow {
        host: text(0)?,
        instance: text(1)?,
        address: text(2)?,
        version: text(3)?,
        started_at: number(4)?,
        seen_at,
        age_ms: now.saturating_sub(seen_at),
        state: serde_json::from_str(&state).ok(),
        wish: wish(row, 8)?,
    })
}

/// The wish in three columns, the first at this place.
fn wish(row: &Record, at: usize) -> Result<Option<Wish>, ReadError> {
    let kind = row.text(at)?.as_deref().and_then(WishKind::of);
    let by = row.text(at + 1)?.unwrap_or_default();
    let at = row.integer(at + 2)?.unwrap_or(0);
    Ok(kind.map(|kind| Wish { kind, by, at }))
}

#[cfg(test)]
mod tests;
