//! Metrics of policy calls, and of the policy file.

use std::fmt;

use portcullis_metrics::Label;
use portcullis_policy::{CodeCounts, CodeOrigin, FailureKind, VerdictKind};
use portcullis_rollout::policy_files::PolicyFiles;

use super::Page;
use crate::exposition::process::seconds;

impl Page<'_, '_> {
    pub(super) fn policy_calls(&mut self) -> fmt::Result {
        let calls = self
            .workers
            .iter()
            .flat_map(|worker| worker.policy_time.buckets())
            .sum();
        self.counter("policy_calls", "Policy calls", calls)?;
        let workers = self.workers;
        let verdicts = VerdictKind::ALL.iter().map(|&verdict| {
            let n = workers
                .iter()
                .map(|worker| worker.verdicts.value(verdict))
                .sum();
            (verdict.label(), n)
        });
        self.family("verdicts", "Verdicts of policies", "verdict", verdicts)?;
        let failures = FailureKind::ALL.iter().map(|&kind| {
            let n = workers
                .iter()
                .map(|worker| worker.policy_failures.value(kind))
                .sum();
            (kind.label(), n)
        });
        self.family("policy_failures", "Failed policy calls", "kind", failures)?;
        self.times("policy_duration_seconds", "Duration of policy calls", |w| {
            &w.policy_time
        })
    }

    pub(super) fn policy(&mut self, policy: &PolicyFiles) -> fmt::Result {
        let slot = policy.slot();
        let (loads, failures) = policy.counts();
        let results = [("ok", loads), ("failed", failures)];
        self.family(
            "policy_loads",
            "Loads of the policy file, by result",
            "result",
            results,
        )?;
        self.gauge(
            "policy_generation",
            "Number of the active generation; 0 without one",
            slot.number(),
        )?;
        let live = slot.live_generations() as u64;
        self.gauge(
            "policy_live_generations",
            "Generations in memory, including old ones that a worker still uses",
            live,
        )?;
        let loaded = slot
            .current()
            .map_or(0, |generation| seconds(generation.loaded_at));
        self.gauge(
            "policy_loaded_timestamp_seconds",
            "Load time of the active policy since the Unix epoch",
            loaded,
        )?;
        let runtime = policy.runtime();
        let CodeCounts {
            compiled,
            cached,
            shared,
        } = runtime.code_counts();
        let origins = [
            (CodeOrigin::Compiler.as_str(), compiled),
            (CodeOrigin::Cache.as_str(), cached),
            (CodeOrigin::Memory.as_str(), shared),
        ];
        self.family(
            "policy_code",
            "Policies of all seats, by source of their machine code: compiler, cache on disk, or another policy in memory",
            "from",
            origins,
        )?;
        if let Some(cache) = runtime.cache() {
            self.gauge(
                "policy_cache_bytes",
                "Size of the compiled code in the cache on disk",
                cache.bytes(),
            )?;
        }
        let pool = runtime.pool_use();
        self.gauge("policy_sandboxes", "Sandboxes that exist", pool.live)?;
        self.gauge(
            "policy_sandboxes_max",
            "Limit of the number of sandboxes",
            pool.size,
        )
    }
}
