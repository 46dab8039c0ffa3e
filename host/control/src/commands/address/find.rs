//! `address.match`, over HTTP: the rows of the loaded table that match a source.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rights::Rights;
use crate::Control;
use crate::caller::Caller;
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer};

/// `address.match`.
#[derive(Debug)]
pub(crate) struct Find {
    source: String,
}

/// The query with the source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MatchQuery {
    /// Address or ADDRESS:PORT of a sender, or a name
    source: String,
}

/// The rows that match a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressMatches {
    /// The source, as it was looked up.
    pub source: String,
    /// The port; null if any port was asked for.
    pub port: Option<u16>,
    /// Number of the load of the table.
    pub generation: u64,
    /// The rows about the source, in the order in which `allow_source_address_group` tries them.
    pub rows: Vec<MatchedRow>,
    /// The group of the first row that matches; null if none does.
    pub first_group: Option<u32>,
}

/// A row about a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MatchedRow {
    /// Group.
    pub group: u32,
    /// Port that it requires; 0 for any.
    pub port: u16,
    /// Tag; null if there is none.
    pub tag: Option<String>,
    /// Whether it matches the port.
    pub is_match: bool,
}

impl Procedure for Find {
    type Reply = AddressMatches;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<AddressMatches, Fault> {
        let rights = Rights::of(control, caller)?;
        let (ip, port) = source(&self.source);
        let snapshot = control.shared.addresses.current();
        let entries = match ip {
            Some(ip) => snapshot.table.lookup(ip),
            None => snapshot.table.lookup_name(&self.source),
        };
        let is_match = |row: u16| row == 0 || port.is_none_or(|port| port == row);
        let rows: Vec<_> = entries
            .iter()
            .filter(|row| rights.sees(row.group.into()))
            .map(|row| MatchedRow {
                group: row.group,
                port: row.port,
                tag: row.tag.map(str::to_owned),
                is_match: is_match(row.port),
            })
            .collect();
        let first = rows.iter().find(|row| row.is_match);
        Ok(AddressMatches {
            source: ip.map_or(self.source, |ip| ip.to_string()),
            port,
            generation: snapshot.generation,
            first_group: first.map(|row| row.group),
            rows,
        })
    }
}

/// The address and the port; no address for a name.
fn source(text: &str) -> (Option<IpAddr>, Option<u16>) {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return (Some(addr.ip()), Some(addr.port()));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    (bare.parse().ok(), None)
}

impl Find {
    /// `GET /v1/addresses/match`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<AddressMatches>(
            Method::GET,
            "/v1/addresses/match",
            "matchAddress",
            "Show which rows of the loaded table match a source; for a tenant, those of its groups",
        );
        let get = get.query::<MatchQuery>(&["source"]);
        routes.on(get.answers(200, "The rows about the source"), find)
    }
}

async fn find(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(MatchQuery { source }): Given<MatchQuery>,
) -> Answer {
    answer(Find { source }.dispatch(&control, &caller).await)
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn a_source_is_an_address_with_or_without_a_port_or_a_name() {
        let ip = |text: &str| Some(text.parse().unwrap());
        for (text, expected) in [
            ("192.0.2.7", (ip("192.0.2.7"), None)),
            ("192.0.2.7:5060", (ip("192.0.2.7"), Some(5060))),
            ("2001:db8::1", (ip("2001:db8::1"), None)),
            ("[2001:db8::1]", (ip("2001:db8::1"), None)),
            ("[2001:db8::1]:5061", (ip("2001:db8::1"), Some(5061))),
            ("sip.example.com", (None, None)),
        ] {
            assert_eq!(source(text), expected, "{text}");
        }
    }
}
