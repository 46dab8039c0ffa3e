//! Queries of the address table, with the names of Kamailio's `permissions` module.
//!
//! Every row of the table has a group, an address or subnet, a port (0 means any port) and an optional tag. Single addresses take
//! precedence over subnets. A row with a name instead of an address matches only that text.

use crate::host;

/// True if the request's source address and source port match a row of `group`.
///
/// Kamailio: `allow_source_address(group)`.
pub fn allow_source_address(group: u32) -> bool {
    host::allow_source_address(group)
}

/// True if `address` and `port` match a row of `group`.
///
/// `address` is an IPv4 or IPv6 address, the latter with or without brackets. Any other text is compared literally with the rows that hold
/// a name; names are never resolved.
///
/// Kamailio: `allow_address(group, address, port)`.
pub fn allow_address(group: u32, address: &str, port: u16) -> bool {
    host::allow_address(group, address, port)
}

/// The group of the first row that matches the request's source: a single address if there is one, otherwise the subnet with
/// the lowest group.
///
/// Kamailio: `allow_source_address_group()`.
pub fn allow_source_address_group() -> Option<u32> {
    host::source_address_group()
}

/// As [`allow_source_address_group`], for a given address and port.
///
/// Kamailio: `allow_address_group(address, port)`.
pub fn allow_address_group(address: &str, port: u16) -> Option<u32> {
    host::address_group(address, port)
}

/// The tag of the row matched by the last successful query of this call; `None` if no query has matched yet or that row has no tag.
///
/// An empty tag is a tag. Kamailio: the variable that `peer_tag_avp` names.
pub fn last_tag() -> Option<String> {
    host::last_tag()
}
