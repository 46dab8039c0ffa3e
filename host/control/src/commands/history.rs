//! `history.show`, over HTTP: the traffic of the last minutes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, Procedure, Timestamp};
use crate::Control;
use crate::caller::{Authority, Caller};
use crate::history::{SECONDS, Second, Traffic};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, limit};

/// Seconds that are shown without `seconds`.
const SOME: usize = 300;

/// Most tenants that are listed.
const TENANTS: usize = 20;

/// `history.show`.
#[derive(Debug)]
pub(crate) struct Show(StatsQuery);

/// The query that selects seconds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct StatsQuery {
    /// Number of seconds (default: 300)
    #[schemars(extend("minimum" = 1, "maximum" = SECONDS))]
    seconds: Option<usize>,
    /// Tenant; default for the operator; all of them without it
    tenant: Option<String>,
}

/// The traffic of the last minutes. With very many tenants, there are fewer seconds of a single tenant than of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// The traffic of each second, the oldest first.
    pub seconds: Vec<SecondStats>,
    /// The tenants with most requests, at most 20; default is the operator.
    pub tenants: Vec<TenantTraffic>,
}

/// The traffic of a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecondStats {
    /// Its end.
    pub at: Timestamp,
    /// The requests.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// The traffic of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantTraffic {
    /// Name.
    pub name: String,
    /// The requests.
    #[serde(flatten)]
    pub traffic: Traffic,
}

impl Procedure for Show {
    type Reply = Stats;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Stats, Fault> {
        let Self(query) = self;
        let seconds = limit("seconds", query.seconds, SOME, SECONDS)?;
        let tenant = match caller.authority() {
            Authority::Operator => query.tenant,
            Authority::Tenant(tenant) => Some(tenant.clone()),
        };
        let last = control.history.last(seconds);
        Ok(Stats::of(&last, tenant.as_deref()))
    }
}

impl Stats {
    fn of(last: &[Arc<Second>], tenant: Option<&str>) -> Self {
        match tenant {
            Some(tenant) => Self::of_tenant(last, tenant),
            None => Self::of_all(last),
        }
    }

    /// Only seconds in which the traffic of single tenants is kept.
    fn of_tenant(last: &[Arc<Second>], tenant: &str) -> Self {
        let own = last.iter().filter_map(|second| {
            let traffic = second.of(tenant)?;
            let at = second.at.into();
            Some(SecondStats { at, traffic })
        });
        let seconds: Vec<_> = own.collect();
        let mut sum = Traffic::default();
        seconds.iter().for_each(|second| sum.add(second.traffic));
        let is_known = sum != Traffic::default();
        let tenants = is_known.then(|| TenantTraffic {
            name: tenant.to_owned(),
            traffic: sum,
        });
        Self {
            seconds,
            tenants: tenants.into_iter().collect(),
        }
    }

    fn of_all(last: &[Arc<Second>]) -> Self {
        let mut sums: HashMap<&str, Traffic> = HashMap::new();
        for (name, traffic) in last
            .iter()
            .flat_map(|second| second.tenants.iter().flatten())
        {
            sums.entry(name).or_default().add(*traffic);
        }
        let seconds = last.iter().map(|second| SecondStats {
            at: second.at.into(),
            traffic: second.sum,
        });
        let seconds = seconds.collect();
        let mut tenants: Vec<_> = sums
            .into_iter()
            .map(|(name, traffic)| TenantTraffic {
                name: name.to_owned(),
                traffic,
            })
            .collect();
        tenants.sort_by(|one, other| {
            let busier = other.traffic.requests.cmp(&one.traffic.requests);
            busier.then_with(|| one.name.cmp(&other.name))
        });
        tenants.truncate(TENANTS);
        Self { seconds, tenants }
    }
}

impl Show {
    /// `GET /v1/stats`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Stats>(
            Method::GET,
            "/v1/stats",
            "showStats",
            "Show the traffic of the last minutes in sums of one second; for a tenant, its own",
        );
        let get = get.query::<StatsQuery>(&[]).answers(200, "The traffic");
        routes.on(get.open(), show)
    }
}

async fn show(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<StatsQuery>,
) -> Answer {
    answer(Show(query).dispatch(&control, &caller).await)
}
