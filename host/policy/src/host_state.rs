//! What the host knows beside a request: about the connection that it came over, and about its source.

use std::sync::Arc;

use portcullis_sip::Arrival;
use portcullis_tls::Session;

use crate::standing::Standing;

/// What the host knows beside a request and the tables. The host looks up what a policy asks for, and nothing else.
pub trait HostState: Send + Sync {
    /// What the handshake of TLS has settled and proved on the connection of this arrival; `None` without TLS, and if the connection is
    /// closed.
    fn session(&self, arrival: &Arrival) -> Option<Arc<Session>>;

    /// What the guard does with the source of this arrival.
    fn standing(&self, arrival: &Arrival) -> Standing;

    /// The present state, for a call that is made later.
    fn stated(&self, arrival: &Arrival) -> StatedHost {
        StatedHost {
            session: self.session(arrival),
            standing: self.standing(arrival),
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
}

impl HostState for StatedHost {
    fn session(&self, _: &Arrival) -> Option<Arc<Session>> {
        self.session.clone()
    }

    fn standing(&self, _: &Arrival) -> Standing {
        self.standing
    }
}
