//! What policies may get to know beside a request and the tables.

use std::sync::Arc;

use portcullis_policy::{HostState, Standing};
use portcullis_sip::Arrival;
use portcullis_tls::Session;

use crate::pipeline::strangers::Strangers;
use crate::shared::Shared;

/// The state of the host, as far as the policies of one worker ask for it.
pub(super) struct Surroundings {
    shared: Arc<Shared>,
    strangers: Strangers,
}

impl Surroundings {
    /// Those of the host with this state.
    pub(super) fn new(shared: Arc<Shared>, strangers: Strangers) -> Self {
        Self { shared, strangers }
    }
}

impl HostState for Surroundings {
    fn session(&self, arrival: &Arrival) -> Option<Arc<Session>> {
        self.shared.connections.session(arrival.connection?)
    }

    fn standing(&self, arrival: &Arrival) -> Standing {
        self.strangers.standing(arrival.source.ip())
    }
}
