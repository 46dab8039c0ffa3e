//! The cost of a relay: the edits of a request, and of its response.

#![allow(missing_docs)] // criterion's macro makes a public function without.

mod edge;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use edge::{arrival, edge, index, request};
use portcullis_sip::{Arrival, Message, Received, Target};

criterion_group!(benches, requests, responses);
criterion_main!(benches);

fn requests(criterion: &mut Criterion) {
    let (proxy, routes) = edge();
    let (arrival, mut out) = (arrival(), Vec::new());
    let route = "Route: <sip:198.51.100.1;lr>\r\n";
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Elements(1));
    for (name, bytes) in [
        ("INVITE of 500 bytes", request("INVITE", "")),
        ("MESSAGE of 500 bytes", request("MESSAGE", "")),
        (
            "BYE of 500 bytes with a Route of ours",
            request("BYE", route),
        ),
    ] {
        let index = index(&bytes);
        let message = Message::new(&bytes, &index);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let target = Target::AsRouted;
                let sent = proxy.relay(black_box(message), &arrival, &routes, target, &mut out);
                assert!(sent.is_ok());
            });
        });
    }
    group.finish();
}

fn responses(criterion: &mut Criterion) {
    let (proxy, routes) = edge();
    let bytes = request("INVITE", "");
    let (from_caller, scanned) = (arrival(), index(&bytes));
    let mut sent = Vec::new();
    let relayed = proxy.relay(
        Message::new(&bytes, &scanned),
        &from_caller,
        &routes,
        Target::AsRouted,
        &mut sent,
    );
    assert!(relayed.is_ok());
    let start = sent
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1);
    let response = [b"SIP/2.0 200 OK\r\n", sent.get(start..).unwrap_or_default()].concat();

    let from_hop = Arrival {
        source: ([192, 0, 2, 80], 5080).into(),
        ..from_caller
    };
    let (scanned, mut out) = (index(&response), Vec::new());
    let message = Message::new(&response, &scanned);
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Elements(1));
    group.bench_function("its response", |bencher| {
        bencher.iter(|| {
            let received = proxy.receive(black_box(message), Ok(()), &from_hop, &mut out);
            assert!(matches!(received, Received::Forward(_)));
        });
    });
    group.finish();
}
