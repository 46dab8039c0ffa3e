//! `policy.settings`, over HTTP: the settings that the policies of a seat read.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, Procedure, files_of};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `policy.settings`.
#[derive(Debug)]
pub(crate) struct ShowSettings {
    seat: String,
}

/// The settings of a seat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeatSettings {
    /// The seat.
    pub seat: String,
    /// The settings; an empty object if there are none.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Where they are changed: the configuration file, or the stored tenant.
    pub origin: SettingsOrigin,
}

/// Where settings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingsOrigin {
    /// The configuration file of the host.
    Configuration,
    /// The tenant in the database: the operator changes it at `/v1/tenants/{name}`.
    StoredTenant,
}

impl Procedure for ShowSettings {
    type Reply = SeatSettings;

    // Settings may contain keys of other services.
    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<SeatSettings, Fault> {
        let files = files_of(control, &self.seat)?;
        let settings = files.seat().config.settings.as_object();
        let origin = match control.registry.is_stored(&self.seat) {
            true => SettingsOrigin::StoredTenant,
            false => SettingsOrigin::Configuration,
        };
        Ok(SeatSettings {
            settings: settings.cloned().unwrap_or_default(),
            origin,
            seat: self.seat,
        })
    }
}

impl ShowSettings {
    /// `GET /v1/policies/{seat}/settings`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<SeatSettings>(
            Method::GET,
            "/v1/policies/{seat}/settings",
            "showSettings",
            "Show the settings that the policies of a seat read",
        );
        routes.on(get.answers(200, "The settings").refuses(&[404]), show)
    }
}

async fn show(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    let command = ShowSettings { seat };
    answer(command.dispatch(&control, &caller).await)
}
