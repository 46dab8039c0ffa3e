//! Applies what other hosts store in the database.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use portcullis_store::{Follower, Looked, Mark, Seat as StoredSeat, StoreError};

use super::Deployments;
use super::database::Database;
use super::error::ShipError;

impl Deployments {
    /// Applies the stored state to all seats. Errors are logged, and the next call tries again.
    pub(crate) async fn sync(&self) {
        let Some(database) = &self.database else {
            return;
        };
        // The mark is read before the rows: what changes meanwhile is found by the next call.
        let done = match database.mark(None).await {
            Ok(mark) => self.try_sync(database, mark).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            database.health().note(Some(error));
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

    /// Applies the stored state to all seats, which had this mark before.
    async fn try_sync(&self, database: &Database, mark: Mark) -> Result<(), StoreError> {
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

    /// Applies the stored state to all seats if it has changed, as this look at the database says, or one that is made now, and stores automatic
    /// fallbacks. Returns whether the database could be queried. Without a database there is nothing to do.
    pub(crate) async fn follow(&self, looked: Option<&Looked>) -> bool {
        let Some(database) = &self.database else {
            return true;
        };
        // The queries stop at the first error, because an unreachable database fails all of them.
        let followed = async {
            let mark = database.mark(looked).await?;
            if database.is_news(mark) {
                self.try_sync(database, mark).await?;
            }
            database.store_fall_backs().await
        };
        match followed.await {
            Ok(()) => {
                database.health().looked();
                true
            }
            Err(error) => {
                database.health().note(Some(error));
                false
            }
        }
    }

    /// What waits for looks at the database of pushed policies; `None` without a database.
    pub(crate) fn follower(&self, interval: Duration) -> Option<Follower> {
        let database = self.database.as_ref()?;
        Some(database.store().follower(interval))
    }

    /// Waits for the next look at the database; `None` if there is something to store before.
    pub(crate) async fn next_look(&self, follower: &mut Follower) -> Option<Arc<Looked>> {
        let woken = async {
            match &self.database {
                Some(database) => database.woken().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            looked = follower.next() => looked,
            () = woken => None,
        }
    }

    /// Has the next call apply the stored state to a seat, even if it has not changed.
    pub(crate) fn forget(&self, seat: &str) {
        if let Some(database) = &self.database {
            database.forget(seat);
        }
    }
}
