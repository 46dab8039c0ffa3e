//! `guard.list`, `guard.ban` and `guard.release`: the sources that are held or banned.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::{TokenRole, parse_duration};
use portcullis_guard::{Barred, Guard, Kind, Prefix, Reason};
use portcullis_rollout::unix;
use portcullis_rpc::{Call, Fault, Param};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, FromCall, Procedure, expect};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `guard.list`.
#[derive(Debug)]
pub(crate) struct ListBarred;

/// `guard.ban`.
#[derive(Debug)]
pub(crate) struct Ban {
    address: String,
    /// For how long; `None` for `ban` of `[guard]`.
    time: Option<Duration>,
}

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

/// A source that an operator has banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BannedSource {
    /// An IPv4 address, or an IPv6 /64.
    pub source: String,
    /// Seconds until it is released.
    pub seconds: u64,
    /// Which hosts ban it.
    pub reach: BanReach,
}

/// Which hosts ban a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BanReach {
    /// This one only: it does not share bans.
    Host,
    /// This one at once, and those that share bans within a second.
    Fleet,
    /// This one at once, and those that share bans when the exchange through Redis works again.
    Later,
}

/// For how long a source is banned.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BanQuery {
    /// For how long, for example 1h (default: `ban` of [guard]; at most 24h)
    #[serde(rename = "for")]
    #[schemars(extend("pattern" = TIME))]
    time: Option<String>,
}

/// A time, as a pattern.
const TIME: &str = "^[0-9]+(s|m|h)$";

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

impl FromCall for Ban {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let takes = || {
            let text = format!("{} takes an address, and a time such as 1h", call.method);
            Fault::new(400, text)
        };
        let (address, time) = match &*call.params {
            [Param::Text(address)] => (address, None),
            [Param::Text(address), Param::Text(time)] => (address, Some(time_of(time)?)),
            [Param::Text(address), Param::Int(seconds)] => {
                (address, Some(time_of(&format!("{seconds}s"))?))
            }
            [..] => return Err(takes()),
        };
        Ok(Self {
            address: address.clone(),
            time,
        })
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

impl Procedure for Ban {
    type Reply = BannedSource;

    fn subject(&self) -> Option<String> {
        let time = self.time.map(|time| format!(" for {} s", time.as_secs()));
        Some(format!(
            "source {}{}",
            self.address,
            time.unwrap_or_default()
        ))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let guard = guard_of(control)?;
        let ip = parse(&self.address)?.to_canonical();
        let prefix = Prefix::of(ip);
        if ip.is_multicast() || ip.is_unspecified() || ip == Ipv4Addr::BROADCAST {
            let text = format!("{ip} is no address that messages come from");
            return Err(Fault::new(422, text));
        }
        let known = [ip, prefix.ip()].into_iter().find_map(|ip| {
            let place = control.shared.known_in(ip)?;
            Some(format!(
                "{ip} is known from {place}: the guard never bans it; remove it there first, or block it in the firewall"
            ))
        });
        if let Some(text) = known {
            return Err(Fault::new(409, text));
        }
        let time = self.time.unwrap_or(control.shared.config.guard.limits.ban);
        match guard.ban(ip, time, Instant::now(), unix()) {
            true => Ok(BannedSource {
                source: prefix.to_string(),
                seconds: time.as_secs(),
                reach: BanReach::of(control, guard),
            }),
            false => {
                let text = format!(
                    "no room for {prefix}: all sources of its part of the table are held or banned; increase `sources` in [guard], or block it in the firewall"
                );
                Err(Fault::new(503, text))
            }
        }
    }
}

impl BanReach {
    fn of(control: &Control, guard: &Guard) -> Self {
        let health = control.exchange.as_ref().map(|exchange| exchange.health());
        match (guard.fleet_counts(), health) {
            // Bans may wait for Redis although other parts of the exchange go on.
            (Some(_), Some(health)) => match health.hosts.is_some() && health.trouble.is_none() {
                true => Self::Fleet,
                false => Self::Later,
            },
            (Some(_) | None, _) => Self::Host,
        }
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
    let shown = text.escape_debug();
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, length.parse::<u8>().map(Some)),
        None => (text, Ok(None)),
    };
    let text = match (address.parse::<IpAddr>(), length) {
        (Ok(ip), Ok(None)) => return Ok(ip),
        (Ok(ip @ IpAddr::V4(_)), Ok(Some(32))) | (Ok(ip @ IpAddr::V6(_)), Ok(Some(64 | 128))) => {
            return Ok(ip);
        }
        (Ok(_), Ok(Some(0..=128))) => format!(
            "`{shown}` is a network: a source of the guard is an IPv4 address or an IPv6 /64; block other networks in the firewall"
        ),
        (_, _) => {
            format!("`{shown}` is not an address: write 192.0.2.1, 2001:db8::1 or 2001:db8::/64")
        }
    };
    Err(Fault::new(422, text))
}

/// Reads the time of a ban.
fn time_of(text: &str) -> Result<Duration, Fault> {
    let least = Duration::from_secs(1);
    let time = parse_duration(text).filter(|time| (least..=Guard::LONGEST_BAN).contains(time));
    time.ok_or_else(|| {
        let text = format!(
            "`{}` is not a time of a ban: write for example 90s, 10m or 1h, at most 24h; block a source in the firewall for longer",
            text.escape_debug()
        );
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

impl Ban {
    /// `PUT /v1/guard/{address}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let put = Operation::new::<BannedSource>(
            Method::PUT,
            "/v1/guard/{address}",
            "banSource",
            "Ban a source for some time, whatever it has done, in place of a hold or ban before; an address of an IPv6 /64 stands for all of them. It is banned on all hosts that share bans, except where the address is known",
        );
        let put = put.query::<BanQuery>(&[]).answers(200, "The source");
        routes.on(put.refuses(&[409, 422, 503]), ban)
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

async fn ban(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(address): Segments<String>,
    Given(query): Given<BanQuery>,
) -> Answer {
    let time = query.time.as_deref().map(time_of).transpose()?;
    answer(Ban { address, time }.dispatch(&control, &caller).await)
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
        for (text, why) in [
            ("192.0.2.0/24", "`192.0.2.0/24` is a network"),
            ("192.0.2.1/64", "`192.0.2.1/64` is a network"),
            ("2001:db8::/48", "`2001:db8::/48` is a network"),
            ("192.0.2.1/x", "`192.0.2.1/x` is not an address"),
            ("everybody", "`everybody` is not an address"),
            ("", "`` is not an address"),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.code, 422);
            assert!(fault.message.starts_with(why), "{}", fault.message);
        }
        assert_eq!(parse("192.0.2.1/32").unwrap(), parse("192.0.2.1").unwrap());
    }

    #[test]
    fn the_time_of_a_ban_is_a_text_or_a_number_of_seconds() {
        let read = |params: Vec<Param>| {
            let call = Call {
                method: "guard.ban".into(),
                params,
            };
            let ban = Ban::from_call(&call).map_err(|fault| fault.code)?;
            Ok::<_, i32>(ban.time.map(|time| time.as_secs()))
        };
        let text = |text: &str| Param::Text(text.into());
        assert_eq!(read(vec![text("192.0.2.1")]), Ok(None));
        for (time, seconds) in [("90s", 90), ("10m", 600), ("24h", 86_400)] {
            assert_eq!(read(vec![text("192.0.2.1"), text(time)]), Ok(Some(seconds)));
        }
        assert_eq!(read(vec![text("192.0.2.1"), Param::Int(60)]), Ok(Some(60)));
        for time in ["", "1", "0s", "25h", "1d", "-1s", "999999999999999999999h"] {
            assert_eq!(
                read(vec![text("192.0.2.1"), text(time)]),
                Err(422),
                "{time}"
            );
        }
        assert_eq!(read(vec![text("192.0.2.1"), Param::Int(-1)]), Err(422));
        assert_eq!(read(vec![]), Err(400));
        assert_eq!(read(vec![Param::Int(1), text("1h")]), Err(400));
    }
}
