//! Moves roll-outs as long as the host runs.

use std::sync::Arc;
use std::time::Duration;

use portcullis_store::StoreError;
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, sleep};

use crate::deployments::{Moved, RolloutError, ShipError};

use super::Registry;

/// Interval between two looks at the roll-outs.
const LOOK: Duration = Duration::from_secs(1);

/// The same while the database has no table of them, or does not answer.
const AWAY: Duration = Duration::from_secs(10);

impl Registry {
    /// The moves of roll-outs that this host makes from now on.
    pub fn rollout_moves(&self) -> broadcast::Receiver<Moved> {
        self.moves.subscribe()
    }

    /// Moves the roll-outs that this host leads, as long as the host runs. Every host looks, and one of them leads each roll-out.
    pub(super) async fn move_rollouts(self: Arc<Self>) {
        // Random, so that two hosts of one name are two.
        let leader = format!("{}/{:016x}", self.name, fastrand::u64(..));
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // The start itself applies the stored state to all seats.
            if self.progress().is_some() {
                continue;
            }
            match self.deployments.move_rollouts(&leader).await {
                Ok(moved) => {
                    for moved in moved {
                        // Nobody may listen.
                        let _listeners = self.moves.send(moved);
                    }
                }
                Err(error) => {
                    // A database that is away is told where policies are read. Without the table, there are no roll-outs.
                    if !is_known(&error) {
                        tracing::warn!(event = "rollouts_unreadable", %error, "roll-outs cannot be read");
                    }
                    sleep(AWAY).await;
                }
            }
        }
    }
}

/// Whether an error is told elsewhere.
fn is_known(error: &RolloutError) -> bool {
    match error {
        RolloutError::NoDatabase => true,
        RolloutError::Ship(ShipError::Store(error)) => {
            error.is_away() || matches!(error, StoreError::Denied { .. })
        }
        RolloutError::Ship(_)
        | RolloutError::Plan(_)
        | RolloutError::NoHosts
        | RolloutError::Goes { .. }
        | RolloutError::OnTrial { .. }
        | RolloutError::Nothing(_)
        | RolloutError::Active { .. }
        | RolloutError::Unknown(_)
        | RolloutError::State { .. }
        | RolloutError::Busy(_)
        | RolloutError::Unreadable { .. } => false,
    }
}
