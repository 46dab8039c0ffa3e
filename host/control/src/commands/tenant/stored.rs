//! `tenant.stored`, `tenant.check` and `tenant.change`, over HTTP: all stored tenants, and changes of several of them at once.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::{Dispatch, Procedure, STORED, StoredTenant, TenantQuery, fault};
use crate::Control;
use crate::body::read_body;
use crate::caller::Caller;

use crate::operation::{Answer, Api, Given, Operation, Routes, answer, limit, schema_of};
use crate::room::Purpose;

/// The path of the stored tenants.
const STORED_TENANTS: &str = "/v1/stored-tenants";

/// Number of tenants that are returned without `limit`, and most of them.
const SOME: usize = 1_000;
const MOST: usize = 10_000;

/// Most names of tenants in the audit.
const NAMED: usize = 5;

/// Most tenants that are changed together: one transaction has them all.
const TOGETHER: usize = 1_000;

/// The largest body of a check, and of a change, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// `tenant.stored`.
#[derive(Debug)]
pub(crate) struct ListStored(StoredQuery);

/// `tenant.check`.
#[derive(Debug)]
pub(crate) struct CheckTenants(TenantsToCheck);

/// `tenant.change`.
#[derive(Debug)]
pub(crate) struct ChangeTenants(TenantsToCheck);

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

/// Tenants that were changed together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantsChanged {
    /// Their names, those that were removed included.
    pub names: Vec<String>,
    /// Whether all workers use the new configuration.
    pub live_on_all_workers: bool,
}

impl Procedure for ChangeTenants {
    type Reply = TenantsChanged;

    fn subject(&self) -> Option<String> {
        let Self(TenantsToCheck { put, remove }) = self;
        let names: Vec<_> = put.keys().chain(remove).map(String::as_str).collect();
        let shown = &names[..names.len().min(NAMED)];
        Some(match names.len() - shown.len() {
            0 => format!("tenants {}", shown.join(", ")),
            more => format!("tenants {} and {more} more", shown.join(", ")),
        })
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<TenantsChanged, Fault> {
        let Self(TenantsToCheck { put, remove }) = self;
        let (registry, by) = (&control.registry, caller.to_string());
        let names = registry.change_tenants(&put, &remove, &by).await;
        let names = names.map_err(|error| fault(&error))?;
        Ok(TenantsChanged {
            names,
            live_on_all_workers: control.is_live().await,
        })
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

impl ChangeTenants {
    /// `POST /v1/stored-tenants/changes`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<TenantsChanged>(
            Method::POST,
            "/v1/stored-tenants/changes",
            "changeTenants",
            "Store and remove tenants, all of them or none: they may exchange what only one of them can have",
        );
        let post = post.query::<TenantQuery>(&[]).body(
            "application/json",
            schema_of::<TenantsToCheck>(),
            "Sections to be stored, and tenants to be removed: 1000 together at most",
        );
        let post = post.answers(200, STORED);
        routes.on(
            post.refuses(&[400, 404, 408, 409, 413, 415, 422, 503]),
            change,
        )
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
    let (sent, room) = sent(&control, &caller, Purpose::Inspection, body).await?;
    let checked = CheckTenants(sent).dispatch(&control, &caller).await;
    drop(room);
    answer(checked)
}

async fn change(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<TenantQuery>,
    body: Body,
) -> Answer {
    let (sent, room) = sent(&control, &caller, Purpose::Transfer, body).await?;
    let count = sent.put.len() + sent.remove.len();
    if count > TOGETHER {
        let text = format!("{count} tenants cannot be changed together: at most {TOGETHER}");
        return Err(Fault::new(413, text).into());
    }
    let caller = caller.called(query.author);
    let changed = ChangeTenants(sent).dispatch(&control, &caller).await;
    drop(room);
    answer(changed)
}

/// The changes in a body, and the room that it takes of all bodies together for as long as they are needed.
async fn sent(
    control: &Control,
    caller: &Caller,
    purpose: Purpose,
    body: Body,
) -> Result<(TenantsToCheck, OwnedSemaphorePermit), Fault> {
    // Before anything of the body is read or kept. Both commands need the same role.
    caller.may(ChangeTenants::NEEDS)?;
    caller.may_ask_about(None)?;
    let (bytes, room) = read_body(&control.room, caller, purpose, body, MOST_BYTES).await?;
    let sent = serde_json::from_slice(&bytes);
    let sent = sent.map_err(|error| Fault::new(400, error.to_string()))?;
    Ok((sent, room))
}
