//! What the host knows beside a request: about the connection that it came over, its source, and flows.

use std::sync::Arc;

use portcullis_request::Request;
use portcullis_sip::Arrival;
use portcullis_tls::Session;

use crate::flow_state::FlowState;
use crate::scope::Scope;
use crate::standing::Standing;

/// What the host knows beside a request and the tables. The host looks up what a policy asks for, and nothing else.
pub trait HostState: Send + Sync {
    /// What the handshake of TLS has settled and proved on the connection of this arrival; `None` without TLS, and if the connection is
    /// closed.
    fn session(&self, arrival: &Arrival) -> Option<Arc<Session>>;

    /// What the guard does with the source of this arrival.
    fn standing(&self, arrival: &Arrival) -> Standing;

    /// What becomes of the flow that this request goes along, for a policy in this scope.
    fn route_flow(&self, request: &Request, scope: &Scope) -> FlowState;

    /// Whether this request has come along a flow that its Route values name.
    fn came_along_flow(&self, request: &Request, scope: &Scope) -> bool;

    /// Whether the sender of this request is a client by the configuration.
    fn is_client(&self, request: &Request, scope: &Scope) -> bool;

    /// The present state, for a call that is made later.
    fn stated(&self, request: &Request, scope: &Scope) -> StatedHost {
        StatedHost {
            session: self.session(&request.arrival),
            standing: self.standing(&request.arrival),
            flow: self.route_flow(request, scope),
            came_along_flow: self.came_along_flow(request, scope),
            is_client: self.is_client(request, scope),
        }
    }
}

/// A state that does not change: that of a moment, or one that a file of cases states.
#[derive(Clone, Debug, Default)]
pub struct StatedHost {
    /// See [`HostState::session`].
    pub session: Option<Arc<Session>>,
    /// See [`HostState::standing`].
    pub standing: Standing,
    /// See [`HostState::route_flow`].
    pub flow: FlowState,
    /// See [`HostState::came_along_flow`].
    pub came_along_flow: bool,
    /// See [`HostState::is_client`].
    pub is_client: bool,
}

impl HostState for StatedHost {
    fn session(&self, _: &Arrival) -> Option<Arc<Session>> {
        self.session.clone()
    }

    fn standing(&self, _: &Arrival) -> Standing {
        self.standing
    }

    fn route_flow(&self, _: &Request, _: &Scope) -> FlowState {
        self.flow
    }

    fn came_along_flow(&self, _: &Request, _: &Scope) -> bool {
        self.came_along_flow
    }

    fn is_client(&self, _: &Request, _: &Scope) -> bool {
        self.is_client
    }
}
