//! The cost of a stateless rejection, without the scan and with everything.

#![allow(missing_docs)] // criterion's macro makes a public function without.

mod edge;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use edge::{arrival, edge, index, request};
use portcullis_sip::{Framing, Index, Limits, Message, Received, scan};

criterion_group!(benches, reply);
criterion_main!(benches);

const NO_HEADERS: &[(&str, &str)] = &[];

fn reply(criterion: &mut Criterion) {
    let (proxy, _) = edge();
    let (bytes, arrival, mut out) = (request("INVITE", ""), arrival(), Vec::new());
    let scanned = index(&bytes);
    let mut group = criterion.benchmark_group("reply");
    group.throughput(Throughput::Elements(1));

    group.bench_function("401 to an INVITE of 500 bytes", |bencher| {
        let message = Message::new(&bytes, &scanned);
        bencher.iter(|| {
            proxy.reject(
                black_box(message),
                &arrival,
                401,
                "Address not authorised",
                NO_HEADERS,
                &mut out,
            )
        });
    });
    group.bench_function("first look at it", |bencher| {
        let message = Message::new(&bytes, &scanned);
        bencher.iter(|| proxy.receive(black_box(message), Ok(()), &arrival, &mut out));
    });
    group.bench_function("scan, first look and 401", |bencher| {
        let (mut index, limits) = (Index::default(), Limits::default());
        bencher.iter(|| {
            let scanned = scan(black_box(&bytes), Framing::Datagram, &limits, &mut index);
            let message = Message::new(&bytes, &index);
            assert_eq!(
                proxy.receive(message, scanned, &arrival, &mut out),
                Received::Judge
            );
            proxy.reject(
                message,
                &arrival,
                401,
                "Address not authorised",
                NO_HEADERS,
                &mut out,
            )
        });
    });
    group.finish();
}
