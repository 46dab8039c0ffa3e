//! Files that were made to keep a compiler busy.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_tests::guests::{module, rejecting};
use portcullis_tests::host::{Builder, Host};
use portcullis_tests::sip::Caller;

/// One function of this many statements over many variables, all of which depend on each other.
fn large(statements: u32) -> Vec<u8> {
    let mut body = String::new();
    for n in 0..statements {
        let (to, a, b) = (n % 200, n * 7 % 200, (n * 13 + 1) % 200);
        let _ = write!(
            body,
            "(local.set {to} (i32.add (local.get {a}) (i32.mul (local.get {b}) (i32.const {n}))))"
        );
    }
    let locals = "i32 ".repeat(200);
    module(&format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 16) "\03")
            (func (export "decide") (result i32) (local {locals}) {body} i32.const 16))"#
    ))
}

fn start(key: &str) -> Host {
    Builder::new()
        .set("policy", key)
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.other", "uri-domains = [\"other.example\"]")
        .start()
}

fn answer(caller: &mut Caller, tenant: &str) -> String {
    let request = caller.request("MESSAGE", &format!("sip:bob@{tenant}.example"));
    caller.ask(&request).start_line().to_owned()
}

#[test]
fn one_that_takes_too_long_is_ended_and_disturbs_nobody() {
    let host = start("compile-time = \"2s\"\ncompile-memory = \"8GiB\"");
    let mut caller = host.udp(10);
    let (code, answered) = host.push("other", "arrival=activate", &rejecting(487, "other"));
    assert_eq!(code, 201, "{answered}");
    let file = large(300_000);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pushed = scope.spawn(|| {
            let answered = host.push("acme", "arrival=activate", &file);
            is_done.store(true, Ordering::Relaxed);
            answered
        });
        // Meanwhile everything goes on: requests, and the policies of others.
        let mut others = 0;
        while !is_done.load(Ordering::Relaxed) {
            assert_eq!(answer(&mut caller, "other"), "SIP/2.0 487 other");
            let (code, answered) = host.push("other", "arrival=keep", &rejecting(488, "next"));
            assert_eq!(code, 201, "{answered}");
            others += 1;
        }
        let (code, answered) = pushed.join().expect("it is answered");
        assert_eq!(code, 422, "{answered}");
        let said = answered.to_string();
        assert!(
            said.contains("can't be compiled: it took longer than 2s")
                && said.contains("compile-time"),
            "{said}"
        );
        assert!(others > 1, "{others}");
    });
    assert_eq!(answer(&mut caller, "acme"), "SIP/2.0 403 Forbidden");
}

#[test]
fn one_that_takes_too_much_memory_is_ended() {
    let host = start("compile-memory = \"128MiB\"");
    let before = host.memory_mib();
    let (code, answered) = host.push("acme", "arrival=activate", &large(150_000));
    assert_eq!(code, 422, "{answered}");
    let said = answered.to_string();
    assert!(
        said.contains("it took more than 134217728 bytes of memory")
            && said.contains("compile-memory"),
        "{said}"
    );
    let grown = host.memory_mib().saturating_sub(before);
    assert!(grown < 100, "the host itself has grown by {grown} MiB");
    let (code, answered) = host.push("acme", "arrival=activate", &rejecting(486, "small"));
    assert_eq!(code, 201, "{answered}");
}

#[test]
fn one_seat_compiles_one_policy_at_a_time() {
    let host = start("compile-time = \"3s\"");
    let file = large(60_000);
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let pushes = [(); 3].map(|()| scope.spawn(|| host.push("acme", "arrival=keep", &file).0));
        pushes
            .into_iter()
            .map(|push| push.join().expect("answered"))
            .collect()
    });
    let busy = codes.iter().filter(|code| **code == 429).count();
    assert_eq!(busy, 2, "{codes:?}");
}
