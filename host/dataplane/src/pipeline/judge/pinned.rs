//! What is kept for calls after failures: replaced generations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::ForwardingLimits;

/// Generations that decided on requests not long ago, so that they can be asked after a failure although they have been replaced meanwhile. A
/// tenant that replaces its policy all the time must not keep any number of them in memory.
pub(super) struct Pinned<G>(Vec<(Instant, Arc<G>)>);

impl<G> Default for Pinned<G> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<G> Pinned<G> {
    /// Most of them; beyond it, the one that has not decided for longest goes.
    const MOST: usize = 64;

    /// No request has targets for longer.
    const TIME: Duration = ForwardingLimits::OPERATOR.setup_limit;

    pub(super) fn pin(&mut self, generation: &Arc<G>, now: Instant) {
        let is_it = |(_, pinned): &(Instant, Arc<G>)| Arc::ptr_eq(pinned, generation);
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

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_replaced_generation_is_kept_until_no_request_of_its_can_fail() {
        let (mut pinned, begun) = (Pinned::default(), Instant::now());
        let generation = Arc::new(1);
        let kept = Arc::downgrade(&generation);
        pinned.pin(&generation, begun);
        drop(generation);
        pinned.expire(begun + Pinned::<u32>::TIME - SECOND);
        assert!(kept.upgrade().is_some());
        pinned.expire(begun + Pinned::<u32>::TIME);
        assert!(kept.upgrade().is_none());
    }

    #[test]
    fn each_decision_keeps_its_generation_for_the_whole_time() {
        let (mut pinned, begun) = (Pinned::default(), Instant::now());
        let generation = Arc::new(1);
        pinned.pin(&generation, begun);
        pinned.pin(&generation, begun + SECOND);
        assert_eq!(Arc::strong_count(&generation), 2);
        pinned.expire(begun + Pinned::<u32>::TIME);
        assert_eq!(Arc::strong_count(&generation), 2);
    }

    #[test]
    fn beyond_the_bound_the_generation_that_decided_first_goes() {
        let (mut pinned, begun) = (Pinned::default(), Instant::now());
        let first = Arc::new(0);
        pinned.pin(&first, begun);
        let kept: Vec<Weak<usize>> = (1..=Pinned::<usize>::MOST)
            .map(|number| {
                // The first one decides again and again.
                pinned.pin(&first, begun + SECOND * 1000);
                let generation = Arc::new(number);
                pinned.pin(&generation, begun + SECOND * number as u32);
                Arc::downgrade(&generation)
            })
            .collect();
        assert_eq!(Arc::strong_count(&first), 2);
        let alive = kept.iter().map(|kept| kept.upgrade().is_some());
        let expected = (1..=Pinned::<usize>::MOST).map(|number| number > 1);
        assert!(alive.eq(expected));
    }
}
