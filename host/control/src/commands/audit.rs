//! `audit.list`, over HTTP: the last actions of operators and tenants.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, Procedure, Timestamp};
use crate::Control;
use crate::audit::{self, Action};
use crate::caller::{Authority, Caller};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, limit};

/// Number of actions that are returned without `limit`.
const SOME: usize = 100;

/// `audit.list`.
#[derive(Debug)]
pub(crate) struct ListActions(AuditQuery);

/// The query that selects actions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AuditQuery {
    /// Seat that the command concerned
    seat: Option<String>,
    /// Name of the command
    command: Option<String>,
    /// Author
    by: Option<String>,
    /// Only actions with a greater id
    after: Option<u64>,
    /// Maximum number of actions (default: 100)
    #[schemars(extend("minimum" = 1, "maximum" = audit::MOST))]
    limit: Option<usize>,
}

/// A command that may change something, and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Its number since the start of the host, from 1.
    pub id: u64,
    /// Time.
    pub at: Timestamp,
    /// The author, as it is stored with the change.
    pub by: String,
    /// Tenant whose token was used; null for the operator.
    pub tenant: Option<String>,
    /// Name of the operator's token; null if it has none.
    pub token: Option<String>,
    /// Control interface: http, binrpc, fifo or datagram.
    pub door: String,
    /// Name of the command.
    pub command: String,
    /// Seat that the command concerned.
    pub seat: Option<String>,
    /// What else the command concerned: a row, a tenant, a generation, an alert; null if there is nothing to name.
    pub subject: Option<String>,
    /// Why it failed; null if it succeeded.
    pub error: Option<String>,
}

impl Procedure for ListActions {
    type Reply = Vec<AuditEntry>;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Vec<AuditEntry>, Fault> {
        let Self(query) = self;
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == value
        };
        let is_own = |action: &Action| match caller.authority() {
            Authority::Operator => true,
            Authority::Tenant(tenant) => action.tenant.as_ref() == Some(tenant),
        };
        let most = limit("limit", query.limit, SOME, audit::MOST)?;
        let last = control.audit.last(most, |action| {
            is_own(action)
                && is(&query.seat, action.seat.as_deref())
                && is(&query.command, Some(action.command))
                && is(&query.by, Some(&action.by))
                && query.after.is_none_or(|after| action.id > after)
        });
        Ok(last.into_iter().map(AuditEntry::from).collect())
    }
}

impl ListActions {
    /// `GET /v1/audit`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<AuditEntry>>(
            Method::GET,
            "/v1/audit",
            "listAudit",
            "List the last actions of operators and tenants",
        );
        let get = get.query::<AuditQuery>(&[]).answers(
            200,
            "The last actions since the start of the host, at most 1,000, the newest first; for a tenant, its own",
        );
        routes.on(get.open(), list)
    }
}

async fn list(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<AuditQuery>,
) -> Answer {
    answer(ListActions(query).dispatch(&control, &caller).await)
}

impl From<Action> for AuditEntry {
    fn from(action: Action) -> Self {
        Self {
            id: action.id,
            at: action.at.into(),
            by: action.by,
            tenant: action.tenant,
            token: action.token,
            door: action.door.to_owned(),
            command: action.command.to_owned(),
            seat: action.seat,
            subject: action.subject,
            error: action.error,
        }
    }
}
