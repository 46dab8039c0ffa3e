//! The policy file of a seat: loaded at the start, when it changes, and by command.
//!
//! Policies are compiled on blocking threads of the control side. Workers use a new policy from their next request on; a file that cannot
//! be used changes only the status.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use portcullis_address::FileWatch;
use portcullis_config::SeatConfig;
use portcullis_dataplane::tenants::Seat;
use portcullis_policy::{
    Digest, Generation, LoadError, LoadProblem, PolicySlot, Reload, Runtime, Scope, Settings,
};
use portcullis_signature::{self as signature, SignatureError};
use thiserror::Error;

use crate::compiler::{Behalf, Occasion, on};
use crate::loader::{Loader, SignedFile};

/// How long an unusable file that is written in place may continue to change before its error is logged.
const PIECE: Duration = Duration::from_secs(2);

/// Loads and reloads the policy of one seat.
pub struct PolicyFiles {
    name: String,
    loader: Loader,
    failed: Mutex<Option<Failed>>,
    loads: AtomicU64,
    failures: AtomicU64,
}

/// Result of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file has become the active policy.
    Published(PolicyId),
    /// The file is the active policy already.
    Unchanged(PolicyId),
}

/// Identity of a policy in a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyId {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Number of the generation, from 1.
    pub generation: u64,
}

/// Why a load failed.
#[derive(Debug, Error)]
pub enum PolicyFileError {
    /// No file is configured.
    #[error("no policy file is configured: set `file` in [policy] and restart the host")]
    NotConfigured,
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is not a usable policy.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// The signature is missing or invalid.
    #[error("{path}: {source}", path = path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// The error.
        source: SignatureError,
    },
    /// The load panicked, or the host ended meanwhile.
    #[error("the load of the policy was interrupted")]
    Interrupted,
}

/// The last load, if it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The error.
    pub error: String,
    /// Time of the load.
    pub at: SystemTime,
    /// Digest of the file's content, if it could be read.
    digest: Option<Digest>,
}

impl PolicyFiles {
    /// Creates the policy files of this seat. Nothing is loaded yet.
    pub fn new(seat: Arc<Seat>, runtime: Arc<Runtime>) -> Self {
        let name = seat.config.file.as_deref().and_then(Path::file_name);
        Self {
            name: name
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            loader: Loader::new(runtime, seat),
            failed: Mutex::new(None),
            loads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Creates policy files with a seat of their own, to inspect a file.
    pub fn alone(name: &str, config: SeatConfig, runtime: Arc<Runtime>) -> Self {
        let settings = Settings::new(config.settings.clone());
        let scope = Scope::operator().with_settings(Arc::new(settings));
        let seat = Seat::new(name, Arc::default(), scope, config, Arc::default());
        Self::new(Arc::new(seat), runtime)
    }

    /// Returns the seat.
    pub fn seat(&self) -> &Arc<Seat> {
        self.loader.seat()
    }

    /// Returns the slot from which workers take the policy.
    pub fn slot(&self) -> &Arc<PolicySlot> {
        &self.seat().slot
    }

    /// Returns the configured file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.seat().config.file.as_deref()
    }

    /// Returns the engine that runs the policies.
    pub fn runtime(&self) -> &Runtime {
        self.loader.runtime()
    }

    /// Returns the loader for this seat.
    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Returns the error of the last load, if it failed.
    pub fn failed(&self) -> Option<Failed> {
        self.failed.lock().clone()
    }

    /// Returns the number of successful and of failed loads.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.loads.load(Ordering::Relaxed),
            self.failures.load(Ordering::Relaxed),
        )
    }

    /// Loads the file and publishes it to all workers. Blocks while it compiles.
    ///
    /// # Errors
    /// If the file cannot be used. The active policy stays.
    pub fn load(&self) -> Result<Outcome, PolicyFileError> {
        self.try_load(LoadCause::ByOperator).map_err(|unloaded| {
            self.note_failure(&unloaded);
            unloaded.error
        })
    }

    /// Like [`PolicyFiles::load`], without noting a failure.
    fn try_load(&self, cause: LoadCause) -> Result<Outcome, Unloaded> {
        let mut digest = None;
        let loaded = self.load_from_file(cause, &mut digest);
        match loaded {
            Ok(Some(reload)) => Ok(self.note_success(&reload)),
            Ok(None) => Ok(Outcome::Unchanged(self.serving())),
            Err(error) => Err(Unloaded { error, digest }),
        }
    }

    /// Returns `None` if the generation of this file has been condemned.
    fn load_from_file(
        &self,
        cause: LoadCause,
        digest: &mut Option<Digest>,
    ) -> Result<Option<Reload>, PolicyFileError> {
        let file = self.file().ok_or(PolicyFileError::NotConfigured)?;
        let SeatConfig { reuse, limits, .. } = &*self.seat().config;
        let bytes = read(file, limits.module_bytes, &self.name)?;
        let of_file = Digest::of(&bytes);
        *digest = Some(of_file);
        let signed = self.check_signature(file, bytes.into())?;
        let slot = self.slot();
        if cause == LoadCause::ByChange
            && self.serving().digest != of_file
            && slot.is_condemned_file(of_file)
        {
            tracing::warn!(
                event = "condemned_file_not_loaded",
                seat = &*self.seat().name,
                file = %file.display(),
                "policy file not loaded, it failed too often; `portcullis policy reload` loads it anyway"
            );
            return Ok(None);
        }
        let load = || signed.compile(Behalf::of(self.seat()));
        Ok(Some(slot.load_with(&self.name, of_file, *reuse, load)?))
    }

    fn serving(&self) -> PolicyId {
        let current = self.slot().current();
        current.map_or_else(PolicyId::none, |generation| PolicyId::of(&generation))
    }

    fn check_signature(
        &self,
        file: &Path,
        bytes: Arc<[u8]>,
    ) -> Result<SignedFile, PolicyFileError> {
        let signature = match self.seat().config.signers.keys.is_empty() {
            true => String::new(),
            false => {
                let path = signature::file_of(file);
                let read = signature::read(&path);
                read.map_err(|source| PolicyFileError::Unreadable { path, source })?
            }
        };
        let signed = self.loader.check(&self.name, bytes, &signature);
        signed.map_err(|source| PolicyFileError::Signature {
            path: file.to_owned(),
            source,
        })
    }

    /// Loads the file from a task of the control side.
    ///
    /// # Errors
    /// If the file cannot be read or used. The previous policy stays.
    pub async fn reload(self: &Arc<Self>) -> Result<Outcome, PolicyFileError> {
        self.load_on(Occasion::Usual).await
    }

    pub(crate) async fn load_on(
        self: &Arc<Self>,
        occasion: Occasion,
    ) -> Result<Outcome, PolicyFileError> {
        let files = Arc::clone(self);
        let load = tokio::task::spawn_blocking(move || on(occasion, || files.load()));
        load.await.unwrap_or(Err(PolicyFileError::Interrupted))
    }

    /// Loads the file whenever it changes. Returns at once if no file is configured, and never otherwise.
    pub async fn watch(self: Arc<Self>) {
        let Some(file) = self.file() else {
            return;
        };
        let mut watch = FileWatch::quick(file);
        loop {
            // The first event of the watch also covers changes between the load at the start and the watch.
            let files = Arc::clone(&self);
            let load = move || files.try_load(LoadCause::ByChange);
            let loaded = tokio::task::spawn_blocking(load).await;
            if let Ok(Err(unloaded)) = loaded {
                // A file written in place may still be incomplete: then a further change follows, and nothing is logged yet.
                if watch.was_in_place() && watch.changes_within(PIECE).await {
                    continue;
                }
                self.note_failure(&unloaded);
            }
            watch.changed().await;
        }
    }

    fn note_success(&self, reload: &Reload) -> Outcome {
        *self.failed.lock() = None;
        match reload {
            Reload::Published(generation) => {
                self.loads.fetch_add(1, Ordering::Relaxed);
                self.seat().clear();
                self.announce(generation);
                Outcome::Published(PolicyId::of(generation))
            }
            Reload::Unchanged(generation) => Outcome::Unchanged(PolicyId::of(generation)),
        }
    }

    fn announce(&self, generation: &Generation) {
        let policy = &generation.policy;
        tracing::info!(
            event = "policy_loaded",
            seat = &*self.seat().name,
            policy = policy.name(),
            generation = generation.number,
            digest = %format_args!("sha256:{:#}", policy.digest()),
            bytes = policy.inspection().size,
            milliseconds = policy.load_time().as_millis() as u64,
            code = policy.code_origin().as_str(),
            "policy loaded"
        );
        if let Some(failure) = policy.trial_failure() {
            tracing::warn!(event = "policy_fails_trial", policy = policy.name(), %failure, "policy fails on a plain OPTIONS");
        }
    }

    /// Stores the error for the status, and logs it unless the same content has failed before.
    fn note_failure(&self, unloaded: &Unloaded) {
        let Unloaded { error, digest } = unloaded;
        let digest = *digest;
        self.failures.fetch_add(1, Ordering::Relaxed);
        let failed = Failed {
            error: error.to_string(),
            at: SystemTime::now(),
            digest,
        };
        let known = {
            let mut last = self.failed.lock();
            let known = last
                .as_ref()
                .is_some_and(|last| last.digest == digest && last.error == failed.error);
            *last = Some(failed);
            known
        };
        // At the start, no policy is active yet, and the caller reports why the host ends.
        let generation = self.seat().slot.number();
        if !known && generation > 0 {
            tracing::error!(event = "policy_not_loaded", %error, generation, "policy not loaded, the previous one stays");
        }
    }
}

/// What requests a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadCause {
    /// A command.
    ByOperator,
    /// A change of the file.
    ByChange,
}

/// A load that failed.
struct Unloaded {
    error: PolicyFileError,
    /// Digest of the file's content, if it could be read.
    digest: Option<Digest>,
}

impl Outcome {
    /// Returns the identity of the active policy.
    pub fn id(self) -> PolicyId {
        match self {
            Self::Published(id) | Self::Unchanged(id) => id,
        }
    }
}

impl PolicyId {
    /// The identity for a seat without a policy.
    fn none() -> Self {
        Self {
            digest: Digest::of(&[]),
            generation: 0,
        }
    }

    fn of(generation: &Generation) -> Self {
        Self {
            digest: generation.policy.digest(),
            generation: generation.number,
        }
    }
}

/// Reads a file of at most `limit` bytes.
fn read(path: &Path, limit: usize, name: &str) -> Result<Vec<u8>, PolicyFileError> {
    let unreadable = |source| PolicyFileError::Unreadable {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file",
        )));
    }
    let too_large = |size: u64| LoadError {
        policy: name.to_owned(),
        problem: LoadProblem::TooLarge {
            size: usize::try_from(size).unwrap_or(usize::MAX),
            limit,
        },
    };
    if metadata.len() > limit as u64 {
        return Err(too_large(metadata.len()).into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    // The file may grow while it is read.
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
