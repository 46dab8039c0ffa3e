//! `policy.…`: the policies of seats, and their roles.

mod activate;
mod canary;
mod decisions;
mod diff;
mod end_trial;
mod inspect;
mod list;
mod mode;
mod pull;
mod push;
mod put;
mod reach;
mod recent;
mod reload;
mod role;
mod rollback;
mod settings;
mod shadow;
mod status;
mod try_out;

use std::fmt;
use std::sync::Arc;

use portcullis_policy::{FailureKind, Generation, Share, VerdictKind};
use portcullis_rollout::ShipError;
use portcullis_rollout::policy_files::PolicyFiles;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use reach::{Patience, WAIT, WaitQuery};

use super::reply::digest;
use super::{Dispatch, FOLLOWS_FILE, FromCall, Procedure, expect, of_database};
use crate::Control;
use crate::caller::Caller;

pub(crate) use activate::Activate;
pub(crate) use canary::Canary;
pub(crate) use decisions::operation as decisions;
pub use decisions::{Decided, DecisionEvent};
pub(crate) use diff::Diff;
pub use diff::{Comparison, Difference};
pub(crate) use end_trial::EndTrial;
pub(crate) use inspect::Inspect;
pub use inspect::{PolicyInspection, PolicyProducer};
pub(crate) use list::ListGenerations;
pub use list::{GenerationStatus, Role};
pub use mode::SeatMode;
pub(crate) use mode::SetMode;
pub(crate) use pull::operation as pull;
pub(crate) use push::Push;
pub use push::{Pushed, PushedAs};
pub(crate) use put::operation as put;
pub use reach::{BehindHost, FleetReach};
pub use recent::RecentDecisions;
pub(crate) use recent::operation as recent;
pub use reload::PolicyReload;
pub(crate) use reload::Reload;
pub(crate) use rollback::Rollback;
pub(crate) use settings::{PutSettings, ShowSettings};
pub use settings::{SeatSettings, SettingsChanged, SettingsOrigin};
pub(crate) use shadow::Shadow;
pub(crate) use status::Status;
pub use status::{PolicyFailure, SeatStatus};
pub(crate) use try_out::TryOut;
pub use try_out::{PolicyQuestion, PolicyTrial, TrialFailure, TrialHeader};

/// Seat of a command that names none.
const DEFAULT: &str = "default";

/// The path of a seat.
const SEAT: &str = "/v1/policies/{seat}";

/// The media type of a policy.
const WASM: &str = "application/wasm";

/// Error statuses of changes of a generation's role.
const CHANGES: &[u16] = &[404, 409, 415, 422, 429, 500, 503];

/// Pattern of a share.
const SHARE: &str = r"^(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)%$";

/// The query that selects a generation.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct GenerationQuery {
    /// Number of a generation that the host has
    #[schemars(with = "Option<u64>", extend("maximum" = u64::MAX))]
    generation: Option<String>,
    /// How long to wait until all hosts on the same database use it, for example 10s (default: 5s; at most 60s)
    #[schemars(extend("pattern" = WAIT))]
    wait: Option<String>,
}

/// The reply of a command that changes the role of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// What was changed.
    pub status: Change,
    /// The generation.
    pub generation: u64,
    /// Name of the policy.
    pub name: String,
    /// Digest of the file.
    pub digest: String,
    /// Whether all workers of this host use it.
    pub live_on_all_workers: bool,
    /// On which hosts of the same database it is in effect; null if none announces itself.
    #[serde(default)]
    pub hosts: Option<FleetReach>,
    /// A warning; null if there is none.
    pub warning: Option<String>,
}

/// A change of a generation's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Change {
    /// It is active.
    Activated,
    /// It is active again.
    #[serde(rename = "Rolled back")]
    RolledBack,
    /// It is in a shadow trial.
    Shadowing,
    /// It is in a canary trial.
    Canary,
    /// Its trial has ended.
    #[serde(rename = "Trial ended")]
    TrialEnded,
}

/// Statistics of the calls of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallStats {
    /// All calls, those of `on-failure` included.
    pub calls: u64,
    /// Verdicts to relay.
    pub relay: u64,
    /// Verdicts to reject.
    pub reject: u64,
    /// Verdicts to drop.
    pub drop: u64,
    /// Verdicts to pass to the next policy.
    pub pass: u64,
    /// Failed calls: kind and number.
    pub failures: Vec<String>,
    /// Mean duration of a call in nanoseconds; null without calls.
    pub mean_ns: Option<u64>,
}

impl Changed {
    /// The reply to a change of a seat, as soon as it is in effect on all hosts, or `patience` is over.
    async fn new(
        control: &Control,
        caller: &Caller,
        status: Change,
        (seat, generation): (&str, &Generation),
        patience: Patience,
    ) -> Self {
        let live_on_all_workers = control.is_live().await;
        let (hosts, unknown) = patience.reach(control, caller, seat).await;
        Self {
            status,
            generation: generation.number,
            name: generation.policy.name().to_owned(),
            digest: digest(generation.policy.digest()),
            live_on_all_workers,
            hosts,
            warning: control.unstored().or(unknown),
        }
    }
}

impl Change {
    /// Returns the word for replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activated => "Activated",
            Self::RolledBack => "Rolled back",
            Self::Shadowing => "Shadowing",
            Self::Canary => "Canary",
            Self::TrialEnded => "Trial ended",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl CallStats {
    fn of(generation: &Generation) -> Self {
        let stats = &generation.stats;
        let calls = stats.calls();
        let nanoseconds = u64::try_from(stats.time().as_nanos()).unwrap_or(u64::MAX);
        let failures = FailureKind::ALL
            .iter()
            .filter_map(|&kind| match stats.failures(kind) {
                0 => None,
                n => Some(format!("{} {n}", kind.as_str())),
            });
        Self {
            calls,
            relay: stats.verdicts(VerdictKind::Relay),
            reject: stats.verdicts(VerdictKind::Reject),
            drop: stats.verdicts(VerdictKind::Drop),
            pass: stats.verdicts(VerdictKind::Pass),
            failures: failures.collect(),
            mean_ns: nanoseconds.checked_div(calls),
        }
    }
}

/// Converts an error of a deployment to a fault.
pub(super) fn fault(error: &ShipError) -> Fault {
    let code = match error {
        ShipError::NoSeat { .. } | ShipError::NoGeneration(_) | ShipError::NotPushed(_) => 404,
        ShipError::FollowsFile { .. } => {
            return Fault::new(409, error.to_string()).because(FOLLOWS_FILE);
        }
        ShipError::PreviousFailed { .. } => 409,
        ShipError::Busy { .. } | ShipError::TooMany { .. } => 429,
        ShipError::Store(_) => return of_database(503, error),
        ShipError::Refused(_) | ShipError::Settings { .. } | ShipError::Signature(_) => 422,
        ShipError::Interrupted => 500,
    };
    Fault::new(code, error.to_string())
}

/// Parses the number of a generation.
///
/// # Errors
/// 400 if it is invalid.
pub(super) fn generation(text: &str) -> Result<u64, Fault> {
    text.parse()
        .map_err(|_| Fault::new(400, format!("`{text}` is not the number of a generation")))
}

/// Parses a share of the dialogs.
///
/// # Errors
/// 400 if it is invalid.
fn share(text: &str) -> Result<Share, Fault> {
    Share::parse(text).ok_or_else(|| {
        Fault::new(
            400,
            format!(
                "`{text}` is not a share: write for example 5%, with at most two decimal places"
            ),
        )
    })
}

/// Returns the seat named by the only parameter; the operator's default seat if there is none.
fn seat_or_default(call: &Call) -> Result<String, Fault> {
    match call.texts()?[..] {
        [] => Ok(DEFAULT.to_owned()),
        [seat] => Ok(seat.to_owned()),
        _ => Err(Fault::new(
            400,
            "name one seat: a tenant, default, before or after",
        )),
    }
}

fn files_of(control: &Control, seat: &str) -> Result<Arc<PolicyFiles>, Fault> {
    let files = control.registry.deployments().seat_files(seat);
    files.map_err(|error| fault(&error))
}

fn file_of(files: &PolicyFiles) -> Option<String> {
    files.file().map(|file| file.display().to_string())
}
