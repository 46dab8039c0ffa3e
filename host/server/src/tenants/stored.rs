//! Seats whose policies are in the database: every host on it brings its seats to what is written there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use portcullis_policy::{Generation, LoadError, NoGeneration, Share, Trial};
use portcullis_store::{
    Generation as StoredGeneration, NewGeneration, Seat as StoredSeat, Store, StoreError,
    Trial as StoredTrial,
};

use crate::pipeline::PolicyRequest;
use crate::policy_files::PolicyFiles;

use super::Registry;
use super::settings::forget_what_refuses;
use super::shipping::{Provenance, Push, ShipError, mode};

/// The most generations of a seat that are looked at.
const LISTED: u32 = 2000;

/// The contract that this host's policies are built for.
const CONTRACT: &str = portcullis_policy::WORLD;

/// The database of pushed policies, and what this host knows of it.
#[derive(Debug)]
pub(super) struct Stored {
    store: Store,
    /// The revision of each seat that this host is at.
    seen: Mutex<BTreeMap<String, u64>>,
    /// What was wrong last; none if nothing is.
    error: Mutex<Option<StoreError>>,
    /// Held while seats are brought to what is written: one after the other.
    turn: tokio::sync::Mutex<()>,
}

impl Stored {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            seen: Mutex::default(),
            error: Mutex::new(None),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Notes how it went, and tells what is new about it.
    fn note(&self, error: Option<StoreError>) {
        let mut last = self.error.lock();
        if *last == error {
            return;
        }
        match &error {
            Some(error @ StoreError::NoTables { .. }) => {
                tracing::info!("Pushed policies are kept until the host ends: {error}.");
            }
            Some(error) => tracing::error!(%error, "Pushed policies can't be read."),
            None => tracing::info!("Pushed policies are in the database."),
        }
        *last = error;
    }
}

impl Registry {
    /// Brings all seats to what is written in the database. What can't be done is told in the log, and tried again.
    pub async fn sync(&self) {
        let Some(stored) = &self.stored else {
            return;
        };
        match stored.store.seats().await {
            Ok(seats) => {
                stored.note(None);
                for seat in &seats {
                    if let Err(error) = self.sync_seat(stored, seat).await {
                        tracing::error!(seat = seat.name, %error, "The policy that is stored can't serve.");
                    }
                }
            }
            Err(error) => stored.note(Some(error)),
        }
    }

    /// The same, if anything has changed since.
    pub(super) async fn sync_if_changed(&self) {
        let Some(stored) = &self.stored else {
            return;
        };
        let seen: u64 = stored.seen.lock().values().sum();
        match stored.store.revision().await {
            Ok(revision) if revision == seen && stored.error.lock().is_none() => {}
            Ok(_) => self.sync().await,
            Err(error) => stored.note(Some(error)),
        }
    }

    /// Lets the next look bring a seat to what is written, whatever it is at.
    pub(super) fn forget(&self, seat: &str) {
        if let Some(stored) = &self.stored {
            stored.seen.lock().remove(seat);
        }
    }

    /// Whether pushes are stored; why not, if they are not.
    pub fn storing(&self) -> Result<(), Option<StoreError>> {
        let stored = self.stored.as_ref().ok_or(None)?;
        match stored.error.lock().clone() {
            Some(error) => Err(Some(error)),
            None => Ok(()),
        }
    }

    /// The store, for a seat whose policies are in it.
    pub(super) fn stored_of(&self, files: &PolicyFiles) -> Option<&Stored> {
        let stored = self.stored.as_ref()?;
        let has_no_tables = matches!(&*stored.error.lock(), Some(StoreError::NoTables { .. }));
        (files.file().is_none() && !has_no_tables).then_some(stored)
    }

    /// Stores a policy that has been found good; its number.
    pub(super) async fn store_push(
        &self,
        stored: &Stored,
        seat: &str,
        push: &Push,
        keep: u32,
    ) -> Result<u64, ShipError> {
        let new = NewGeneration {
            seat,
            name: &push.name,
            contract: CONTRACT,
            author: &push.author,
            note: &push.note,
            signature: &push.signature,
            bytes: &push.bytes,
        };
        Ok(stored.store.push(&new, keep).await?.number)
    }

    /// Changes which generation of a seat does what, for all hosts, then here.
    pub(super) async fn change(
        &self,
        stored: &Stored,
        seat: &str,
        by: &str,
        change: impl Fn(&mut StoredSeat),
    ) -> Result<(), ShipError> {
        loop {
            let seats = stored.store.seats().await?;
            let Some(before) = seats.into_iter().find(|stored| stored.name == seat) else {
                let kept = Vec::new();
                return Err(NoGeneration::Previous { kept }.into());
            };
            let mut after = before.clone();
            change(&mut after);
            // What it will be must be able to serve before anybody is told to let it.
            let files = self.seat_files(seat)?;
            self.fetch(stored, &files, &after).await?;
            if stored.store.replace(&before, &after, by).await? {
                after.revision = before.revision + 1;
                return self.sync_seat(stored, &after).await;
            }
        }
    }

    /// Writes down that a seat has gone back by itself, unless somebody has changed it meanwhile.
    pub(super) async fn store_fall_back(&self, seat: &str, from: u64, to: u64) {
        let Some(stored) = &self.stored else {
            return;
        };
        let by = "breaker";
        let seats = stored.store.seats().await.unwrap_or_default();
        let Some(before) = seats
            .into_iter()
            .find(|one| one.name == seat && one.active == Some(from))
        else {
            return;
        };
        let after = StoredSeat {
            active: Some(to),
            previous: Some(from),
            candidate: None,
            ..before.clone()
        };
        if let Err(error) = stored.store.replace(&before, &after, by).await {
            tracing::error!(seat, %error, "The database does not know that an older generation serves.");
        }
    }

    /// The numbers of all generations of a seat that are stored.
    pub(super) async fn stored_numbers(
        &self,
        stored: &Stored,
        seat: &str,
    ) -> Result<Vec<u64>, ShipError> {
        let all = stored.store.generations(seat, LISTED).await?;
        let mut numbers: Vec<_> = all.iter().map(|one| one.number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// All generations of a seat that are stored, the oldest first; none for a seat whose policies are not.
    ///
    /// # Errors
    /// When the database does not tell.
    pub async fn stored_generations(&self, seat: &str) -> Result<Vec<StoredGeneration>, ShipError> {
        let files = self.seat_files(seat)?;
        let Some(stored) = self.stored_of(&files) else {
            return Ok(Vec::new());
        };
        let mut all = stored.store.generations(seat, LISTED).await?;
        all.reverse();
        Ok(all)
    }

    pub(super) async fn stored_bytes(
        &self,
        stored: &Stored,
        seat: &str,
        number: u64,
    ) -> Result<Arc<[u8]>, ShipError> {
        let Some(found) = stored.store.generation(seat, number).await? else {
            let kept = self.stored_numbers(stored, seat).await?;
            return Err(NoGeneration::Unknown { number, kept }.into());
        };
        Ok(stored.store.artifact(&found.digest).await?.into())
    }

    async fn sync_seat(&self, stored: &Stored, seat: &StoredSeat) -> Result<(), ShipError> {
        let Ok(files) = self.seat_files(&seat.name) else {
            // Another host's tenant.
            stored.seen.lock().insert(seat.name.clone(), seat.revision);
            return Ok(());
        };
        let _turn = stored.turn.lock().await;
        let is_known = stored
            .seen
            .lock()
            .get(&seat.name)
            .is_some_and(|seen| *seen >= seat.revision);
        if is_known || files.file().is_some() {
            stored.seen.lock().insert(seat.name.clone(), seat.revision);
            return Ok(());
        }
        // Noted in any case: what can't serve now can't serve a second later either.
        stored.seen.lock().insert(seat.name.clone(), seat.revision);
        self.fetch(stored, &files, seat).await?;
        let slot = files.slot();
        if let Some(active) = seat.active
            && slot.number() != active
        {
            self.ask_again(&files, active).await?;
            slot.install(active, seat.previous)?;
            forget_what_refuses(files.seat()).await;
            files.seat().clear();
            tracing::info!(
                seat = seat.name,
                generation = active,
                "Another generation serves."
            );
        }
        match seat.candidate {
            Some((number, trial)) => {
                self.ask_again(&files, number).await?;
                slot.try_out(number, trial_of(trial))?;
            }
            None => drop(slot.end_trial()),
        }
        if let Some(mode) = seat.mode.as_deref().and_then(mode) {
            slot.set_mode(mode);
        }
        self.manifest.keep(&seat.name, &slot.numbers());
        Ok(())
    }

    /// Gets what a seat needs and this host has not compiled yet.
    async fn fetch(
        &self,
        stored: &Stored,
        files: &Arc<PolicyFiles>,
        seat: &StoredSeat,
    ) -> Result<(), ShipError> {
        let candidate = seat.candidate.map(|(number, _)| number);
        for number in [seat.previous, candidate, seat.active]
            .into_iter()
            .flatten()
        {
            if files.slot().generation(number).is_some() {
                continue;
            }
            let fetched = self.fetch_one(stored, files, &seat.name, number).await;
            match fetched {
                // A way back that is no more is none; what serves and what is tried must be there.
                Err(_) if Some(number) == seat.previous && Some(number) != seat.active => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Gets one generation, compiled and ready.
    pub(super) async fn fetch_one(
        &self,
        stored: &Stored,
        files: &Arc<PolicyFiles>,
        seat: &str,
        number: u64,
    ) -> Result<Arc<Generation<PolicyRequest>>, ShipError> {
        let Some(found) = stored.store.generation(seat, number).await? else {
            let kept = self.stored_numbers(stored, seat).await?;
            return Err(NoGeneration::Unknown { number, kept }.into());
        };
        let bytes: Arc<[u8]> = stored.store.artifact(&found.digest).await?.into();
        // Whoever can write to the database is not whoever may sign.
        let signers = &files.seat().config.signers;
        signers.check(&bytes, &found.signature)?;
        let load = {
            let (files, bytes) = (Arc::clone(files), Arc::clone(&bytes));
            move || {
                let config = &files.seat().config;
                let (runtime, settings) = (files.runtime(), files.seat().scope.settings());
                let policy = runtime.load_within(&found.name, &bytes, &config.limits, settings)?;
                let policy = policy.with_reuse(config.reuse);
                Ok::<_, LoadError>(files.slot().admit(policy, Some(number)))
            }
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let generation = loaded.map_err(|_| ShipError::Interrupted)??;
        let provenance = Provenance {
            bytes,
            author: found.author,
            note: found.note,
            at: UNIX_EPOCH + Duration::from_secs(found.created_at),
        };
        self.manifest.add(seat, number, provenance);
        Ok(generation)
    }
}

fn trial_of(trial: StoredTrial) -> Trial {
    match trial {
        StoredTrial::Shadow => Trial::Shadow,
        StoredTrial::Canary(hundredths) => {
            Trial::Canary(Share::of_hundredths(hundredths).unwrap_or(Share::ALL))
        }
    }
}

/// A trial as it is stored.
pub(super) fn stored_trial(trial: Trial) -> StoredTrial {
    match trial {
        Trial::Shadow => StoredTrial::Shadow,
        Trial::Canary(share) => StoredTrial::Canary(share.hundredths()),
    }
}
