//! `[relay]`: where requests may go.

use super::next_hop::{Domain, NextHop};
use super::problem::Bad;
use super::section::Section;

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
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            next_hop: None,
            next_hops: Vec::new(),
            domains: Vec::new(),
            record_route: true,
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: RelayConfig) -> RelayConfig {
    let next_hop = section.optional("next-hop", |value| match value.text()? {
        "" => Ok(None),
        text => NextHop::parse(text).map(Some),
    });
    let read = RelayConfig {
        next_hop: next_hop.flatten(),
        next_hops: section.section("next-hops").entries(|name, value| {
            if name.is_empty() {
                return Err(Bad::new(
                    "a next hop without a name",
                    "write NAME = \"sip:HOST:PORT\"",
                ));
            }
            NextHop::parse(value.text()?)
        }),
        domains: section.list("domains", default.domains, |v| Domain::parse(v.text()?)),
        record_route: section.value("record-route", default.record_route, |v| v.boolean()),
    };
    section.finish();
    read
}
