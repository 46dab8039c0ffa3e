//! Checks whether earlier policies accept the current settings. New policies are checked when they are loaded.

use std::sync::{Arc, LazyLock};

use portcullis_config::SeatConfig;
use portcullis_dataplane::tenants::Seat;
use portcullis_policy::{Generation, Settings, SettingsError};

/// Returns the settings of a seat's policy. Those of all seats without settings are the same in memory.
pub(crate) fn settings_of(config: &SeatConfig) -> Arc<Settings> {
    static NONE: LazyLock<Arc<Settings>> = LazyLock::new(Arc::default);
    match config.settings.as_object() {
        Some(settings) if !settings.is_empty() => Arc::new(Settings::new(config.settings.clone())),
        Some(_) | None => Arc::clone(&NONE),
    }
}

/// Drops the fallback if it does not accept the current settings, so that the breaker does not activate it.
pub(crate) async fn forget_what_refuses(seat: &Seat) {
    let fallback = seat
        .slot
        .lineup()
        .and_then(|lineup| lineup.fallback.clone());
    let Some(fallback) = fallback else {
        return;
    };
    if let Err(error) = takes(&fallback, seat.scope.settings()).await {
        seat.slot.forget_previous(fallback.number);
        tracing::warn!(
            event = "fallback_unusable",
            policy = &*seat.name,
            generation = fallback.number,
            %error,
            "fallback generation dropped: it refuses the settings"
        );
    }
}

/// Checks whether a policy accepts settings. A check that was interrupted does not refuse them.
pub(crate) async fn takes(
    generation: &Arc<Generation>,
    settings: &Arc<Settings>,
) -> Result<(), SettingsError> {
    let (generation, settings) = (Arc::clone(generation), Arc::clone(settings));
    let check = move || generation.policy.check_settings(&settings);
    tokio::task::spawn_blocking(check).await.unwrap_or(Ok(()))
}
