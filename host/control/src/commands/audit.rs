//! `audit.list`, over HTTP: the actions of operators and tenants.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use portcullis_store::{ActionFilter, StoreError, StoredAction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, Procedure, Timestamp, of_database, shown_to};
use crate::Control;
use crate::audit::{self, Action, Stored};
use crate::caller::{Authority, Caller};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, limit};

/// Number of actions that are returned without `limit`.
const SOME: usize = 100;

/// How long a list waits for actions that are about to be stored.
const PATIENCE: Duration = Duration::from_secs(2);

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
    /// Name of the host; not for a tenant
    host: Option<String>,
    /// Only older actions than that with this id: `next` of the page before
    #[schemars(extend("pattern" = "^(own-)?[0-9]{1,18}$"))]
    before: Option<String>,
    /// Only newer actions than that with this id
    #[schemars(extend("pattern" = "^(own-)?[0-9]{1,18}$"))]
    after: Option<String>,
    /// Maximum number of actions (default: 100)
    #[schemars(extend("minimum" = 1, "maximum" = audit::MOST))]
    limit: Option<usize>,
}

/// Actions of operators and tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntries {
    /// The actions, the newest first.
    pub entries: Vec<AuditEntry>,
    /// Value of `before` for the next page; null if this is the last one.
    pub next: Option<String>,
    /// Where they are kept.
    pub kept: AuditPlace,
    /// What is missing in the list; null if nothing is.
    pub warning: Option<String>,
}

/// Where actions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditPlace {
    /// In the database: those of all its hosts.
    Database,
    /// In the memory of this host: its own since its start.
    Memory,
}

/// A command that may change something, and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Its id, which grows with each action: a number in the database, `own-` and a number in memory.
    pub id: String,
    /// Name of the host; null for a tenant.
    pub host: Option<String>,
    /// Time.
    pub at: Timestamp,
    /// The author, as it is stored with the change.
    pub by: String,
    /// Tenant whose token was used; null for the operator.
    pub tenant: Option<String>,
    /// Name of the operator's token; null if it has none.
    pub token: Option<String>,
    /// Control interface: http, binrpc, fifo or datagram; host for what a host does itself.
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

/// The id of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ActionId {
    /// Of a row in the database.
    Row(u64),
    /// In memory.
    Own(u64),
}

impl Procedure for ListActions {
    type Reply = AuditEntries;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<AuditEntries, Fault> {
        let Self(query) = self;
        let most = limit("limit", query.limit, SOME, audit::MOST)?;
        let [before, after] = [&query.before, &query.after].map(|id| {
            let id = id.as_deref().map(str::parse::<ActionId>);
            id.transpose()
        });
        let (before, after) = (before?, after?);
        let tenant = match caller.authority() {
            Authority::Operator => None,
            Authority::Tenant(tenant) => Some(tenant.as_str()),
        };
        if tenant.is_some() && query.host.is_some() {
            return Err(Fault::new(403, "host: only the operator sees the hosts"));
        }
        let place = match (before, after) {
            (Some(ActionId::Row(_)), Some(ActionId::Own(_)))
            | (Some(ActionId::Own(_)), Some(ActionId::Row(_))) => {
                let text =
                    "before and after: one is of the database, and one of the memory of a host";
                return Err(Fault::new(422, text));
            }
            (Some(ActionId::Row(_)), _) | (_, Some(ActionId::Row(_))) => Some(AuditPlace::Database),
            (Some(ActionId::Own(_)), _) | (_, Some(ActionId::Own(_))) => Some(AuditPlace::Memory),
            (None, None) => None,
        };
        let number = |id: Option<ActionId>| id.map(ActionId::number);
        let filter = ActionFilter {
            host: query.host,
            tenant: tenant.map(str::to_owned),
            seat: query.seat,
            command: query.command,
            author: query.by,
            before: number(before),
            after: number(after),
        };
        let stored = match (control.audit.stored(), place) {
            (Some(stored), Some(AuditPlace::Database) | None) => stored,
            (Some(_), Some(AuditPlace::Memory)) | (None, Some(AuditPlace::Memory) | None) => {
                let page = of_memory(control, &filter, most, None);
                return Ok(page.for_caller(caller));
            }
            (None, Some(AuditPlace::Database)) => {
                let text = "before and after: this host keeps no actions in a database";
                return Err(Fault::new(422, text));
            }
        };
        if filter.matches_nothing() {
            let nothing = Vec::new();
            return Ok(AuditEntries::page(
                nothing,
                most,
                AuditPlace::Database,
                None,
            ));
        }
        match of_database_page(stored, &filter, most).await {
            Ok(page) => Ok(page.for_caller(caller)),
            Err(error) if place.is_none() => {
                let fault = shown_to(caller, of_database(503, error));
                let warning = format!(
                    "only the actions of this host since its start are listed: {}",
                    fault.message
                );
                let page = of_memory(control, &filter, most, Some(warning));
                Ok(page.for_caller(caller))
            }
            Err(error) => Err(of_database(503, error)),
        }
    }
}

/// A page of the actions in the database.
async fn of_database_page(
    stored: &Stored,
    filter: &ActionFilter,
    most: usize,
) -> Result<AuditEntries, StoreError> {
    stored.settled(PATIENCE).await;
    let one_more = u32::try_from(most + 1).unwrap_or(u32::MAX);
    let rows = stored.actions(filter, one_more).await?;
    let entries = rows.into_iter().map(AuditEntry::of_row).collect();
    let warning = match stored.waiting() {
        0 => None,
        waiting => Some(format!(
            "{waiting} actions of this host wait to be stored, and are not listed"
        )),
    };
    Ok(AuditEntries::page(
        entries,
        most,
        AuditPlace::Database,
        warning,
    ))
}

/// A page of the actions in memory.
fn of_memory(
    control: &Control,
    filter: &ActionFilter,
    most: usize,
    warning: Option<String>,
) -> AuditEntries {
    let host = control.audit.host();
    let is = |wanted: &Option<String>, value: Option<&str>| {
        wanted.is_none() || wanted.as_deref() == value
    };
    let last = control.audit.last(most + 1, |action| {
        is(&filter.host, Some(host))
            && (filter.tenant.is_none() || action.tenant == filter.tenant)
            && is(&filter.seat, action.seat.as_deref())
            && is(&filter.command, Some(action.command))
            && is(&filter.author, Some(&action.by))
            && filter.before.is_none_or(|before| action.id < before)
            && filter.after.is_none_or(|after| action.id > after)
    });
    let entries = last.into_iter();
    let entries = entries.map(|action| AuditEntry::of_memory(action, host));
    AuditEntries::page(entries.collect(), most, AuditPlace::Memory, warning)
}

impl AuditEntries {
    /// The page of entries of which there is one more than `most` if older ones follow.
    fn page(
        mut entries: Vec<AuditEntry>,
        most: usize,
        kept: AuditPlace,
        warning: Option<String>,
    ) -> Self {
        let has_more = entries.len() > most;
        entries.truncate(most);
        let last = entries.last().filter(|_| has_more);
        Self {
            next: last.map(|last| last.id.clone()),
            entries,
            kept,
            warning,
        }
    }

    /// What this caller sees of it: a tenant does not learn the names of hosts.
    fn for_caller(mut self, caller: &Caller) -> Self {
        if !caller.is_operator() {
            self.entries.iter_mut().for_each(|entry| entry.host = None);
        }
        self
    }
}

impl AuditEntry {
    fn of_memory(action: Action, host: &str) -> Self {
        Self {
            id: ActionId::Own(action.id).to_string(),
            host: Some(host.to_owned()),
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

    fn of_row(row: StoredAction) -> Self {
        let action = row.action;
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(action.at));
        Self {
            id: ActionId::Row(row.id).to_string(),
            host: Some(action.host),
            at: at.unwrap_or(UNIX_EPOCH).into(),
            by: action.author,
            tenant: action.tenant,
            token: action.token,
            door: action.door,
            command: action.command,
            seat: action.seat,
            subject: action.subject,
            error: action.error,
        }
    }
}

impl ActionId {
    fn number(self) -> u64 {
        match self {
            Self::Row(number) | Self::Own(number) => number,
        }
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(number) => write!(f, "{number}"),
            Self::Own(number) => write!(f, "own-{number}"),
        }
    }
}

impl FromStr for ActionId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let (is_own, digits) = match text.strip_prefix("own-") {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let is_number =
            (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        match digits.parse() {
            Ok(number) if is_number && is_own => Ok(Self::Own(number)),
            Ok(number) if is_number => Ok(Self::Row(number)),
            Ok(_) | Err(_) => {
                let text = format!("{text:?} is not the id of an action");
                Err(Fault::new(400, text))
            }
        }
    }
}

impl ListActions {
    /// `GET /v1/audit`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<AuditEntries>(
            Method::GET,
            "/v1/audit",
            "listAudit",
            "List the actions of operators and tenants",
        );
        let get = get.query::<AuditQuery>(&[]).answers(
            200,
            "The actions, the newest first; for a tenant, its own. With a database, those of all its hosts; else the last ones of this host, at \
             most 1,000 since its start",
        );
        routes.on(get.open().refuses(&[422, 503]), list)
    }
}

async fn list(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<AuditQuery>,
) -> Answer {
    answer(ListActions(query).dispatch(&control, &caller).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for id in [ActionId::Row(7), ActionId::Own(123_456_789_012_345_678)] {
            assert_eq!(id.to_string().parse::<ActionId>(), Ok(id));
        }
        for text in [
            "",
            "own-",
            "own",
            "-1",
            "+1",
            "1 OR 1",
            "own-own-1",
            "1234567890123456789",
        ] {
            assert_eq!(text.parse::<ActionId>().unwrap_err().code, 400, "{text}");
        }
    }
}
