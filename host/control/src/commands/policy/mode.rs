//! `policy.mode`: set whether verdicts are carried out.

use std::fmt;

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_policy::Mode;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CHANGES, Dispatch, FromCall, Patience, Procedure, WAIT, expect, fault};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `policy.mode`.
#[derive(Debug)]
pub(crate) struct SetMode {
    pub(crate) seat: String,
    pub(crate) mode: Mode,
    /// How long to wait for the hosts.
    pub(crate) patience: Patience,
}

/// Whether the verdicts of a seat are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SeatMode {
    /// They are carried out.
    Enforce,
    /// They are only logged and counted.
    Monitor,
}

/// The query that selects a mode.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ModeQuery {
    /// Whether verdicts are carried out
    #[schemars(extend("enum" = ["enforce", "monitor"]))]
    mode: Option<String>,
    /// How long to wait until all hosts on the same database use it, for example 10s (default: 5s; at most 60s)
    #[schemars(extend("pattern" = WAIT))]
    wait: Option<String>,
}

impl FromCall for SetMode {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, word] = expect(call, ["seat", "mode"])?;
        let mode = mode_of(&word)?;
        let patience = Patience::default();
        Ok(Self {
            seat,
            mode,
            patience,
        })
    }
}

impl Procedure for SetMode {
    type Reply = String;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    fn subject(&self) -> Option<String> {
        Some(self.mode.as_str().to_owned())
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<String, Fault> {
        let Self {
            seat,
            mode,
            patience,
        } = self;
        let by = caller.to_string();
        let set = control
            .registry
            .deployments()
            .set_mode(&seat, mode, &by)
            .await;
        set.map_err(|error| fault(&error))?;
        let (hosts, unknown) = patience.reach(control, caller, &seat).await;
        let behind = hosts.and_then(|hosts| hosts.behind_text());
        let behind = behind
            .map(|behind| format!("not yet on {behind}"))
            .or(unknown);
        let behind = behind.map_or_else(String::new, |behind| format!("; {behind}"));
        Ok(format!("{seat}: {}{behind}", mode.as_str()))
    }
}

impl SetMode {
    /// `PUT /v1/policies/{seat}/mode`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let put = Operation::new::<String>(
            Method::PUT,
            "/v1/policies/{seat}/mode",
            "setMode",
            "Set whether verdicts are carried out",
        );
        let put = put
            .query::<ModeQuery>(&["mode"])
            .answers(200, "The seat and its mode");
        routes.on(put.refuses(CHANGES), set_mode)
    }
}

async fn set_mode(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<ModeQuery>,
) -> Answer {
    let mode = mode_of(&query.mode.unwrap_or_default())?;
    let patience = Patience::of(query.wait.as_deref())?;
    let set = SetMode {
        seat,
        mode,
        patience,
    };
    answer(set.dispatch(&control, &caller).await)
}

/// Parses a mode.
///
/// # Errors
/// 400 if it is invalid.
fn mode_of(word: &str) -> Result<Mode, Fault> {
    match word {
        "enforce" => Ok(Mode::Enforce),
        "monitor" => Ok(Mode::Monitor),
        other => Err(Fault::new(
            400,
            format!("`{other}` is not a mode: write enforce or monitor"),
        )),
    }
}

impl From<Mode> for SeatMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Enforce,
            Mode::Monitor => Self::Monitor,
        }
    }
}

impl fmt::Display for SeatMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Monitor => "monitor",
        })
    }
}
