//! Hostile policies: each failure is counted by kind and answered, and does not affect the next request.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::{guest, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::wait;

const CALLER: u8 = 10;

fn start() -> Host {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let first = folder.path().join("first.wasm");
    std::fs::write(&first, rejecting(480, "good")).expect("a policy can be written");
    Builder::new()
        .policy(first)
        // Room for the guest that makes a string of 100 MB.
        .set("policy", "memory = \"128MiB\"")
        .start()
}

fn answer(host: &Host) -> String {
    let mut caller = host.udp(CALLER);
    let request = caller
        .request("MESSAGE", "sip:bob@example.com")
        .body("with a body");
    caller.ask(&request).start_line().to_owned()
}

/// A guest that loads but fails when called: requests get 503, the failure is counted by kind, and a valid policy works afterwards.
fn fails(name: &str, kind: &str) {
    let mut host = start();
    host.replace_policy(&guest(name));
    wait::until("the hostile policy serves", || {
        answer(&host).starts_with("SIP/2.0 503 ").then_some(())
    });
    for _ in 0..20 {
        let line = answer(&host);
        assert!(line.starts_with("SIP/2.0 503 "), "{name}: {line}");
    }
    let label = format!("kind=\"{kind}\"");
    let counted = host.metric("portcullis_policy_failures_total", &[&label]);
    assert!(counted >= 20.0, "{name}: {kind} counted {counted} times");
    let mut caller = host.udp(CALLER);
    let options = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(caller.ask(&options).code(), 200);
    host.replace_policy(&rejecting(486, "good again"));
    wait::until("the good policy serves", || {
        (answer(&host) == "SIP/2.0 486 good again").then_some(())
    });
    assert!(host.is_alive());
}

/// A file that must be refused: the reload reports the reason, and the previous policy stays active.
fn refused(bytes: &[u8], words: &[&str]) {
    let host = start();
    host.replace_policy(bytes);
    let output = host.command("policy reload");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in words {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    assert_eq!(answer(&host), "SIP/2.0 480 good");
}

#[test]
fn endless_loop_in_decide() {
    // A policy that loops on a plain OPTIONS fails its test.
    refused(&guest("loop-in-decide"), &["deadline"]);
    fails("loop-with-body", "timeout");
}

#[test]
fn memory_growth() {
    fails("memory-growth", "memory");
}

#[test]
fn recursion() {
    fails("recursion", "stack");
}

#[test]
fn trap() {
    fails("trap", "trap");
}

#[test]
fn a_string_of_100_mb() {
    fails("huge-string", "host_call");
}

#[test]
fn an_invalid_status_code() {
    fails("invalid-code", "invalid_verdict");
}

#[test]
fn endless_loop_in_start() {
    refused(&guest("loop-in-start"), &["start", "deadline"]);
}

#[test]
fn unknown_import() {
    refused(&guest("unknown-import"), &["import"]);
}

#[test]
fn wasi_import() {
    refused(
        &guest("wasi-import"),
        &["wasi_snapshot_preview1", "wasm32-unknown-unknown"],
    );
}

#[test]
fn truncated_file() {
    let good = rejecting(486, "good");
    refused(&good[..good.len() - 20], &["policy.wasm"]);
}

#[test]
fn too_large_a_file() {
    let mut bytes = rejecting(486, "good");
    bytes.resize(5 << 20, 0);
    refused(&bytes, &["module"]);
}
