//! The configuration with which the host was started.

use std::path::PathBuf;

use portcullis_config::Config;

/// The configuration file of the host, and the configuration at its start, without the tenants.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) running: Config,
}
