//! Answers of the interface `permissions`.

use std::net::IpAddr;

use portcullis_address::{Entries, Match, parse_ip};
use serde_json::json;

use crate::scope::Scope;
use crate::tape::SideEffect;

use super::Call;

/// The address of a query.
enum Address<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

impl Call {
    /// `permissions.allow-source-address`
    pub(crate) fn allow_source_address(&mut self, group: u32) -> bool {
        self.answered(
            "permissions.allow-source-address",
            SideEffect::Tag,
            || json!([group]),
            |call| call.finds_source(group),
        )
    }

    /// `permissions.source-address-group`
    pub(crate) fn source_address_group(&mut self) -> Option<u32> {
        self.answered(
            "permissions.source-address-group",
            SideEffect::Tag,
            || json!([]),
            Self::find_source,
        )
    }

    /// `permissions.allow-address`
    pub(crate) fn allow_address(&mut self, group: u32, address: &str, port: u16) -> bool {
        self.answered(
            "permissions.allow-address",
            SideEffect::Tag,
            || json!([group, address, port]),
            |call| call.finds(group, Address::parse(address), port),
        )
    }

    /// `permissions.address-group`
    pub(crate) fn address_group(&mut self, address: &str, port: u16) -> Option<u32> {
        self.answered(
            "permissions.address-group",
            SideEffect::Tag,
            || json!([address, port]),
            |call| call.find(Address::parse(address), port),
        )
    }

    fn finds_source(&mut self, group: u32) -> bool {
        if !self.scope.admits_group(group) {
            return false;
        }
        let source = self.request().source();
        let entries = self.addresses.table.lookup(source.ip());
        let found = entries.find(group, source.port());
        note(&mut self.tag, &mut self.has_tag, found).is_some()
    }

    fn find_source(&mut self) -> Option<u32> {
        let source = self.request().source();
        let entries = self.addresses.table.lookup(source.ip());
        let found = first_within(&self.scope, entries, source.port());
        note(&mut self.tag, &mut self.has_tag, found)
    }

    fn finds(&mut self, group: u32, address: Address<'_>, port: u16) -> bool {
        if !self.scope.admits_group(group) {
            return false;
        }
        let table = &self.addresses.table;
        let entries = match address {
            Address::Ip(ip) => table.lookup(ip),
            Address::Name(name) => table.lookup_name(name),
        };
        note(&mut self.tag, &mut self.has_tag, entries.find(group, port)).is_some()
    }

    fn find(&mut self, address: Address<'_>, port: u16) -> Option<u32> {
        let table = &self.addresses.table;
        let entries = match address {
            Address::Ip(ip) => table.lookup(ip),
            Address::Name(name) => table.lookup_name(name),
        };
        let found = first_within(&self.scope, entries, port);
        note(&mut self.tag, &mut self.has_tag, found)
    }
}

impl<'a> Address<'a> {
    /// Parses an address as the table does. Any other text is a host name.
    fn parse(text: &'a str) -> Self {
        parse_ip(text).map_or(Self::Name(text), Self::Ip)
    }
}

/// The first row of a group in the scope.
#[inline]
fn first_within<'t>(scope: &Scope, entries: Entries<'t>, port: u16) -> Option<Match<'t>> {
    match scope.is_limited() {
        false => entries.first(port),
        true => entries.first_of(port, scope.groups()),
    }
}

/// Stores the tag of a match for `last-tag`. Without a match, the tag of the previous match stays.
fn note(tag: &mut String, has_tag: &mut bool, found: Option<Match<'_>>) -> Option<u32> {
    let found = found?;
    *has_tag = found.tag.is_some();
    tag.clear();
    tag.push_str(found.tag.unwrap_or_default());
    Some(found.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_address_or_a_host_name() {
        for ip in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
            assert!(matches!(Address::parse(ip), Address::Ip(_)), "{ip}");
        }
        for name in ["gw.example.com", "192.0.2.1:5060", ""] {
            assert!(
                matches!(Address::parse(name), Address::Name(text) if text == name),
                "{name}"
            );
        }
    }
}
