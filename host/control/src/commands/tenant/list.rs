//! `tenant.list`: the tenants with statistics of their requests.

use std::fmt;

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_dataplane::tenants::Tenant;
use portcullis_metrics::TenantCounts;
use portcullis_policy::VerdictKind;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::policy::SeatMode;
use super::{Dispatch, FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, answer};

/// `tenant.list`.
#[derive(Debug)]
pub(crate) struct ListTenants;

/// A tenant, with statistics of its requests since the start of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantStatus {
    /// Name; `default` for the operator.
    pub name: String,
    /// Where the tenant is configured.
    pub from: Origin,
    /// Active generation.
    pub generation: Option<u64>,
    /// Name of the active policy.
    pub policy: Option<String>,
    /// Whether verdicts are carried out.
    pub mode: SeatMode,
    /// All requests.
    pub requests: u64,
    /// Requests relayed.
    pub relay: u64,
    /// Requests rejected.
    pub reject: u64,
    /// Requests dropped.
    pub drop: u64,
    /// Requests on which no policy decided.
    pub pass: u64,
    /// Requests whose policy call failed.
    pub failed: u64,
    /// Requests above a limit, rejected.
    pub shed: u64,
    /// Active transactions.
    pub transactions: u64,
    /// Requests that yielded to those of other tenants.
    pub postponed: u64,
    /// Requests to next hops that the tenant may not use.
    pub refused_relays: u64,
    /// Queries outside the scope of the policy.
    pub crossings: u64,
    /// Log lines of the policy above its rate.
    pub dropped_log_lines: u64,
    /// Counters of the policy.
    pub counters: u64,
    /// Counters that were evicted.
    pub evicted_counters: u64,
    /// Alert that needs attention.
    pub alert: Option<String>,
}

/// Where a tenant is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In the configuration file.
    File,
    /// In the database.
    Database,
}

impl FromCall for ListTenants {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for ListTenants {
    type Reply = Vec<TenantStatus>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<TenantStatus>, Fault> {
        let tenants = control.shared.tenants.load();
        let all = tenants
            .all()
            .map(|tenant| TenantStatus::of(tenant, control.registry.is_stored(&tenant.name)));
        Ok(all.collect())
    }
}

impl ListTenants {
    /// `GET /v1/tenants`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<TenantStatus>>(
            Method::GET,
            "/v1/tenants",
            "listTenants",
            "List the tenants with statistics of their requests",
        );
        routes.on(get, list)
    }
}

async fn list(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ListTenants.dispatch(&control, &caller).await)
}

impl TenantStatus {
    pub(super) fn of(tenant: &Tenant, is_stored: bool) -> Self {
        let TenantCounts {
            requests,
            verdicts,
            failed,
            shed,
            // Only `/metrics` shows these.
            monitored: _,
            followed: _,
            unasked_failures: _,
            postponed,
            refused_relays,
            transactions,
        } = TenantCounts::of(&tenant.counters);
        let seat = &tenant.seat;
        let generation = seat.slot.current();
        let generation = generation.as_ref();
        Self {
            name: tenant.name.to_string(),
            from: match is_stored {
                true => Origin::Database,
                false => Origin::File,
            },
            generation: generation.map(|one| one.number),
            policy: generation.map(|one| one.policy.name().to_owned()),
            mode: seat.slot.mode().into(),
            requests,
            relay: verdicts.value(VerdictKind::Relay),
            reject: verdicts.value(VerdictKind::Reject),
            drop: verdicts.value(VerdictKind::Drop),
            pass: verdicts.value(VerdictKind::Pass),
            failed,
            shed: shed.total(),
            transactions,
            postponed,
            refused_relays,
            crossings: seat.scope.crossings(),
            dropped_log_lines: seat.scope.dropped_lines(),
            counters: seat.scope.counters().len() as u64,
            evicted_counters: seat.scope.counters().evicted(),
            alert: seat.alert().map(|alert| alert.text),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Database => "database",
        })
    }
}
