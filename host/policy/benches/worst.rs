//! The longest call of each host function: a policy that calls it in a loop until its deadline of 5 ms, with the worst arguments and the
//! worst tables. A call that takes much longer than 6 ms is a host function that does not check the deadline.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run may panic")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_address::{
    LoadedRules, Row, RulesPart, Snapshot, TableBuilder, TrustedBuilder, TrustedPart, TrustedRow,
};
use portcullis_policy::{Evaluator, Failure, Limits, Policy, Runtime, Scope};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Transport};

criterion_group!(benches, worst);
criterion_main!(benches);

const PACKAGE: &str = "portcullis:policy";

/// Address and length of a text of 60 KiB in the memory of the guest.
const LONG: &str = "(i32.const 4096) (i32.const 61440)";

/// Interface and name of a function, its parameters, its result if it has one, and its arguments.
const CASES: [(&str, &str, &str, &str, &str); 23] = [
    (
        "permissions",
        "allow-source-address",
        "i32",
        "i32",
        "(i32.const 77777)",
    ),
    (
        "permissions",
        "source-address-group",
        "i32",
        "",
        "(i32.const 64)",
    ),
    (
        "permissions",
        "allow-address",
        "i32 i32 i32 i32",
        "i32",
        "(i32.const 7) LONG (i32.const 1)",
    ),
    ("request", "from-uri", "i32", "", "(i32.const 64)"),
    (
        "request",
        "header",
        "i32 i32 i32",
        "",
        "LONG (i32.const 64)",
    ),
    (
        "request",
        "headers",
        "i32 i32 i32",
        "",
        "(i32.const 256) (i32.const 1) (i32.const 64)",
    ),
    ("log", "log", "i32 i32 i32", "", "(i32.const 0) LONG"),
    ("trusted", "count-trusted", "", "i32", ""),
    (
        "trusted",
        "count-trusted-address",
        "i32 i32 i32 i32 i32 i32 i32",
        "i32",
        "(i32.const 272) (i32.const 11) (i32.const 288) (i32.const 3) (i32.const 1) LONG",
    ),
    (
        "rules",
        "allow-routing",
        "i32 i32 i32",
        "i32",
        "(i32.const 0) (i32.const 0) (i32.const 0)",
    ),
    (
        "rules",
        "allow-register",
        "i32 i32 i32",
        "i32",
        "(i32.const 0) (i32.const 0) (i32.const 0)",
    ),
    (
        "rules",
        "allow-uri",
        "i32 i32 i32 i32 i32",
        "i32",
        "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 256)",
    ),
    ("counters", "value", "i32 i32", "i64", "LONG"),
    (
        "settings",
        "texts",
        "i32 i32 i32",
        "",
        "(i32.const 304) (i32.const 4) (i32.const 64)",
    ),
    ("settings", "json", "i32", "", "(i32.const 64)"),
    (
        "clock",
        "local",
        "i32 i32 i32",
        "",
        "(i32.const 320) (i32.const 13) (i32.const 64)",
    ),
    // As many bytes as one call may pass: a name, a request URI, and 32 header fields without a name.
    (
        "forwarding",
        "add",
        "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32",
        "",
        "(i32.const 0) LONG (i32.const 0) (i32.const 1) (i32.const 1) (i32.const 4096) (i32.const 2048) (i32.const 131072) (i32.const 32)
         (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)",
    ),
    (
        "forwarding",
        "memo",
        "i32 i32 i32",
        "",
        "LONG (i32.const 64)",
    ),
    // An unknown set: what a policy can pass is one text.
    (
        "dispatcher",
        "add-set",
        "i32 i32 i32 i32 i32 i32 i32",
        "",
        "(i32.const 1) (i32.const 7) LONG (i32.const 16) (i32.const 0) (i32.const 64)",
    ),
    ("outcome", "attempts", "i32", "", "(i32.const 64)"),
    // Without TLS: what a policy can pass is one text.
    ("peer", "speaks-for", "i32 i32", "i32", "LONG"),
    ("guard", "report", "i32", "i32", "(i32.const 0)"),
    ("flows", "route", "", "i32", ""),
];

fn worst(criterion: &mut Criterion) {
    let runtime = Runtime::new(Limits::default()).unwrap();
    let addresses = tables();
    let scope = scope();
    let mut group = criterion.benchmark_group("worst");
    group.sample_size(20);
    for (interface, function, parameters, result, arguments) in CASES {
        let result = match result {
            "" => (String::new(), ""),
            result => (format!("(result {result})"), "drop"),
        };
        let import = format!(
            r#"(import "{PACKAGE}/{interface}@0.1.0" "{function}" (func $ask (param {parameters}) {}))"#,
            result.0
        );
        let body = format!("{} call $ask {}", arguments.replace("LONG", LONG), result.1);
        let policy = policy(&runtime, &import, &body);
        group.bench_function(format!("{interface}.{function}"), |bencher| {
            measure(bencher, &policy, &scope, &addresses);
        });
    }
    for (name, body) in [
        (
            "memory.fill",
            "i32.const 65536 i32.const 1 i32.const 16318464 memory.fill",
        ),
        (
            "memory.copy",
            "i32.const 65536 i32.const 65537 i32.const 16318463 memory.copy",
        ),
        ("loop", ""),
    ] {
        let policy = policy(&runtime, "", body);
        group.bench_function(name, |bencher| {
            measure(bencher, &policy, &scope, &addresses);
        });
    }
}

fn measure(
    bencher: &mut criterion::Bencher<'_>,
    policy: &Policy,
    scope: &Arc<Scope>,
    addresses: &Arc<Snapshot>,
) {
    let mut evaluator = Evaluator::muted();
    let mut request = Some(register());
    bencher.iter(|| {
        let asked = request.take().unwrap();
        let (back, outcome) = evaluator.decide(policy, scope, addresses, asked);
        request = Some(back);
        let failure = outcome.unwrap_err();
        assert!(matches!(failure, Failure::Timeout { .. }), "{failure}");
        black_box(failure)
    });
}

/// A policy that repeats `body` endlessly, except for a request without a body.
fn policy(runtime: &Runtime, import: &str, body: &str) -> Policy {
    let text = "ab".repeat(30 << 10);
    let mut module = wat::parse_str(format!(
        r#"(module
            (import "{PACKAGE}/request@0.1.0" "body-length" (func $body (result i32)))
            {import}
            (memory (export "memory") 250)
            (data (i32.const 16) "\03")
            (data (i32.const 256) "X")
            (data (i32.const 272) "203.0.113.9")
            (data (i32.const 288) "udp")
            (data (i32.const 304) "list")
            (data (i32.const 320) "Europe/Berlin")
            (data (i32.const 4096) "{text}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 131072)
            (func (export "decide") (result i32)
                (if (call $body) (then (loop $again {body} br $again)))
                i32.const 16))"#
    ))
    .unwrap();
    portcullis_policy::embed(&mut module).unwrap();
    runtime.load("worst", &module).unwrap()
}

/// The scope of a tenant, with large settings.
fn scope() -> Arc<Scope> {
    let list: Vec<_> = (0..2000).map(|n| format!("value {n}")).collect();
    let settings = portcullis_policy::Settings::new(serde_json::json!({ "list": list }));
    let scope = Scope::tenant("worst")
        .with_groups((0..1000).map(|group| group * 3))
        .with_trusted(true)
        .with_rules(["permissions"])
        .with_settings(Arc::new(settings));
    Arc::new(scope)
}

/// Tables with many rows for one source, and patterns of all kinds.
fn tables() -> Arc<Snapshot> {
    let mut addresses = TableBuilder::default();
    for id in 0..200_000 {
        let row = Row {
            id,
            group: id + 1,
            ip_addr: "203.0.113.9",
            mask: 32,
            port: id % 60_000,
            tag: Some("tag"),
        };
        addresses.push(row).unwrap();
    }
    let mut peers = TrustedBuilder::default();
    for id in 0..3000 {
        let from = match id % 3 {
            0 => format!("^sip:.*{id}.*@example"),
            1 => format!("\\([ab]\\{{1,99\\}}c{id}\\)\\{{1,3\\}}"),
            _ => format!("^sip:{id}@"),
        };
        let row = TrustedRow {
            id,
            source: "203.0.113.9",
            proto: "any",
            from: Some(&from),
            ruri: Some("^sip:"),
            tag: Some("tag"),
            priority: 0,
        };
        peers.push(row).unwrap();
    }
    let mut deny = String::new();
    for n in 0..400 {
        let _ = writeln!(deny, "ALL : \"^sip:.*{n}x.*@.*{n}\", \".*y{n}@\"");
    }
    let rules = LoadedRules::of([("permissions", "", &*deny)]);
    Arc::new(Snapshot {
        trusted: Arc::new(TrustedPart::of(peers.build())),
        rules: Arc::new(RulesPart::of(rules)),
        ..Snapshot::of(addresses.build())
    })
}

/// A REGISTER about as large as the scanner accepts: 200 header fields named X, and 210 values of Contact.
fn register() -> Request {
    let long = format!("sip:{}@example.org", "a".repeat(230));
    let contacts = vec![format!("<{long}>"); 30].join(",");
    let text = format!(
        "REGISTER {long} SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK1\r\nFrom: <{long}>;tag=1\r\nTo: <{long}>\r\n\
         Call-ID: worst\r\nCSeq: 1 REGISTER\r\n{}{}Content-Length: 1\r\n\r\nx",
        "X: 12345678\r\n".repeat(200),
        format!("Contact: {contacts}\r\n").repeat(7),
    );
    let arrival = Arrival {
        source: ([203, 0, 113, 9], 5060).into(),
        local: ([127, 0, 0, 1], 5060).into(),
        transport: Transport::Udp,
        connection: None,
    };
    Request::read(text.into_bytes(), Framing::Datagram, arrival).unwrap()
}
