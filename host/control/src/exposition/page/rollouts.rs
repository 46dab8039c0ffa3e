//! Metrics of roll-outs over all hosts.

use std::fmt;

use portcullis_rollout::Registry;
use portcullis_rollout::staged::RolloutState;

use super::Page;

impl Page<'_, '_> {
    /// Of the seats of this host: other hosts have the same roll-outs.
    pub(super) fn rollouts(&mut self, tenants: &Registry) -> fmt::Result {
        let seen = tenants.deployments().seen_rollouts();
        let own = seen.iter().filter(|one| tenants.files(&one.seat).is_some());
        let own: Vec<_> = own.collect();
        let states = [
            RolloutState::Running,
            RolloutState::Paused,
            RolloutState::RolledBack,
        ];
        let counts = states.map(|state| {
            let count = own.iter().filter(|one| one.state == state.as_str()).count();
            (state.as_str(), count as u64)
        });
        self.gauges(
            "rollouts",
            "Roll-outs over all hosts that go on, and those that were rolled back and not replaced",
            "state",
            counts,
        )
    }
}
