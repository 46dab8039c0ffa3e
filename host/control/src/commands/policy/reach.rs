//! On which hosts of the fleet a change of a seat is in effect.

use std::time::Duration;

use portcullis_config::parse_duration;
use portcullis_rollout::{HostBehind, HostsLive};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;

/// How long a change waits for the hosts, if the caller does not say.
const USUAL: Duration = Duration::from_secs(5);

/// The longest time.
const LONGEST: Duration = Duration::from_secs(60);

/// A time up to the longest one, as a pattern.
pub(super) const WAIT: &str = "^([0-9]|[1-5][0-9]|60)s$";

/// How long a change waits until it is in effect on all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience(Duration);

/// The query of a change that has no other one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WaitQuery {
    /// How long to wait until all hosts on the same database use it, for example 10s (default: 5s; at most 60s)
    #[schemars(extend("pattern" = WAIT))]
    pub(super) wait: Option<String>,
}

/// On which hosts of the fleet a change is in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetReach {
    /// Number of hosts that announce themselves on the same database.
    pub total: u64,
    /// Number of those on which all workers use the change.
    pub live: u64,
    /// The others, by name.
    pub behind: Vec<BehindHost>,
}

/// A host on which a change is not known to be in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BehindHost {
    /// Its name; null for a tenant.
    pub host: Option<String>,
    /// Milliseconds since it announced itself.
    pub silent_ms: u64,
    /// The last revision of the seat that it has carried out; null if it says nothing of the seat.
    pub revision: Option<u64>,
    /// Why it has not carried out the change; null if it has not said.
    pub error: Option<String>,
}

impl Default for Patience {
    fn default() -> Self {
        Self(USUAL)
    }
}

impl Patience {
    /// Reads the parameter `wait`.
    ///
    /// # Errors
    /// 400 if it is no time, or too long.
    pub(crate) fn of(wait: Option<&str>) -> Result<Self, Fault> {
        let Some(text) = wait else {
            return Ok(Self::default());
        };
        let time = parse_duration(text).filter(|time| *time <= LONGEST);
        time.map(Self).ok_or_else(|| {
            let text = format!(
                "wait: `{}` is not a time of at most 60s: write for example 10s",
                text.escape_debug()
            );
            Fault::new(400, text)
        })
    }

    /// Waits until the last change of a seat is in effect on all hosts. Returns nothing if no host announces itself, and a warning if it is not
    /// known.
    pub(super) async fn reach(
        self,
        control: &Control,
        caller: &Caller,
        seat: &str,
    ) -> (Option<FleetReach>, Option<String>) {
        let deployments = control.registry.deployments();
        match deployments.live_on_hosts(seat, self.0).await {
            Ok(live) => (live.map(|live| FleetReach::of(live, caller)), None),
            Err(error) => {
                let fault = super::super::of_database(503, error);
                let shown = super::super::shown_to(caller, fault).message;
                (
                    None,
                    Some(format!("it is not known which hosts use it: {shown}")),
                )
            }
        }
    }
}

impl FleetReach {
    /// A tenant does not learn the names of hosts.
    fn of(live: HostsLive, caller: &Caller) -> Self {
        let HostsLive {
            total,
            live,
            behind,
        } = live;
        let behind = behind.into_iter().map(|behind| {
            let HostBehind {
                host,
                seen,
                revision,
                error,
            } = behind;
            BehindHost {
                host: caller.is_operator().then_some(host),
                silent_ms: u64::try_from(seen.as_millis()).unwrap_or(u64::MAX),
                revision,
                // It may name the database.
                error: error.filter(|_| caller.is_operator()),
            }
        });
        Self {
            total: total as u64,
            live: live as u64,
            behind: behind.collect(),
        }
    }

    /// The hosts that are behind, in one line; `None` if all are there.
    pub fn behind_text(&self) -> Option<String> {
        let each = self.behind.iter().map(|behind| {
            let name = behind.host.as_deref().unwrap_or("another host");
            let why = match (&behind.error, behind.revision) {
                (Some(error), _) => error.clone(),
                (None, Some(revision)) => format!("it has carried out revision {revision}"),
                (None, None) => "it says nothing of the seat".to_owned(),
            };
            format!("{name} ({why}; silent for {} ms)", behind.silent_ms)
        });
        let each: Vec<_> = each.collect();
        (!each.is_empty()).then(|| each.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Door;

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(Patience::of(None).unwrap().0, USUAL);
        assert_eq!(Patience::of(Some("0s")).unwrap().0, Duration::ZERO);
        assert_eq!(Patience::of(Some("60s")).unwrap().0, LONGEST);
        for bad in ["61s", "", "soon", "10"] {
            assert_eq!(Patience::of(Some(bad)).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn a_tenant_learns_how_many_hosts_are_behind_and_not_which() {
        let behind = HostBehind {
            host: "edge-3".into(),
            seen: Duration::from_secs(2),
            revision: Some(4),
            error: None,
        };
        let live = HostsLive {
            total: 3,
            live: 2,
            behind: vec![behind],
        };
        let operator = FleetReach::of(live.clone(), &Caller::operator(Door::Fifo));
        assert_eq!(
            operator.behind_text().as_deref(),
            Some("edge-3 (it has carried out revision 4; silent for 2000 ms)")
        );
        let tenant = FleetReach::of(live, &Caller::tenant("acme"));
        assert!(tenant.behind_text().unwrap().starts_with("another host ("));
        assert_eq!(FleetReach::default().behind_text(), None);
    }
}
