//! Whether a generation that came earlier takes the settings of today.

use crate::policy_files::PolicyFiles;
use crate::settings::takes;

use super::error::ShipError;

/// Asks a generation that is to serve again, or to be tried, whether it takes the settings. One that is not loaded yet is asked then.
pub(super) async fn ask_again(files: &PolicyFiles, number: u64) -> Result<(), ShipError> {
    let Some(generation) = files.slot().generation(number) else {
        return Ok(());
    };
    let taken = takes(&generation, files.seat().scope.settings()).await;
    taken.map_err(|source| ShipError::Settings { number, source })
}
