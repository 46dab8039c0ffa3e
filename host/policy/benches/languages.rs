//! The cost of a call of the same policy in several languages: `cargo xtask languages` builds the files, runs this, and writes the table of
//! docs/languages.md.
//!
//! Prints one JSON object for each file of target/languages: the mean time of a call in nanoseconds, `fresh` from the initial state of the policy,
//! and `kept` with `reuse = "1000 calls"`, in which each thousandth call has a new instance. The languages are measured in turns, and the
//! result is the median of the rounds, so that the ratios of one run can be compared.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run may panic")]

mod set_up;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_policy::{
    Evaluator, Kind, Policy, Reuse, Runtime, Verdict, embed, inspect, no_reset,
};
use serde_json::json;

use set_up::{invite, runtime, table};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/languages");

const ROUNDS: usize = 9;

/// Time of the calls of one policy in one round.
const ROUND: Duration = Duration::from_millis(200);

fn main() {
    let runtime = runtime(Some(32 << 20));
    let mut measured: Vec<_> = files()
        .iter()
        .map(|file| Measured::of(&runtime, file))
        .collect();
    for _ in 0..ROUNDS {
        for one in &mut measured {
            one.fresh.push(mean(&one.policy));
            let kept = Reuse::Calls(1000.try_into().unwrap());
            one.kept.push(mean(&one.policy.clone().with_reuse(kept)));
        }
    }
    for mut one in measured {
        let between = one.no_reset.map(|reason| reason.to_string());
        println!(
            "{}",
            json!({
                "language": one.language,
                "bytes": one.bytes,
                "load_ms": one.policy.load_time().as_millis() as u64,
                "fresh_ns": median(&mut one.fresh),
                "kept_ns": median(&mut one.kept),
                "new_instance_because": between,
            })
        );
    }
}

struct Measured {
    language: String,
    bytes: usize,
    policy: Policy,
    no_reset: Option<portcullis_policy::NoReset>,
    fresh: Vec<u64>,
    kept: Vec<u64>,
}

impl Measured {
    fn of(runtime: &Runtime, file: &Path) -> Self {
        let language = file.file_stem().unwrap().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(file).unwrap();
        let found = inspect(&bytes).unwrap();
        if found.kind == Kind::Module && found.world.is_none() {
            embed(&mut bytes).unwrap();
        }
        let policy = runtime.load(&language, &bytes).unwrap();
        Self {
            bytes: bytes.len(),
            no_reset: no_reset(&bytes, policy.inspection()),
            language,
            policy,
            fresh: Vec::new(),
            kept: Vec::new(),
        }
    }
}

/// The mean time of a call for a source in no group, in nanoseconds.
fn mean(policy: &Policy) -> u64 {
    let (scope, addresses) = (Arc::default(), table(&[(300, "198.51.100.0", 24, 0)]));
    let mut evaluator = Evaluator::new();
    let mut request = Some(invite());
    let mut calls = 0_u32;
    let mut call = || {
        let asked = request.take().unwrap();
        let (back, outcome) = evaluator.decide(policy, &scope, &addresses, asked);
        request = Some(back);
        assert!(matches!(outcome, Ok(Verdict::Reject(_))), "{outcome:?}");
    };
    for _ in 0..10 {
        call();
    }
    let start = Instant::now();
    while start.elapsed() < ROUND {
        for _ in 0..10 {
            call();
        }
        calls += 10;
    }
    u64::try_from(start.elapsed().as_nanos()).unwrap() / u64::from(calls)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(FOLDER).expect("`cargo xtask languages` builds the policies");
    let files = folder.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|it| it == "wasm"))
        .collect();
    files.sort();
    files
}
