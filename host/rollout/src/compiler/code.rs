//! Compiled code that outlives this process: which folder it is in, and which program made it.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use portcullis_cache::{Cache, CacheError};
use portcullis_config::CacheConfig;
use portcullis_policy::{CodeCache, Digest, Runtime};
use thiserror::Error;

use super::SELF;

/// The folder of code within the one that systemd gives a service for what it can make again.
const DEFAULT_NAME: &str = "compiled";

/// Why no code is kept.
#[derive(Debug, Error)]
pub enum CodeCacheError {
    /// The folder can't be used.
    #[error(transparent)]
    Folder(#[from] CacheError),
    /// Nobody knows which build this is.
    #[error("this program can't be read: {0}")]
    Build(io::Error),
}

/// What a command can use of the code that the host keeps.
#[derive(Debug)]
pub enum Kept {
    /// None: no folder is configured.
    Nowhere,
    /// None yet: the host makes the folder when it starts.
    NotYet(PathBuf),
    /// What is in the folder.
    In {
        /// The folder.
        folder: PathBuf,
        /// What all code in it takes, in bytes.
        bytes: u64,
    },
    /// None.
    Unusable(CodeCacheError),
}

/// Has the runtime of a host keep its code for the next start, and use what is there. The folder is made if it is missing. A host does
/// without one that can't be used: that is a warning.
pub fn keep_code(runtime: &Runtime, config: &CacheConfig) {
    let Some(folder) = folder(config) else {
        return;
    };
    let opened = Cache::open(&folder, config.bytes);
    match opened.map_err(CodeCacheError::from).and_then(of_this_build) {
        Ok(cache) => {
            tracing::info!(
                event = "code_cache",
                folder = %folder.display(),
                bytes = cache.bytes(),
                "compiled code is kept"
            );
            runtime.cache_with(cache);
        }
        Err(error) => tracing::warn!(
            event = "code_cache_unusable",
            %error,
            "compiled code is not kept, every start compiles all policies"
        ),
    }
}

/// Has the runtime of a command use the code that the host keeps, and add to it. Nothing is made for a host that has not started yet:
/// a command may run as another user.
pub fn share_code(runtime: &Runtime, config: &CacheConfig) -> Kept {
    let Some(folder) = folder(config) else {
        return Kept::Nowhere;
    };
    let opened = match Cache::open_existing(&folder, config.bytes) {
        Err(error) if error.is_absent() => return Kept::NotYet(folder),
        opened => opened.map_err(CodeCacheError::from),
    };
    match opened.and_then(of_this_build) {
        Ok(cache) => {
            let bytes = cache.bytes();
            runtime.cache_with(cache);
            Kept::In { folder, bytes }
        }
        Err(error) => Kept::Unusable(error),
    }
}

/// The folder that is configured, or else one in the folder that systemd gives (`CacheDirectory=`).
fn folder(config: &CacheConfig) -> Option<PathBuf> {
    config.folder.clone().or_else(|| {
        let folders = std::env::var_os("CACHE_DIRECTORY")?;
        let first = std::env::split_paths(&folders).next()?;
        (!first.as_os_str().is_empty()).then(|| first.join(DEFAULT_NAME))
    })
}

/// Two builds of one version may compile the same file in different ways, so a build is known by all that it consists of.
fn of_this_build(cache: Cache) -> Result<CodeCache, CodeCacheError> {
    let build = File::open(SELF).and_then(Digest::of_all);
    Ok(CodeCache::new(cache, build.map_err(CodeCacheError::Build)?))
}
