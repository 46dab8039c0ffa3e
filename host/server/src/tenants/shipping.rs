//! Bringing new policies to seats: push, activate, go back, try out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use portcullis_policy::{Generation, LoadError, Mode, NoGeneration, Trial};
use thiserror::Error;

use crate::pipeline::PolicyRequest;
use crate::policy_files::PolicyFiles;

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
    /// When it came.
    pub at: SystemTime,
}

/// Where pushed generations came from, by seat and number; as many as the slots keep.
#[derive(Debug, Default)]
pub(super) struct Manifest(Mutex<BTreeMap<(String, u64), Provenance>>);

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
    /// The generation is not there.
    #[error(transparent)]
    NoGeneration(#[from] NoGeneration),
    /// The bytes of the generation are not kept: it came from a file.
    #[error("generation {0} was not pushed, so its bytes are where its file is")]
    NotPushed(u64),
    /// The load panicked or was interrupted by the end of the host.
    #[error("the load of the policy was interrupted")]
    Interrupted,
}

impl Registry {
    /// Checks, compiles and tries a policy, keeps it ready at the seat, and lets it serve if that is asked for.
    ///
    /// # Errors
    /// When it can't be used, or the seat is none to push to. Whatever serves goes on.
    pub async fn push(
        &self,
        seat: &str,
        push: Push,
        arrival: Arrival,
    ) -> Result<Arc<Generation<PolicyRequest>>, ShipError> {
        let files = self.seat_files(seat)?;
        must_be_pushed(&files)?;
        if matches!(arrival, Arrival::Try(_)) && files.slot().current().is_none() {
            return Err(NoGeneration::Nothing.into());
        }
        let Push {
            name,
            bytes,
            author,
            note,
        } = push;
        let bytes: Arc<[u8]> = bytes.into();
        let load = {
            let (files, bytes) = (Arc::clone(&files), Arc::clone(&bytes));
            move || {
                let config = &files.seat().config;
                let policy = files.runtime().load_within(&name, &bytes, &config.limits)?;
                let policy = policy.with_reuse(config.reuse);
                Ok::<_, LoadError>(files.slot().admit(policy, None))
            }
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let generation = loaded.map_err(|_| ShipError::Interrupted)??;
        let provenance = Provenance {
            bytes,
            author,
            note,
            at: SystemTime::now(),
        };
        self.manifest.add(seat, generation.number, provenance);
        match arrival {
            Arrival::Keep => {}
            Arrival::Activate => drop(self.activate(seat, generation.number)?),
            Arrival::Try(trial) => drop(self.try_out(seat, generation.number, trial)?),
        }
        let kept = files.slot().numbers();
        self.manifest.keep(seat, &kept);
        tracing::info!(
            seat,
            policy = generation.policy.name(),
            generation = generation.number,
            digest = %format_args!("sha256:{:#}", generation.policy.digest()),
            "A policy has arrived."
        );
        Ok(generation)
    }

    /// Lets the generation of this number serve.
    ///
    /// # Errors
    /// When there is no such seat or generation.
    pub fn activate(
        &self,
        seat: &str,
        number: u64,
    ) -> Result<Arc<Generation<PolicyRequest>>, ShipError> {
        let files = self.seat_files(seat)?;
        let generation = files.slot().activate(number)?;
        files.seat().clear();
        tracing::info!(seat, generation = number, "Another generation serves.");
        Ok(generation)
    }

    /// Lets the generation serve that did before, or the one of this number.
    ///
    /// # Errors
    /// When there is no such seat or generation.
    pub fn roll_back(
        &self,
        seat: &str,
        to: Option<u64>,
    ) -> Result<Arc<Generation<PolicyRequest>>, ShipError> {
        let files = self.seat_files(seat)?;
        let generation = files.slot().roll_back(to)?;
        files.seat().clear();
        tracing::info!(
            seat,
            generation = generation.number,
            "An older generation serves again."
        );
        Ok(generation)
    }

    /// Tries the generation of this number beside the one that serves.
    ///
    /// # Errors
    /// When there is no such seat or generation, or nothing serves.
    pub fn try_out(
        &self,
        seat: &str,
        number: u64,
        trial: Trial,
    ) -> Result<Arc<Generation<PolicyRequest>>, ShipError> {
        let files = self.seat_files(seat)?;
        let generation = files.slot().try_out(number, trial)?;
        tracing::info!(
            seat,
            generation = number,
            ?trial,
            "A generation is tried out."
        );
        Ok(generation)
    }

    /// Ends the trial of the candidate; none if there was none.
    ///
    /// # Errors
    /// When there is no such seat.
    pub fn end_trial(
        &self,
        seat: &str,
    ) -> Result<Option<Arc<Generation<PolicyRequest>>>, ShipError> {
        let files = self.seat_files(seat)?;
        Ok(files.slot().end_trial())
    }

    /// Says whether the verdicts of a seat's policy are carried out.
    ///
    /// # Errors
    /// When there is no such seat.
    pub fn set_mode(&self, seat: &str, mode: Mode) -> Result<(), ShipError> {
        let files = self.seat_files(seat)?;
        files.slot().set_mode(mode);
        tracing::info!(
            seat,
            mode = mode.as_str(),
            "The mode of a seat has changed."
        );
        Ok(())
    }

    /// Where a generation came from, if it was pushed.
    pub fn provenance(&self, seat: &str, number: u64) -> Option<Provenance> {
        let manifest = self.manifest.0.lock();
        manifest.get(&(seat.to_owned(), number)).cloned()
    }

    /// The file of a generation.
    ///
    /// # Errors
    /// When there is no such seat or generation, or it came from a file.
    pub fn pull(&self, seat: &str, number: Option<u64>) -> Result<Arc<[u8]>, ShipError> {
        let files = self.seat_files(seat)?;
        let number = number.unwrap_or_else(|| files.slot().number());
        if files.slot().generation(number).is_none() {
            let kept = files.slot().numbers();
            return Err(NoGeneration::Unknown { number, kept }.into());
        }
        let provenance = self.provenance(seat, number);
        provenance
            .map(|provenance| provenance.bytes)
            .ok_or(ShipError::NotPushed(number))
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
    fn add(&self, seat: &str, number: u64, provenance: Provenance) {
        self.0.lock().insert((seat.to_owned(), number), provenance);
    }

    /// Forgets what no slot keeps.
    fn keep(&self, seat: &str, numbers: &[u64]) {
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
