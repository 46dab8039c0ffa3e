//! Bringing new policies to seats: push, activate, go back, try out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use portcullis_policy::{Generation, LoadError, Mode, NoGeneration, SettingsError, Trial};
use portcullis_signature::SignatureError;
use portcullis_store::{StoreError, Trial as StoredTrial};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use crate::compiler::{Behalf, on_behalf_of};
use crate::policy_files::PolicyFiles;
use crate::settings::takes;

use super::Registry;

/// A policy on its way to a seat.
#[derive(Clone, Debug, Default)]
pub struct Push {
    /// What it is called in logs and lists: its file, as a rule.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// Who brings it.
    pub author: String,
    /// What its author says about it.
    pub note: String,
    /// Its signature in Base64; empty if it has none.
    pub signature: String,
    /// Whether it comes with the tenant's token, not the operator's.
    pub is_tenants: bool,
}

/// What becomes of a generation that has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// It waits.
    #[default]
    Keep,
    /// It serves.
    Activate,
    /// It is tried beside the one that serves.
    Try(Trial),
}

/// What is known of a generation that was pushed, beside what it does.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The file.
    pub bytes: Arc<[u8]>,
    /// Who brought it.
    pub author: String,
    /// What its author says about it.
    pub note: String,
    /// Its signature; empty if it has none.
    pub signature: String,
    /// When it came.
    pub at: SystemTime,
}

/// Where pushed generations came from, by seat and number; as many as the slots keep.
#[derive(Debug, Default)]
pub(super) struct Manifest(Mutex<BTreeMap<(String, u64), Provenance>>);

/// A generation that does something now.
type Shipped = Result<Arc<Generation>, ShipError>;

/// The mode of this name.
pub(super) fn mode(name: &str) -> Option<Mode> {
    [Mode::Enforce, Mode::Monitor]
        .into_iter()
        .find(|mode| mode.as_str() == name)
}

/// Why a policy did not get where it was sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShipError {
    /// There is no such seat.
    #[error("there is no seat `{name}`; there are {}", .known.join(", "))]
    NoSeat {
        /// Its name.
        name: String,
        /// The names of those that are there.
        known: Vec<String>,
    },
    /// The seat follows a file.
    #[error(
        "the seat `{seat}` follows the file {file}: put the policy there, or take `file` out of its configuration"
    )]
    FollowsFile {
        /// The seat.
        seat: String,
        /// Its file.
        file: String,
    },
    /// What was sent is no policy that can serve.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// It came before the settings were changed, and does not take them.
    #[error("generation {number}: {source}")]
    Settings {
        /// The generation.
        number: u64,
        /// What is wrong.
        source: SettingsError,
    },
    /// It is not signed as it should be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Another one is on its way to the seat.
    #[error(
        "another policy is being compiled for the seat `{seat}`: try again when it has arrived"
    )]
    Busy {
        /// The seat.
        seat: String,
    },
    /// There were many in a short time.
    #[error(
        "the seat `{seat}` takes {most} pushes a minute (key `pushes-per-minute`): try again in a few seconds"
    )]
    TooMany {
        /// The seat.
        seat: String,
        /// How many it takes.
        most: u32,
    },
    /// The generation is not there.
    #[error(transparent)]
    NoGeneration(#[from] NoGeneration),
    /// The bytes of the generation are not kept: it came from a file.
    #[error("generation {0} was not pushed, so its bytes are where its file is")]
    NotPushed(u64),
    /// The database does not take it, or does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The load panicked or was interrupted by the end of the host.
    #[error("the load of the policy was interrupted")]
    Interrupted,
}

/// The place for a policy that comes to a seat: one for the tenant's people, one for the operator. While it is held, no other of theirs
/// comes there.
pub struct Reserved {
    files: Arc<PolicyFiles>,
    _only: OwnedSemaphorePermit,
}

impl Reserved {
    /// The largest file that the seat takes, in bytes.
    pub fn most(&self) -> usize {
        self.files.seat().config.limits.module_bytes
    }
}

impl Registry {
    /// The place for a policy that is to come to a seat: to be had before its bytes are read, so that one seat's people can neither
    /// fill the memory nor hold up others.
    ///
    /// # Errors
    /// When the seat is none to push to, another policy is on its way there, or there were too many.
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

    /// Checks, compiles and tries a policy, stores it if there is a database for that, keeps it ready at the seat, and lets it serve if
    /// that is asked for.
    ///
    /// # Errors
    /// When it can't be used or stored, or the seat is none to push to. Whatever serves goes on.
    pub async fn push(
        &self,
        seat: &str,
        push: Push,
        arrival: Arrival,
    ) -> Result<Arc<Generation>, ShipError> {
        let place = self.reserve(seat, push.is_tenants)?;
        self.push_to(place, push, arrival).await
    }

    /// The same for a place that is held already.
    ///
    /// # Errors
    /// As [`Registry::push`].
    pub async fn push_to(
        &self,
        place: Reserved,
        push: Push,
        arrival: Arrival,
    ) -> Result<Arc<Generation>, ShipError> {
        let files = Arc::clone(&place.files);
        let seat = &*files.seat().name;
        if matches!(arrival, Arrival::Try(_)) && files.slot().current().is_none() {
            return Err(NoGeneration::Nothing.into());
        }
        let signers = &files.seat().config.signers;
        let signer = signers
            .check(&push.bytes, &push.signature)?
            .map(str::to_owned);
        let push = Arc::new(push);
        let load = {
            let (files, push) = (Arc::clone(&files), Arc::clone(&push));
            move || {
                let config = &files.seat().config;
                let (runtime, settings) = (files.runtime(), files.seat().scope.settings());
                let behalf = match push.is_tenants {
                    true => Behalf::Tenant,
                    false => Behalf::Operator,
                };
                let policy = on_behalf_of(behalf, || {
                    runtime.load_within(&push.name, &push.bytes, &config.limits, settings)
                })?;
                Ok::<_, LoadError>(policy.with_reuse(config.reuse))
            }
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let policy = loaded.map_err(|_| ShipError::Interrupted)??;
        let keep = files.seat().config.generations;
        let number = match self.stored_of(&files) {
            Some(stored) => Some(self.store_push(stored, seat, &push, keep).await?),
            None => None,
        };
        let generation = files.slot().admit(policy, number);
        let provenance = Provenance {
            bytes: push.bytes.as_slice().into(),
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
            signer,
            "policy pushed"
        );
        match arrival {
            Arrival::Keep => {}
            Arrival::Activate => drop(self.activate(seat, number, &push.author).await?),
            Arrival::Try(trial) => drop(self.try_out(seat, number, trial, &push.author).await?),
        }
        self.manifest.keep(seat, &files.slot().numbers());
        Ok(generation)
    }

    /// Lets the generation of this number serve, on all hosts of the database.
    ///
    /// # Errors
    /// When there is no such seat or generation, it does not take the seat's settings, or it can't be written down.
    pub async fn activate(&self, seat: &str, number: u64, by: &str) -> Shipped {
        let files = self.seat_files(seat)?;
        self.ask_again(&files, number).await?;
        if let Some(stored) = self.stored_of(&files) {
            self.change_active(stored, seat, by, number).await?;
        } else {
            files.slot().activate(number)?;
            tracing::info!(
                event = "generation_active",
                seat,
                generation = number,
                "generation is active"
            );
        }
        files.seat().clear();
        Ok(self.ready(&files, number)?)
    }

    /// Lets the generation serve that did before, or the one of this number.
    ///
    /// # Errors
    /// As [`Registry::activate`].
    pub async fn roll_back(&self, seat: &str, to: Option<u64>, by: &str) -> Shipped {
        let files = self.seat_files(seat)?;
        let Some(stored) = self.stored_of(&files) else {
            if let Some(number) = to.or_else(|| files.slot().previous()) {
                self.ask_again(&files, number).await?;
            }
            let generation = files.slot().roll_back(to)?;
            files.seat().clear();
            let number = generation.number;
            tracing::info!(
                event = "generation_rolled_back",
                seat,
                generation = number,
                "older generation is active again"
            );
            return Ok(generation);
        };
        // What served before on all hosts, which this one may not have followed yet.
        let number = match to {
            Some(number) => number,
            None => self.stored_previous(stored, seat).await?,
        };
        self.activate(seat, number, by).await
    }

    /// Tries the generation of this number beside the one that serves.
    ///
    /// # Errors
    /// As [`Registry::activate`], and when nothing serves.
    pub async fn try_out(&self, seat: &str, number: u64, trial: Trial, by: &str) -> Shipped {
        let files = self.seat_files(seat)?;
        self.ask_again(&files, number).await?;
        match self.stored_of(&files) {
            Some(stored) => {
                if files.slot().current().is_none() {
                    return Err(NoGeneration::Nothing.into());
                }
                let candidate = Some((number, stored_trial(trial)));
                let change = |seat: &mut portcullis_store::Seat| seat.candidate = candidate;
                self.change(stored, seat, by, change).await?;
            }
            None => drop(files.slot().try_out(number, trial)?),
        }
        tracing::info!(
            event = "trial_started",
            seat,
            generation = number,
            ?trial,
            "generation is on trial"
        );
        Ok(self.ready(&files, number)?)
    }

    /// Ends the trial of the candidate; none if there was none.
    ///
    /// # Errors
    /// When there is no such seat, or it can't be written down.
    pub async fn end_trial(
        &self,
        seat: &str,
        by: &str,
    ) -> Result<Option<Arc<Generation>>, ShipError> {
        let files = self.seat_files(seat)?;
        let lineup = files.slot().lineup();
        let candidate = lineup.and_then(|lineup| lineup.candidate.clone());
        if candidate.is_none() {
            return Ok(None);
        }
        match self.stored_of(&files) {
            Some(stored) => {
                self.change(stored, seat, by, |seat| seat.candidate = None)
                    .await?;
            }
            None => drop(files.slot().end_trial()),
        }
        Ok(candidate.map(|candidate| candidate.generation))
    }

    /// Says whether the verdicts of a seat's policy are carried out.
    ///
    /// # Errors
    /// When there is no such seat, or it can't be written down.
    pub async fn set_mode(&self, seat: &str, mode: Mode, by: &str) -> Result<(), ShipError> {
        let files = self.seat_files(seat)?;
        if let Some(stored) = self.stored_of(&files) {
            let mode = Some(mode.as_str().to_owned());
            self.change(stored, seat, by, |seat| seat.mode.clone_from(&mode))
                .await?;
        }
        files.slot().set_mode(mode);
        tracing::info!(
            event = "mode_changed",
            seat,
            mode = mode.as_str(),
            "mode of the seat changed"
        );
        Ok(())
    }

    /// Asks a generation that is to serve again, or to be tried, whether it takes the settings. One that is not loaded yet is asked then.
    pub(super) async fn ask_again(
        &self,
        files: &PolicyFiles,
        number: u64,
    ) -> Result<(), ShipError> {
        let Some(generation) = files.slot().generation(number) else {
            return Ok(());
        };
        let taken = takes(&generation, files.seat().scope.settings()).await;
        taken.map_err(|source| ShipError::Settings { number, source })
    }

    fn ready(&self, files: &PolicyFiles, number: u64) -> Result<Arc<Generation>, NoGeneration> {
        let kept = || files.slot().numbers();
        let found = files.slot().generation(number);
        found.ok_or_else(|| NoGeneration::Unknown {
            number,
            kept: kept(),
        })
    }

    /// Where a generation came from, if it was pushed.
    pub fn provenance(&self, seat: &str, number: u64) -> Option<Provenance> {
        let manifest = self.manifest.0.lock();
        manifest.get(&(seat.to_owned(), number)).cloned()
    }

    /// The file of a generation: the one that serves, if none is named.
    ///
    /// # Errors
    /// When there is no such seat or generation, or it came from a file.
    pub async fn pull(&self, seat: &str, number: Option<u64>) -> Result<Arc<[u8]>, ShipError> {
        let files = self.seat_files(seat)?;
        let number = number.unwrap_or_else(|| files.slot().number());
        if let Some(provenance) = self.provenance(seat, number) {
            return Ok(provenance.bytes);
        }
        if let Some(stored) = self.stored_of(&files) {
            return self.stored_bytes(stored, seat, number).await;
        }
        match files.slot().generation(number) {
            Some(_) => Err(ShipError::NotPushed(number)),
            None => {
                let kept = files.slot().numbers();
                Err(NoGeneration::Unknown { number, kept }.into())
            }
        }
    }

    /// The policy files of a seat.
    ///
    /// # Errors
    /// When there is none of this name: it tells those that are there.
    pub fn seat_files(&self, seat: &str) -> Result<Arc<PolicyFiles>, ShipError> {
        self.files(seat).ok_or_else(|| {
            let known = self.all_files();
            ShipError::NoSeat {
                name: seat.to_owned(),
                known: known
                    .iter()
                    .map(|files| files.seat().name.to_string())
                    .collect(),
            }
        })
    }
}

impl Manifest {
    pub(super) fn add(&self, seat: &str, number: u64, provenance: Provenance) {
        self.0.lock().insert((seat.to_owned(), number), provenance);
    }

    /// Forgets all of a seat.
    pub(super) fn forget(&self, seat: &str) {
        self.0.lock().retain(|(of, _), _| of != seat);
    }

    /// Forgets what no slot keeps.
    pub(super) fn keep(&self, seat: &str, numbers: &[u64]) {
        let is_kept = |(of, number): &(String, u64)| of != seat || numbers.contains(number);
        self.0.lock().retain(|key, _| is_kept(key));
    }
}

/// Two sources of one seat would replace each other's policies.
fn must_be_pushed(files: &PolicyFiles) -> Result<(), ShipError> {
    match files.file() {
        None => Ok(()),
        Some(file) => Err(ShipError::FollowsFile {
            seat: files.seat().name.to_string(),
            file: file.display().to_string(),
        }),
    }
}

/// A trial as it is stored.
pub(super) fn stored_trial(trial: Trial) -> StoredTrial {
    match trial {
        Trial::Shadow => StoredTrial::Shadow,
        Trial::Canary(share) => StoredTrial::Canary(share.hundredths()),
    }
}
