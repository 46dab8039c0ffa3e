//! `portcullis trace`: how messages are handled, as it happens.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use portcullis_testkit::callee::Callee;
use portcullis_testkit::guests::guest;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{binary, policy};
use serde_json::{Value, json};

const CALLER: u8 = 10;
const OTHER: u8 = 11;

/// A running `portcullis trace --json`.
struct Trace {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Trace {
    /// Begins a trace; returns when the host has started it.
    fn begin(host: &Host, words: &str) -> Self {
        let running = host.metric("portcullis_traces", &[]);
        let mut child = Command::new(binary())
            .current_dir(host.folder())
            .args(["trace", "--json"])
            .args(words.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .expect("portcullis runs");
        portcullis_testkit::wait::until("the trace has begun", || {
            (host.metric("portcullis_traces", &[]) > running).then_some(())
        });
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// The next line.
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line comes");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_call_is_traced_from_policy_to_next_hop_and_back() {
    let builder = Builder::new();
    let lease_row = builder.lease().ip(CALLER).to_string();
    let callee = Callee::start(builder.lease().addr(20, 5060));
    let host = builder
        .row(&format!("200 {lease_row}"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    let mut trace = Trace::begin(&host, &format!("--source {lease_row}/31"));
    let mut stranger = host.udp(OTHER);
    let mut caller = host.udp(CALLER);
    let (refused, relayed) = (
        stranger.request("INVITE", "sip:bob@example.com"),
        caller.request("INVITE", "sip:bob@example.com"),
    );
    assert_eq!(stranger.ask(&refused).code(), 401);
    assert_eq!(caller.ask(&relayed).code(), 200);

    let line = trace.next();
    assert_eq!(
        (&line["outcome"], &line["code"]),
        (&json!("rejected"), &json!(401)),
        "{line}"
    );
    assert_eq!(line["call_id"], refused.call_id);
    assert_eq!(line["source"], stranger.local().to_string());
    assert_eq!(line["cause"], "policy");
    let asked = &line["asked"][0];
    assert_eq!(
        (&asked["seat"], &asked["generation"]),
        (&json!("default"), &json!(1)),
        "{line}"
    );
    assert!(
        asked["verdict"]
            .as_str()
            .is_some_and(|verdict| verdict.contains("401")),
        "{line}"
    );
    assert!(asked["microseconds"].is_u64());

    let line = trace.next();
    assert_eq!(
        (&line["outcome"], &line["next"]),
        (&json!("relayed"), &json!(callee.addr().to_string())),
        "{line}"
    );
    assert_eq!(line["call_id"], relayed.call_id);
}

#[test]
fn filters_select_by_outcome() {
    let host = Builder::new().start();
    let mut dropped = Trace::begin(&host, "--outcome dropped");
    let mut failed = Trace::begin(&host, "--code 5xx --method MESSAGE");
    let mut caller = host.udp(CALLER);
    let ok = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(caller.ask(&ok).code(), 200);
    caller.send(b"junk\x1b[2J\r\nCall-ID: junk\r\n\r\n");
    let line = dropped.next();
    assert_eq!(
        (&line["cause"], &line["call_id"]),
        (&json!("not_sip"), &json!("junk")),
        "{line}"
    );

    host.replace_policy(&guest("line-break"));
    host.run("policy reload");
    for method in ["INVITE", "MESSAGE"] {
        let request = caller.request(method, "sip:bob@example.com");
        assert_eq!(caller.ask(&request).code(), 503);
    }
    let line = failed.next();
    assert!(
        line["first_line"]
            .as_str()
            .is_some_and(|line| line.starts_with("MESSAGE ")),
        "{line}"
    );
    assert_eq!(line["cause"], "policy_failed");
    let verdict = &line["asked"][0]["verdict"];
    assert!(
        verdict
            .as_str()
            .is_some_and(|verdict| verdict.starts_with("failed: invalid verdict")),
        "{line}"
    );
}

#[test]
fn undelivered_requests_are_traced() {
    let builder = Builder::new();
    let hop = builder.lease().addr(20, 5060);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop};transport=tcp\""))
        .start();
    let mut caller = host.udp(CALLER);
    let mut trace = Trace::begin(&host, &format!("--source {}", host.lease().ip(CALLER)));
    let request = caller.request("INVITE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 500);
    assert_eq!(trace.next()["outcome"], "relayed");
    let line = trace.next();
    assert_eq!(
        (&line["outcome"], &line["cause"]),
        (&json!("undelivered"), &json!("no_connection")),
        "{line}"
    );
    assert_eq!(
        (&line["call_id"], &line["next"]),
        (&json!(request.call_id), &json!(hop.to_string()))
    );
}

#[test]
fn traces_are_limited_and_end_with_their_client() {
    let host = Builder::new().start();
    let running = || host.metric("portcullis_traces", &[]);
    let all: Vec<_> = (0..4).map(|_| Trace::begin(&host, "")).collect();
    let beyond = host.command("trace");
    assert!(!beyond.status.success());
    let said = String::from_utf8_lossy(&beyond.stderr).into_owned();
    assert!(said.contains("4 traces run already"), "{said}");
    drop(all);
    portcullis_testkit::wait::until("the traces have ended", || (running() < 1.0).then_some(()));

    let mut slow = Trace::begin(&host, "--rate 1");
    let mut caller = host.udp(CALLER);
    for _ in 0..50 {
        let request = caller.request("INVITE", "sip:bob@example.com");
        assert_eq!(caller.ask(&request).code(), 401);
    }
    let (mut shown, mut left_out) = (0, 0);
    while shown + left_out < 50 {
        let line = slow.next();
        match line["left_out"].as_u64() {
            Some(more) => left_out += more,
            None => shown += 1,
        }
    }
    assert!(shown >= 1 && left_out > shown, "{shown} {left_out}");

    for bad in [
        "--source 10.0.0",
        "--code 9",
        "--rate 0",
        "--outcome nothing",
    ] {
        let output = host.command(&format!("trace {bad}"));
        assert!(!output.status.success(), "{bad}");
        assert!(!output.stderr.is_empty(), "{bad}");
    }
}
