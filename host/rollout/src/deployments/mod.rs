//! Deploys policies to seats: push, activation, rollback and trials.
//!
//! [`state`] says what each change does to a seat. A [`DesiredState`] stores the state of a seat: in memory or in the database.

mod adoption;
mod ask;
mod database;
mod desired;
mod error;
mod follow;
mod live;
mod memory;
mod provenance;
mod rollout_error;
mod rollouts;
mod seat_states;
mod state;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use portcullis_policy::{Generation, Mode, NoGeneration, Trial};
use portcullis_store::{
    Generation as StoredGeneration, NewGeneration, Store, StoreError, StoredRollout,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::compiler::{Behalf, Occasion};
use crate::policy_files::PolicyFiles;
use crate::progress::Loading;
use crate::tenant_set::TenantSet;

use ask::ask_again;
use database::Database;
use desired::DesiredState;
use memory::{Memory, deployment_of};
use provenance::Manifest;
use state::Change;

pub use database::StoreStatus;
pub use error::ShipError;
pub use live::{HostBehind, HostsLive};
pub use provenance::Provenance;
pub use rollout_error::RolloutError;
pub use rollouts::{Moved, RolloutStatus};
pub use state::Arrival;

/// A policy to be pushed to a seat.
#[derive(Clone, Debug, Default)]
pub struct Push {
    /// Name in logs and lists; usually the name of the file.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// Who pushes it.
    pub author: String,
    /// A note of the author.
    pub note: String,
    /// Its signature in Base64; empty if it has none.
    pub signature: String,
    /// Whether it is pushed with the tenant's token, and not the operator's.
    pub is_tenants: bool,
}

/// The contract that the policies of this host implement.
const CONTRACT: &str = portcullis_policy::WORLD;

/// Which policies the seats of a host have, and every way to change that.
pub struct Deployments {
    seats: Arc<TenantSet>,
    memory: Memory,
    /// `None` for a host that keeps pushed policies in memory.
    database: Option<Database>,
    manifest: Arc<Manifest>,
    /// Progress of the start.
    loading: Arc<Loading>,
    /// The roll-outs that this host has read last.
    seen_rollouts: Mutex<Vec<StoredRollout>>,
    /// The last errors of roll-outs that this host leads, by seat.
    rollout_errors: Mutex<BTreeMap<String, RolloutError>>,
}

/// The generation that a change concerns.
type Shipped = Result<Arc<Generation>, ShipError>;

/// A reservation of a seat for one push: one for the tenant and one for the operator. While it is held, no other push by the same party is
/// accepted.
pub struct Reserved {
    files: Arc<PolicyFiles>,
    _only: OwnedSemaphorePermit,
}

impl Reserved {
    /// Returns the largest file that the seat accepts, in bytes.
    pub fn most(&self) -> usize {
        self.files.seat().config.limits.module_bytes
    }
}

impl Deployments {
    pub(crate) fn new(seats: Arc<TenantSet>, loading: Arc<Loading>) -> Self {
        Self {
            seats,
            memory: Memory,
            database: None,
            manifest: Arc::default(),
            loading,
            seen_rollouts: Mutex::default(),
            rollout_errors: Mutex::default(),
        }
    }

    /// Adds the database of pushed policies. They are loaded by [`Deployments::sync`].
    pub(crate) fn with_store(self, store: Store) -> Self {
        let database = Database::new(store, Arc::clone(&self.manifest));
        Self {
            database: Some(database),
            ..self
        }
    }

    /// Reserves a seat for a push, before the bytes are read, so that pushes to one seat can neither fill the memory nor delay those to
    /// others.
    ///
    /// # Errors
    /// If the seat does not accept pushes, another push is in progress, or there were too many.
    pub fn reserve(&self, seat: &str, is_tenants: bool) -> Result<Reserved, ShipError> {
        let files = self.seat_files(seat)?;
        must_be_pushed(&files)?;
        let arrivals = match is_tenants {
            true => &files.seat().arrivals,
            false => &files.seat().operators_arrivals,
        };
        let only = Arc::clone(arrivals).try_acquire_owned();
        let only = only.map_err(|_| {
            let seat = seat.to_owned();
            ShipError::Busy { seat }
        })?;
        let most = files.seat().config.pushes.filter(|_| is_tenants);
        if let Some(most) = most.filter(|_| !files.seat().admits_push(Instant::now())) {
            let seat = seat.to_owned();
            return Err(ShipError::TooMany { seat, most });
        }
        Ok(Reserved { files, _only: only })
    }

    /// Checks, compiles and tests a policy, stores it if there is a database, adds it to the seat, and activates it if requested.
    ///
    /// # Errors
    /// If it cannot be used or stored, or the seat does not accept pushes. The active policy stays.
    pub async fn push(
        &self,
        seat: &str,
        push: Push,
        arrival: Arrival,
    ) -> Result<Arc<Generation>, ShipError> {
        let place = self.reserve(seat, push.is_tenants)?;
        self.push_to(place, push, arrival).await
    }

    /// The same for a seat that is already reserved.
    ///
    /// # Errors
    /// See [`Deployments::push`].
    pub async fn push_to(
        &self,
        place: Reserved,
        push: Push,
        arrival: Arrival,
    ) -> Result<Arc<Generation>, ShipError> {
        let files = Arc::clone(&place.files);
        let seat = &*files.seat().name;
        deployment_of(&files).admits(arrival)?;
        let bytes = push.bytes.into();
        let loader = files.loader();
        let signed = Arc::new(loader.check(&push.name, bytes, &push.signature)?);
        let behalf = match push.is_tenants {
            true => Behalf::Tenant,
            false => Behalf::Operator,
        };
        let policy = signed.compile_aside(behalf, Occasion::Usual).await?;
        let new = NewGeneration {
            seat,
            name: &push.name,
            contract: CONTRACT,
            author: &push.author,
            note: &push.note,
            signature: &push.signature,
            bytes: signed.bytes(),
        };
        let number = self.desired_of(&files).add(&files, new).await?;
        let generation = files.slot().admit(policy, number);
        let provenance = Provenance {
            bytes: Arc::clone(signed.bytes()),
            author: push.author.clone(),
            note: push.note.clone(),
            signature: push.signature.clone(),
            at: SystemTime::now(),
        };
        let number = generation.number;
        self.manifest.add(seat, number, provenance);
        tracing::info!(
            event = "policy_pushed",
            seat,
            policy = generation.policy.name(),
            generation = number,
            digest = %format_args!("sha256:{:#}", generation.policy.digest()),
            author = push.author,
            signer = signed.signer(),
            "policy pushed"
        );
        if let Some(change) = arrival.change(number) {
            // The tenant may have a new configuration by now.
            let files = self.seat_files(seat)?;
            self.change(&files, change, &push.author).await?;
        }
        self.manifest.keep(seat, &files.slot().numbers());
        Ok(generation)
    }

    /// Activates a generation on all hosts of the database.
    ///
    /// # Errors
    /// If the seat or the generation does not exist, it does not accept the seat's settings, or the change cannot be stored.
    pub async fn activate(&self, seat: &str, number: u64, by: &str) -> Shipped {
        let files = self.seat_files(seat)?;
        self.change(&files, Change::Activate(number), by).await?;
        Ok(ready(&files, number)?)
    }

    /// Activates the previous generation, or the one with this number.
    ///
    /// # Errors
    /// See [`Deployments::activate`]; also if no number is given, and the previous generation was taken out of service because it failed.
    pub async fn roll_back(&self, seat: &str, to: Option<u64>, by: &str) -> Shipped {
        let files = self.seat_files(seat)?;
        // Without a number, the generation that was active before on all hosts. This host may not have applied it yet.
        let number = match to {
            Some(number) => number,
            None => self.desired_of(&files).previous(&files).await?,
        };
        if to.is_none() && files.slot().is_condemned(number) {
            let seat = seat.to_owned();
            return Err(ShipError::PreviousFailed { seat, number });
        }
        let change = Change::RollBack(Some(number));
        self.change(&files, change, by).await?;
        Ok(ready(&files, number)?)
    }

    /// Starts a trial of a generation beside the active one.
    ///
    /// # Errors
    /// See [`Deployments::activate`]; also if no generation is active.
    pub async fn try_out(&self, seat: &str, number: u64, trial: Trial, by: &str) -> Shipped {
        let files = self.seat_files(seat)?;
        self.change(&files, Change::TryOut(number, trial), by)
            .await?;
        Ok(ready(&files, number)?)
    }

    /// Ends the trial of the candidate. Returns the candidate, or `None` if there was none.
    ///
    /// # Errors
    /// If the seat does not exist, or the change cannot be stored.
    pub async fn end_trial(
        &self,
        seat: &str,
        by: &str,
    ) -> Result<Option<Arc<Generation>>, ShipError> {
        let files = self.seat_files(seat)?;
        let lineup = files.slot().lineup();
        let Some(candidate) = lineup.and_then(|lineup| lineup.candidate.clone()) else {
            return Ok(None);
        };
        self.change(&files, Change::EndTrial, by).await?;
        Ok(Some(candidate.generation))
    }

    /// Sets whether the verdicts of a seat are carried out.
    ///
    /// # Errors
    /// If the seat does not exist, or the change cannot be stored.
    pub async fn set_mode(&self, seat: &str, mode: Mode, by: &str) -> Result<(), ShipError> {
        let files = self.seat_files(seat)?;
        self.change(&files, Change::SetMode(mode), by).await
    }

    /// Returns the provenance of a generation that was pushed.
    pub fn provenance(&self, seat: &str, number: u64) -> Option<Provenance> {
        self.manifest.find(seat, number)
    }

    /// Returns the file of a generation, by default the active one.
    ///
    /// # Errors
    /// If the seat or the generation does not exist, or it was loaded from a file.
    pub async fn pull(&self, seat: &str, number: Option<u64>) -> Result<Arc<[u8]>, ShipError> {
        let files = self.seat_files(seat)?;
        let number = number.unwrap_or_else(|| files.slot().number());
        if let Some(provenance) = self.provenance(seat, number) {
            return Ok(provenance.bytes);
        }
        self.desired_of(&files).bytes(&files, number).await
    }

    /// Returns all stored generations of a seat, oldest first; none if the policies of the seat are not stored.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn stored_generations(&self, seat: &str) -> Result<Vec<StoredGeneration>, ShipError> {
        let files = self.seat_files(seat)?;
        self.desired_of(&files).generations(seat).await
    }

    /// Returns the policy files of a seat.
    ///
    /// # Errors
    /// If the seat does not exist. The error lists those that do.
    pub fn seat_files(&self, seat: &str) -> Result<Arc<PolicyFiles>, ShipError> {
        self.seats.files(seat).ok_or_else(|| {
            let known = self.seats.all_files();
            ShipError::NoSeat {
                name: seat.to_owned(),
                known: known
                    .iter()
                    .map(|files| files.seat().name.to_string())
                    .collect(),
            }
        })
    }

    /// Checks that pushes are stored.
    ///
    /// # Errors
    /// If they are not: the error of the database, or `None` without a database.
    pub fn storing(&self) -> Result<(), Option<StoreError>> {
        match self.store_status().ok_or(None)?.error {
            Some((error, _)) => Err(Some(error)),
            None => Ok(()),
        }
    }

    /// Returns the state of the database of pushed policies; `None` without a database.
    pub fn store_status(&self) -> Option<StoreStatus> {
        self.database.as_ref().map(Database::status)
    }

    /// Notes an automatic fallback of a seat.
    pub(crate) fn note_fall_back(&self, files: &PolicyFiles, from: u64, to: u64) {
        self.desired_of(files).note_fall_back(files, from, to);
    }

    /// Returns the storage of the desired state of a seat. A seat that follows a file is in memory: only this host has the file.
    fn desired_of(&self, files: &PolicyFiles) -> &dyn DesiredState {
        match &self.database {
            Some(database) if files.file().is_none() && !database.health().is_memory() => database,
            Some(_) | None => &self.memory,
        }
    }

    /// Makes a change after checking that the generation accepts the settings.
    async fn change(
        &self,
        files: &Arc<PolicyFiles>,
        change: Change,
        by: &str,
    ) -> Result<(), ShipError> {
        if let Some(number) = change.number() {
            ask_again(files, number).await?;
        }
        self.desired_of(files).change(files, change, by).await?;
        let seat = &*files.seat().name;
        match change {
            Change::Activate(_) | Change::RollBack(_) => files.seat().clear(),
            Change::TryOut(number, trial) => tracing::info!(
                event = "trial_started",
                seat,
                generation = number,
                %trial,
                "generation is on trial"
            ),
            Change::SetMode(mode) => {
                tracing::info!(
                    event = "mode_changed",
                    seat,
                    mode = mode.as_str(),
                    "mode of the seat changed"
                );
            }
            Change::EndTrial => {}
        }
        Ok(())
    }
}

fn ready(files: &PolicyFiles, number: u64) -> Result<Arc<Generation>, NoGeneration> {
    let found = files.slot().generation(number);
    found.ok_or_else(|| NoGeneration::Unknown {
        number,
        kept: files.slot().numbers(),
    })
}

/// Refuses pushes to a seat that follows a file: two sources would replace each other's policies.
fn must_be_pushed(files: &PolicyFiles) -> Result<(), ShipError> {
    match files.file() {
        None => Ok(()),
        Some(file) => Err(ShipError::FollowsFile {
            seat: files.seat().name.to_string(),
            file: file.display().to_string(),
        }),
    }
}

impl std::fmt::Debug for Deployments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployments").finish_non_exhaustive()
    }
}
