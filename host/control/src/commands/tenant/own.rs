//! `tenant.self`, over HTTP: what a tenant may do, and what it has used.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::{TenantConfig, TokenRole};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, Procedure, TenantStatus};
use crate::Control;
use crate::caller::{Authority, Caller};
use crate::operation::{Answer, Api, Operation, Routes, answer};

/// `tenant.self`.
#[derive(Debug)]
pub(crate) struct Own;

/// A tenant as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantSelf {
    /// What it has used since the start of the host.
    #[serde(flatten)]
    pub usage: TenantStatus,
    /// What it may do.
    pub limits: TenantLimits,
}

/// The limits of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantLimits {
    /// Hosts of request URIs that belong to the tenant.
    pub uri_domains: Vec<String>,
    /// Hosts of From that belong to the tenant.
    pub from_domains: Vec<String>,
    /// Groups of the address table whose sources belong to the tenant.
    pub source_groups: Vec<u32>,
    /// Groups of the address table that its policy may query.
    pub groups: Vec<u32>,
    /// Groups of the address table whose rows it may change.
    pub edit_groups: Vec<u32>,
    /// Most rows of these groups.
    pub edit_rows: u64,
    /// Fewest bits of a row about IPv4 addresses that it adds.
    pub edit_prefix_v4: u8,
    /// Fewest bits of a row about IPv6 addresses that it adds.
    pub edit_prefix_v6: u8,
    /// Whether it may change the settings of its policy.
    pub edit_settings: bool,
    /// Whether its policy may query trusted peers.
    pub trusted: bool,
    /// Pairs of allow and deny files that its policy may query.
    pub rules: Vec<String>,
    /// Header fields that its policy may add and remove.
    pub headers: Vec<String>,
    /// Next hops that its policy can select.
    pub next_hops: Vec<String>,
    /// Largest share of each worker's CPU time.
    pub cpu_share: String,
    /// Most requests per second; null for no limit.
    pub requests_per_second: Option<u32>,
    /// Most requests at once; null for no limit.
    pub requests_burst: Option<u32>,
    /// Most log lines of its policy per second.
    pub log_rate: u32,
}

impl Procedure for Own {
    type Reply = TenantSelf;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<TenantSelf, Fault> {
        let Authority::Tenant(name) = caller.authority() else {
            let text = "this is for the token of a tenant: GET /v1/tenants lists the tenants";
            return Err(Fault::new(404, text));
        };
        let tenants = control.shared.tenants.load();
        let tenant = tenants.named.iter().find(|tenant| *tenant.name == **name);
        let found = tenant.and_then(|tenant| Some((tenant, tenant.config.as_ref()?)));
        let Some((tenant, config)) = found else {
            return Err(Fault::new(404, "the tenant of this token does not exist"));
        };
        Ok(TenantSelf {
            usage: TenantStatus::of(tenant, control.registry.is_stored(name)),
            limits: TenantLimits::of(config),
        })
    }
}

impl TenantLimits {
    fn of(config: &TenantConfig) -> Self {
        let TenantConfig {
            name: _,
            selector,
            seat: _,
            default: _,
            groups,
            edit,
            trusted,
            rules,
            headers,
            next_hop: _,
            next_hops,
            domains: _,
            sets: _,
            forwarding: _,
            cpu_share,
            rate,
            log_rate,
            token: _,
        } = config;
        Self {
            uri_domains: selector.uri_domains.clone(),
            from_domains: selector.from_domains.clone(),
            source_groups: selector.source_groups.clone(),
            groups: groups.clone(),
            edit_groups: edit.groups.clone(),
            edit_rows: edit.rows,
            edit_prefix_v4: edit.prefix_v4,
            edit_prefix_v6: edit.prefix_v6,
            edit_settings: edit.settings,
            trusted: *trusted,
            rules: rules.clone(),
            headers: headers.clone(),
            next_hops: next_hops.clone(),
            cpu_share: cpu_share.to_string(),
            requests_per_second: rate.map(|rate| rate.per_second),
            requests_burst: rate.map(|rate| rate.burst),
            log_rate: *log_rate,
        }
    }
}

impl Own {
    /// `GET /v1/tenants/self`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<TenantSelf>(
            Method::GET,
            "/v1/tenants/self",
            "showOwnTenant",
            "Show what the tenant of the token may do, and what it has used",
        );
        let get = get.answers(200, "The tenant").refuses(&[404]);
        routes.on(get.open(), own)
    }
}

async fn own(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(Own.dispatch(&control, &caller).await)
}
