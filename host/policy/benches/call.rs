//! What a policy call costs: the reference page, asked about a source that is in none of its groups.
//!
//! `PORTCULLIS_POLICY=FILE` measures another policy.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run may panic")]

use std::borrow::Cow;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_address::{Row, Snapshot, TableBuilder};
use portcullis_policy::{Contact, Evaluator, Limits, PlainUri, Policy, RequestView, Runtime};
use wit_component::ComponentEncoder;

criterion_group!(benches, call, load);
criterion_main!(benches);

fn call(criterion: &mut Criterion) {
    let runtime = runtime();
    let addresses = table();
    let scope = Default::default();
    let module = module();
    let component = component(&module);
    let mut group = criterion.benchmark_group("call");
    for (form, bytes) in [("module", &module), ("component", &component)] {
        let policy: Policy<Request> = runtime.load(form, bytes).unwrap();
        for (kind, policy) in [
            ("fresh", policy.clone()),
            ("reused", policy.with_reuse(true)),
        ] {
            let mut evaluator = Evaluator::new();
            let mut request = Some(Request::new());
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
    let runtime = runtime();
    let module = module();
    let component = component(&module);
    let mut group = criterion.benchmark_group("load");
    group.sample_size(20);
    for (form, bytes) in [("module", &module), ("component", &component)] {
        group.bench_function(form, |bencher| {
            bencher.iter(|| runtime.load::<Request>(form, bytes).unwrap());
        });
    }
}

fn runtime() -> Runtime {
    Runtime::new(Limits {
        deadline: Duration::from_secs(10),
        ..Limits::default()
    })
    .unwrap()
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
    let mut encoder = ComponentEncoder::default();
    encoder.module(module).unwrap().encode().unwrap()
}

fn table() -> Arc<Snapshot> {
    let mut builder = TableBuilder::default();
    for (id, group, ip_addr, mask) in [(1, 250, "10.8.203.139", 32), (2, 200, "192.168.1.0", 24)] {
        let row = Row {
            id,
            group,
            ip_addr,
            mask,
            port: 5060,
            tag: None,
        };
        builder.push(row).unwrap();
    }
    Arc::new(Snapshot::of(builder.build()))
}

/// As large as a request of the server, which lies behind a pointer.
struct Request(Box<[u8; 1024]>);

impl Request {
    fn new() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl RequestView for Request {
    fn method(&self) -> Cow<'_, str> {
        "INVITE".into()
    }

    fn uri(&self) -> Cow<'_, str> {
        "sip:bob@example.com".into()
    }

    fn from_uri(&self) -> Cow<'_, str> {
        "sip:alice@example.org".into()
    }

    fn to_uri(&self) -> Cow<'_, str> {
        "sip:bob@example.net".into()
    }

    fn call_id(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0[..16])
    }

    fn cseq_number(&self) -> u32 {
        1
    }

    fn source(&self) -> SocketAddr {
        ([203, 0, 113, 9], 5060).into()
    }

    fn local(&self) -> SocketAddr {
        ([127, 0, 0, 1], 5060).into()
    }

    fn transport(&self) -> &'static str {
        "UDP"
    }

    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn headers(&self, _: &str, _: &mut dyn FnMut(Cow<'_, str>)) {}

    fn plain_uri(&self) -> Option<PlainUri<'_>> {
        None
    }

    fn contacts(&self, _: &mut dyn FnMut(Contact<'_>)) {}

    fn body_length(&self) -> u32 {
        0
    }
}
