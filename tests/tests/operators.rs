//! What operators see of transactions, and how they end a host without a lost call.

#![forbid(unsafe_code)]

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;

use portcullis_testkit::callee::{Callee, ok_to};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::messages::Request;
use portcullis_testkit::peer::Peer;
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait::{self, PATIENCE};
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
        ("retransmissions_received", 0),
        ("icmp_errors", 0),
    ] {
        assert_eq!(transactions[name], value, "{name}: {transactions}");
    }
    let attempts = &transactions["attempts"];
    assert_eq!(attempts.as_array().map(Vec::len), Some(1), "{attempts}");
    assert_eq!(attempts[0]["next_hop"], Value::Null);
    assert_eq!(
        (&attempts[0]["success"], &attempts[0]["failure"]),
        (&json!(2), &json!(0))
    );
    for name in ["first", "final"] {
        let name = format!("portcullis_transaction_{name}_response_seconds_count");
        assert!((host.metric(&name, &[]) - 2.0).abs() < 0.1, "{name}");
    }
}

/// The host answers both by itself, without a transaction.
#[test]
fn rejected_requests_and_options_to_the_host_have_no_transactions() {
    let host = Builder::new().start();
    let mut stranger = host.udp(CALLER);
    let invite = stranger.request("INVITE", "sip:bob@example.com");
    let answer = stranger.ask(&invite);
    assert_eq!(answer.code(), 401);
    stranger.send(&invite.ack_for(&answer).bytes());
    let options = stranger.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(stranger.ask(&options).code(), 200);
    let status = host.rpc("portcullis.status", json!([]))["result"].take();
    let transactions = &status["transactions"];
    for name in ["begun", "active", "lingering"] {
        assert_eq!(transactions[name], 0, "{name}: {transactions}");
    }
}

#[test]
fn active_transactions_are_listed_up_to_a_number_and_calls_are_cancelled() {
    for workers in [1, 2] {
        let builder = Builder::new().workers(workers).policy(policy("observe"));
        let callee = Peer::udp_at(builder.lease().addr(3, 5080));
        let next_hop = format!("next-hop = \"sip:{}\"", callee.local());
        let host = builder.set("relay", &next_hop).start();
        let list = |params: Value| host.rpc("tm.list", params)["result"].take();
        assert_eq!(list(json!([])), json!([]));

        let mut caller = host.udp(CALLER);
        let calls: Vec<Request> = (0..5)
            .map(|_| caller.request("INVITE", "sip:bob@example.com"))
            .collect();
        for (n, call) in calls.iter().enumerate() {
            caller.send(&call.bytes());
            callee.answer(&callee.nth_request(n, "INVITE"), 180);
        }
        let all = list(json!([]));
        assert_eq!(all.as_array().map(Vec::len), Some(5), "{all}");
        let some = list(json!([3]));
        assert_eq!(some.as_array().map(Vec::len), Some(4), "{some}");
        assert_eq!(some[3], json!({"left_out": 2}));
        for params in [json!([0]), json!(["many"]), json!([1, 2])] {
            let refused = host.rpc("tm.list", params);
            assert_eq!(refused["error"]["code"], 400, "{refused}");
        }

        let call = Message::new(calls[2].bytes());
        let call_id = call.header("Call-ID").expect("it has one");
        let cseq = call.header("CSeq").expect("it has one");
        let cseq = cseq.split(' ').next().expect("it has a number");
        let cancelled = host.rpc("tm.cancel", json!([call_id, cseq]))["result"].take();
        assert_eq!(
            cancelled,
            json!([1, "branches remaining (waiting for timeout)"])
        );
        let cancel = callee.first_request("CANCEL");
        assert_eq!(cancel.message.header("Call-ID"), Some(call_id));
        let rows = list(json!([]));
        let is_cancelled = |row: &&Value| row["tflags"].as_u64().is_some_and(|flags| flags & 8 > 0);
        let rows = rows.as_array().expect("a list");
        let cancelled: Vec<&Value> = rows.iter().filter(is_cancelled).collect();
        assert_eq!(cancelled.len(), 1, "{rows:?}");
        assert_eq!(cancelled[0]["callid"], format!("Call-ID: {call_id}\r\n"));

        callee.answer(&callee.nth_request(2, "INVITE"), 487);
        wait::until("the caller gets the 487", || {
            (caller.receive_any().code() == 487).then_some(())
        });
        let again = host.rpc("tm.cancel", json!([call_id, cseq]));
        assert_eq!(again["error"]["message"], "Transaction not found");
    }
}

#[test]
fn a_stateless_host_has_no_transactions() {
    let (host, _callee) = start("stateless");
    relay(&host, "MESSAGE");
    let status = host.rpc("portcullis.status", json!([]))["result"].take();
    assert_eq!(status["transactions"], Value::Null);
    assert_eq!(stats(&host)["total"], 0);
    assert_eq!(host.rpc("tm.list", json!([]))["result"], json!([]));
}

/// A host with a call that rings, and both ends of the call.
struct Ringing {
    host: Host,
    caller: Caller,
    invite: Request,
    callee: UdpSocket,
    /// The INVITE as the callee has it, and where it came from.
    received: (Message, SocketAddr),
}

impl Ringing {
    fn start(settings: &[&str]) -> Self {
        let builder = Builder::new().policy(policy("observe"));
        let callee = UdpSocket::bind(builder.lease().addr(3, 5080)).expect("the address is free");
        callee.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let at = callee.local_addr().expect("it is bound");
        let builder = builder.set("relay", &format!("next-hop = \"sip:{at}\""));
        let builder = settings
            .iter()
            .fold(builder, |builder, line| builder.set("transactions", line));
        let host = builder.start();
        let mut caller = host.udp(CALLER);
        let invite = caller.request("INVITE", "sip:bob@example.com");
        caller.send(&invite.bytes());
        let received = next(&callee);
        Self {
            host,
            caller,
            invite,
            callee,
            received,
        }
    }

    /// The callee answers 200.
    fn answer(&self) {
        let (request, host) = &self.received;
        let at = self.callee.local_addr().expect("it is bound");
        let sent = self.callee.send_to(&ok_to(request, at), host);
        sent.expect("a datagram can be sent");
    }

    fn wait_until_it_refuses(&self) {
        self.host.wait_for_log("event=\"refusing\"");
        let mut caller = self.host.udp(CALLER + 1);
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        let answer = caller.ask(&request);
        assert_eq!(answer.code(), 503);
        assert_eq!(answer.header("Retry-After"), Some("1"));
    }
}

/// The next request that a callee receives.
fn next(callee: &UdpSocket) -> (Message, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (n, from) = callee.recv_from(&mut buffer).expect("a request comes");
    (Message::new(buffer[..n].to_vec()), from)
}

#[test]
fn after_sigterm_new_requests_are_refused_and_the_host_ends_with_its_last_call() {
    let mut call = Ringing::start(&["drain = \"1h\""]);
    call.host.signal("TERM");
    call.host.wait_for_log("event=\"draining\"");
    let ready = call.host.get("/readyz").map(|(status, _)| status);
    assert_eq!(ready, Some(503));
    let status = call.host.rpc("portcullis.status", json!([]))["result"].take();
    assert_eq!(status["ready"], false);
    call.wait_until_it_refuses();

    let mut monitor = call.host.udp(CALLER + 2);
    let options = monitor.request("OPTIONS", &format!("sip:{}", call.host.sip()));
    assert_eq!(monitor.ask(&options).code(), 503);

    // Another dialog goes on. A retransmission of the INVITE may come first.
    let mut within = monitor.request("MESSAGE", "sip:bob@example.com");
    within.to.push_str(";tag=callee");
    monitor.send(&within.bytes());
    let (request, host) = wait::until("the request is relayed", || {
        Some(next(&call.callee)).filter(|(request, _)| request.first_word() == "MESSAGE")
    });
    let at = call.callee.local_addr().expect("it is bound");
    let sent = call.callee.send_to(&ok_to(&request, at), host);
    sent.expect("a datagram can be sent");
    assert_eq!(monitor.receive().code(), 200);

    assert!(call.host.is_alive());
    call.answer();
    let answer = call.caller.receive();
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.header("Call-ID"), Some(&*call.invite.call_id));
    assert!(call.host.wait_until_ended().success());
    assert_eq!(call.host.complaints(), [""; 0]);
}

#[test]
fn until_the_notice_is_over_a_host_that_will_end_accepts_requests() {
    let call = Ringing::start(&["drain = \"1h\"", "drain-notice = \"1h\""]);
    call.host.signal("TERM");
    call.host.wait_for_log("event=\"draining\"");
    let mut monitor = call.host.udp(CALLER + 2);
    let options = monitor.request("OPTIONS", &format!("sip:{}", call.host.sip()));
    assert_eq!(monitor.ask(&options).code(), 503);
    let request = monitor.request("MESSAGE", "sip:bob@example.com");
    monitor.send(&request.bytes());
    // A retransmission of the INVITE may come first.
    let relayed = wait::until("the request is relayed", || {
        let (request, _) = next(&call.callee);
        (request.first_word() == "MESSAGE").then_some(request)
    });
    assert_eq!(relayed.header("Call-ID"), Some(&*request.call_id));
}

#[test]
fn a_second_signal_ends_a_host_that_drains_at_once() {
    for second in ["TERM", "INT"] {
        let mut call = Ringing::start(&["drain = \"1h\""]);
        call.host.signal("TERM");
        call.wait_until_it_refuses();
        call.host.signal(second);
        assert!(call.host.wait_until_ended().success(), "{second}");
    }
}

#[test]
fn a_host_whose_calls_do_not_end_ends_after_its_limit() {
    let mut call = Ringing::start(&["drain = \"100ms\""]);
    call.host.signal("TERM");
    assert!(call.host.wait_until_ended().success());
    let complaints = call.host.complaints();
    assert!(
        complaints.len() == 1 && complaints[0].contains("event=\"not_drained\""),
        "{complaints:?}"
    );
}

#[test]
fn the_service_manager_learns_that_the_host_serves_lives_and_ends() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let told = || {
        let mut buffer = [0; 256];
        let n = manager.recv(&mut buffer).expect("the host says something");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let mut host = Builder::new()
        .workers(2)
        .env("NOTIFY_SOCKET", &path.display().to_string())
        .env("WATCHDOG_USEC", "2000000")
        .start();
    assert_eq!(told(), "READY=1");
    assert_eq!([told(), told()], ["WATCHDOG=1"; 2]);
    host.signal("TERM");
    wait::until("it says that it ends", || {
        (told() == "STOPPING=1").then_some(())
    });
    assert!(host.wait_until_ended().success());
}

#[test]
fn each_attempt_and_each_transaction_has_a_call_record() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("calls.jsonl");
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("records", &format!("calls = {file:?}\nmask-users = true"))
        .set("records", "id-header = \"X-Decision\"")
        .start();
    let mut caller = host.udp(CALLER);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);
    let decision = callee.next().header("X-Decision").map(str::to_owned);
    let lines = wait::until("both records are written", || {
        let text = std::fs::read_to_string(&file).ok()?;
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        (lines.len() == 2).then_some(lines)
    });
    for (line, kind) in lines.iter().zip(["attempt", "transaction"]) {
        assert_eq!(line["kind"], kind);
        assert_eq!(line["id"].as_str(), decision.as_deref());
        assert_eq!(line["call_id"], request.call_id);
        assert_eq!(line["method"], "MESSAGE");
        assert_eq!(line["tenant"], "default");
        assert_eq!(line["source"], caller.local().to_string());
        assert_eq!(line["status"], 200);
        let uri = line["uri"].as_str().expect("a URI");
        assert!(uri.starts_with("sip:u") && !uri.contains("bob"), "{uri}");
    }
    assert_eq!(lines[0]["cause"], "answered");
    assert_eq!(lines[1]["attempts"], 1);
    assert_eq!(lines[1]["cancelled"], false);
    assert!(lines[1]["final_response_ms"].is_u64());

    let told = wait::until("both records are counted", || {
        let status = host.rpc("portcullis.status", json!([]))["result"].take();
        let told = &status["records"]["calls"];
        (told["written"] == 2 && told["waiting_bytes"] == 0).then(|| told.clone())
    });
    assert_eq!(told["file"].as_str(), file.to_str());
    for (member, value) in [
        ("writer_too_slow", json!(0)),
        ("line_too_long", json!(0)),
        ("file_failed", json!(0)),
        ("error", Value::Null),
    ] {
        assert_eq!(told[member], value, "{member}: {told}");
    }
    assert_eq!(host.metric("portcullis_call_records_trouble", &[]), 0.0);
}
