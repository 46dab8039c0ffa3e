//! A host with trusted peers and rules, and guests that query them.

use std::sync::Arc;

use portcullis_address::{
    LoadedRules, RulesPart, Snapshot, TrustedBuilder, TrustedPart, TrustedRow,
};
use portcullis_policy::{Failure, Verdict};
use portcullis_request::Request;

use crate::support::{Host, component, embedded, reject, table};

/// A guest with three texts at fixed addresses that imports `ask` and answers with 300 plus a number.
pub(crate) fn guest(import: &str, texts: [&str; 3], body: &str) -> String {
    let [a, b, c] = texts;
    format!(
        r#"(module
            {import}
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 4096))
            (data (i32.const 16) "\01\00\00\00")
            (data (i32.const 256) "{a}")
            (data (i32.const 512) "{b}")
            (data (i32.const 768) "{c}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
              (local $at i32)
              (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
              (local.set $at (global.get $heap))
              (global.set $heap (i32.add (global.get $heap) (local.get 3)))
              local.get $at)
            (func $code (param i32) (i32.store16 (i32.const 20) (i32.add (i32.const 300) (local.get 0))))
            (func (export "decide") (result i32)
              {body}
              i32.const 16))"#
    )
}

pub(crate) fn host() -> Host {
    let mut builder = TrustedBuilder::default();
    let row = TrustedRow {
        id: 1,
        source: "192.0.2.1",
        proto: "tcp",
        from: Some("^sip:alice@"),
        ruri: Some("^sip:bob@"),
        tag: Some("low"),
        priority: 0,
    };
    for row in [
        row,
        TrustedRow {
            tag: Some("high"),
            priority: 9,
            ..row
        },
        TrustedRow {
            tag: None,
            priority: 5,
            ..row
        },
        TrustedRow {
            proto: "udp",
            tag: Some("udp"),
            ..row
        },
        TrustedRow {
            source: "gw",
            from: Some("carol"),
            tag: Some("name"),
            ..row
        },
    ] {
        builder.push(row).unwrap();
    }
    let rules = LoadedRules::of([
        ("permissions", "", "\"^sip:alice@\" : \"^sip:bob@\"\n"),
        ("open", "\"alice\" : ALL\n", "ALL : ALL\n"),
        (
            "register",
            "",
            "\"^sip:bob@\" : \"^sip:[^@]*@10\\.0\\.0\\.1$\", \":5070$\"\n",
        ),
    ]);
    let mut host = Host::new();
    host.addresses = Arc::new(Snapshot {
        trusted: Arc::new(TrustedPart::of(builder.build())),
        rules: Arc::new(RulesPart::of(rules)),
        ..Snapshot::clone(&table(&[]))
    });
    host
}

/// The answer of both forms of a guest: 300 plus the number.
pub(crate) fn ask(wat: &str, request: &Request) -> Result<Verdict, Failure> {
    let mut host = host();
    let module = embedded(wat);
    let answers = [module.clone(), component(&module)].map(|bytes| {
        let policy = host.runtime.load("inline", &bytes).unwrap();
        host.ask(&policy, request.clone())
    });
    let [one, other] = answers;
    assert_eq!(one, other, "{wat}");
    one
}

pub(crate) fn number(n: u16) -> Result<Verdict, Failure> {
    Ok(reject(300 + n, ""))
}
