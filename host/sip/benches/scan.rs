//! The cost of one pass over messages of the sizes that are met on the wire.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portcullis_sip::{Framer, Framing, HeaderName, Index, Limits, Message, Via, scan};

criterion_group!(benches, scanning, framing, values);
criterion_main!(benches);

/// Into an index that was used before, as a worker does it.
fn scanning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for (name, message) in messages() {
        let limits = Limits::default();
        let mut index = Index::default();
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("{name} ({} bytes)", message.len()), |bencher| {
            bencher.iter(|| {
                let result = scan(black_box(&message), Framing::Datagram, &limits, &mut index);
                assert!(result.is_ok());
            });
        });
    }
    group.finish();
}

/// One whole message a push.
fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (name, message) in messages() {
        let mut framer = Framer::new(&Limits::default());
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("{name} ({} bytes)", message.len()), |bencher| {
            bencher.iter(|| {
                framer.push(black_box(&message));
                framer.next().is_ok()
            });
        });
    }
    group.finish();
}

/// What a proxy reads of a scanned INVITE.
fn values(criterion: &mut Criterion) {
    let message = invite(500);
    let mut index = Index::default();
    let limits = Limits::default();
    assert!(scan(&message, Framing::Datagram, &limits, &mut index).is_ok());
    let mut group = criterion.benchmark_group("values");
    group.bench_function("top Via", |bencher| {
        let via = Message::new(&message, &index).header(HeaderName::Via);
        let value = via.map_or(&b""[..], |via| via.value);
        bencher.iter(|| Via::parse(black_box(value)).is_ok());
    });
    group.bench_function("header by name", |bencher| {
        let message = Message::new(&message, &index);
        bencher.iter(|| {
            message
                .by_name(black_box("content-length"))
                .next()
                .is_some()
        });
    });
    group.finish();
}

fn messages() -> [(&'static str, Vec<u8>); 4] {
    [
        ("OPTIONS", options()),
        ("INVITE", invite(500)),
        ("INVITE with body", invite(900)),
        ("many headers", many_headers()),
    ]
}

fn options() -> Vec<u8> {
    b"OPTIONS sip:127.0.0.1:5060 SIP/2.0\r\n\
      Via: SIP/2.0/UDP 127.0.0.2:5070;branch=z9hG4bK776asdhds;rport\r\n\
      Max-Forwards: 70\r\n\
      From: <sip:probe@127.0.0.2>;tag=1928301774\r\n\
      To: <sip:127.0.0.1>\r\n\
      Call-ID: a84b4c76e66710@127.0.0.2\r\n\
      CSeq: 63104 OPTIONS\r\n\
      Content-Length: 0\r\n\r\n"
        .to_vec()
}

/// An INVITE of this size; its body fills it up.
fn invite(size: usize) -> Vec<u8> {
    let head = |length: usize| {
        format!(
            "INVITE sip:+15551234567@gateway.example.com;user=phone SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.15:5060;branch=z9hG4bK-524287-1---9d2a4f;rport\r\n\
             Max-Forwards: 70\r\n\
             Contact: <sip:alice.smith@192.0.2.15:5060>\r\n\
             To: <sip:+15551234567@example.com>\r\n\
             From: \"Alice\" <sip:alice.smith@example.com>;tag=8a7c42d1\r\n\
             Call-ID: NzU3ZTk2YjU4YzQ\r\n\
             CSeq: 1 INVITE\r\n\
             Allow: INVITE, ACK, CANCEL, BYE\r\n\
             Content-Type: application/sdp\r\n\
             Content-Length: {length:03}\r\n\r\n"
        )
    };
    let body = size.saturating_sub(head(0).len());
    let mut message = head(body).into_bytes();
    message.resize(message.len() + body, b'a');
    message
}

fn many_headers() -> Vec<u8> {
    let options = options();
    let head = options.len() - 2;
    let mut message = options[..head].to_vec();
    for at in 0..100 {
        message.extend(format!("X-Header-{at}: value number {at}\r\n").bytes());
    }
    message.extend(b"\r\n");
    message
}
