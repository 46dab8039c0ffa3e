//! A host serves the tenants whose policies are loaded while it still compiles those of others.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;

use portcullis_testkit::guests::large;
use portcullis_testkit::host::{Builder, Host, signal};
use portcullis_testkit::wait;
use serde_json::json;

const CALLER: u8 = 10;
const TENANTS: u32 = 2;
/// Compiling this many statements takes long enough to be observed and stopped.
const STATEMENTS: u32 = 60_000;

/// The processes that compile policies of tenants for this host.
fn compilers(host: &Host) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", host.pid())).expect("the host runs");
    let children = tasks.flatten().flat_map(|task| {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let pids = children.split_whitespace().map(str::parse::<u32>);
        pids.map_while(Result::ok).collect::<Vec<_>>()
    });
    let is_tenants = |pid: &u32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.contains("compile-policy") && words.contains("--niceness\x0019\0")
    };
    children.filter(is_tenants).collect()
}

/// The answers to requests of all tenants, in their order.
fn answers(host: &Host) -> Vec<String> {
    let mut caller = host.udp(CALLER);
    let mut answer = |n| {
        let request = caller.request("MESSAGE", &format!("sip:bob@t{n}.example"));
        caller.ask(&request).start_line().to_owned()
    };
    (1..=TENANTS).map(&mut answer).collect()
}

#[test]
fn tenants_are_served_as_soon_as_their_policies_are_loaded() {
    const LOADING: &str = "SIP/2.0 480 Loading";
    const OWN: &str = "SIP/2.0 403 Forbidden";
    let mut builder = Builder::new().set("policy.on-failure", "load = \"reject 480 Loading\"");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    for n in 1..=TENANTS {
        let file = folder.path().join(format!("{n}.wasm"));
        fs::write(&file, large(STATEMENTS + n)).expect("a policy can be written");
        let section = format!("tenants.t{n}");
        builder = builder
            .set(&section, &format!("uri-domains = [\"t{n}.example\"]"))
            .set(&section, &format!("file = {file:?}"));
    }
    let mut host = builder.launch();
    // Both are compiled at the same time, and neither finishes.
    let mut stopped = BTreeSet::new();
    wait::until("both compilers are stopped", || {
        for pid in compilers(&host).difference(&stopped.clone()) {
            signal(*pid, "STOP");
            stopped.insert(*pid);
        }
        (stopped.len() == TENANTS as usize).then_some(())
    });
    let not_ready = |done: u32| {
        let told = format!("{done} of {TENANTS} policies ready");
        wait::until(&told, || {
            let (status, text) = host.get("/readyz")?;
            (status == 503 && text.contains(&told)).then_some(())
        });
    };
    not_ready(0);
    assert_eq!(answers(&host), [LOADING, LOADING]);
    let status = host.rpc("portcullis.status", json!([]));
    let loading = &status["result"]["loading"];
    assert_eq!(
        *loading,
        json!({"ready": 0, "policies": TENANTS}),
        "{status}"
    );
    assert_eq!(status["result"]["ready"], json!(false), "{status}");

    let mut stopped = stopped.into_iter();
    stopped
        .next()
        .into_iter()
        .for_each(|pid| signal(pid, "CONT"));
    not_ready(1);
    let mut mixed = answers(&host);
    mixed.sort();
    assert_eq!(mixed, [OWN, LOADING]);

    stopped.for_each(|pid| signal(pid, "CONT"));
    host.wait_until_ready();
    assert_eq!(answers(&host), [OWN, OWN]);
    let status = host.rpc("portcullis.status", json!([]));
    assert_eq!(status["result"]["loading"], json!(null), "{status}");
    host.wait_for_log("start_progress");
    host.wait_for_log("start_finished");
}
