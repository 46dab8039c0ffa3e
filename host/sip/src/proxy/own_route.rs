//! Route values of this host.

use crate::name_addr::NameAddr;

use super::relay_error::RelayError;

/// How many Route values of this host are removed: two of a double Record-Route for each of two passes. A request with more is looping.
pub(super) const OWN_ROUTES: usize = 4;

/// The URI of a Route value.
pub(super) fn uri_of_route(value: &[u8]) -> Result<&[u8], RelayError> {
    let route =
        NameAddr::parse(value).map_err(|_| RelayError::BadRoute(RelayError::shown(value)))?;
    Ok(route.uri)
}
