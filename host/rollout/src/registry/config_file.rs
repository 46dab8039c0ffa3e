//! What the host was started with.

use std::path::PathBuf;

use portcullis_config::Config;

/// The file that the host was started with, and what it said of everything but the tenants.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) running: Config,
}
