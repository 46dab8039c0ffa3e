//! Applies what other hosts store in the database.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use portcullis_store::{Seat as StoredSeat, StoreError};
use tokio::time::sleep;

use super::Deployments;
use super::database::Database;
use super::error::ShipError;

impl Deployments {
    /// Applies the stored state to all seats. Errors are logged, and the next call tries again.
    pub(crate) async fn sync(&self) {
        let Some(database) = &self.database else {
            return;
        };
        match self.try_sync(database).await {
            Ok(()) => {}
            Err(error) => database.health().note(Some(error)),
        }
    }

    /// Applies the stored state to the operator's seats. Returns how many other seats have a stored policy to be activated.
    pub(crate) async fn sync_operators(&self) -> usize {
        let Some(database) = &self.database else {
            return 0;
        };
        // Errors of the database are noted when the other seats are read.
        let Ok(seats) = database.store().seats().await else {
            return 0;
        };
        let (operators, others): (Vec<_>, Vec<_>) = seats
            .into_iter()
            .partition(|seat| self.seats.is_operators(&seat.name));
        let _noted_later = self.sync_seats(database, operators).await;
        others.iter().filter(|seat| self.serves_here(seat)).count()
    }

    /// Whether a row belongs to a seat of this host and names an active policy.
    fn serves_here(&self, seat: &StoredSeat) -> bool {
        let files = self.seats.files(&seat.name);
        seat.active.is_some() && files.is_some_and(|files| files.file().is_none())
    }

    async fn try_sync(&self, database: &Database) -> Result<(), StoreError> {
        // Read before the rows: what changes meanwhile is found by the next call.
        let mark = database.mark().await?;
        let mut seats = database.store().seats().await?;
        if database.health().is_memory() && self.adopt(database).await? {
            seats = database.store().seats().await?;
        }
        database.health().answered();
        database.note_gone(&seats);
        self.sync_seats(database, seats).await?;
        database.applied(mark);
        Ok(())
    }

    /// Applies the stored state to these seats, several at a time.
    async fn sync_seats(
        &self,
        database: &Database,
        seats: Vec<StoredSeat>,
    ) -> Result<(), StoreError> {
        // Set once the database is unreachable: loads that have begun are finished, and no others begin.
        let away = Mutex::new(None);
        let sync = |seat: StoredSeat| {
            let away = &away;
            async move {
                if away.lock().is_some() {
                    return;
                }
                let done = self.sync_seat(database, &seat).await;
                if self.serves_here(&seat) {
                    self.loading.step();
                }
                match done {
                    Ok(()) => {}
                    Err(ShipError::Store(error)) if error.is_away() => *away.lock() = Some(error),
                    Err(error) => {
                        tracing::error!(event = "stored_policy_unusable", seat = seat.name, %error, "stored policy cannot be used");
                    }
                }
            }
        };
        stream::iter(seats)
            .for_each_concurrent(self.seats.at_once(), sync)
            .await;
        away.into_inner().map_or(Ok(()), Err)
    }

    async fn sync_seat(&self, database: &Database, seat: &StoredSeat) -> Result<(), ShipError> {
        match self.seats.files(&seat.name) {
            Some(files) => database.follow(&files, seat).await,
            None => {
                // The tenant runs on another host only.
                database.see(seat.clone());
                database.told().note_done(&seat.name, seat.revision);
                Ok(())
            }
        }
    }

    /// Applies the stored state to all seats if it has changed, and stores automatic fallbacks. Returns how long the question took whether it
    /// has changed; `None` if the database could not be queried. Without a database there is nothing to do.
    pub(crate) async fn follow(&self) -> Option<Duration> {
        let Some(database) = &self.database else {
            return Some(Duration::ZERO);
        };
        let begun = Instant::now();
        // The queries stop at the first error, because an unreachable database fails all of them.
        let followed = async {
            let has_changed = database.has_changed().await?;
            let took = begun.elapsed();
            if has_changed {
                self.try_sync(database).await?;
            }
            database.store_fall_backs().await?;
            Ok::<_, StoreError>(took)
        };
        match followed.await {
            Ok(took) => {
                database.health().looked();
                Some(took)
            }
            Err(error) => {
                database.health().note(Some(error));
                None
            }
        }
    }

    /// Waits for this time, or until there is something to store. Never returns without a database.
    pub(crate) async fn next_look(&self, pause: Duration) {
        let Some(database) = &self.database else {
            return std::future::pending().await;
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = database.woken() => {}
        }
    }

    /// Has the next call apply the stored state to a seat, even if it has not changed.
    pub(crate) fn forget(&self, seat: &str) {
        if let Some(database) = &self.database {
            database.forget(seat);
        }
    }
}
