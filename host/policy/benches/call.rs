//! The cost of a call of the reference policy for a source that is in none of its groups.
//!
//! `PORTCULLIS_POLICY=FILE` measures another policy.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run may panic")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_address::{Row, Snapshot, TableBuilder};
use portcullis_policy::{Evaluator, Limits, Runtime};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Transport};
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
    let runtime = runtime();
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
    let encoder = ComponentEncoder::default();
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

fn invite() -> Request {
    const TEXT: &str = "INVITE sip:bob@example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK1\r\n\
        From: <sip:alice@example.org>;tag=1\r\n\
        To: <sip:bob@example.net>\r\n\
        Call-ID: 1@203.0.113.9\r\n\
        CSeq: 1 INVITE\r\n\
        Max-Forwards: 70\r\n\
        Content-Length: 0\r\n\r\n";

    let arrival = Arrival {
        source: ([203, 0, 113, 9], 5060).into(),
        local: ([127, 0, 0, 1], 5060).into(),
        transport: Transport::Udp,
        connection: None,
    };
    Request::read(TEXT.into(), Framing::Datagram, arrival).unwrap()
}
