//! Memory maps: how many this process may have, and how many its policies take.
//!
//! Each policy has maps of its own for its code, for the image of its memory and for its sandboxes. Beyond the system's limit, no further
//! policies can be loaded.

use std::fs;

use portcullis_config::Config;
use portcullis_rollout::RETAINED_GENERATIONS;
use tracing::warn;

/// Maps of a host without tenants.
const HOST: u64 = 256;

/// Most maps of one generation of a policy.
const GENERATION: u64 = 7;

/// The maps that the policies of a host take, beside the system's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMaps {
    /// The limit of this process.
    pub limit: u64,
    /// Most maps while each policy has one generation, as after a start.
    pub at_start: u64,
    /// Most maps when each policy has been replaced as often as the host keeps generations.
    pub after_changes: u64,
}

impl MemoryMaps {
    /// With so many tenants; `None` if the system does not state its limit.
    pub fn of(tenants: usize, config: &Config) -> Option<Self> {
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
        Some(Self::within(limit.trim().parse().ok()?, tenants, config))
    }

    fn within(limit: u64, tenants: usize, config: &Config) -> Self {
        let policy = &config.policy;
        let own = 1 + [&policy.before, &policy.after]
            .into_iter()
            .flatten()
            .count();
        let policies = (tenants + own) as u64;
        let all = |generations: u64| HOST + policies * generations * GENERATION;
        Self {
            limit,
            at_start: all(1),
            after_changes: all(1 + RETAINED_GENERATIONS as u64),
        }
    }

    /// What may fail and what to do about it; `None` if the limit is high enough.
    pub fn problem(&self) -> Option<String> {
        let Self {
            limit,
            at_start,
            after_changes,
        } = self;
        if after_changes <= limit {
            return None;
        }
        let when = match at_start > limit {
            true => format!("up to {at_start} at the start and"),
            false => "up to".to_owned(),
        };
        Some(format!(
            "the policies take {when} {after_changes} memory maps when each has been replaced {RETAINED_GENERATIONS} times, and the system \
             allows a process {limit}: beyond it, policies cannot be loaded; `sysctl -w vm.max_map_count={after_changes}` as root"
        ))
    }

    /// Warns if the limit is too low.
    pub fn tell(&self) {
        if let Some(problem) = self.problem() {
            warn!(
                event = "few_memory_maps",
                limit = self.limit,
                at_start = self.at_start,
                after_changes = self.after_changes,
                "{problem}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_named_with_the_command_that_raises_it() {
        let config = Config::default();
        let problem = |limit, tenants| MemoryMaps::within(limit, tenants, &config).problem();
        assert_eq!(problem(65_530, 1_000), None);
        let later = problem(65_530, 2_000).unwrap();
        assert!(!later.contains("at the start"), "{later}");
        assert!(
            later.contains("sysctl -w vm.max_map_count=70291"),
            "{later}"
        );
        let at_once = problem(65_530, 10_000).unwrap();
        assert!(at_once.contains("up to 70263 at the start"), "{at_once}");
    }

    #[test]
    fn the_system_states_its_limit() {
        let maps = MemoryMaps::of(1, &Config::default());
        assert!(maps.is_none_or(|maps| maps.limit > 0 && maps.at_start < maps.after_changes));
    }
}
