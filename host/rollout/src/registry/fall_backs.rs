//! Seats that went back to an older generation by themselves: at once here, and in the database when it can be told.

use portcullis_store::{Seat as StoredSeat, StoreError};

use crate::policy_files::PolicyFiles;

use super::Registry;
use super::stored::state::{FallBack, Seen, Stored};

/// How often a change begins again that another one stood in the way of.
const TRIES: usize = 5;

/// Who goes back by itself, as the database has it.
pub(super) const BREAKER: &str = "breaker";

impl Registry {
    /// Notes that a seat has gone back by itself, for the database to know when it can be told.
    pub(super) fn note_fall_back(&self, files: &PolicyFiles, from: u64, to: u64) {
        let Some(stored) = self.stored_of(files) else {
            return;
        };
        let name = files.seat().name.to_string();
        stored.fall_backs.lock().insert(name, FallBack { from, to });
        stored.wake.notify_one();
    }

    /// Writes down which seats have gone back by themselves. What can't be written is kept.
    pub(super) async fn store_fall_backs(&self, stored: &Stored) -> Result<(), StoreError> {
        let waiting = stored.fall_backs.lock().clone();
        for (seat, fall_back) in waiting {
            match self.store_fall_back(stored, &seat, fall_back).await {
                Ok(()) => {}
                Err(error) if error.is_away() => return Err(error),
                Err(error) => {
                    tracing::error!(
                        event = "fall_back_not_stored", seat, %error,
                        "fallback not yet stored in the database"
                    );
                    continue;
                }
            }
            let mut waiting = stored.fall_backs.lock();
            if waiting.get(&seat) == Some(&fall_back) {
                waiting.remove(&seat);
            }
        }
        Ok(())
    }

    /// Writes down that a seat has gone back by itself, unless somebody has put another generation there meanwhile.
    async fn store_fall_back(
        &self,
        stored: &Stored,
        seat: &str,
        fall_back: FallBack,
    ) -> Result<(), StoreError> {
        let FallBack { from, to } = fall_back;
        for _ in 0..TRIES {
            let seats = stored.store.seats().await?;
            let mut seats = seats.into_iter();
            let before = seats.find(|one| one.name == seat && one.active == Some(from));
            let is_waited_for = stored.fall_backs.lock().get(seat) == Some(&fall_back);
            let Some(before) = before.filter(|_| is_waited_for) else {
                return Ok(());
            };
            let after = StoredSeat {
                active: Some(to),
                previous: Some(from),
                candidate: None,
                ..before.clone()
            };
            if stored.store.replace(&before, &after, BREAKER).await? {
                let revision = before.revision + 1;
                let active = Some(to);
                let seen = Seen { revision, active };
                stored.seen.lock().insert(seat.to_owned(), seen);
                tracing::info!(
                    event = "fall_back_stored",
                    seat,
                    from,
                    to,
                    "fallback stored in the database"
                );
                return Ok(());
            }
        }
        Ok(())
    }
}
