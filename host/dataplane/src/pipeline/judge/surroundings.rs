//! What policies may get to know beside a request and the tables.

use std::sync::Arc;

use portcullis_policy::HostState;
use portcullis_sip::Arrival;
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
}

impl HostState for Surroundings {
    fn session(&self, arrival: &Arrival) -> Option<Arc<Session>> {
        self.shared.connections.session(arrival.connection?)
    }
}
