//! Questions to the address table, under the names of Kamailio's `permissions` module.
//!
//! Every row of the table has a group, an address or subnet, a port (0 stands for any port) and an optional tag. Single
//! addresses are tried before subnets. A row with a name instead of an address matches that very text only.

use crate::host;

/// True if the request's source address and source port match a row of `group`.
///
/// Kamailio: `allow_source_address(group)`.
pub fn allow_source_address(group: u32) -> bool {
    host::allow_source_address(group)
}

/// True if `address` and `port` match a row of `group`.
///
/// `address` is an IPv4 or IPv6 address, the latter with or without brackets. Any other text is compared, letter for letter,
/// with the rows that hold a name; names are never resolved.
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

/// The same as [`allow_source_address_group`] for an address and port of the policy's choice.
///
/// Kamailio: `allow_address_group(address, port)`.
pub fn allow_address_group(address: &str, port: u16) -> Option<u32> {
    host::address_group(address, port)
}

/// The tag of the row that the last successful question of this call matched; none if no question matched yet or that row has
/// no tag.
///
/// An empty tag is a tag. Kamailio: the variable that `peer_tag_avp` names.
pub fn last_tag() -> Option<String> {
    host::last_tag()
}
