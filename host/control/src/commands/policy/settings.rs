//! `policy.settings` and `policy.putSettings`, over HTTP: the settings that the policies of a seat read.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Dispatch, Procedure, files_of};
use crate::Control;
use crate::caller::{Authority, Caller};
use crate::commands::tenant_error;
use crate::conditions::Condition;
use crate::operation::{
    Answer, Api, Given, Operation, Routes, Segments, answer, json_body, schema_of,
};

/// The path of the settings of a seat.
const SETTINGS: &str = "/v1/policies/{seat}/settings";

/// `policy.settings`.
#[derive(Debug)]
pub(crate) struct ShowSettings {
    seat: String,
}

/// `policy.putSettings`.
#[derive(Debug)]
pub(crate) struct PutSettings {
    seat: String,
    settings: Map<String, Json>,
    /// Whether the settings must still be those that this host has loaded.
    is_conditional: bool,
}

/// The settings to be stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSettings {
    /// All settings of the seat, which replace those before.
    settings: Map<String, Json>,
}

/// The query of a change.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SettingsQuery {
    /// Author of the change
    author: Option<String>,
}

/// The reply to a change of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsChanged {
    /// The seat.
    pub seat: String,
    /// Whether all workers use the new settings.
    pub live_on_all_workers: bool,
}

/// The settings of a seat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeatSettings {
    /// The seat.
    pub seat: String,
    /// The settings; an empty object if there are none.
    pub settings: Map<String, Json>,
    /// Where they are changed: the configuration file, or the stored tenant.
    pub origin: SettingsOrigin,
}

/// Where settings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingsOrigin {
    /// The configuration file of the host.
    Configuration,
    /// The tenant in the database: `PUT` changes the settings, and `/v1/tenants/{name}` the whole tenant.
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

impl Procedure for PutSettings {
    type Reply = SettingsChanged;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    fn subject(&self) -> Option<String> {
        Some("settings".to_owned())
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<SettingsChanged, Fault> {
        let files = files_of(control, &self.seat)?;
        let registry = &control.registry;
        if !registry.is_stored(&self.seat) {
            return Err(Fault::new(409, in_file(control, &self.seat, caller)));
        }
        may_change(control, caller)?;
        let seen = self
            .is_conditional
            .then(|| files.seat().config.settings.clone());
        let by = caller.to_string();
        let put = registry
            .put_settings(&self.seat, &self.settings, seen.as_ref(), &by)
            .await;
        put.map_err(|error| tenant_error::fault(&error))?;
        Ok(SettingsChanged {
            live_on_all_workers: control.is_live().await,
            seat: self.seat,
        })
    }
}

/// Checks that a tenant may change its settings.
///
/// # Errors
/// 403 if it may not.
fn may_change(control: &Control, caller: &Caller) -> Result<(), Fault> {
    let Authority::Tenant(name) = caller.authority() else {
        return Ok(());
    };
    let tenants = control.shared.tenants.load();
    let tenant = tenants.named.iter().find(|tenant| *tenant.name == **name);
    let config = tenant.and_then(|tenant| tenant.config.as_ref());
    match config.is_some_and(|config| config.edit.settings) {
        true => Ok(()),
        false => Err(Fault::new(
            403,
            "a tenant may not change its settings: the operator allows it by `edit-settings` in the tenant's section",
        )),
    }
}

/// Where the settings of a seat of the configuration file are changed. A tenant does not learn the name of the file.
fn in_file(control: &Control, seat: &str, caller: &Caller) -> String {
    if !caller.is_operator() {
        return "the settings of this seat are in the configuration file of the host: its operator changes them there".to_owned();
    }
    let file = match control.registry.config_file() {
        Some(file) => format!("the configuration file {}", file.display()),
        None => "the configuration file, which this host does not have".to_owned(),
    };
    let tenants = control.shared.tenants.load();
    let is_tenant = tenants.named.iter().any(|tenant| *tenant.name == *seat);
    let (section, then) = match (is_tenant, seat) {
        (true, seat) => (
            format!("tenants.{seat}.settings"),
            "apply it with `portcullis tenant reload`",
        ),
        (false, "default") => ("policy.settings".to_owned(), "restart the host"),
        (false, seat) => (format!("policy.{seat}.settings"), "restart the host"),
    };
    format!("the settings of the seat {seat} are in {file}: change [{section}] there, and {then}")
}

impl PutSettings {
    /// `PUT /v1/policies/{seat}/settings`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let put = Operation::new::<SettingsChanged>(
            Method::PUT,
            SETTINGS,
            "putSettings",
            "Replace the settings of a tenant in the database, if its policies in use accept them; a tenant may do so with `edit-settings`",
        );
        let put = put.query::<SettingsQuery>(&[]).answers(
            200,
            "Stored, and applied here; the other hosts of the database follow within about a second",
        );
        let put = put.body(
            "application/json",
            schema_of::<NewSettings>(),
            "The settings",
        );
        routes.on(
            put.refuses(&[404, 408, 409, 413, 415, 422, 503]),
            put_settings,
        )
    }
}

async fn put_settings(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: Condition,
    Segments(seat): Segments<String>,
    Given(query): Given<SettingsQuery>,
    body: Body,
) -> Answer {
    let NewSettings { settings } = json_body(body).await?;
    let turn = condition.hold(&control).await?;
    let command = PutSettings {
        seat,
        settings,
        is_conditional: turn.is_some(),
    };
    let caller = caller.called(query.author);
    let put = answer(command.dispatch(&control, &caller).await);
    drop(turn);
    put
}

impl ShowSettings {
    /// `GET /v1/policies/{seat}/settings`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<SeatSettings>(
            Method::GET,
            SETTINGS,
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
