//! Roll-outs of generations over all hosts.

use std::time::Duration;

use portcullis_database::{Failure, Link, ReadError, Record, Try, Value};

use super::{Store, replace_roles, signed};
use crate::error::StoreError;
use crate::rollout::StoredRollout;
use crate::seat::Seat;

/// The names of the states of roll-outs that are not over.
pub const OPEN: [&str; 2] = ["running", "paused"];

impl Store {
    /// Returns all roll-outs in one of these states, by seat.
    ///
    /// # Errors
    /// When the database cannot be reached or has no such table.
    pub async fn rollouts_in(&self, states: &[&str]) -> Result<Vec<StoredRollout>, StoreError> {
        let places = vec!["?"; states.len()].join(", ");
        let query = self.select(&format!("WHERE `state` IN ({places}) ORDER BY `seat`"));
        let values: Vec<Value<'_>> = states.iter().map(|state| Value::from(*state)).collect();
        self.rows(&query, &values, rollout).await
    }

    /// Returns the last roll-out of a seat, or of all seats, by seat.
    ///
    /// # Errors
    /// As [`Store::rollouts_in`].
    pub async fn rollouts(&self, seat: Option<&str>) -> Result<Vec<StoredRollout>, StoreError> {
        match seat {
            Some(seat) => {
                let query = self.select("WHERE `seat` = ?");
                self.rows(&query, &[seat.into()], rollout).await
            }
            None => {
                let query = self.select("ORDER BY `seat`");
                self.rows(&query, &[], rollout).await
            }
        }
    }

    /// Makes a host the leader of a roll-out for this time, by the clock of the database, unless another one is. Returns whether it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn lead_rollout(
        &self,
        seat: &str,
        leader: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let mut link = self.open_unseen().await?;
        let now = link.dialect().milliseconds();
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4);
        // A lease that ends much later than one that begins now was given before the clock was set back.
        let update = format!(
            "UPDATE `portcullis_rollout` SET `leader` = ?, `lead_until` = {now} + {time} \
             WHERE `seat` = ? AND (`leader` IS NULL OR `leader` = ? OR `lead_until` < {now} OR `lead_until` > {now} + {})",
            2 * time
        );
        let values = [leader.into(), seat.into(), leader.into()];
        let done = link.execute(&update, &values).await;
        // A connection that does not answer is closed. After another failure it is kept: with SQLite, a new one lets the host read its tables again.
        if !matches!(done, Err(Failure::Hung { .. })) {
            link.release().await;
        }
        Ok(done? > 0)
    }

    /// Stores a roll-out, and the row of its seat with it: both or nothing. True if both were as in `before` until then; otherwise nothing is
    /// stored, because another host was first. The seat has had no roll-out before if the revision of `before` is 0.
    ///
    /// # Errors
    /// When they cannot be written; then nothing is.
    pub async fn move_rollout(
        &self,
        before: &StoredRollout,
        after: &StoredRollout,
        seat: Option<(&Seat, &Seat)>,
        by: &str,
    ) -> Result<bool, StoreError> {
        let moved = self.connections.retried(async |one: Try| {
            let mut link = self.connections.take(self.patience(0)).await?;
            if one.may_be_done && is_moved(&mut link, before, after, by).await? {
                link.release().await;
                return Ok(true);
            }
            link.set_limit_of_all(self.patience(0));
            let moved = move_rollout(&mut link, before, after, seat, by).await?;
            // If another host was first, this rolls the transaction back.
            link.release().await;
            Ok::<_, Failure>(moved)
        });
        Ok(moved.await?)
    }

    fn select(&self, rest: &str) -> String {
        let now = self.connections.dialect().milliseconds();
        format!(
            "SELECT `seat`, `generation`, `base`, `steps`, `gates`, `step`, `step_at`, `reference_ns`, `reference_p99_ns`, `state`, `why`, \
             `revision`, `changed_by`, `changed_at`, `leader`, `lead_until`, {now} FROM `portcullis_rollout` {rest}"
        )
    }
}

/// The statements of a move, in one transaction; returns whether nobody else was first.
async fn move_rollout(
    link: &mut Link,
    before: &StoredRollout,
    after: &StoredRollout,
    seat: Option<(&Seat, &Seat)>,
    by: &str,
) -> Result<bool, Failure> {
    let now = link.dialect().milliseconds();
    link.begin_write(None).await?;
    if before.revision == 0 {
        let row = format!(
            "`portcullis_rollout` (`seat`, `generation`, `base`, `steps`, `gates`, `step`, `step_at`, `state`, `why`, `revision`, `changed_by`, \
             `changed_at`) VALUES (?, 0, 0, '', '', 0, {now}, '', '', 0, ?, {now})"
        );
        let insert = link.dialect().insert_if_absent(&row);
        link.execute(&insert, &[(&after.seat).into(), by.into()])
            .await?;
    }
    let is_same = before.generation == after.generation && before.step == after.step;
    let is_new_step = before.revision == 0 || !is_same || is_restart(before, after);
    let step_at = match is_new_step {
        true => now,
        false => "`step_at`",
    };
    let update = format!(
        "UPDATE `portcullis_rollout` SET `generation` = ?, `base` = ?, `steps` = ?, `gates` = ?, `step` = ?, `step_at` = {step_at}, \
         `reference_ns` = ?, `reference_p99_ns` = ?, `state` = ?, `why` = ?, `revision` = `revision` + 1, `changed_by` = ?, `changed_at` = {now} \
         WHERE `seat` = ? AND `revision` = ?"
    );
    let values = [
        signed(after.generation).into(),
        signed(after.base).into(),
        (&after.steps).into(),
        (&after.gates).into(),
        signed(after.step).into(),
        after.reference_ns.map(signed).into(),
        after.reference_p99_ns.map(signed).into(),
        (&after.state).into(),
        (&after.why).into(),
        by.into(),
        (&after.seat).into(),
        signed(before.revision).into(),
    ];
    if link.execute(&update, &values).await? == 0 {
        return Ok(false);
    }
    if let Some((before, after)) = seat
        && replace_roles(link, before, after, by).await? == 0
    {
        return Ok(false);
    }
    link.commit().await?;
    Ok(true)
}

/// Whether an earlier try has stored the move.
async fn is_moved(
    link: &mut Link,
    before: &StoredRollout,
    after: &StoredRollout,
    by: &str,
) -> Result<bool, Failure> {
    let query = "SELECT COUNT(*) FROM `portcullis_rollout` \
                 WHERE `seat` = ? AND `revision` = ? AND `changed_by` = ? AND `generation` = ? AND `step` = ? AND `state` = ?";
    let values = [
        (&after.seat).into(),
        signed(before.revision + 1).into(),
        by.into(),
        signed(after.generation).into(),
        signed(after.step).into(),
        (&after.state).into(),
    ];
    let count = link.row(query, &values, |row| row.integer(0)).await?;
    Ok(count.flatten().unwrap_or(0) > 0)
}

/// Whether a roll-out that is over begins again.
fn is_restart(before: &StoredRollout, after: &StoredRollout) -> bool {
    let is_open = |state: &str| OPEN.contains(&state);
    !is_open(&before.state) && is_open(&after.state)
}

fn rollout(row: &Record) -> Result<StoredRollout, ReadError> {
    let text = |at| Ok(row.text(at)?.unwrap_or_default());
    let number = |at| Ok(row.integer(at)?.unwrap_or(0));
    let now = number(16)?;
    Ok(StoredRollout {
        seat: text(0)?,
        generation: number(1)?.unsigned_abs(),
        base: number(2)?.unsigned_abs(),
        steps: text(3)?,
        gates: text(4)?,
        step: number(5)?.unsigned_abs(),
        step_at: number(6)?,
        reference_ns: row.integer(7)?.map(i64::unsigned_abs),
        reference_p99_ns: row.integer(8)?.map(i64::unsigned_abs),
        state: text(9)?,
        why: text(10)?,
        revision: number(11)?.unsigned_abs(),
        changed_by: text(12)?,
        changed_at: number(13)?,
        leader: row.text(14)?,
        lead_ms: number(15)?.saturating_sub(now),
        now,
    })
}
