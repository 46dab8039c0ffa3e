//! Policies that take long to compile: limits of the compiler process, and its confinement.

#![forbid(unsafe_code)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::binary;
use portcullis_testkit::guests::{large, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;

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
fn a_compilation_above_its_time_limit_is_killed_and_affects_no_others() {
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
        // Meanwhile, requests and the policies of other tenants are handled.
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
            said.contains("cannot be compiled: it exceeded 2s of processor time")
                && said.contains("compile-time"),
            "{said}"
        );
        assert!(others > 1, "{others}");
    });
    assert_eq!(answer(&mut caller, "acme"), "SIP/2.0 403 Forbidden");
}

#[test]
fn a_compilation_above_its_memory_limit_is_killed() {
    let host = start("compile-memory = \"128MiB\"");
    let before = host.memory_mib();
    let (code, answered) = host.push("acme", "arrival=activate", &large(150_000));
    assert_eq!(code, 422, "{answered}");
    let said = answered.to_string();
    assert!(
        said.contains("it exceeded 134217728 bytes of memory") && said.contains("compile-memory"),
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

#[test]
fn a_check_has_the_bounds_of_a_host() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).expect("a file can be written");
    };
    write("portcullis.toml", b"[policy]\ncompile-time = \"1s\"\n");
    write("large.wasm", &large(300_000));
    write("small.wasm", &rejecting(486, "small"));
    let check = |file: &str| {
        let output = Command::new(binary())
            .current_dir(folder.path())
            .args(["policy", "check", file])
            .output()
            .expect("portcullis runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let begun = Instant::now();
    let (code, said) = check("large.wasm");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("compile-time"), "{said}");
    // The limit of processor time ends the compilation, unless other processes used the processor for ten times as long.
    let is_starved = said.contains("it did not get 1s of processor time within 10s");
    if !is_starved || begun.elapsed() < Duration::from_secs(10) {
        assert!(said.contains("it exceeded 1s of processor time"), "{said}");
    }
    let (code, said) = check("small.wasm");
    assert_eq!(code, Some(0), "{said}");
}

/// `portcullis policy inspect` parses the file in a process that can open no other file.
#[test]
fn inspecting_a_file_works_while_confined() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let small = folder.path().join("small.wasm");
    std::fs::write(&small, rejecting(486, "small")).expect("a file can be written");
    let inspect = |file: &std::path::Path| {
        let output = Command::new(binary())
            .args(["policy", "inspect"])
            .arg(file)
            .output()
            .expect("portcullis runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (code, said) = inspect(&small);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("kind:") && said.contains("decide"), "{said}");
    std::fs::write(&small, b"\0asm\x01\0\0\0\xff").expect("a file can be written");
    let (code, said) = inspect(&small);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("damaged"), "{said}");
    let (code, said) = inspect(&folder.path().join("nothing.wasm"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot read"), "{said}");
}

/// Number of running processes that the host has started.
fn children(host: &Host) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", host.pid())).expect("the host runs");
    let children = tasks.flatten().map(|task| {
        let children = std::fs::read_to_string(task.path().join("children"));
        children.unwrap_or_default().split_whitespace().count()
    });
    children.sum()
}

#[test]
fn the_operator_does_not_wait_behind_tenants() {
    let tokens = ["one-0123456789abcdef", "two-0123456789abcdef"];
    let mut builder = Builder::new()
        .set("policy", "compile-time = \"4s\"\ncompile-memory = \"8GiB\"")
        .set("tenants.other", "uri-domains = [\"other.example\"]");
    for (name, token) in ["one", "two"].into_iter().zip(tokens) {
        let section = format!("tenants.{name}");
        builder = builder
            .set(&section, &format!("uri-domains = [\"{name}.example\"]"))
            .set(&section, &format!("token = \"{token}\""));
    }
    let host = builder.start();
    std::fs::write(host.folder().join("large.wasm"), large(300_000)).expect("it can be written");
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (name, token) in ["one", "two"].into_iter().zip(tokens) {
            let (host, ended) = (&host, &ended);
            scope.spawn(move || {
                let words = format!("policy push {name} large.wasm");
                // Whether the compilation exceeds its time limit does not matter here.
                host.command_as(token, &words);
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        // At its start, the host runs one more compiler to test its confinement; that one has ended before both of these run.
        wait::until("both files are being compiled", || {
            (children(&host) == 2).then_some(())
        });
        let (code, told) = host.push("other", "arrival=activate", &rejecting(487, "quick"));
        assert_eq!(code, 201, "{told}");
        // The operator does not wait at the seat of a tenant that is pushing a policy either.
        let (code, told) = host.push("one", "arrival=activate", &rejecting(486, "mended"));
        assert_eq!(code, 201, "{told}");
        assert_eq!(
            ended.load(Ordering::Relaxed),
            0,
            "both compilations still run"
        );
    });
    let mut caller = host.udp(10);
    assert_eq!(answer(&mut caller, "other"), "SIP/2.0 487 quick");
    assert_eq!(answer(&mut caller, "one"), "SIP/2.0 486 mended");
}

#[test]
fn a_compiler_reaches_nothing() {
    let host = start("deadline = \"100ms\"");
    let check = String::from_utf8(host.command("check").stdout).expect("text");
    let line = check.lines().find(|line| line.starts_with("compiler"));
    let line = line.expect("check reports on the compiler");
    // A compiler process tests its own confinement. A kernel without seccomp filters cannot confine system calls.
    let own = std::fs::read_to_string("/proc/self/status").expect("this process runs");
    if own.contains("Seccomp_filters:") {
        assert!(
            line.contains("seccomp on; files, network and other programs are out of its reach"),
            "{line}"
        );
        host.wait_for_log("compiler_confined");
    } else {
        assert!(line.contains("warning: "), "{line}");
        host.wait_for_log("compiler_not_confined");
    }
}
