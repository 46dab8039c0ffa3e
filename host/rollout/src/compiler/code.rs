//! The cache of compiled code: which directory it is in, and which build of the program compiled it.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use portcullis_cache::{Cache, CacheError};
use portcullis_config::CacheConfig;
use portcullis_policy::{CodeCache, Digest, Runtime};
use thiserror::Error;

use super::SELF;

/// Name of the directory in systemd's cache directory.
const DEFAULT_NAME: &str = "compiled";

/// Why the cache of compiled code cannot be used.
#[derive(Debug, Error)]
pub enum CodeCacheError {
    /// The directory cannot be used.
    #[error(transparent)]
    Folder(#[from] CacheError),
    /// The build cannot be identified, because the program's own file cannot be read.
    #[error("cannot read the file of this program: {0}")]
    Build(io::Error),
}

/// The cache of the host, as a command finds it.
#[derive(Debug)]
pub enum CodeCacheState {
    /// No directory is configured.
    Nowhere,
    /// The directory does not exist yet: the host creates it when it starts.
    NotYet(PathBuf),
    /// The cache can be used.
    In {
        /// The directory.
        folder: PathBuf,
        /// Size of all entries, in bytes.
        bytes: u64,
    },
    /// The cache cannot be used.
    Unusable(CodeCacheError),
}

/// Gives the runtime of a host the cache of compiled code, and creates its directory if necessary. A directory that cannot be used is
/// reported in the log, and the host runs without a cache.
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
                "cache of compiled code in use"
            );
            runtime.cache_with(cache);
        }
        Err(error) => tracing::warn!(
            event = "code_cache_unusable",
            %error,
            "no cache of compiled code, every start compiles all policies"
        ),
    }
}

/// Gives the runtime of a command the cache of the host. The directory is not created if the host has not started yet, because a command
/// may run as another user.
pub fn share_code(runtime: &Runtime, config: &CacheConfig) -> CodeCacheState {
    let Some(folder) = folder(config) else {
        return CodeCacheState::Nowhere;
    };
    let opened = match Cache::open_existing(&folder, config.bytes) {
        Err(error) if error.is_absent() => return CodeCacheState::NotYet(folder),
        opened => opened.map_err(CodeCacheError::from),
    };
    match opened.and_then(of_this_build) {
        Ok(cache) => {
            let bytes = cache.bytes();
            runtime.cache_with(cache);
            CodeCacheState::In { folder, bytes }
        }
        Err(error) => CodeCacheState::Unusable(error),
    }
}

/// Returns the configured directory, or the one in systemd's cache directory (`CacheDirectory=`).
fn folder(config: &CacheConfig) -> Option<PathBuf> {
    config.folder.clone().or_else(|| {
        let folders = std::env::var_os("CACHE_DIRECTORY")?;
        let first = std::env::split_paths(&folders).next()?;
        (!first.as_os_str().is_empty()).then(|| first.join(DEFAULT_NAME))
    })
}

/// Two builds of the same version may compile a file differently. A build is therefore identified by the content of its program file.
fn of_this_build(cache: Cache) -> Result<CodeCache, CodeCacheError> {
    let build = File::open(SELF).and_then(Digest::of_all);
    Ok(CodeCache::new(cache, build.map_err(CodeCacheError::Build)?))
}
