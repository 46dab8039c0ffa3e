//! What the benches of calls have in common: a request, and a table of addresses.

use std::sync::Arc;
use std::time::Duration;

use portcullis_address::{Row, Snapshot, TableBuilder};
use portcullis_policy::{Limits, Runtime};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Transport};

/// A runtime without a deadline that matters, for policies of at most this size in bytes; `None`: of the default size.
pub(crate) fn runtime(module_bytes: Option<usize>) -> Runtime {
    let default = Limits::default();
    Runtime::new(Limits {
        deadline: Duration::from_secs(10),
        module_bytes: module_bytes.unwrap_or(default.module_bytes),
        ..default
    })
    .unwrap()
}

/// The table of these rows: group, address, mask, and port.
pub(crate) fn table(rows: &[(i64, &str, i64, i64)]) -> Arc<Snapshot> {
    let mut builder = TableBuilder::default();
    for (id, &(group, ip_addr, mask, port)) in (1..).zip(rows) {
        let row = Row {
            id,
            group,
            ip_addr,
            mask,
            port,
            tag: None,
        };
        builder.push(row).unwrap();
    }
    Arc::new(Snapshot::of(builder.build()))
}

/// A request whose source is in none of the groups.
pub(crate) fn invite() -> Request {
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
