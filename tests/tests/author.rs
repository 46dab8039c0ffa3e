//! The author's loop in an empty directory: a new policy is built and checked, without this repository.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host, signal};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::{binary, root, wait};

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
        .env("PATH", path())
        .env("PORTCULLIS_TOKEN", TOKEN)
        // The dependency of the SDK is in cargo's home, because the bundled policies have it, and most of it has been built for them.
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", root().join("target/policies-build"))
        .args(words.split_whitespace());
    command
}

/// PATH, and behind it the compilers that `cargo xtask languages` has installed.
fn path() -> OsString {
    let tools = root().join("target/languages/tools");
    let tools = ["npm/node_modules/.bin", "venv/bin"].map(|folder| tools.join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(tools);
    std::env::join_paths(all).expect("no folder has a colon in its name")
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
    let lines = page.lines().skip_while(|line| !line.starts_with("```sh"));
    for line in lines.skip(1).take_while(|line| *line != "```") {
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
        if words.starts_with("policy dev") {
            let mut dev = Dev::start(&folder, &words, host.lease());
            dev.wait_for(&format!("serving {name}.wasm on {}", dev.listen));
            dev.wait_for(" passed\n");
            dev.end("INT");
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

/// A running `policy dev`. Whatever it has started ends with this value.
struct Dev {
    child: Child,
    /// What it has written so far, to standard output and standard error.
    said: Arc<Mutex<String>>,
    listen: SocketAddr,
    callee: SocketAddr,
}

impl Dev {
    /// Starts the command on two addresses of the lease.
    fn start(folder: &Path, words: &str, lease: &Lease) -> Self {
        let [listen, callee] = [11, 12].map(|peer| lease.addr(peer, 5060));
        let mut child = command(folder, words)
            .args(["--listen", &listen.to_string()])
            .args(["--callee", &callee.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("portcullis runs");
        let said = Arc::default();
        keep(child.stdout.take().expect("a pipe"), &said);
        keep(child.stderr.take().expect("a pipe"), &said);
        Self {
            child,
            said,
            listen,
            callee,
        }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no reader panics").clone()
    }

    fn wait_for(&mut self, text: &str) {
        self.wait_until(text, || {});
    }

    /// Does something again and again until the command has written a text.
    fn wait_until(&mut self, text: &str, mut act: impl FnMut()) {
        let found = wait::within(wait::PATIENCE, || {
            act();
            let said = self.said();
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("policy dev has ended, {status}: {said}");
            }
            said.contains(text).then_some(())
        });
        assert!(found.is_some(), "no {text:?} in: {}", self.said());
    }

    /// Ends the command, as Ctrl-C and `kill` do. Nothing of it stays: its addresses are free.
    fn end(mut self, name: &str) {
        signal(self.child.id(), name);
        let status = wait::until("policy dev ends", || {
            self.child.try_wait().expect("the child can be asked")
        });
        assert!(status.success(), "{status}: {}", self.said());
        for addr in [self.listen, self.callee] {
            UdpSocket::bind(addr).expect("neither host nor callee is left");
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // The host and the callee are in the group of the command.
            let group = format!("-{}", self.child.id());
            let _gone = Command::new("kill")
                .args(["-s", "KILL", "--", &group])
                .status();
            let _reaped = self.child.wait();
        }
    }
}

/// Appends what comes from a pipe, in a thread that ends with the pipe.
fn keep(mut pipe: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            let text = String::from_utf8_lossy(&chunk[..length]);
            *said.lock().expect("no reader panics") += &text;
        }
    });
}

#[test]
fn policy_dev_serves_what_is_saved() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    // No other test has this name: in the directory of all builds, cargo tells packages of one name apart by their versions only.
    let made = run(folder.path(), "policy new office");
    assert!(made.status.success(), "{}", text(&made));
    let folder = folder.path().join("office");
    let source = folder.join("src/lib.rs");
    let first = std::fs::read_to_string(&source).expect("the template has a source");
    let save = |text: &str| std::fs::write(&source, text).expect("the source can be written");

    let lease = Lease::new();
    let mut dev = Dev::start(&folder, "policy dev", &lease);
    dev.wait_for("serving office.wasm on ");
    dev.wait_for("4 cases passed\n");
    // The table of the host has all addresses of loopback.
    let mut caller = Caller::udp(lease.ip(20), dev.listen);
    let mut call = || {
        let request = caller.request("INVITE", "sip:bob@example.com");
        caller.ask(&request).code()
    };
    // Decisions are shown from a moment on that nothing tells.
    dev.wait_until("office.wasm generation 1: relay", || {
        assert_eq!(call(), 200);
    });
    assert!(
        dev.said().contains("INVITE sip:bob@example.com"),
        "{}",
        dev.said()
    );

    let closed = first.replace("=> relay(),", "=> reject(480, \"Closed today\"),");
    assert_ne!(closed, first);
    save(&closed);
    dev.wait_for(": generation 2\n");
    // The template's cases still expect a relay.
    dev.wait_for("4 cases, 1 failed\n");
    dev.wait_until("office.wasm generation 2: reject 480 Closed today", || {
        assert_eq!(call(), 480);
    });

    save(&closed.replace("fn decide()", "fn decide("));
    dev.wait_for("the build has failed");
    assert_eq!(call(), 480, "the last policy stays");
    save(&first);
    dev.wait_for(": generation 3\n");
    assert_eq!(call(), 200);
    dev.end("TERM");
}

/// The page in the directory of a policy leads from its first build to an activation on a host, with the variables that it names.
#[test]
fn the_readme_of_a_policy_leads_to_a_host() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{TOKEN}\""))
        .start();
    let made = run(folder.path(), "policy new acl");
    assert!(made.status.success(), "{}", text(&made));
    let folder = folder.path().join("acl");
    let url = format!("http://{}", host.lease().addr(1, 8060));
    let tries = |words: &str| {
        let mut command = command(&folder, words);
        let output = command.env("PORTCULLIS_URL", &url).output();
        output.expect("portcullis runs")
    };
    let does = |words: &str| {
        let output = tries(words);
        let said = text(&output);
        assert!(output.status.success(), "{words}: {said}");
        said
    };
    let mut caller = host.udp(10);
    let mut call = || {
        let request = caller.request("INVITE", "sip:bob@acme.example");
        caller.ask(&request).start_line().to_owned()
    };
    let readme = std::fs::read_to_string(folder.join("README.md")).expect("a page");
    let (_, commands) = readme
        .split_once("\n## The loop\n")
        .expect("the section is there");
    let mut done = 0;
    for line in commands.lines() {
        let Some(words) = line.strip_prefix("    portcullis ") else {
            continue;
        };
        let (words, _) = words.split_once('#').unwrap_or((words, ""));
        let words = words
            .trim()
            .replace("SEAT", "acme")
            .replace("GENERATION", "2");
        // It serves until it is ended: `policy_dev_serves_what_is_saved`.
        if words == "policy dev" {
            continue;
        }
        if words.ends_with("--shadow") {
            let source = folder.join("src/lib.rs");
            let text = std::fs::read_to_string(&source).expect("the source is there");
            let text = text.replace("Address not authorised", "Not from here");
            std::fs::write(&source, text).expect("the source can be written");
            does("policy build");
        }
        let part = match words.split_whitespace().nth(1) {
            Some("build") => "log, permissions, request",
            Some("test") => "4 cases passed\n",
            Some("check") => "can be used",
            Some("push") if words.ends_with("--activate") => "acme: generation 1, ",
            Some("push") => "acme: generation 2, ",
            Some("diff") => "acme: generation 2 against 1: ",
            Some("canary" | "activate") => "acme: generation 2, ",
            _ => panic!("the page has another command: {words}"),
        };
        if words.starts_with("policy diff") {
            // A trial without a request has no result yet, and the candidate decides behind the answer.
            assert_eq!(call(), "SIP/2.0 401 Address not authorised");
            wait::until("the candidate has decided", || {
                tries(&words).status.success().then_some(())
            });
        }
        let said = does(&words);
        assert!(said.contains(part), "{words}: {said}");
        done += 1;
    }
    assert_eq!(done, 8);
    assert_eq!(call(), "SIP/2.0 401 Not from here");
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
fn a_policy_in_assemblyscript_builds_where_asc_is() {
    make_if_there("assemblyscript", "AssemblyScript");
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
