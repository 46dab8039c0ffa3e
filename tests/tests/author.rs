//! The author's loop in an empty directory: a new policy is built and checked, without this repository.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{binary, root};

/// The token of the tenant whose policy is written.
const TOKEN: &str = "acme-0123456789abcdef";

fn run(folder: &Path, words: &str) -> Output {
    command(folder, words).output().expect("portcullis runs")
}

fn command(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(binary());
    command
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .env("PORTCULLIS_TOKEN", TOKEN)
        // The dependency of the SDK is in cargo's home, because the bundled policies have it, and most of it has been built for them.
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", root().join("target/policies-build"))
        .args(words.split_whitespace());
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Does what the page for authors begins with, from an empty directory to a canary on a running host.
fn make(language: &str) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let mut folder = folder.path().to_owned();
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{TOKEN}\""))
        .start();
    let pushed = host.push(
        "acme",
        "arrival=activate&name=old.wasm",
        &rejecting(486, "old"),
    );
    assert_eq!(pushed.0, 201, "{}", pushed.1);
    let config = host.folder().join("portcullis.toml");
    let name = format!("{language}-acl");

    let page = std::fs::read_to_string(root().join("docs/authors.md")).expect("the page");
    let lines = page.lines().skip_while(|line| !line.starts_with("    "));
    for line in lines.take_while(|line| line.starts_with("    ")) {
        let (words, _) = line.split_once('#').unwrap_or((line, ""));
        let words = words
            .trim()
            .replace("--lang rust", &format!("--lang {language}"));
        let words = words.replace("acme", &name).replace("SEAT", "acme");
        if let Some(inner) = words.strip_prefix("cd ") {
            folder.push(inner);
            continue;
        }
        let words = words
            .strip_prefix("portcullis ")
            .expect("a command of ours");
        let words = format!("{words} --config {}", config.display());
        if words.starts_with("policy tail") {
            sees_the_canary(&folder, &words, &host);
            return;
        }
        // It serves until Ctrl-C.
        if words.starts_with("policy dev") {
            continue;
        }
        let output = run(&folder, &words);
        let said = text(&output);
        assert!(output.status.success(), "{words}: {said}");
        let part = match words.split_whitespace().nth(1) {
            Some("build") => "log, permissions, request",
            Some("test") => " passed\n",
            Some("run") => "verdict:",
            Some("check") => "can be used",
            Some("push") => "acme: generation 2, canary",
            _ => "",
        };
        assert!(said.contains(part), "{words}: {said}");
    }
    panic!("the page does not come to `policy tail`");
}

/// Calls until the canary has decided, as the command shows.
fn sees_the_canary(folder: &Path, words: &str, host: &Host) {
    let mut tail = command(folder, words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portcullis runs");
    let mut errors = BufReader::new(tail.stderr.take().expect("a pipe")).lines();
    let first = errors.next().expect("a line comes").expect("it is text");
    assert!(
        first.starts_with("following the decisions of seat acme"),
        "{first}"
    );
    let mut decisions = BufReader::new(tail.stdout.take().expect("a pipe")).lines();
    let mut caller = host.udp(10);
    // Of 2,000 dialogs, 5 % are 100. Each call has its line before the next one is made.
    let seen = (0..2_000).any(|_| {
        caller.ask(&caller.request("INVITE", "sip:bob@acme.example"));
        let line = decisions.next().expect("a line comes").expect("it is text");
        assert!(line.contains(": reject 4"), "{line}");
        line.contains(" generation 2, ")
    });
    tail.kill().expect("the command can be ended");
    tail.wait().expect("an ended command can be waited for");
    assert!(seen, "the canary has decided nothing");
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

/// Writes a part of a line in its first call and a whole one in all others, waits for a second, and rejects with 480. It traps if the monotonic
/// clock shows the wait of an earlier call.
const LEFT_OVER: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $calls (mut i32) (i32.const 0))
    (data (i32.const 16) "\01\00\00\00\e0\01\00\00\40\00\00\00\00\00\00\00\40\00\00\00\00\00\00\00")
    (data (i32.const 64) "left over")
    (data (i32.const 80) "whole line\0a")
    (data (i32.const 128) "\40\00\00\00\09\00\00\00\50\00\00\00\0b\00\00\00")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "decide") (result i32)
        ;; The monotonic clock is the time of day as long as nothing has waited.
        (drop (call $time (i32.const 0) (i64.const 0) (i32.const 184)))
        (drop (call $time (i32.const 1) (i64.const 0) (i32.const 192)))
        (if (i64.ne (i64.load (i32.const 184)) (i64.load (i32.const 192))) (then unreachable))
        ;; A wait of a second.
        (i64.store (i32.const 224) (i64.const 1000000000))
        (drop (call $poll (i32.const 200) (i32.const 300) (i32.const 1) (i32.const 340)))
        (if (global.get $calls)
            (then (drop (call $write (i32.const 2) (i32.const 136) (i32.const 1) (i32.const 160))))
            (else (drop (call $write (i32.const 2) (i32.const 128) (i32.const 1) (i32.const 160)))))
        (global.set $calls (i32.const 1))
        i32.const 16))"#;

#[test]
fn nothing_of_a_call_is_left_for_the_next_one_of_the_instance() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let module = wat::parse_str(LEFT_OVER).expect("the text is a module");
    std::fs::write(folder.path().join("wasi.wasm"), module).expect("it can be written");
    let adapted = run(folder.path(), "policy adapt wasi.wasm -o policy.wasm");
    assert!(adapted.status.success(), "{}", text(&adapted));

    let host = Builder::new()
        .policy(folder.path().join("policy.wasm"))
        .set("policy", "reuse = \"1000 calls\"")
        .start();
    let mut caller = host.udp(10);
    // Either worker may get a request, and each has an instance of its own.
    for _ in 0..8 {
        let answer = caller.ask(&caller.request("INVITE", "sip:bob@example.com"));
        assert_eq!(answer.code(), 480, "{}", answer.start_line());
    }
    host.wait_for_log("whole line");
    assert!(!host.log().contains("left over"), "{}", host.log());
}
