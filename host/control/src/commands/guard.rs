//! `guard.list` and `guard.release`: the sources that are held or banned.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_guard::{Barred, Guard, Kind, Prefix, Reason};
use portcullis_rollout::unix;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, FromCall, Procedure, expect};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `guard.list`.
#[derive(Debug)]
pub(crate) struct ListBarred;

/// `guard.release`.
#[derive(Debug)]
pub(crate) struct Release {
    address: String,
}

/// A source that is held or banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BarredSource {
    /// An IPv4 address, or an IPv6 /64.
    pub source: String,
    /// What happens to its messages.
    pub state: BarredState,
    /// Why.
    pub reason: BarredReason,
    /// Seconds until it is released, unless there is new evidence.
    pub seconds: u64,
    /// Messages that were dropped since.
    pub dropped: u64,
    /// The other host of the fleet that has banned it; absent if it was this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// What happens to the messages of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BarredState {
    /// A few requests a second are served, beside those that cannot be forged.
    Held,
    /// All are dropped.
    Banned,
}

/// Why a source is held or banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BarredReason {
    /// Too many requests were refused.
    Refusals,
    /// Requests for too many different users were refused.
    Users,
    /// Too many challenges without a success.
    Challenges,
    /// Too many malformed messages or unknown methods.
    Malformed,
    /// Too many messages.
    Flood,
    /// An operator has banned it.
    Operator,
}

/// A source that was released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleasedSource {
    /// An IPv4 address, or an IPv6 /64.
    pub source: String,
}

impl BarredSource {
    fn of(barred: Barred, guard: &Guard) -> Self {
        Self {
            source: barred.source.to_string(),
            state: match barred.kind {
                Kind::Held => BarredState::Held,
                Kind::Banned => BarredState::Banned,
            },
            reason: match barred.reason {
                Reason::Refusals => BarredReason::Refusals,
                Reason::Users => BarredReason::Users,
                Reason::Challenges => BarredReason::Challenges,
                Reason::Malformed => BarredReason::Malformed,
                Reason::Flood => BarredReason::Flood,
                Reason::Operator => BarredReason::Operator,
            },
            seconds: barred.remaining.as_secs(),
            dropped: barred.dropped,
            host: barred.host.map(|host| guard.host_name(host)),
        }
    }
}

impl FromCall for ListBarred {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        expect(call, [])?;
        Ok(Self)
    }
}

impl FromCall for Release {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [address] = expect(call, ["an address"])?;
        Ok(Self { address })
    }
}

impl Procedure for ListBarred {
    type Reply = Vec<BarredSource>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let guard = guard_of(control)?;
        let mut all = guard.barred(Instant::now());
        all.sort_by_key(|barred| barred.source);
        let all = all.into_iter();
        Ok(all.map(|barred| BarredSource::of(barred, guard)).collect())
    }
}

impl Procedure for Release {
    type Reply = ReleasedSource;

    fn subject(&self) -> Option<String> {
        Some(format!("source {}", self.address))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let guard = guard_of(control)?;
        let ip = parse(&self.address)?;
        let source = Prefix::of(ip).to_string();
        match guard.release(ip, Instant::now(), unix()) {
            true => Ok(ReleasedSource { source }),
            false => {
                let text = format!("{source} is neither held nor banned: its time may be over");
                Err(Fault::new(404, text))
            }
        }
    }
}

pub(super) fn guard_of(control: &Control) -> Result<&Guard, Fault> {
    let off = || Fault::new(409, "no source is observed: `enabled` in [guard] is false");
    control.shared.guard.as_ref().ok_or_else(off)
}

/// Reads an address, or a network as `guard.list` shows it.
fn parse(text: &str) -> Result<IpAddr, Fault> {
    let address = text.strip_suffix("/64").unwrap_or(text);
    address.parse().map_err(|_| {
        let shown = text.escape_debug();
        let text =
            format!("`{shown}` is not an address: write 192.0.2.1, 2001:db8::1 or 2001:db8::/64");
        Fault::new(422, text)
    })
}

impl ListBarred {
    /// `GET /v1/guard`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<BarredSource>>(
            Method::GET,
            "/v1/guard",
            "listBarredSources",
            "List the sources that are held or banned",
        );
        routes.on(get.answers(200, "The sources").refuses(&[409]), list)
    }
}

impl Release {
    /// `DELETE /v1/guard/{address}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<ReleasedSource>(
            Method::DELETE,
            "/v1/guard/{address}",
            "releaseSource",
            "End the hold or ban of a source, and forget what it did; an address of an IPv6 /64 stands for all of them. A ban ends on all hosts that share bans",
        );
        let delete = delete.answers(200, "The source");
        routes.on(delete.refuses(&[404, 409, 422]), release)
    }
}

async fn list(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ListBarred.dispatch(&control, &caller).await)
}

async fn release(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(address): Segments<String>,
) -> Answer {
    answer(Release { address }.dispatch(&control, &caller).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_listed() {
        for text in ["192.0.2.1", "2001:db8:0:1::/64", "2001:db8:0:1::7"] {
            let ip = parse(text).unwrap();
            let again = parse(&Prefix::of(ip).to_string()).unwrap();
            assert_eq!(Prefix::of(again), Prefix::of(ip));
        }
        let fault = parse("192.0.2.0/24").unwrap_err();
        assert_eq!(fault.code, 422);
        assert!(fault.message.contains("192.0.2.0/24"), "{}", fault.message);
    }
}
