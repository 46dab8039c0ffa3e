//! Following what other hosts write into the database.

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use portcullis_store::{Seat as StoredSeat, StoreError};

use tokio::time::Interval;

use super::Deployments;
use super::database::Database;
use super::error::ShipError;

impl Deployments {
    /// Brings all seats to what is written in the database. What can't be done is told in the log, and tried again.
    pub(crate) async fn sync(&self) {
        let Some(database) = &self.database else {
            return;
        };
        match self.try_sync(database).await {
            Ok(()) => {}
            Err(error) => database.note(Some(error)),
        }
    }

    /// Brings the operator's seats to what is written in the database; how many others have a policy there that is to serve here.
    pub(crate) async fn sync_operators(&self) -> usize {
        let Some(database) = &self.database else {
            return 0;
        };
        // What is wrong with the database is noted when the others are brought.
        let Ok(seats) = database.store().seats().await else {
            return 0;
        };
        let (operators, others): (Vec<_>, Vec<_>) = seats
            .into_iter()
            .partition(|seat| self.seats.is_operators(&seat.name));
        let _noted_later = self.sync_seats(database, operators).await;
        others.iter().filter(|seat| self.serves_here(seat)).count()
    }

    /// Whether a row of the database is of a seat of this host, and names a policy for it.
    fn serves_here(&self, seat: &StoredSeat) -> bool {
        let files = self.seats.files(&seat.name);
        seat.active.is_some() && files.is_some_and(|files| files.file().is_none())
    }

    async fn try_sync(&self, database: &Database) -> Result<(), StoreError> {
        let mut seats = database.store().seats().await?;
        if database.is_memory() && self.adopt(database).await? {
            seats = database.store().seats().await?;
        }
        database.answered();
        self.sync_seats(database, seats).await
    }

    /// Brings these seats to what is written, several at a time.
    async fn sync_seats(
        &self,
        database: &Database,
        seats: Vec<StoredSeat>,
    ) -> Result<(), StoreError> {
        // Those that have begun come to their end; no other one begins then.
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
                // Another host's tenant.
                database.see(&seat.name, seat.revision, seat.active);
                Ok(())
            }
        }
    }

    /// Brings all seats to what is written, if anything has changed since, and writes down which have gone back by themselves. False if
    /// the database could not be asked; without a database there is nothing to follow.
    pub(crate) async fn follow(&self) -> bool {
        let Some(database) = &self.database else {
            return true;
        };
        // Whoever is away need not be asked three times.
        let followed = async {
            if database.has_changed().await? {
                self.try_sync(database).await?;
            }
            database.store_fall_backs().await
        };
        match followed.await {
            Ok(()) => true,
            Err(error) => {
                database.note(Some(error));
                false
            }
        }
    }

    /// Waits for the next look: at the tick, or when there is something to write; for ever without a database.
    pub(crate) async fn next_look(&self, tick: &mut Interval) {
        let Some(database) = &self.database else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = tick.tick() => {}
            () = database.woken() => {}
        }
    }

    /// Lets the next look bring a seat to what is written, whatever it is at.
    pub(crate) fn forget(&self, seat: &str) {
        if let Some(database) = &self.database {
            database.forget(seat);
        }
    }
}
