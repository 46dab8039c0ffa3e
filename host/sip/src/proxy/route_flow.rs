//! What the Route values of a request say of the flows of clients.

use super::Proxy;
use super::plan::{has_token_of, token_of_route};
use super::relay_error::RelayErrorKind;
use crate::arrival::{Arrival, ConnectionId};
use crate::routes::Routes;
use crate::scan::Message;

/// The flow of a client that a request goes along if it is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteFlow {
    /// None: no Route value of this host names a flow.
    None,
    /// This one: over this stream, or over UDP. Whether the stream is still open is not known here.
    Client(Option<ConnectionId>),
    /// One that is gone: its token has expired, or its socket is not in `listen` any more.
    Gone,
    /// The token is forged, or that of another tenant's client.
    Invalid,
}

impl Proxy {
    /// The flow of a client that this request goes along. `routes` are those by which it would be relayed.
    pub fn route_flow(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        routes: &Routes,
    ) -> RouteFlow {
        match token_of_route(self, message, arrival, routes) {
            Ok(None) => RouteFlow::None,
            Ok(Some(token)) => RouteFlow::Client(token.flow.stream.map(|it| it.connection)),
            Err(error) if error.kind() == RelayErrorKind::FlowGone => RouteFlow::Gone,
            Err(error) if error.kind() == RelayErrorKind::BadFlow => RouteFlow::Invalid,
            // Another fault, for which the request is not relayed at all.
            Err(_) => RouteFlow::None,
        }
    }

    /// Whether a request has come along a flow that one of its Route values names, with a valid token: the sender has been at the other end
    /// of this flow before.
    pub fn came_along_flow(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        routes: &Routes,
    ) -> bool {
        has_token_of(self, message, arrival, routes)
    }
}
