//! Generations that are kept for calls after failures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::ForwardingLimits;
use portcullis_policy::Generation;

/// Generations that decided on requests not long ago, so that they can be asked after a failure although they have been replaced meanwhile. A
/// tenant that replaces its policy all the time must not keep any number of them in memory.
#[derive(Default)]
pub(super) struct Pinned(Vec<(Instant, Arc<Generation>)>);

impl Pinned {
    /// Most of them; beyond it, the one that has not decided for longest goes.
    const MOST: usize = 64;

    /// No request has targets for longer.
    const TIME: Duration = ForwardingLimits::OPERATOR.setup_limit;

    pub(super) fn pin(&mut self, generation: &Arc<Generation>, now: Instant) {
        let is_it = |(_, pinned): &(Instant, Arc<Generation>)| Arc::ptr_eq(pinned, generation);
        if let Some(at) = self.0.iter().rposition(is_it) {
            self.0[at].0 = now;
            return;
        }
        if self.0.len() >= Self::MOST {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, (at, _))| *at);
            if let Some((oldest, _)) = oldest {
                self.0.remove(oldest);
            }
        }
        self.0.push((now, Arc::clone(generation)));
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.0
            .retain(|(at, _)| now.saturating_duration_since(*at) < Self::TIME);
    }
}
