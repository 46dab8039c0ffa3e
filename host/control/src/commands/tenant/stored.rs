//! `tenant.stored` and `tenant.check`, over HTTP: all stored tenants, and whether changes of them could be stored.

use std::collections::BTreeMap;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, Procedure, StoredTenant, fault};
use crate::Control;
use crate::caller::Caller;
use crate::http_server::whole;
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, limit, schema_of};
use crate::room::Purpose;

/// The path of the stored tenants.
const STORED_TENANTS: &str = "/v1/stored-tenants";

/// Number of tenants that are returned without `limit`, and most of them.
const SOME: usize = 1_000;
const MOST: usize = 10_000;

/// The largest body of a check in bytes.
const MOST_BYTES: usize = 16 << 20;

/// `tenant.stored`.
#[derive(Debug)]
pub(crate) struct ListStored(StoredQuery);

/// `tenant.check`.
#[derive(Debug)]
pub(crate) struct CheckTenants(TenantsToCheck);

/// The query that selects tenants.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct StoredQuery {
    /// `next` of the page before; without it, the first page
    after: Option<String>,
    /// Maximum number of tenants (default: 1000)
    #[schemars(extend("minimum" = 1, "maximum" = MOST))]
    limit: Option<usize>,
}

/// Stored tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredTenants {
    /// The tenants, sorted by name.
    pub tenants: Vec<StoredTenant>,
    /// Value of `after` for the next page; null if this is the last one.
    pub next: Option<String>,
}

/// Changes of stored tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantsToCheck {
    /// Sections to be stored, in TOML, by the names of the tenants.
    pub put: BTreeMap<String, String>,
    /// Tenants to be removed.
    pub remove: Vec<String>,
}

/// Whether the changes can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantsChecked {
    /// What is wrong, in the order of names; empty if nothing is.
    pub errors: Vec<TenantProblem>,
}

/// What is wrong with a section of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantProblem {
    /// Name of the tenant.
    pub name: String,
    /// What is wrong, and how to correct it; begins with LINE:COLUMN if it is at a place of the section.
    pub error: String,
}

impl Procedure for ListStored {
    type Reply = StoredTenants;

    const IS_NOTED: bool = false;

    async fn execute(self, control: &Control, _: &Caller) -> Result<StoredTenants, Fault> {
        let Self(StoredQuery { after, limit: most }) = self;
        let most = limit("limit", most, SOME, MOST)?;
        let all = control.registry.stored_tenants().await;
        let all = all.map_err(|error| fault(&error))?;
        let is_later = |name: &str| after.as_deref().is_none_or(|after| name > after);
        let mut later = all.into_iter().filter(|row| is_later(&row.name));
        let mut tenants: Vec<StoredTenant> = Vec::new();
        tenants.extend(later.by_ref().take(most).map(StoredTenant::from));
        let last = tenants.last().map(|tenant| tenant.name.clone());
        let next = later.next().and(last);
        Ok(StoredTenants { tenants, next })
    }
}

impl Procedure for CheckTenants {
    type Reply = TenantsChecked;

    const IS_NOTED: bool = false;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TenantsChecked, Fault> {
        let Self(TenantsToCheck { put, remove }) = self;
        let wrong = control.registry.check_tenants(&put, &remove).await;
        let wrong = wrong.map_err(|error| fault(&error))?;
        let errors = wrong
            .into_iter()
            .map(|(name, error)| TenantProblem { name, error });
        Ok(TenantsChecked {
            errors: errors.collect(),
        })
    }
}

impl ListStored {
    /// `GET /v1/stored-tenants`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<StoredTenants>(
            Method::GET,
            STORED_TENANTS,
            "listStoredTenants",
            "List the tenants of the database as they are stored, also those that this host cannot use",
        );
        let get = get
            .query::<StoredQuery>(&[])
            .answers(200, "The stored tenants");
        routes.on(get.refuses(&[503]), list)
    }
}

impl CheckTenants {
    /// `POST /v1/stored-tenants/check`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<TenantsChecked>(
            Method::POST,
            "/v1/stored-tenants/check",
            "checkTenants",
            "Check sections of tenants together with the other tenants, without storing anything",
        );
        let post = post.body(
            "application/json",
            schema_of::<TenantsToCheck>(),
            "Sections to be stored, and tenants to be removed",
        );
        let post = post.answers(200, "What is wrong");
        routes.on(post.refuses(&[408, 413, 415, 422, 503]), check)
    }
}

async fn list(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<StoredQuery>,
) -> Answer {
    answer(ListStored(query).dispatch(&control, &caller).await)
}

async fn check(State(control): Api, Extension(caller): Extension<Caller>, body: Body) -> Answer {
    // Before anything of the body is read or kept.
    caller.may(CheckTenants::NEEDS)?;
    caller.may_ask_about(None)?;
    let size = usize::try_from(body.size_hint().upper().unwrap_or(u64::MAX));
    let size = size.unwrap_or(usize::MAX).min(MOST_BYTES);
    let purpose = Purpose::Inspection;
    let room = control.room.acquire(&caller, purpose, size).await?;
    let bytes = whole(body, MOST_BYTES).await;
    let bytes =
        bytes.map_err(|(status, text)| Fault::new(status.as_u16().into(), text.trim_end()))?;
    let sent = serde_json::from_slice(&bytes);
    let sent: TenantsToCheck = sent.map_err(|error| Fault::new(400, error.to_string()))?;
    let checked = CheckTenants(sent).dispatch(&control, &caller).await;
    drop(room);
    answer(checked)
}
