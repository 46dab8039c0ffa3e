//! Seats whose generations are in the database. Every host on the database applies the stored state to its seats.

mod age;
mod health;
mod restored;
mod rollouts;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use portcullis_policy::{Generation, Mode, NoGeneration, Share, Trial};
use portcullis_store::{
    Generation as StoredGeneration, Looked, Mark, MarkWatch, NewGeneration, Seat as StoredSeat,
    Store, StoreError, Trial as StoredTrial,
};
use tokio::sync::Notify;

use crate::compiler::{Behalf, Occasion};
use crate::policy_files::PolicyFiles;
use crate::settings::forget_what_refuses;

use super::ask::ask_again;
use super::desired::DesiredState;
use super::error::ShipError;
use super::provenance::{Manifest, Provenance};
use super::state::{Change, Deployment};
use super::told::Told;

use age::Older;
use health::Health;

/// Number of locks for applying stored state to seats. Seats share them.
const TURNS: usize = 256;

/// Most generations of a seat that are read.
const LISTED: u32 = 2000;

/// Author of automatic fallbacks, as stored in the database.
const BREAKER: &str = "breaker";

/// Most attempts to write the row of a fallback that another host changes at the same time.
const TRIES: usize = 5;

/// The database of pushed policies, with what this host has read from it.
#[derive(Debug)]
pub(crate) struct Database {
    store: Store,
    manifest: Arc<Manifest>,
    /// Last state of each seat that this host has read.
    seen: Mutex<BTreeMap<String, StoredSeat>>,
    /// The mark of the seats in the database.
    marks: tokio::sync::Mutex<MarkWatch>,
    /// Mark of the seats that were applied last; `None` if they are to be applied in any case.
    mark: Mutex<Option<Mark>>,
    /// Seats whose rows are older than what this host has read before.
    older: Older,
    health: Health,
    /// What was done with the stored states.
    told: Told,
    /// Automatic fallbacks that are not stored yet.
    fall_backs: Mutex<BTreeMap<String, FallBack>>,
    /// Seats whose generation numbers stand for policies of another host from now on.
    foreign: Mutex<BTreeSet<String>>,
    /// Notified when there is something to store.
    wake: Notify,
    /// Held while stored state is applied to a seat. Seats share these locks.
    turns: [tokio::sync::Mutex<()>; TURNS],
}

/// The state of the database, for operators.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// The error, and since when it has lasted; `None` if there is none.
    pub error: Option<(StoreError, SystemTime)>,
    /// When this host last knew the state of all seats; `None` before the first time.
    pub looked_at: Option<Instant>,
    /// Automatic fallbacks that are not stored yet.
    pub fall_backs: usize,
}

/// An automatic fallback of a seat from one generation to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FallBack {
    from: u64,
    to: u64,
}

/// What demands an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// An operator's command on this host, for this generation.
    ByOperator,
    /// The stored row.
    ByRow,
}

/// How far a stored row was applied to a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brought {
    /// As a whole.
    Whole,
    /// But for this generation, which is condemned here and not active.
    Condemned(u64),
}

impl Database {
    /// Creates the database of this store. Nothing is read yet.
    pub(super) fn new(store: Store, manifest: Arc<Manifest>) -> Self {
        Self {
            marks: tokio::sync::Mutex::new(store.watch_seats()),
            store,
            manifest,
            seen: Mutex::default(),
            mark: Mutex::default(),
            older: Older::default(),
            health: Health::default(),
            told: Told::default(),
            fall_backs: Mutex::default(),
            foreign: Mutex::default(),
            wake: Notify::new(),
            turns: [(); TURNS].map(tokio::sync::Mutex::new),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns whether the database can be used.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Returns what this host has done with the stored states.
    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// Returns the state of the database.
    pub(super) fn status(&self) -> StoreStatus {
        StoreStatus {
            error: self.health.error(),
            looked_at: self.health.looked_at(),
            fall_backs: self.fall_backs.lock().len(),
        }
    }

    /// Waits until there is something to store.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Whether a seat has been read since its tenant was set up.
    pub(super) fn has_seen(&self, seat: &str) -> bool {
        self.seen.lock().contains_key(seat)
    }

    /// Notes what this host has stored itself.
    pub(super) fn see(&self, seat: StoredSeat) {
        self.seen.lock().insert(seat.name.clone(), seat);
    }

    /// Has the next call apply the stored state to a seat, even if it has not changed.
    pub(super) fn forget(&self, seat: &str) {
        self.seen.lock().remove(seat);
        self.told.forget(seat);
        *self.mark.lock() = None;
    }

    /// Notes that the seats with this mark have been applied. While a row is older than before, the next call reads them again.
    pub(super) fn applied(&self, mark: Mark) {
        *self.mark.lock() = self.older.is_over().then_some(mark);
    }

    /// Marks the generation numbers of a seat as those of another host from now on.
    pub(super) fn give_up(&self, seat: &str) {
        self.foreign.lock().insert(seat.to_owned());
    }

    /// Whether the seats with this mark have not been applied, or the last access failed.
    pub(super) fn is_news(&self, mark: Mark) -> bool {
        *self.mark.lock() != Some(mark) || self.health.is_impaired()
    }

    /// Returns the mark of the seats, by a look at the database that was made for all, or one that is made now.
    ///
    /// # Errors
    /// If the database does not answer.
    pub(super) async fn mark(&self, looked: Option<&Looked>) -> Result<Mark, StoreError> {
        let mut marks = self.marks.lock().await;
        match looked {
            Some(looked) => marks.look_at(looked).await,
            None => marks.look().await,
        }
    }

    /// Applies a stored row to its seat on this host.
    ///
    /// # Errors
    /// If the row cannot be applied.
    pub(super) async fn follow(
        &self,
        files: &Arc<PolicyFiles>,
        seat: &StoredSeat,
    ) -> Result<(), ShipError> {
        self.sync_seat(files, seat, Said::ByRow).await
    }

    /// Stores which seats have fallen back, which takes effect on this host at once. What cannot be stored is kept for the next call.
    pub(super) async fn store_fall_backs(&self) -> Result<(), StoreError> {
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
            let row = self.store.seat(seat).await?;
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
                self.told.note_done(seat, before.revision + 1);
                self.see(StoredSeat {
                    revision: before.revision + 1,
                    changed_at: 0,
                    ..after
                });
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

    /// Returns the state of a seat according to its row. The database is queried for all generations only if a change needs one that this
    /// host has not compiled.
    async fn state(
        &self,
        files: &PolicyFiles,
        row: &StoredSeat,
        change: Change,
    ) -> Result<Deployment, ShipError> {
        let slot = files.slot();
        let mut state = Deployment {
            kept: slot.numbers().into_iter().collect(),
            is_served: slot.current().is_some(),
            ..roles(row)
        };
        if state.after(change).is_err() {
            state.kept.extend(self.numbers(&row.name).await?);
        }
        Ok(state)
    }

    async fn change(
        &self,
        files: &Arc<PolicyFiles>,
        change: Change,
        by: &str,
    ) -> Result<(), ShipError> {
        match change {
            Change::Activate(_) | Change::RollBack(_) => {
                self.change_active(files, change, by).await
            }
            Change::TryOut(..) if files.slot().current().is_none() => {
                Err(NoGeneration::Nothing.into())
            }
            Change::TryOut(..) | Change::EndTrial => {
                self.change_as(files, change, by, Said::ByRow).await
            }
            Change::SetMode(mode) => {
                self.change_as(files, change, by, Said::ByRow).await?;
                files.slot().set_mode(mode);
                Ok(())
            }
        }
    }

    /// Activates a generation, first for all hosts and then here, even if it has been condemned.
    async fn change_active(
        &self,
        files: &Arc<PolicyFiles>,
        change: Change,
        by: &str,
    ) -> Result<(), ShipError> {
        let seat = &*files.seat().name;
        // An operator's command overrides a fallback.
        let fall_back = self.fall_backs.lock().remove(seat);
        let done = self.change_as(files, change, by, Said::ByOperator).await;
        if let (Err(_), Some(fall_back)) = (&done, fall_back) {
            let mut fall_backs = self.fall_backs.lock();
            fall_backs.entry(seat.to_owned()).or_insert(fall_back);
        }
        done
    }

    /// Changes the row of a seat for all hosts, then applies it here.
    async fn change_as(
        &self,
        files: &Arc<PolicyFiles>,
        change: Change,
        by: &str,
        said: Said,
    ) -> Result<(), ShipError> {
        loop {
            let Some(before) = self.store.seat(&files.seat().name).await? else {
                let kept = Vec::new();
                return Err(NoGeneration::Previous { kept }.into());
            };
            let now = self.state(files, &before, change).await?;
            let mut after = row_after(&before, &now, &now.after(change)?);
            // The generations that the change needs must be loaded before it is stored.
            self.fetch(files, &after).await?;
            if self.store.replace(&before, &after, by).await? {
                after.revision = before.revision + 1;
                after.changed_by = by.to_owned();
                after.changed_at = 0;
                return self.sync_seat(files, &after, said).await;
            }
        }
    }

    /// Returns the numbers of all stored generations of a seat.
    async fn numbers(&self, seat: &str) -> Result<Vec<u64>, StoreError> {
        let all = self.store.generations(seat, LISTED).await?;
        let mut numbers: Vec<_> = all.iter().map(|one| one.number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn stored(&self, seat: &str, number: u64) -> Result<StoredGeneration, ShipError> {
        match self.store.generation(seat, number).await? {
            Some(found) => Ok(found),
            None => {
                let kept = self.numbers(seat).await?;
                Err(NoGeneration::Unknown { number, kept }.into())
            }
        }
    }

    async fn sync_seat(
        &self,
        files: &Arc<PolicyFiles>,
        seat: &StoredSeat,
        said: Said,
    ) -> Result<(), ShipError> {
        let _turn = self.turn_of(&seat.name).await;
        if files.file().is_some() {
            self.see(seat.clone());
            self.told.note_done(&seat.name, seat.revision);
            return Ok(());
        }
        let before = self.seen.lock().get(&seat.name).cloned();
        let Some(seat) = self.due(seat, before.as_ref(), said).await? else {
            return Ok(());
        };
        // Noted in any case: what fails now would also fail a second later.
        self.see(seat.clone());
        let done = self.bring_from(files, &seat, said, before.as_ref()).await;
        self.told.note_trial(files);
        match &done {
            Ok(Brought::Whole) => self.told.note_done(&seat.name, seat.revision),
            Ok(Brought::Condemned(number)) => {
                let error = format!(
                    "generation {number} failed too often here and is not active; `portcullis policy activate {} {number}` activates it",
                    seat.name
                );
                self.told.note_refused(&seat.name, seat.revision, error);
            }
            Err(ShipError::Store(error)) if error.is_away() => {
                // A later attempt may succeed.
                match before {
                    Some(before) => self.see(before),
                    None => drop(self.seen.lock().remove(&seat.name)),
                }
                return done.map(drop);
            }
            Err(error) => self
                .told
                .note_refused(&seat.name, seat.revision, error.to_string()),
        }
        self.older.clear(&seat.name);
        done.map(drop)
    }

    /// Applies a stored row to a seat.
    async fn bring(
        &self,
        files: &Arc<PolicyFiles>,
        seat: &StoredSeat,
        said: Said,
        before: Option<&StoredSeat>,
    ) -> Result<Brought, ShipError> {
        let mut brought = Brought::Whole;
        let is_foreign = self.foreign.lock().contains(&seat.name);
        if let (true, Some(active)) = (is_foreign, seat.active) {
            self.fetch_one(files, &seat.name, active).await?;
        }
        self.fetch(files, seat).await?;
        let slot = files.slot();
        if let Some(active) = seat.active
            && (is_foreign || !is_serving(files, active))
        {
            // The row may be newer than the condemnation: another host's operator has activated the generation meanwhile.
            let is_meant = said == Said::ByOperator
                || (seat.changed_by != BREAKER
                    && before.is_some_and(|before| before.active != seat.active));
            match slot.is_condemned(active) && !is_meant {
                true => {
                    brought = Brought::Condemned(active);
                    tracing::warn!(
                        event = "condemned_generation_not_served",
                        seat = seat.name,
                        generation = active,
                        serves = slot.number(),
                        "stored generation not activated, it failed too often here; an operator can activate it"
                    );
                }
                false => self.install(files, active, seat.previous).await?,
            }
        }
        self.foreign.lock().remove(&seat.name);
        match seat.candidate {
            Some((number, trial)) => {
                ask_again(files, number).await?;
                slot.try_out(number, trial_of(trial))?;
            }
            None => drop(slot.end_trial()),
        }
        if let Some(mode) = seat.mode.as_deref().and_then(mode) {
            slot.set_mode(mode);
        }
        self.manifest.keep(&seat.name, &slot.numbers());
        Ok(brought)
    }

    async fn install(
        &self,
        files: &PolicyFiles,
        active: u64,
        previous: Option<u64>,
    ) -> Result<(), ShipError> {
        ask_again(files, active).await?;
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

    /// Loads the generations that a seat needs and this host has not compiled yet.
    async fn fetch(&self, files: &Arc<PolicyFiles>, seat: &StoredSeat) -> Result<(), ShipError> {
        let candidate = seat.candidate.map(|(number, _)| number);
        let numbers = [seat.previous, candidate, seat.active];
        let numbers = numbers.into_iter().flatten();
        let slot = files.slot();
        let is_here = numbers
            .clone()
            .any(|number| slot.generation(number).is_some());
        let digests = match is_here {
            true => self.store.digests(&seat.name).await?,
            false => BTreeMap::new(),
        };
        for number in numbers {
            // A generation that the database has deleted stays in use.
            let is_replaced = |generation: &Arc<Generation>| {
                let stored = digests.get(&number);
                stored.is_some_and(|stored| self.is_replaced(&seat.name, generation, stored))
            };
            if slot
                .generation(number)
                .is_some_and(|generation| !is_replaced(&generation))
            {
                continue;
            }
            let fetched = self.fetch_one(files, &seat.name, number).await;
            match fetched {
                Err(ShipError::Store(error)) if error.is_away() => return Err(error.into()),
                // A fallback that no longer exists is ignored; the active generation and the candidate must exist.
                Err(_) if Some(number) == seat.previous && Some(number) != seat.active => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Loads one generation, compiled and tested.
    async fn fetch_one(
        &self,
        files: &Arc<PolicyFiles>,
        seat: &str,
        number: u64,
    ) -> Result<Arc<Generation>, ShipError> {
        let found = self.stored(seat, number).await?;
        let bytes = self.store.artifact(&found.digest).await?.into();
        // The right to write to the database does not imply the right to sign.
        let signed = files.loader().check(&found.name, bytes, &found.signature)?;
        let signed = Arc::new(signed);
        // If nothing is active, the host has just come to this seat, and the policy has been active elsewhere or earlier.
        let occasion = match files.slot().number() {
            0 => Occasion::Start,
            _ => Occasion::Usual,
        };
        let behalf = Behalf::of(files.seat());
        let policy = signed.compile_aside(behalf, occasion).await?;
        let generation = files.slot().admit(policy, Some(number));
        let provenance = Provenance {
            bytes: Arc::clone(signed.bytes()),
            author: found.author,
            note: found.note,
            signature: found.signature,
            at: UNIX_EPOCH + Duration::from_secs(found.created_at),
        };
        self.manifest.add(seat, number, provenance);
        Ok(generation)
    }

    /// Waits for the lock of a seat.
    async fn turn_of(&self, seat: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(seat);
        self.turns[hash as usize % TURNS].lock().await
    }
}

impl DesiredState for Database {
    fn add<'a>(
        &'a self,
        files: &'a PolicyFiles,
        new: NewGeneration<'a>,
    ) -> BoxFuture<'a, Result<Option<u64>, ShipError>> {
        let keep = files.seat().config.generations;
        async move {
            let pushed = self.store.push(&new, keep).await?;
            if let Some(held) = files.slot().generation(pushed.number) {
                let _told = self.is_replaced(new.seat, &held, &pushed.digest);
            }
            Ok(Some(pushed.number))
        }
        .boxed()
    }

    fn previous<'a>(&'a self, files: &'a PolicyFiles) -> BoxFuture<'a, Result<u64, ShipError>> {
        async move {
            let name = &*files.seat().name;
            let row = self.store.seat(name).await?.unwrap_or_else(|| StoredSeat {
                name: name.to_owned(),
                ..StoredSeat::default()
            });
            let state = self.state(files, &row, Change::RollBack(None)).await?;
            Ok(state.back_to(None)?)
        }
        .boxed()
    }

    fn change<'a>(
        &'a self,
        files: &'a Arc<PolicyFiles>,
        change: Change,
        by: &'a str,
    ) -> BoxFuture<'a, Result<(), ShipError>> {
        Self::change(self, files, change, by).boxed()
    }

    fn generations<'a>(
        &'a self,
        seat: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredGeneration>, ShipError>> {
        async move {
            let mut all = self.store.generations(seat, LISTED).await?;
            all.reverse();
            Ok(all)
        }
        .boxed()
    }

    fn bytes<'a>(
        &'a self,
        files: &'a PolicyFiles,
        number: u64,
    ) -> BoxFuture<'a, Result<Arc<[u8]>, ShipError>> {
        async move {
            let found = self.stored(&files.seat().name, number).await?;
            Ok(self.store.artifact(&found.digest).await?.into())
        }
        .boxed()
    }

    fn note_fall_back(&self, files: &PolicyFiles, from: u64, to: u64) {
        let name = files.seat().name.to_string();
        let fall_back = FallBack { from, to };
        self.fall_backs.lock().insert(name, fall_back);
        self.wake.notify_one();
    }
}

/// Whether the active generation of a seat is the one with this number. After a restore of a backup, the number may stand for another file.
fn is_serving(files: &PolicyFiles, number: u64) -> bool {
    let slot = files.slot();
    match (slot.current(), slot.generation(number)) {
        (Some(current), Some(generation)) => Arc::ptr_eq(&current, &generation),
        (None, _) | (_, None) => false,
    }
}

/// Returns the roles of the generations of a seat according to its row.
fn roles(row: &StoredSeat) -> Deployment {
    let candidate = row.candidate;
    Deployment {
        active: row.active,
        previous: row.previous,
        candidate: candidate.map(|(number, trial)| (number, trial_of(trial))),
        mode: row.mode.as_deref().and_then(mode),
        ..Deployment::default()
    }
}

/// Returns the row of a seat after a change. Columns that the change does not concern are preserved, including values that this version
/// cannot read.
fn row_after(row: &StoredSeat, before: &Deployment, after: &Deployment) -> StoredSeat {
    let mut row = StoredSeat {
        active: after.active,
        previous: after.previous,
        ..row.clone()
    };
    if after.candidate != before.candidate {
        let candidate = after.candidate;
        row.candidate = candidate.map(|(number, trial)| (number, stored_trial(trial)));
    }
    if after.mode != before.mode {
        row.mode = after.mode.map(|mode| mode.as_str().to_owned());
    }
    row
}

/// Parses the name of a mode.
fn mode(name: &str) -> Option<Mode> {
    [Mode::Enforce, Mode::Monitor]
        .into_iter()
        .find(|mode| mode.as_str() == name)
}

/// Converts a trial to its stored form.
pub(super) fn stored_trial(trial: Trial) -> StoredTrial {
    match trial {
        Trial::Shadow => StoredTrial::Shadow,
        Trial::Canary(share) => StoredTrial::Canary(share.hundredths()),
    }
}

/// Converts a trial from its stored form.
pub(super) fn trial_of(trial: StoredTrial) -> Trial {
    match trial {
        StoredTrial::Shadow => Trial::Shadow,
        StoredTrial::Canary(hundredths) => {
            Trial::Canary(Share::of_hundredths(hundredths).unwrap_or(Share::ALL))
        }
    }
}
