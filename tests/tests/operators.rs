//! What operators see of transactions.

#![forbid(unsafe_code)]

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::wait;
use serde_json::{Value, json};

const CALLER: u8 = 10;

/// A host that relays everything to this callee.
fn start(mode: &str) -> (Host, Callee) {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("relay", &format!("mode = \"{mode}\""))
        .start();
    (host, callee)
}

fn relay(host: &Host, method: &str) {
    let mut caller = host.udp(CALLER);
    let request = caller.request(method, "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);
}

fn stats(host: &Host) -> Value {
    host.rpc("tm.stats", json!([]))["result"].take()
}

#[test]
fn transactions_are_counted_in_tm_stats_the_status_and_the_metrics() {
    let (host, _callee) = start("stateful");
    relay(&host, "MESSAGE");
    relay(&host, "INVITE");
    let stats = wait::until("both transactions have ended", || {
        let stats = stats(&host);
        (stats["2xx"] == 2).then_some(stats)
    });
    let expected = json!({
        "current": 2, "waiting": 2, "total": 2, "total_local": 0,
        // The INVITE is answered 100.
        "rpl_received": 2, "rpl_generated": 1, "rpl_sent": 3,
        "6xx": 0, "5xx": 0, "4xx": 0, "3xx": 0, "2xx": 2,
        "created": 2, "freed": 0, "delayed_free": 0,
    });
    assert_eq!(stats, expected);

    let status = host.rpc("portcullis.status", json!([]))["result"].take();
    let transactions = &status["transactions"];
    for (name, value) in [
        ("active", 0),
        ("lingering", 2),
        ("begun", 2),
        ("shed", 0),
        ("handed_over", 0),
        ("handovers_lost", 0),
        ("strays", 0),
    ] {
        assert_eq!(transactions[name], value, "{name}: {transactions}");
    }
    for name in ["first", "final"] {
        let name = format!("portcullis_transaction_{name}_response_seconds_count");
        assert!((host.metric(&name, &[]) - 2.0).abs() < 0.1, "{name}");
    }
}

#[test]
fn a_stateless_host_has_no_transactions() {
    let (host, _callee) = start("stateless");
    relay(&host, "MESSAGE");
    let status = host.rpc("portcullis.status", json!([]))["result"].take();
    assert_eq!(status["transactions"], Value::Null);
    assert_eq!(stats(&host)["total"], 0);
}
