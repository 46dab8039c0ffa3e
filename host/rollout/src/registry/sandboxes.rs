//! Distribution of the sandboxes of the runtime.

use portcullis_policy::{KEPT, WARM_POLICIES};

/// Returns the least number of sandboxes for this number of workers. Each worker keeps [`KEPT`] and uses one more, as does the thread for
/// shadow trials; a policy that is loaded needs one for its test. [`WARM_POLICIES`] may have one for each worker before their first call.
pub(super) fn least_instances(workers: usize) -> u32 {
    let least = workers.saturating_add(1).saturating_mul(KEPT + 1) + 1;
    let least = least.saturating_add(workers.saturating_mul(WARM_POLICIES));
    u32::try_from(least).unwrap_or(u32::MAX)
}

/// Returns how many sandboxes each worker may keep out of `instances`, which is at least [`least_instances`].
pub(super) fn kept_by_each(workers: usize, instances: u32) -> usize {
    let for_workers = (instances as usize).saturating_sub(KEPT + 2);
    (for_workers / workers.max(1)).saturating_sub(1 + WARM_POLICIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_sandboxes_fit_into_the_runtime() {
        for workers in [1, 2, 7, 64, 500] {
            let least = least_instances(workers);
            assert_eq!(kept_by_each(workers, least), KEPT, "{workers} workers");
            for instances in [least + 1, least + 100, 10_000] {
                let kept = kept_by_each(workers, instances);
                let all = workers * (kept + 1 + WARM_POLICIES) + KEPT + 1 + 1;
                assert!(all <= instances as usize, "{workers}, {instances}: {kept}");
            }
        }
    }
}
