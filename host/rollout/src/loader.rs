//! Makes a policy of bytes, whether they come from a file, a push or the database.

use std::sync::Arc;

use portcullis_dataplane::tenants::Seat;
use portcullis_policy::{LoadError, Policy, Runtime};
use portcullis_signature::SignatureError;
use thiserror::Error;

use crate::compiler::{Behalf, Occasion, on, on_behalf_of};

/// Loads policies for one seat.
#[derive(Clone)]
pub(crate) struct Loader {
    runtime: Arc<Runtime>,
    seat: Arc<Seat>,
}

/// A file whose signature the seat accepts. Only such files are compiled.
pub(crate) struct SignedFile {
    loader: Loader,
    name: String,
    bytes: Arc<[u8]>,
    signer: Option<String>,
}

/// Why a file was not loaded.
#[derive(Debug, Error)]
pub(crate) enum LoaderError {
    /// The file is not a usable policy.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// The load panicked, or the host ended meanwhile.
    #[error("the load of the policy was interrupted")]
    Interrupted,
}

impl Loader {
    pub(crate) fn new(runtime: Arc<Runtime>, seat: Arc<Seat>) -> Self {
        Self { runtime, seat }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Checks a file with its signature in Base64 (empty: no signature). `name` is the name of the policy in logs.
    ///
    /// # Errors
    /// If the file is not signed as the seat requires.
    pub(crate) fn check(
        &self,
        name: &str,
        bytes: Arc<[u8]>,
        signature: &str,
    ) -> Result<SignedFile, SignatureError> {
        let signers = &self.seat.config.signers;
        let signer = signers.check(&bytes, signature)?.map(str::to_owned);
        Ok(SignedFile {
            loader: self.clone(),
            name: name.to_owned(),
            bytes,
            signer,
        })
    }
}

impl SignedFile {
    pub(crate) fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Returns the name of the key that signed the file.
    pub(crate) fn signer(&self) -> Option<&str> {
        self.signer.as_deref()
    }

    /// Compiles the file and tests the policy with one request. Blocks meanwhile.
    ///
    /// # Errors
    /// If the policy cannot be used.
    pub(crate) fn compile(&self, behalf: Behalf) -> Result<Policy, LoadError> {
        let Loader { runtime, seat } = &self.loader;
        let (config, settings) = (&seat.config, seat.scope.settings());
        let policy = on_behalf_of(behalf, || {
            runtime.load_within(&self.name, &self.bytes, &config.limits, settings)
        })?;
        Ok(policy.with_reuse(config.reuse).at_home_in(&seat.scope))
    }

    /// The same on a thread that may block.
    ///
    /// # Errors
    /// See [`SignedFile::compile`]; also if the host ends meanwhile.
    pub(crate) async fn compile_aside(
        self: &Arc<Self>,
        behalf: Behalf,
        occasion: Occasion,
    ) -> Result<Policy, LoaderError> {
        let file = Arc::clone(self);
        let compile = move || on(occasion, || file.compile(behalf));
        let compiled = tokio::task::spawn_blocking(compile).await;
        Ok(compiled.map_err(|_| LoaderError::Interrupted)??)
    }
}
