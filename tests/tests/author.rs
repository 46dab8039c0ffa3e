//! The author's loop in an empty directory: a new policy is built and checked, without this repository.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Output};

use portcullis_testkit::host::Builder;
use portcullis_testkit::{binary, root};

fn run(folder: &Path, words: &str) -> Output {
    Command::new(binary())
        .current_dir(folder)
        .env("NO_COLOR", "1")
        // The dependency of the SDK is in cargo's home, because the bundled policies have it, and most of it has been built for them.
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", root().join("target/policies-build"))
        .args(words.split_whitespace())
        .output()
        .expect("portcullis runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Creates, builds and checks a policy.
fn make(language: &str) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let name = format!("{language}-acl");
    let made = run(
        folder.path(),
        &format!("policy new {name} --lang {language}"),
    );
    assert!(made.status.success(), "{}", text(&made));

    let folder = folder.path().join(&name);
    let built = run(&folder, "policy build");
    assert!(built.status.success(), "{}", text(&built));
    let said = String::from_utf8_lossy(&built.stdout);
    assert!(said.starts_with(&format!("{name}.wasm\n")), "{said}");
    assert!(said.contains("log, permissions, request"), "{said}");

    let checked = run(&folder, &format!("policy check {name}.wasm"));
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(text(&checked).contains("can be used"), "{}", text(&checked));
}

#[test]
fn a_policy_in_rust_builds_in_an_empty_directory() {
    make("rust");
}

/// Runs if the compiler is installed: `portcullis doctor` says so.
fn make_if_there(language: &str, title: &str) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let doctor = text(&run(folder.path(), "doctor"));
    let line = doctor
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(title))
        .unwrap_or_else(|| panic!("no line about {title}: {doctor}"));
    match line.contains("not installed") {
        true => eprintln!("{title} is not installed: not tested"),
        false => make(language),
    }
}

#[test]
fn a_policy_in_c_builds_where_clang_or_zig_is() {
    make_if_there("c", "C");
}

#[test]
fn a_policy_in_zig_builds_where_zig_is() {
    make_if_there("zig", "Zig");
}

#[test]
fn a_policy_in_go_builds_where_go_is() {
    make_if_there("go", "Go");
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let made = run(folder.path(), "policy new acl --lang c");
    assert!(made.status.success(), "{}", text(&made));
    let again = run(folder.path(), "policy new acl --lang c");
    assert!(!again.status.success());
    assert!(text(&again).contains("is not empty"), "{}", text(&again));

    let wit = run(folder.path(), "policy wit");
    assert!(wit.status.success(), "{}", text(&wit));
    let written = std::fs::read_to_string(folder.path().join("wit/routing-policy.wit"));
    let written = written.expect("the contract is written");
    assert!(written.contains("world routing-policy"), "{written}");
}

#[test]
fn doctor_prints_json() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let output = run(folder.path(), "doctor --json");
    let lines: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("standard output is JSON");
    let checks: Vec<_> = lines
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| line["check"].as_str().expect("a name"))
        .collect();
    for check in ["Rust", "Python", "listen", "open files", "kernel", "clock"] {
        assert!(checks.contains(&check), "{check}: {checks:?}");
    }
}

/// Says on standard error in two parts what it has to say, looks at clock and random bytes, and rejects with 480. It traps if the clock has not
/// been set, or if two reads of random bytes are the same.
const WASI: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\01\00\00\00\e0\01\00\00\40\00\00\00\00\00\00\00\40\00\00\00\00\00\00\00")
    (data (i32.const 64) "the first half, \ffthe second\nand more\n")
    ;; The two parts of the text.
    (data (i32.const 128) "\40\00\00\00\10\00\00\00\50\00\00\00\15\00\00\00")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "decide") (result i32)
        (drop (call $write (i32.const 2) (i32.const 128) (i32.const 1) (i32.const 160)))
        (drop (call $write (i32.const 2) (i32.const 136) (i32.const 1) (i32.const 160)))
        (drop (call $random (i32.const 168) (i32.const 8)))
        (drop (call $random (i32.const 176) (i32.const 8)))
        (if (i64.eq (i64.load (i32.const 168)) (i64.load (i32.const 176))) (then unreachable))
        (drop (call $time (i32.const 0) (i64.const 0) (i32.const 184)))
        (if (i64.lt_u (i64.load (i32.const 184)) (i64.const 1700000000000000000)) (then unreachable))
        i32.const 16))"#;

#[test]
fn wasi_is_the_contract_in_an_adapted_policy() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let module = wat::parse_str(WASI).expect("the text is a module");
    std::fs::write(folder.path().join("wasi.wasm"), module).expect("it can be written");
    let adapted = run(folder.path(), "policy adapt wasi.wasm -o policy.wasm");
    assert!(adapted.status.success(), "{}", text(&adapted));
    assert!(
        text(&adapted).contains("the floor for WASI"),
        "{}",
        text(&adapted)
    );

    let host = Builder::new()
        .policy(folder.path().join("policy.wasm"))
        .start();
    let mut caller = host.udp(10);
    let answer = caller.ask(&caller.request("INVITE", "sip:bob@example.com"));
    assert!(
        answer.start_line().contains("480"),
        "{}",
        answer.start_line()
    );
    host.wait_for_log("the first half, ?the second");
    host.wait_for_log("and more");
}
