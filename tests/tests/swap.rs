//! Policies are swapped while requests are sent: no request is lost, and broken files change nothing.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::load::Load;
use portcullis_testkit::wait;

const CALLER: u8 = 10;
const SWAPS: u16 = 30;

fn start(workers: usize) -> Host {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let first = folder.path().join("first.wasm");
    std::fs::write(&first, rejecting(480, "generation 0")).expect("a policy can be written");
    Builder::new().workers(workers).policy(first).start()
}

fn answer(host: &Host) -> String {
    let mut caller = host.udp(CALLER);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.ask(&request).start_line().to_owned()
}

fn wait_for(host: &Host, line: &str) {
    wait::until(&format!("the answer is {line}"), || {
        (answer(host) == line).then_some(())
    });
}

#[test]
fn swaps_under_load_lose_nothing() {
    let host = start(2);
    let load = Load::start(&host, CALLER, 4);
    for n in 1..=SWAPS {
        host.replace_policy(&rejecting(480, &format!("generation {n}")));
        wait_for(&host, &format!("SIP/2.0 480 generation {n}"));
        // A broken file between two valid ones must never become active.
        host.replace_policy(&[&b"\0asm\x0d\0\x01\0broken"[..], &[n as u8; 40]].concat());
        load.wait_for(50);
    }
    let report = load.stop();
    let failures = host.metric("portcullis_policy_failures_total", &[]);
    assert_eq!(failures, 0.0, "{:?}", host.get("/metrics"));
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), [&480]);
    assert_eq!(report.answers[&480], report.sent);
    assert_eq!(report.duplicates, 0);
    assert_eq!(answer(&host), format!("SIP/2.0 480 generation {SWAPS}"));
}

#[test]
fn a_file_rewritten_in_place_is_detected() {
    let host = start(1);
    wait_for(&host, "SIP/2.0 480 generation 0");
    std::fs::write(host.policy_file(), rejecting(481, "rewritten"))
        .expect("a policy can be written");
    wait_for(&host, "SIP/2.0 481 rewritten");
}

#[test]
fn a_changed_link_is_detected() {
    let host = start(1);
    for (name, code) in [("a.wasm", 482), ("b.wasm", 483)] {
        std::fs::write(host.folder().join(name), rejecting(code, name))
            .expect("a policy can be written");
        let link = host.folder().join("link");
        std::os::unix::fs::symlink(name, &link).expect("a link can be made");
        std::fs::rename(&link, host.policy_file()).expect("a link can be renamed");
        wait_for(&host, &format!("SIP/2.0 {code} {name}"));
    }
}

#[test]
fn a_broken_file_is_reported_and_the_old_policy_stays() {
    let host = start(1);
    let good = rejecting(486, "good");
    for (bytes, word) in [
        (good[..good.len() / 2].to_vec(), "policy.wasm"),
        (Vec::new(), "empty"),
        (b"not WebAssembly at all".to_vec(), "WebAssembly"),
    ] {
        host.replace_policy(&bytes);
        let output = host.command("policy reload");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word), "{said}");
        let status = host.run("policy status");
        assert!(status.contains("error"), "{status}");
        assert_eq!(answer(&host), "SIP/2.0 480 generation 0");
    }
    host.replace_policy(&good);
    let said = host.run("policy reload");
    assert!(said.contains("generation"), "{said}");
    assert_eq!(answer(&host), "SIP/2.0 486 good");
}

#[test]
fn sighup_reloads_policy_and_table() {
    let host = start(1);
    let before = host.metric("portcullis_address_reloads_total", &[]);
    host.signal("HUP");
    wait::until("the table is reloaded", || {
        (host.metric("portcullis_address_reloads_total", &[]) > before).then_some(())
    });
    assert_eq!(answer(&host), "SIP/2.0 480 generation 0");
}
