//! Stores automatic fallbacks. A fallback takes effect on this host at once, and is stored when the database can be written.

use portcullis_store::StoreError;

use super::{BREAKER, Database, FallBack, roles, row_after};

/// Most attempts to write a row that another host changes at the same time.
const TRIES: usize = 5;

impl Database {
    /// Stores which seats have fallen back. What cannot be stored is kept for the next call.
    pub(in super::super) async fn store_fall_backs(&self) -> Result<(), StoreError> {
        let waiting = self.fall_backs.lock().clone();
        for (seat, fall_back) in waiting {
            match self.store_fall_back(&seat, fall_back).await {
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
            let mut waiting = self.fall_backs.lock();
            if waiting.get(&seat) == Some(&fall_back) {
                waiting.remove(&seat);
            }
        }
        Ok(())
    }

    /// Stores that a seat has fallen back, unless another generation has been activated meanwhile.
    async fn store_fall_back(&self, seat: &str, fall_back: FallBack) -> Result<(), StoreError> {
        let FallBack { from, to } = fall_back;
        for _ in 0..TRIES {
            let row = self.row(seat).await?;
            let is_waited_for = self.fall_backs.lock().get(seat) == Some(&fall_back);
            let Some(before) = row.filter(|_| is_waited_for) else {
                return Ok(());
            };
            let now = roles(&before);
            let Some(fallen_back) = now.fallen_back(from, to) else {
                return Ok(());
            };
            let after = row_after(&before, &now, &fallen_back);
            if self.store.replace(&before, &after, BREAKER).await? {
                self.see(seat, before.revision + 1, Some(to));
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
