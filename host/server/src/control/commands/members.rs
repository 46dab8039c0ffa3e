//! What is told of seats, generations and tenants.

use std::sync::Arc;

use portcullis_policy::{FailureKind, Generation, Lineup, Trial, VerdictKind};
use portcullis_rpc::Value;

use crate::metrics::{Label, Shed, TenantCounters};
use crate::pipeline::PolicyRequest;
use crate::policy_files::PolicyFiles;
use crate::tenants::Tenant;
use crate::time::rfc3339;

/// Names and values, in the order in which they are told.
pub(super) type Members = Vec<(&'static str, Value<'static>)>;

pub(super) fn seat_members(files: &PolicyFiles) -> Value<'static> {
    let slot = files.slot();
    let lineup = slot.lineup();
    let lineup = lineup.as_deref();
    let generation = lineup.map(|lineup| &*lineup.active);
    let candidate = lineup.and_then(|lineup| lineup.candidate.as_ref());
    let candidate = candidate.map(|candidate| {
        let how = match candidate.trial {
            Trial::Shadow => "shadow".to_owned(),
            Trial::Canary(share) => format!("canary {share}"),
        };
        format!("{} ({how})", candidate.generation.number)
    });
    let failed = files.failed();
    let pool = files.runtime().pool_use();
    let (loads, failures) = files.counts();
    let alert = files.seat().alert();
    let digest = generation.map(|one| format!("sha256:{}", one.policy.digest()));
    let mut members: Members = vec![
        ("seat", files.seat().name.to_string().into()),
        ("file", file_of(files)),
        (
            "name",
            generation.map(|one| one.policy.name().to_owned()).into(),
        ),
        ("generation", generation.map(|one| one.number).into()),
        ("digest", digest.into()),
        (
            "loaded_at",
            generation.map(|one| rfc3339(one.loaded_at)).into(),
        ),
        ("mode", slot.mode().as_str().into()),
        ("candidate", candidate.into()),
        ("previous", slot.previous().into()),
        ("loads", loads.into()),
        ("failed_loads", failures.into()),
        ("live_generations", slot.live_generations().into()),
        (
            "sandboxes",
            format!("{} of {}", pool.live, pool.size).into(),
        ),
        (
            "error",
            failed.as_ref().map(|failed| failed.error.clone()).into(),
        ),
        (
            "error_at",
            failed.as_ref().map(|failed| rfc3339(failed.at)).into(),
        ),
        ("alert", alert.map(|alert| alert.text).into()),
    ];
    members.extend(generation.into_iter().flat_map(stats_members));
    Value::Struct(members)
}

pub(super) fn tenant_members(tenant: &Tenant, is_stored: bool) -> Value<'static> {
    let sum = |pick: &dyn Fn(&TenantCounters) -> u64| tenant.counters.iter().map(pick).sum::<u64>();
    let verdict = |kind| sum(&|counters| counters.verdicts.value(kind));
    let shed: u64 = Shed::ALL
        .iter()
        .map(|&kind| sum(&|counters| counters.shed.value(kind)))
        .sum();
    let generation = tenant.seat.slot.current();
    let members: Members = vec![
        ("name", tenant.name.to_string().into()),
        ("from", if is_stored { "database" } else { "file" }.into()),
        (
            "generation",
            generation.as_ref().map(|one| one.number).into(),
        ),
        (
            "policy",
            generation
                .as_ref()
                .map(|one| one.policy.name().to_owned())
                .into(),
        ),
        ("mode", tenant.seat.slot.mode().as_str().into()),
        (
            "requests",
            sum(&|counters| counters.requests.value()).into(),
        ),
        ("relay", verdict(VerdictKind::Relay).into()),
        ("reject", verdict(VerdictKind::Reject).into()),
        ("drop", verdict(VerdictKind::Drop).into()),
        ("pass", verdict(VerdictKind::Pass).into()),
        ("failed", sum(&|counters| counters.failed.value()).into()),
        ("shed", shed.into()),
        (
            "postponed",
            sum(&|counters| counters.postponed.value()).into(),
        ),
        (
            "refused_relays",
            sum(&|counters| counters.refused_relays.value()).into(),
        ),
        ("crossings", tenant.seat.scope.crossings().into()),
        (
            "dropped_log_lines",
            tenant.seat.scope.dropped_lines().into(),
        ),
        ("counters", tenant.seat.scope.counters().len().into()),
        (
            "evicted_counters",
            tenant.seat.scope.counters().evicted().into(),
        ),
        ("alert", tenant.seat.alert().map(|alert| alert.text).into()),
    ];
    Value::Struct(members)
}

pub(super) fn stats_members(generation: &Generation<PolicyRequest>) -> Members {
    let stats = &generation.stats;
    let calls = stats.calls();
    let nanoseconds = u64::try_from(stats.time().as_nanos()).unwrap_or(u64::MAX);
    let failures = FailureKind::ALL
        .iter()
        .filter_map(|&kind| match stats.failures(kind) {
            0 => None,
            n => Some(format!("{} {n}", kind.as_str()).into()),
        });
    vec![
        ("calls", calls.into()),
        ("relay", stats.verdicts(VerdictKind::Relay).into()),
        ("reject", stats.verdicts(VerdictKind::Reject).into()),
        ("drop", stats.verdicts(VerdictKind::Drop).into()),
        ("pass", stats.verdicts(VerdictKind::Pass).into()),
        ("failures", Value::List(failures.collect())),
        ("mean_ns", nanoseconds.checked_div(calls).into()),
    ]
}

pub(super) fn role(
    lineup: Option<&Lineup<PolicyRequest>>,
    generation: &Generation<PolicyRequest>,
) -> &'static str {
    let number = generation.number;
    let Some(lineup) = lineup else {
        return "kept";
    };
    let is = |other: Option<&Arc<Generation<PolicyRequest>>>| {
        other.is_some_and(|other| other.number == number)
    };
    match () {
        () if lineup.active.number == number => "active",
        () if is(lineup.candidate.as_ref().map(|one| &one.generation)) => "candidate",
        () if generation.is_condemned() => "failed",
        () if is(lineup.fallback.as_ref()) => "previous",
        () => "kept",
    }
}

pub(super) fn file_of(files: &PolicyFiles) -> Value<'static> {
    files.file().map(|file| file.display().to_string()).into()
}
