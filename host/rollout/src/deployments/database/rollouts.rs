//! Changes of a seat together with its roll-out.

use std::sync::Arc;

use portcullis_policy::NoGeneration;
use portcullis_store::StoredRollout;

use crate::policy_files::PolicyFiles;

use super::super::error::ShipError;
use super::super::state::Change;
use super::{Database, Said, row_after};

impl Database {
    /// Stores a roll-out together with the change of its seat, both or nothing, and applies the change here. False if somebody else has changed
    /// one of them first, since the seat had the revision `seen`. Without a change, only the roll-out is stored.
    ///
    /// # Errors
    /// If the change is impossible, this host cannot load what it needs, or it cannot be stored.
    pub(in crate::deployments) async fn move_rollout(
        &self,
        files: &Arc<PolicyFiles>,
        change: Option<Change>,
        (before, after): (&StoredRollout, &StoredRollout),
        by: &str,
        seen: Option<u64>,
    ) -> Result<bool, ShipError> {
        let Some(change) = change else {
            return Ok(self.store.move_rollout(before, after, None, by).await?);
        };
        let Some(row) = self.store.seat(&after.seat).await? else {
            let kept = Vec::new();
            return Err(NoGeneration::Previous { kept }.into());
        };
        // Somebody has changed the seat since it was looked at.
        if seen.is_some_and(|seen| seen != row.revision) {
            return Ok(false);
        }
        let now = self.state(files, &row, change).await?;
        let mut changed = row_after(&row, &now, &now.after(change)?);
        // The generations that the change needs must be loaded before it is stored.
        self.fetch(files, &changed).await?;
        let seat = Some((&row, &changed));
        if !self.store.move_rollout(before, after, seat, by).await? {
            return Ok(false);
        }
        let said = match change {
            Change::Activate(_) | Change::RollBack(_) => {
                // The roll-out overrides a fallback that is not stored yet.
                self.fall_backs.lock().remove(&after.seat);
                Said::ByOperator
            }
            Change::TryOut(..) | Change::EndTrial | Change::SetMode(_) => Said::ByRow,
        };
        changed.revision = row.revision + 1;
        // The time that the database has is not known.
        changed.changed_at = 0;
        by.clone_into(&mut changed.changed_by);
        self.sync_seat(files, &changed, said).await?;
        Ok(true)
    }
}
