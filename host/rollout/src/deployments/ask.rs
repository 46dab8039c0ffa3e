//! Checks whether earlier generations accept the current settings.

use crate::policy_files::PolicyFiles;
use crate::settings::takes;

use super::error::ShipError;

/// Checks whether a generation that is to become active again, or to be tried, accepts the settings. A generation that is not loaded yet is
/// checked when it is loaded.
pub(super) async fn ask_again(files: &PolicyFiles, number: u64) -> Result<(), ShipError> {
    let Some(generation) = files.slot().generation(number) else {
        return Ok(());
    };
    let taken = takes(&generation, files.seat().scope.settings()).await;
    taken.map_err(|source| ShipError::Settings { number, source })
}
