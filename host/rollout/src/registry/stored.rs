//! Seats whose policies are in the database: every host on it brings its seats to what is written there.

pub(super) mod state;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use portcullis_policy::{Generation, LoadError, NoGeneration, Share, Trial};
use portcullis_store::{
    Generation as StoredGeneration, NewGeneration, Seat as StoredSeat, StoreError,
    Trial as StoredTrial,
};

use tokio::time::MissedTickBehavior;

use crate::compiler::{Behalf, Occasion, on, on_behalf_of};
use crate::policy_files::PolicyFiles;
use crate::settings::forget_what_refuses;

use super::Registry;
use super::fall_backs::BREAKER;
use super::shipping::{Provenance, Push, ShipError, mode};

pub use state::StoreStatus;
use state::{Seen, Stored};

/// The most generations of a seat that are looked at.
const LISTED: u32 = 2000;

/// The contract that this host's policies are built for.
pub(super) const CONTRACT: &str = portcullis_policy::WORLD;

/// How often to look for what others have changed.
const FOLLOW: Duration = Duration::from_secs(1);

/// Who says what is to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// An operator, of this generation, here and now.
    ByOperator,
    /// The row of the seat, as it is.
    ByRow,
}

impl Registry {
    /// Brings all seats to what is written in the database. What can't be done is told in the log, and tried again.
    pub async fn sync(&self) {
        let Some(stored) = &self.stored else {
            return;
        };
        match self.try_sync(stored).await {
            Ok(()) => {}
            Err(error) => stored.note(Some(error)),
        }
    }

    /// Brings the operator's seats to what is written in the database; how many others have a policy there that is to serve here.
    pub(super) async fn sync_operators(&self) -> usize {
        let Some(stored) = &self.stored else {
            return 0;
        };
        // What is wrong with the database is noted when the others are brought.
        let Ok(seats) = stored.store.seats().await else {
            return 0;
        };
        let is_operators = |name: &str| {
            let mut operators = self.operators.iter();
            operators.any(|files| &*files.seat().name == name)
        };
        let (operators, others): (Vec<_>, Vec<_>) =
            seats.into_iter().partition(|seat| is_operators(&seat.name));
        let _noted_later = self.sync_seats(stored, operators).await;
        others.iter().filter(|seat| self.serves_here(seat)).count()
    }

    /// Whether a row of the database is of a seat of this host, and names a policy for it.
    fn serves_here(&self, seat: &StoredSeat) -> bool {
        let files = self.files(&seat.name);
        seat.active.is_some() && files.is_some_and(|files| files.file().is_none())
    }

    async fn try_sync(&self, stored: &Stored) -> Result<(), StoreError> {
        let mut seats = stored.store.seats().await?;
        if stored.is_memory() && self.adopt(stored).await? {
            seats = stored.store.seats().await?;
        }
        stored.answered();
        self.sync_seats(stored, seats).await
    }

    /// Brings these seats to what is written, several at a time.
    async fn sync_seats(&self, stored: &Stored, seats: Vec<StoredSeat>) -> Result<(), StoreError> {
        // Those that have begun come to their end; no other one begins then.
        let away = Mutex::new(None);
        let sync = |seat: StoredSeat| {
            let away = &away;
            async move {
                if away.lock().is_some() {
                    return;
                }
                let done = self.sync_seat(stored, &seat, Said::ByRow).await;
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
            .for_each_concurrent(self.at_once(), sync)
            .await;
        away.into_inner().map_or(Ok(()), Err)
    }

    /// Follows the database for as long as the host runs.
    pub(super) async fn follow_database(self: Arc<Self>) {
        let Some(stored) = &self.stored else {
            return;
        };
        let mut tick = tokio::time::interval(FOLLOW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stored.wake.notified() => {}
            }
            // The start brings all seats by itself.
            if self.progress().is_some() {
                continue;
            }
            // Whoever is away need not be asked three times.
            let followed = async {
                self.sync_if_changed(stored).await?;
                self.store_fall_backs(stored).await
            };
            match followed.await {
                Ok(()) => self.sync_tenants().await,
                Err(error) => stored.note(Some(error)),
            }
        }
    }

    /// Brings all seats to what is written, if anything has changed since.
    async fn sync_if_changed(&self, stored: &Stored) -> Result<(), StoreError> {
        let seen: u64 = stored.seen.lock().values().map(|seen| seen.revision).sum();
        let revision = stored.store.revision().await?;
        if revision == seen && stored.error.lock().is_none() {
            return Ok(());
        }
        self.try_sync(stored).await
    }

    /// Lets the next look bring a seat to what is written, whatever it is at.
    pub(super) fn forget(&self, seat: &str) {
        if let Some(stored) = &self.stored {
            stored.seen.lock().remove(seat);
        }
    }

    /// Checks that pushes are stored.
    ///
    /// # Errors
    /// When they are not: the error of the database, or `None` without a database.
    pub fn storing(&self) -> Result<(), Option<StoreError>> {
        match self.store_status().ok_or(None)?.error {
            Some((error, _)) => Err(Some(error)),
            None => Ok(()),
        }
    }

    /// How the database of pushed policies has fared; none where there is none.
    pub fn store_status(&self) -> Option<StoreStatus> {
        let stored = self.stored.as_ref()?;
        Some(StoreStatus {
            error: stored.error.lock().clone(),
            fall_backs: stored.fall_backs.lock().len(),
        })
    }

    /// The store, for a seat whose policies are in it.
    pub(super) fn stored_of(&self, files: &PolicyFiles) -> Option<&Stored> {
        let stored = self.stored.as_ref()?;
        (files.file().is_none() && !stored.is_memory()).then_some(stored)
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
        self.change_as(stored, seat, by, Said::ByRow, change).await
    }

    /// Lets a generation serve, for all hosts, then here, also one that failed too often.
    pub(super) async fn change_active(
        &self,
        stored: &Stored,
        seat: &str,
        by: &str,
        number: u64,
    ) -> Result<(), ShipError> {
        let change = |seat: &mut StoredSeat| {
            if seat.active != Some(number) {
                seat.previous = seat.active;
            }
            seat.active = Some(number);
            seat.candidate = None;
        };
        // What an operator says goes before what the breaker did.
        let fall_back = stored.fall_backs.lock().remove(seat);
        let done = self.change_as(stored, seat, by, Said::ByOperator, change);
        let done = done.await;
        if let (Err(_), Some(fall_back)) = (&done, fall_back) {
            let mut fall_backs = stored.fall_backs.lock();
            fall_backs.entry(seat.to_owned()).or_insert(fall_back);
        }
        done
    }

    async fn change_as(
        &self,
        stored: &Stored,
        seat: &str,
        by: &str,
        said: Said,
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
                after.changed_by = by.to_owned();
                return self.sync_seat(stored, &after, said).await;
            }
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

    /// The generation that served a seat before the one that serves.
    pub(super) async fn stored_previous(
        &self,
        stored: &Stored,
        seat: &str,
    ) -> Result<u64, ShipError> {
        let seats = stored.store.seats().await?;
        let row = seats.into_iter().find(|stored| stored.name == seat);
        match row.and_then(|row| row.previous) {
            Some(previous) => Ok(previous),
            None => {
                let kept = self.stored_numbers(stored, seat).await?;
                Err(NoGeneration::Previous { kept }.into())
            }
        }
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

    async fn sync_seat(
        &self,
        stored: &Stored,
        seat: &StoredSeat,
        said: Said,
    ) -> Result<(), ShipError> {
        let now = Seen {
            revision: seat.revision,
            active: seat.active,
        };
        let see = || stored.seen.lock().insert(seat.name.clone(), now);
        let Ok(files) = self.seat_files(&seat.name) else {
            // Another host's tenant.
            see();
            return Ok(());
        };
        let _turn = stored.turn_of(&seat.name).await;
        let before = stored.seen.lock().get(&seat.name).copied();
        let is_known = before.is_some_and(|seen| seen.revision >= seat.revision);
        if files.file().is_some() {
            see();
            return Ok(());
        }
        if is_known && said == Said::ByRow {
            return Ok(());
        }
        // Noted in any case: what can't serve now can't serve a second later either.
        see();
        let done = self.bring(stored, &files, seat, said, before).await;
        if let Err(ShipError::Store(error)) = &done
            && error.is_away()
        {
            // It may well be had later.
            let mut seen = stored.seen.lock();
            match before {
                Some(before) => drop(seen.insert(seat.name.clone(), before)),
                None => drop(seen.remove(&seat.name)),
            }
        }
        done
    }

    /// Brings a seat to what is written.
    async fn bring(
        &self,
        stored: &Stored,
        files: &Arc<PolicyFiles>,
        seat: &StoredSeat,
        said: Said,
        before: Option<Seen>,
    ) -> Result<(), ShipError> {
        let is_foreign = stored.foreign.lock().contains(&seat.name);
        if let (true, Some(active)) = (is_foreign, seat.active) {
            self.fetch_one(stored, files, &seat.name, active).await?;
        }
        self.fetch(stored, files, seat).await?;
        let slot = files.slot();
        if let Some(active) = seat.active
            && (slot.number() != active || is_foreign)
        {
            // Another host's operator has put it there, if it was not there before.
            let is_meant = said == Said::ByOperator
                || (seat.changed_by != BREAKER
                    && before.is_some_and(|before| before.active != seat.active));
            match slot.is_condemned(active) && !is_meant {
                true => tracing::warn!(
                    event = "condemned_generation_not_served",
                    seat = seat.name,
                    generation = active,
                    serves = slot.number(),
                    "generation of the database not activated, it failed too often here; an operator can activate it"
                ),
                false => self.install(files, active, seat.previous).await?,
            }
        }
        stored.foreign.lock().remove(&seat.name);
        match seat.candidate {
            Some((number, trial)) => {
                self.ask_again(files, number).await?;
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

    async fn install(
        &self,
        files: &PolicyFiles,
        active: u64,
        previous: Option<u64>,
    ) -> Result<(), ShipError> {
        self.ask_again(files, active).await?;
        files.slot().install(active, previous)?;
        forget_what_refuses(files.seat()).await;
        files.seat().clear();
        tracing::info!(
            event = "generation_active",
            seat = &*files.seat().name,
            generation = active,
            "generation is active"
        );
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
                Err(ShipError::Store(error)) if error.is_away() => return Err(error.into()),
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
    ) -> Result<Arc<Generation>, ShipError> {
        let Some(found) = stored.store.generation(seat, number).await? else {
            let kept = self.stored_numbers(stored, seat).await?;
            return Err(NoGeneration::Unknown { number, kept }.into());
        };
        let bytes: Arc<[u8]> = stored.store.artifact(&found.digest).await?.into();
        // Whoever can write to the database is not whoever may sign.
        let signers = &files.seat().config.signers;
        signers.check(&bytes, &found.signature)?;
        // Where nothing serves, the host has just come to this seat: the policy has served elsewhere, or before.
        let occasion = match files.slot().number() {
            0 => Occasion::Start,
            _ => Occasion::Usual,
        };
        let load = {
            let (files, bytes) = (Arc::clone(files), Arc::clone(&bytes));
            move || {
                let config = &files.seat().config;
                let (runtime, settings) = (files.runtime(), files.seat().scope.settings());
                let load = || runtime.load_within(&found.name, &bytes, &config.limits, settings);
                let policy = on_behalf_of(Behalf::of(files.seat()), || on(occasion, load))?;
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
            signature: found.signature,
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
