//! The way of a policy from bytes to something that can serve: the same for a file, a push and the database.

use std::sync::Arc;

use portcullis_dataplane::tenants::Seat;
use portcullis_policy::{LoadError, Policy, Runtime};
use portcullis_signature::SignatureError;
use thiserror::Error;

use crate::compiler::{Behalf, Occasion, on, on_behalf_of};

/// Makes policies for one seat.
#[derive(Clone)]
pub(crate) struct Loader {
    runtime: Arc<Runtime>,
    seat: Arc<Seat>,
}

/// A file whose signature its seat accepts. Nothing else is compiled.
pub(crate) struct SignedFile {
    loader: Loader,
    name: String,
    bytes: Arc<[u8]>,
    signer: Option<String>,
}

/// Why a file did not become a policy.
#[derive(Debug, Error)]
pub(crate) enum LoaderError {
    /// It is no policy that can serve.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// The load panicked or was interrupted by the end of the host.
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

    /// Takes a file with its signature in Base64, which is empty if there is none. `name` is what logs call the policy.
    ///
    /// # Errors
    /// When the file is not signed as the seat demands.
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

    /// The name of the key that it is signed with.
    pub(crate) fn signer(&self) -> Option<&str> {
        self.signer.as_deref()
    }

    /// Compiles the file and tries the policy with one request. Blocks meanwhile.
    ///
    /// # Errors
    /// When it can't serve.
    pub(crate) fn compile(&self, behalf: Behalf) -> Result<Policy, LoadError> {
        let Loader { runtime, seat } = &self.loader;
        let (config, settings) = (&seat.config, seat.scope.settings());
        let policy = on_behalf_of(behalf, || {
            runtime.load_within(&self.name, &self.bytes, &config.limits, settings)
        })?;
        Ok(policy.with_reuse(config.reuse))
    }

    /// The same on a thread that may block.
    ///
    /// # Errors
    /// As [`SignedFile::compile`], and when the host ends meanwhile.
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
