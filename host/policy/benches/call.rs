//! The cost of a call of the reference policy for a source that is in none of its groups.
//!
//! `PORTCULLIS_POLICY=FILE` measures another policy.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run may panic")]

mod set_up;

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_policy::Evaluator;
use wit_component::ComponentEncoder;

use set_up::{invite, runtime, table};

criterion_group!(benches, call, load);
criterion_main!(benches);

fn call(criterion: &mut Criterion) {
    let runtime = runtime(None);
    let addresses = table(&[
        (250, "10.8.203.139", 32, 5060),
        (200, "192.168.1.0", 24, 5060),
    ]);
    let scope = Default::default();
    let module = module();
    let component = component(&module);
    let mut group = criterion.benchmark_group("call");
    for (form, bytes) in [("module", &module), ("component", &component)] {
        let policy = runtime.load(form, bytes).unwrap();
        for (kind, policy) in [
            ("fresh", policy.clone()),
            ("reused", policy.with_reuse(true)),
        ] {
            let mut evaluator = Evaluator::new();
            let mut request = Some(invite());
            group.bench_function(format!("{form}/{kind}"), |bencher| {
                bencher.iter(|| {
                    let asked = request.take().unwrap();
                    let (back, outcome) = evaluator.decide(&policy, &scope, &addresses, asked);
                    request = Some(back);
                    black_box(outcome.unwrap())
                });
            });
        }
    }
}

fn load(criterion: &mut Criterion) {
    let runtime = runtime(None);
    let module = module();
    let component = component(&module);
    let mut group = criterion.benchmark_group("load");
    group.sample_size(20);
    for (form, bytes) in [("module", &module), ("component", &component)] {
        group.bench_function(form, |bencher| {
            bencher.iter(|| runtime.load(form, bytes).unwrap());
        });
    }
}

fn module() -> Vec<u8> {
    if let Some(file) = std::env::var_os("PORTCULLIS_POLICY") {
        return std::fs::read(file).unwrap();
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/page.wat");
    let mut module = wat::parse_file(page).unwrap();
    portcullis_policy::embed(&mut module).unwrap();
    module
}

fn component(module: &[u8]) -> Vec<u8> {
    let encoder = ComponentEncoder::default();
    encoder.module(module).unwrap().encode().unwrap()
}
