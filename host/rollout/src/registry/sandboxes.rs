//! How the sandboxes of the runtime are shared out.

use portcullis_policy::KEPT;

/// What a host with so many workers cannot do without. Each worker keeps [`KEPT`] and uses one more, as does the thread that asks
/// candidates; a policy that is loaded needs one to be tried in.
pub(super) fn least_instances(workers: usize) -> u32 {
    let least = workers.saturating_add(1).saturating_mul(KEPT + 1) + 1;
    u32::try_from(least).unwrap_or(u32::MAX)
}

/// How many each of the workers may keep, when there are so many, [`least_instances`] or more.
pub(super) fn kept_by_each(workers: usize, instances: u32) -> usize {
    let for_workers = (instances as usize).saturating_sub(KEPT + 2);
    (for_workers / workers.max(1)).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_may_be_kept_has_a_place() {
        for workers in [1, 2, 7, 64, 500] {
            let least = least_instances(workers);
            assert_eq!(kept_by_each(workers, least), KEPT, "{workers} workers");
            for instances in [least + 1, least + 100, 10_000] {
                let kept = kept_by_each(workers, instances);
                let all = workers * (kept + 1) + KEPT + 1 + 1;
                assert!(all <= instances as usize, "{workers}, {instances}: {kept}");
            }
        }
    }
}
