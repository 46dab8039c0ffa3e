//! Moves roll-outs as long as the host runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_store::{Look, OPEN, StoreError};
use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::deployments::{Moved, RolloutError, ShipError};

use super::Registry;

/// Interval in which the roll-outs are read while one of them goes on.
const LOOK: Duration = Duration::from_secs(1);

/// Interval in which they are read while the server has no time of their last change since its restart.
const QUIET: Duration = Duration::from_secs(60);

/// Pause after roll-outs could not be read: the database has no table of them, or does not answer.
const AWAY: Duration = Duration::from_secs(10);

impl Registry {
    /// The moves of roll-outs that this host makes from now on.
    pub fn rollout_moves(&self) -> broadcast::Receiver<Moved> {
        self.moves.subscribe()
    }

    /// Moves the roll-outs that this host leads, as long as the host runs. Every host reads the roll-outs when their table has changed, and each
    /// second while one goes on; one host leads each roll-out.
    pub(super) async fn move_rollouts(self: Arc<Self>) {
        let Some(store) = self.database() else {
            return;
        };
        // Random, so that two hosts of one name are two.
        let leader = format!("{}/{:016x}", self.name, fastrand::u64(..));
        let (mut follower, mut watch) = (store.follower(LOOK), store.watch_rollouts());
        let mut turn = Turn::default();
        loop {
            let looked = follower.next().await;
            // The start itself applies the stored state to all seats.
            let (Some(looked), None) = (looked, self.progress()) else {
                continue;
            };
            let look = watch.compare(&looked);
            follower.done(look.is_ok().then_some(Duration::ZERO));
            // A database that is away is told where policies are read.
            let Ok(look) = look else {
                continue;
            };
            let goes_on = || {
                let seen = self.deployments.seen_rollouts();
                seen.iter().any(|one| OPEN.contains(&one.state.as_str()))
            };
            if !turn.is_due(look, goes_on) {
                continue;
            }
            match self.deployments.move_rollouts(&leader).await {
                Ok(moved) => {
                    for moved in moved {
                        // Nobody may listen.
                        let _listeners = self.moves.send(moved);
                    }
                    turn.ends(LOOK);
                }
                Err(error) => {
                    // Without the table, there are no roll-outs.
                    if !is_known(&error) {
                        tracing::warn!(event = "rollouts_unreadable", %error, "roll-outs cannot be read");
                    }
                    turn = Turn::default();
                    sleep(AWAY).await;
                }
            }
        }
    }
}

/// When the roll-outs are read next.
#[derive(Debug, Default)]
struct Turn {
    /// Whether their table has changed since they were read.
    is_news: bool,
    /// When they were read; `None` before the first time.
    read: Option<Instant>,
    /// The pause after that while a roll-out goes on, or the database does not say whether there are changes. Random, so that hosts do not read at
    /// the same moment.
    pause: Duration,
}

impl Turn {
    /// Whether the roll-outs are to be read, after this look at their table.
    fn is_due(&mut self, look: Look, goes_on: impl Fn() -> bool) -> bool {
        self.is_news |= look == Look::Changed;
        let Some(read) = self.read else {
            return true;
        };
        let age = read.elapsed();
        match look {
            _ if self.is_news => age >= self.pause / 2,
            _ if goes_on() => age >= self.pause,
            Look::Changed | Look::Unknown => age >= self.pause,
            Look::Quiet => age >= QUIET,
            Look::Same => false,
        }
    }

    /// Notes that the roll-outs have been read.
    fn ends(&mut self, interval: Duration) {
        *self = Self {
            is_news: false,
            read: Some(Instant::now()),
            pause: interval - interval.mul_f64(0.25 * fastrand::f64()),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roll_outs_are_read_after_a_change_and_while_one_goes_on() {
        let mut turn = Turn::default();
        let (goes_on, over) = (|| true, || false);
        assert!(turn.is_due(Look::Same, over), "the first time");
        turn.ends(Duration::ZERO);
        assert!(!turn.is_due(Look::Same, over));
        assert!(!turn.is_due(Look::Quiet, over));
        assert!(turn.is_due(Look::Unknown, over));
        assert!(turn.is_due(Look::Same, goes_on));
        assert!(turn.is_due(Look::Changed, over));
        // A change that was not read is not forgotten.
        assert!(turn.is_due(Look::Same, over));
        turn.ends(Duration::from_secs(3600));
        for look in [Look::Changed, Look::Unknown, Look::Same] {
            assert!(!turn.is_due(look, goes_on), "it was just read");
        }
    }
}
