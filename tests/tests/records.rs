//! Records of decisions without space on the disk, and in memory while a tenant's policy makes queries without end.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testkit::guests::module;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use serde_json::{Value, json};

fn recording(builder: Builder) -> (Host, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary directory").keep();
    let file = folder.join("records.jsonl");
    let host = builder
        .set("records", &format!("file = {file:?}"))
        .set("records", "per-second = 1000000")
        .start();
    (host, file)
}

/// What `portcullis.status` says of records.
fn told(host: &Host, member: &str) -> Value {
    host.rpc("portcullis.status", json!([]))["result"]["records"][member].take()
}

fn number(host: &Host, member: &str) -> u64 {
    told(host, member).as_u64().expect("a number")
}

fn ask(caller: &mut Caller, user: &str) {
    let request = caller.request("MESSAGE", &format!("sip:{user}@acme.example"));
    caller.ask(&request);
}

/// All lines of a file, each of which must be a record.
fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("the file can be read");
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    let line = |line| serde_json::from_str(line).expect("a record");
    text.lines().map(line).collect()
}

/// Sets the largest size of files that the host may write, as `LimitFSIZE=` does.
fn limit_files(host: &Host, bytes: &str) {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", host.pid()))
        .arg(format!("--fsize={bytes}:unlimited"))
        .status()
        .expect("prlimit runs");
    assert!(status.success());
}

#[test]
fn a_full_file_loses_records_until_there_is_space() {
    let (mut host, file) = recording(Builder::new());
    let mut caller = host.udp(10);
    let mut asked = 0;
    // The limit is not a multiple of a line: the last line does not fit.
    limit_files(&host, "200001");
    while number(&host, "file_failed") == 0 {
        (0..20).for_each(|n| ask(&mut caller, &format!("user{n}")));
        asked += 20;
    }
    assert!(host.is_alive(), "the limit is no reason to end");
    let all_told = |asked: u64| {
        wait::until("every record is accounted for", || {
            let (written, failed) = (number(&host, "written"), number(&host, "file_failed"));
            (written + failed == asked).then_some(written)
        })
    };
    let written = all_told(asked);
    assert_eq!(lines(&file).len() as u64, written);
    assert!(written > 0);
    let error = told(&host, "error").to_string();
    assert!(error.contains("File too large"), "{error}");
    host.wait_for_log("records_failed");

    // Another program removes the full file.
    fs::remove_file(&file).expect("it is there");
    ask(&mut caller, "removed");
    asked += 1;
    assert_eq!(all_told(asked), written + 1);
    assert_eq!(lines(&file).len(), 1);
    assert_eq!(told(&host, "error"), Value::Null);
    host.wait_for_log("records_resumed");

    // The file fills again, and another program truncates it.
    while told(&host, "error").is_null() {
        (0..20).for_each(|n| ask(&mut caller, &format!("user{n}")));
        asked += 20;
    }
    let before = all_told(asked);
    let full = fs::OpenOptions::new().write(true).open(&file);
    full.and_then(|full| full.set_len(0))
        .expect("it can be cut");
    ask(&mut caller, "cut-short");
    asked += 1;
    assert_eq!(all_told(asked), before + 1);
    assert_eq!(lines(&file).len(), 1);

    // The file fills again, and the limit is raised.
    while told(&host, "error").is_null() {
        (0..20).for_each(|n| ask(&mut caller, &format!("user{n}")));
        asked += 20;
    }
    let before = all_told(asked);
    let there = lines(&file).len();
    limit_files(&host, "unlimited");
    ask(&mut caller, "room-elsewhere");
    asked += 1;
    assert_eq!(all_told(asked), before + 1);
    assert_eq!(lines(&file).len(), there + 1);
}

/// Asks about a counter with a name of 60,000 bytes of this value, 40 times, and relays nothing.
fn curious(byte: u8) -> Vec<u8> {
    module(&format!(
        r#"(module
            (import "portcullis:policy/counters@0.1.0" "value" (func $value (param i32 i32) (result i64)))
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32) (local i32)
                (memory.fill (i32.const 1000) (i32.const {byte}) (i32.const 60000))
                (local.set 0 (i32.const 40))
                (loop $next
                    (drop (call $value (i32.const 1000) (i32.const 60000)))
                    (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
                (i32.store (i32.const 0) (i32.const 2))
                i32.const 0))"#
    ))
}

#[test]
fn a_policy_with_endless_queries_stays_within_the_documented_memory() {
    let builder = Builder::new().set("tenants.acme", "uri-domains = [\"acme.example\"]");
    let (mut host, file) = recording(builder.set("records", "size = \"1MiB\""));
    let before = host.memory_mib();
    // Sends fifty requests that the policy drops, and one to the operator, whose response limits how many of them are still pending.
    // Datagrams that the system drops are not counted.
    let ask_many = |host: &Host| {
        let (mut caller, mut other) = (host.udp(10), host.udp(11));
        for n in 0..50 {
            let request = caller.request("MESSAGE", &format!("sip:{n}@acme.example"));
            caller.send(&request.bytes());
        }
        let request = other.request("MESSAGE", "sip:bob@other.example");
        other.ask(&request);
    };
    for byte in [b'a', 1] {
        let (status, told) = host.push("acme", "arrival=activate", &curious(byte));
        assert_eq!(status, 201, "{told}");
        for _ in 0..20 {
            ask_many(&host);
            let waiting = host.metric("portcullis_records_waiting_bytes", &[]);
            assert!(waiting <= f64::from(16 << 20), "{waiting}");
        }
    }
    let grown = host.memory_mib().saturating_sub(before);
    assert!(grown <= 32, "{grown} MiB");
    let aside = file.with_extension("jsonl.1");
    wait::until("the file has been full once", || {
        aside.exists().then_some(()).or_else(|| {
            ask_many(&host);
            None
        })
    });
    wait::until("every record is accounted for", || {
        let kinds = [
            "written",
            "beyond_rate",
            "writer_too_slow",
            "line_too_long",
            "file_failed",
        ];
        // In this order, the sum is never complete too early: a request is counted before its record.
        let shed = host.metric("portcullis_tenant_shed_total", &[]);
        let sum: u64 = kinds.iter().map(|kind| number(&host, kind)).sum();
        let requests = host.metric("portcullis_tenant_requests_total", &[]);
        (sum as f64 == requests - shed
            && told(&host, "error").is_null()
            && host.metric("portcullis_records_waiting_bytes", &[]) == 0.0)
            .then_some(())
    });
    // Pending records are written before the end.
    host.signal("TERM");
    host.wait_until_ended();
    for name in [file.clone(), aside] {
        let size = fs::metadata(&name).expect("it was begun").len();
        assert!(size <= 1 << 20, "{size}");
        assert!(lines(&name).iter().all(|record| record["id"].is_string()));
    }
    let cut = lines(&file);
    let cut = cut.iter().filter(|record| record["tenant"] == "acme");
    assert!(cut.clone().count() > 0);
    for record in cut {
        let asking = &record["policies"][0];
        let asked = asking["asked"].as_array().expect("a list").len();
        assert!(asking["cut"] == true && asked <= 2, "{asked}");
    }
    fs::write(host.folder().join("same.wasm"), curious(1)).expect("a file can be written");
    let replay = format!("replay {} --policy same.wasm --tenant acme", file.display());
    let said = String::from_utf8(host.command(&replay).stdout).expect("text");
    assert!(
        said.contains("cut: the record does not contain all queries"),
        "{said}"
    );
}
