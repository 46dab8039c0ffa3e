//! Host functions end at the deadline of the call. The clock sleeps while no call runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_address::{
    LoadedRules, RulesPart, Snapshot, TrustedBuilder, TrustedPart, TrustedRow,
};
use portcullis_policy::Failure;

use crate::support::{
    Host, answering, both_forms, embedded, invite, reject, table, unauthorised, with_body,
    with_lines, with_slow_log,
};

/// A guest that makes one call of a host function, with a text of 60 KiB in its memory at 4096.
fn asking_with_a_long_text(import: &str, call: &str) -> Vec<u8> {
    let text = "ab".repeat(30 << 10);
    embedded(&format!(
        r#"(module
            {import}
            (memory (export "memory") 2)
            (data (i32.const 16) "\01\00\00\00\91\01")
            (data (i32.const 256) "192.0.2.1")
            (data (i32.const 272) "udp")
            (data (i32.const 4096) "{text}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 512)
            (func (export "decide") (result i32) (drop {call}) i32.const 16))"#
    ))
}

/// Trusted peers whose patterns take thousands of steps for each byte.
fn hard_peers() -> Arc<Snapshot> {
    let mut peers = TrustedBuilder::default();
    for id in 1..=300 {
        let pattern = format!("\\([ab]\\{{1,480\\}}c{id}\\)\\{{1,8\\}}");
        let row = TrustedRow {
            id,
            source: "192.0.2.1",
            proto: "any",
            from: Some(&pattern),
            ruri: None,
            tag: None,
            priority: 0,
        };
        peers.push(row).unwrap();
    }
    Arc::new(Snapshot {
        trusted: Arc::new(TrustedPart::of(peers.build())),
        ..Snapshot::clone(&table(&[]))
    })
}

#[test]
fn a_query_ends_at_the_deadline_of_its_call() {
    let import = r#"(import "portcullis:policy/trusted@0.1.0" "count-trusted-address"
        (func $ask (param i32 i32 i32 i32 i32 i32 i32) (result i32)))"#;
    let call = "(call $ask (i32.const 256) (i32.const 9) (i32.const 272) (i32.const 3)
        (i32.const 1) (i32.const 4096) (i32.const 61440))";
    let mut host = Host::hasty();
    let policies = both_forms(&host, &asking_with_a_long_text(import, call));
    for policy in &policies {
        assert_eq!(host.ask(policy, invite()), Ok(reject(401, "")));
    }
    host.addresses = hard_peers();
    for policy in &policies {
        let failed = host.ask(policy, invite()).unwrap_err();
        assert!(matches!(failed, Failure::Timeout { .. }), "{failed}");
    }
}

/// The runtime checks the deadline only in loops and at function entries of the policy, so host functions check it, too.
#[test]
fn a_call_without_loops_ends_in_a_host_function() {
    let log = "(call $log (i32.const 0) (i32.const 64) (i32.const 22))".repeat(20);
    let module = embedded(&format!(
        r#"(module
            (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\01\00\00\00\91\01\00\00\40\00\00\00\16\00\00\00")
            (data (i32.const 64) "Address not authorised")
            (func (export "decide") (result i32) {log} i32.const 16))"#
    ));
    let mut host = Host::hasty();
    for policy in both_forms(&host, &module) {
        let failed = with_slow_log(|| host.ask(&policy, invite())).unwrap_err();
        assert!(matches!(failed, Failure::Timeout { .. }), "{failed}");
        assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
    }
}

#[test]
fn a_registration_with_too_many_contacts_is_denied() {
    let wat = answering(
        r#"(import "portcullis:policy/rules@0.1.0" "allow-register" (func $ask (param i32 i32 i32) (result i32)))"#,
        "",
        "(call $ask (i32.const 0) (i32.const 0) (i32.const 0))",
    );
    let mut host = Host::new();
    let rules = LoadedRules::of([("permissions", "", "ALL : \"^sip:mallory@\"\n")]);
    host.addresses = Arc::new(Snapshot {
        rules: Arc::new(RulesPart::of(rules)),
        ..Snapshot::clone(&table(&[]))
    });
    for policy in both_forms(&host, &embedded(&wat)) {
        let mut register = |first: &str, count: usize| {
            let others = "Contact: <sip:bob@192.0.2.1>\r\n".repeat(count - 1);
            let request = with_lines(&format!("Contact: <{first}>\r\n{others}"));
            host.ask(&policy, request).unwrap()
        };
        assert_eq!(register("sip:bob@192.0.2.1", 64), reject(301, ""));
        assert_eq!(register("sip:bob@192.0.2.1", 65), reject(300, ""));
        assert_eq!(register("sip:mallory@x", 2), reject(300, ""));
    }
}

/// A loop with few iterations, each of which fills all memory.
#[test]
fn filling_memory_ends_at_the_deadline() {
    let fill = "(memory.fill (i32.const 65536) (i32.const 1) (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 65536)))"
        .repeat(400);
    let module = embedded(&format!(
        r#"(module
            (import "portcullis:policy/request@0.1.0" "body-length" (func $body (result i32)))
            (memory (export "memory") 250)
            (data (i32.const 16) "\01\00\00\00\91\01")
            (func (export "decide") (result i32) (if (call $body) (then {fill})) i32.const 16))"#
    ));
    let mut host = Host::hasty();
    for policy in both_forms(&host, &module) {
        assert_eq!(host.ask(&policy, invite()), Ok(reject(401, "")));
        let large = with_body(1);
        let failed = host.ask(&policy, large).unwrap_err();
        assert!(matches!(failed, Failure::Timeout { .. }), "{failed}");
    }
}

#[test]
fn a_loop_that_begins_while_the_clock_sleeps_ends_at_its_deadline() {
    let mut host = Host::hasty();
    let policy = host.load_text(include_str!("../../../../tests/guests/loop-with-body.wat"));
    let endless = with_body(1);
    for _ in 0..3 {
        let begun = Instant::now();
        while !host.runtime.clock_sleeps() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never sleeps");
            std::thread::yield_now();
        }
        let failed = host.ask(&policy, endless.clone()).unwrap_err();
        assert!(matches!(failed, Failure::Timeout { .. }), "{failed}");
    }
}

/// Tags are passed to the policy in one list, whose size is limited like that of one text.
#[test]
fn tags_of_all_rows_together_are_limited() {
    let wat = answering(
        r#"(import "portcullis:policy/trusted@0.1.0" "count-trusted" (func $ask (result i32)))"#,
        "",
        "(call $ask)",
    );
    let tag = "t".repeat(1000);
    let mut host = Host::new();
    let policies = both_forms(&host, &embedded(&wat));
    for (rows, expected) in [
        (65, Ok(reject(365, ""))),
        (66, Err(Failure::HostCall { limit: 1 << 16 })),
    ] {
        let mut peers = TrustedBuilder::default();
        for id in 1..=rows {
            let row = TrustedRow {
                id,
                source: "192.0.2.1",
                proto: "any",
                from: None,
                ruri: None,
                tag: Some(&tag),
                priority: 0,
            };
            peers.push(row).unwrap();
        }
        host.addresses = Arc::new(Snapshot {
            trusted: Arc::new(TrustedPart::of(peers.build())),
            ..Snapshot::clone(&table(&[]))
        });
        for policy in &policies {
            assert_eq!(host.ask(policy, invite()), expected);
        }
    }
}
