//! What policies may get to know beside a request and the tables.

use std::sync::Arc;
use std::time::Instant;

use portcullis_guard::Kind;
use portcullis_policy::{FlowState, HostState, Scope, Standing};
use portcullis_request::Request;
use portcullis_sip::{Arrival, RouteFlow, Routes};
use portcullis_tls::Session;

use crate::shared::Shared;

/// The state of the host, as far as the policies of one worker ask for it.
pub(super) struct Surroundings {
    shared: Arc<Shared>,
}

impl Surroundings {
    /// Those of the host with this state.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The routes by which a request that a policy in this scope decides on is relayed.
    fn routes(&self, scope: &Scope) -> Arc<Routes> {
        let own = scope.routes();
        own.unwrap_or_else(|| self.shared.routes.load_full())
    }
}

impl HostState for Surroundings {
    fn session(&self, arrival: &Arrival) -> Option<Arc<Session>> {
        self.shared.connections.session(arrival.connection?)
    }

    fn standing(&self, arrival: &Arrival) -> Standing {
        let ip = arrival.source.ip();
        let guard = self.shared.guard.as_ref();
        let config = &self.shared.config;
        let is_exempt = config.guard.is_exempt(ip) || config.is_load_balancer(ip);
        let guard = guard.filter(|_| !is_exempt);
        // That a tenant may have it as a next hop is not looked up: there may be many.
        let Some(guard) = guard.filter(|_| !self.shared.is_known(ip)) else {
            return Standing::Exempt;
        };
        let now = Instant::now();
        let is_barred = |kind| guard.is_barred(ip, kind, now);
        match (is_barred(Kind::Held), is_barred(Kind::Banned)) {
            (_, true) => Standing::Banned,
            (true, false) => Standing::Held,
            (false, false) => Standing::Observed,
        }
    }

    fn route_flow(&self, request: &Request, scope: &Scope) -> FlowState {
        let (message, arrival) = (request.message(), &request.arrival);
        let flow = self
            .shared
            .proxy
            .route_flow(message, arrival, &self.routes(scope));
        match flow {
            RouteFlow::None => FlowState::None,
            RouteFlow::Client(Some(id)) if !self.shared.connections.is_open(id) => FlowState::Gone,
            RouteFlow::Client(_) => FlowState::Alive,
            RouteFlow::Gone => FlowState::Gone,
            RouteFlow::Invalid => FlowState::Invalid,
        }
    }

    fn came_along_flow(&self, request: &Request, scope: &Scope) -> bool {
        let (message, arrival) = (request.message(), &request.arrival);
        let proxy = &self.shared.proxy;
        proxy.came_along_flow(message, arrival, &self.routes(scope))
    }

    fn is_client(&self, request: &Request, scope: &Scope) -> bool {
        let arrival = &request.arrival;
        self.shared.is_in_client_group(arrival.source.ip())
            || self.shared.proxy.is_client(arrival, &self.routes(scope))
    }
}
