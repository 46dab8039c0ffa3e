//! `[relay]`: where requests may go.

use std::time::Duration;

use portcullis_sip::OverloadAlgorithm;
use portcullis_tls::{NamedRelayProfile, RelayProfile};

use super::next_hop::{Domain, NextHop};
use super::problem::Bad;
use super::section::{Section, Value};
use super::tls;
use super::value::{duration, one_of, overload_control};

/// Where requests may go.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayConfig {
    /// Next hop of requests whose Route and request URI lead to no permitted destination.
    pub next_hop: Option<NextHop>,
    /// Next hops that a policy can select by name, ordered by name.
    pub next_hops: Vec<(String, NextHop)>,
    /// Destinations to which Route and request URI may lead.
    pub domains: Vec<Domain>,
    /// Whether the host adds Record-Route.
    pub record_route: bool,
    /// Whether the host keeps transactions.
    pub mode: RelayMode,
    /// When an INVITE is answered 100 (Trying).
    pub trying: Trying,
    /// Timer C: limit of the time between two provisional responses to an INVITE (RFC 3261 §16.6(11)).
    pub ring: Duration,
    /// Limit of the time until the first response of a target, if another one follows it.
    pub no_answer: Duration,
    /// How next hops are asked to say when they are overloaded, and obeyed (RFC 7339, RFC 7415); `None`: they are not.
    pub overload_control: Option<OverloadAlgorithm>,
    /// `[relay.tls]`
    pub tls: RelayProfile,
    /// `[relay.tls-profiles.NAME]`, in the order of their names. Their hosts include those of their next hops.
    pub tls_profiles: Vec<NamedRelayProfile>,
}

/// Whether the host keeps transactions of the requests that it relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayMode {
    /// Requests are relayed in transactions (RFC 3261 §16.2), as with Kamailio's `t_relay()`.
    Stateful,
    /// Each message is relayed by itself (RFC 3261 §16.11), as with Kamailio's `forward()`.
    Stateless,
}

/// When an INVITE is answered 100 (Trying).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trying {
    /// Before it is relayed.
    Now,
    /// If no other response was sent within 200 ms (RFC 3261 §17.2.1).
    After200Ms,
    /// Never.
    Never,
}

/// Timer C is longer than three minutes (RFC 3261 §16.6(11)).
const RING: Duration = Duration::from_secs(185);

/// Three transmissions of an INVITE over UDP (timer A).
const NO_ANSWER: Duration = Duration::from_secs(4);

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            next_hop: None,
            next_hops: Vec::new(),
            domains: Vec::new(),
            record_route: true,
            mode: RelayMode::Stateful,
            trying: Trying::Now,
            ring: RING,
            no_answer: NO_ANSWER,
            overload_control: None,
            tls: RelayProfile::default(),
            tls_profiles: Vec::new(),
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: RelayConfig) -> RelayConfig {
    let next_hop = section.optional("next-hop", |value| match value.text()? {
        "" => Ok(None),
        text => NextHop::parse(text).map(Some),
    });
    let next_hops = section.section("next-hops").entries(|name, value| {
        if name.is_empty() {
            return Err(Bad::new(
                "a next hop without a name",
                "write NAME = \"sip:HOST:PORT\"",
            ));
        }
        NextHop::parse(value.text()?)
    });
    let tls_profiles = tls::read_relay_profiles(section.section("tls-profiles"), &next_hops);
    let read = RelayConfig {
        next_hop: next_hop.flatten(),
        next_hops,
        domains: section.list("domains", default.domains, |v| Domain::parse(v.text()?)),
        record_route: section.value("record-route", default.record_route, |v| v.boolean()),
        mode: section.value("mode", default.mode, mode),
        trying: section.value("trying", default.trying, trying),
        ring: section.value("ring", default.ring, |v| {
            duration(v, Duration::from_secs(1), Duration::from_secs(3_600))
        }),
        no_answer: section.value("no-answer", default.no_answer, |v| {
            duration(v, Duration::from_millis(100), Duration::from_secs(32))
        }),
        overload_control: section.value(
            "overload-control",
            default.overload_control,
            overload_control,
        ),
        tls: tls::read_relay(section.section("tls")),
        tls_profiles,
    };
    section.finish();
    read
}

fn mode(value: Value<'_>) -> Result<RelayMode, Bad> {
    let word = one_of(value, &["stateful", "stateless"])?;
    Ok(match &*word {
        "stateless" => RelayMode::Stateless,
        _ => RelayMode::Stateful,
    })
}

fn trying(value: Value<'_>) -> Result<Trying, Bad> {
    let word = one_of(value, &["now", "200ms", "never"])?;
    Ok(match &*word {
        "200ms" => Trying::After200Ms,
        "never" => Trying::Never,
        _ => Trying::Now,
    })
}
