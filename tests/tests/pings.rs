//! Pings of the dispatcher, end to end: gateways that stop answering and come back, and Kamailio's states beside ours.

#![forbid(unsafe_code)]

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_testkit::callee::{Callee, ok_to};
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::control::open_all;
use portcullis_testkit::guests::module;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{self, Kamailio};
use portcullis_testkit::secure_gateway::SecureGateway;
use portcullis_testkit::sip::Message;
use portcullis_testkit::wait;
use serde_json::{Value, json};

/// The last byte of the address of the first gateway.
const GATEWAY: u8 = 20;
const CALLER: u8 = 10;

/// Tells a gateway to be silent.
const SILENT: u16 = 0;

/// A gateway over UDP, whose answer can be changed. It ends with its value.
struct Gateway {
    addr: SocketAddr,
    code: Arc<AtomicU16>,
    /// The seconds in Retry-After of a 503 to everything but pings; 0: it answers what it answers to pings.
    retry_after: Arc<AtomicU16>,
    ends: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(SocketAddr, String)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    fn start(addr: SocketAddr) -> Self {
        let socket = UdpSocket::bind(addr).expect("the gateway's address is free");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a time limit");
        let code = Arc::new(AtomicU16::new(200));
        let retry_after = Arc::new(AtomicU16::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = (Arc::clone(&code), Arc::clone(&ends), Arc::clone(&seen));
        let pause = Arc::clone(&retry_after);
        let thread = std::thread::spawn(move || {
            let (code, ends, seen) = all;
            let mut buffer = vec![0; 65_536];
            while !ends.load(Ordering::Relaxed) {
                let Ok((count, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let request = Message::new(buffer[..count].to_vec());
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push((peer, text));
                let code = code.load(Ordering::Relaxed);
                if code == SILENT || request.first_word() == "ACK" {
                    continue;
                }
                let ok = String::from_utf8_lossy(&ok_to(&request, addr)).into_owned();
                let line = match pause.load(Ordering::Relaxed) {
                    seconds @ 1.. if request.first_word() != "OPTIONS" => {
                        format!("503 Answer\r\nRetry-After: {seconds}")
                    }
                    _ => format!("{code} Answer"),
                };
                let answer = ok.replacen("200 OK", &line, 1);
                let _sent = socket.send_to(answer.as_bytes(), peer);
            }
        });
        Self {
            addr,
            code,
            retry_after,
            ends,
            seen,
            thread: Some(thread),
        }
    }

    fn answer(&self, code: u16) {
        self.code.store(code, Ordering::Relaxed);
    }

    /// What it has received: the source and the text of each request with this method.
    fn requests(&self, method: &str) -> Vec<(SocketAddr, String)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let with = seen.iter().filter(|(_, text)| text.starts_with(method));
        with.cloned().collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// A policy that relays to the first destinations of set 1 by priority, and rejects with 503 if none is up.
fn by_priority() -> Vec<u8> {
    module(
        r#"(module
            (import "portcullis:policy/dispatcher@0.1.0" "add-set"
              (func $add-set (param i32 i32 i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\01\00\00\00\f7\01\00\00")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32)
              (call $add-set (i32.const 1) (i32.const 8) (i32.const 256) (i32.const 0)
                (i32.const 16) (i32.const 0) (i32.const 512))
              (if (i32.load8_u (i32.const 512)) (then (return (i32.const 16))))
              (if (i32.eqz (i32.load8_u (i32.const 513))) (then (return (i32.const 16))))
              i32.const 64))"#,
    )
}

/// A host with these rows, which pings five times a second and marks a destination after two signs.
fn start(builder: Builder, folder: &Path, rows: &str) -> Host {
    configured(builder, folder, rows, ["200ms", "300ms"]).start()
}

/// `times` are those of `ping` and `ping-timeout`.
fn configured(builder: Builder, folder: &Path, rows: &str, times: [&str; 2]) -> Builder {
    let [ping, timeout] = times;
    let policy = folder.join("by-priority.wasm");
    std::fs::write(&policy, by_priority()).expect("the policy can be written");
    let list = folder.join("dispatcher.list");
    std::fs::write(&list, rows).expect("the list can be written");
    builder
        .policy(&policy)
        .set("dispatcher", &format!("file = {list:?}"))
        .set("dispatcher", &format!("ping = \"{ping}\""))
        .set("dispatcher", &format!("ping-timeout = \"{timeout}\""))
        .set("dispatcher", "down-after = 2")
        .set("dispatcher", "up-after = 2")
        .set("relay", "no-answer = \"200ms\"")
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Two gateways of set 1 and their rows; the first one has the higher priority.
fn two(builder: &Builder) -> (Gateway, Gateway, String) {
    let gateway = |number| Gateway::start(builder.lease().addr(GATEWAY + number, 5080));
    let (one, two) = (gateway(0), gateway(1));
    let rows = format!("1 sip:{} 0 20\n1 sip:{} 0 10\n", one.addr, two.addr);
    (one, two, rows)
}

fn destinations(host: &Host) -> Vec<Value> {
    let shown = host.rpc("dispatcher.show", json!([]));
    let all = shown["result"]["sets"][0]["destinations"].as_array();
    all.unwrap_or_else(|| panic!("{shown}")).clone()
}

fn states(host: &Host) -> Vec<String> {
    let states = destinations(host);
    let text = |one: &Value| one["state"].as_str().expect("a text").to_owned();
    states.iter().map(text).collect()
}

fn wait_for_states(host: &Host, expected: &[&str]) {
    let mut last = Vec::new();
    let reached = wait::within(wait::PATIENCE, || {
        last = states(host);
        (last == expected).then_some(())
    });
    assert!(
        reached.is_some(),
        "{last:?} in place of {expected:?}: {:?}",
        destinations(host)
    );
}

fn ask(host: &Host, number: usize) -> String {
    let mut caller = host.udp(CALLER);
    let mut request = caller.request("MESSAGE", "sip:bob@example.com");
    request.call_id = format!("call-{number}");
    caller.ask(&request).start_line().to_owned()
}

#[test]
fn gateways_go_down_when_they_stop_answering_and_up_when_they_are_back() {
    let folder = temporary();
    let builder = Builder::new().workers(2);
    let (one, two, rows) = two(&builder);
    let host = start(builder, folder.path(), &rows);
    wait_for_states(&host, &["AP", "AP"]);
    let (source, ping) = one.requests("OPTIONS").remove(0);
    assert_eq!(source, host.sip(), "the socket that requests leave by");
    for part in [
        format!("OPTIONS sip:{} SIP/2.0\r\n", one.addr),
        format!("\r\nTo: <sip:{}>\r\n", one.addr),
        format!("\r\nFrom: <sip:dispatcher@{}>;tag=", host.sip()),
    ] {
        assert!(ping.contains(&part), "{part}: {ping}");
    }
    assert_eq!(ask(&host, 1), "SIP/2.0 200 Answer");
    assert_eq!(one.requests("MESSAGE").len(), 1);

    one.answer(SILENT);
    wait_for_states(&host, &["IP", "AP"]);
    host.wait_for_log("destination_down");
    let before = one.requests("MESSAGE").len();
    assert_eq!(ask(&host, 2), "SIP/2.0 200 Answer");
    assert_eq!(one.requests("MESSAGE").len(), before, "requests avoid it");
    let failure = destinations(&host)[0]["ping_failure"].to_string();
    assert!(
        failure.contains("no answer from") && failure.contains("ping-timeout"),
        "{failure}"
    );
    let shown = host.run("dispatcher show");
    assert!(shown.contains("no answer from"), "{shown}");

    two.answer(500);
    wait_for_states(&host, &["IP", "IP"]);
    host.wait_for_log("set_down");
    let failure = destinations(&host)[1]["ping_failure"].to_string();
    assert!(
        failure.contains("500 is not one of `ping-codes` (2xx, 3xx, 4xx)"),
        "{failure}"
    );
    assert!(ask(&host, 3).starts_with("SIP/2.0 503"));
    wait::until("the alert is there", || {
        let status = host.rpc("portcullis.status", json!([]));
        let alerts = status["result"]["alerts"].to_string();
        alerts.contains("no destination of set 1").then_some(())
    });
    let open = |host: &Host| {
        host.metric(
            "portcullis_dispatcher_set_open_destinations",
            &["set=\"1\""],
        )
    };
    assert_eq!(open(&host), 0.0);
    for result in ["good", "bad", "silent"] {
        let label = format!("result=\"{result}\"");
        assert!(
            host.metric("portcullis_dispatcher_pings_total", &[&label]) > 0.0,
            "{result}"
        );
    }

    // A code of the right class: it need not be 200.
    one.answer(404);
    two.answer(200);
    wait_for_states(&host, &["AP", "AP"]);
    host.wait_for_log("set_up");
    assert_eq!(open(&host), 2.0);
    let latency = destinations(&host)[1]["latency_estimate_ms"].as_f64();
    assert!(latency.is_some_and(|latency| latency > 0.0), "{latency:?}");
    let status = host.rpc("portcullis.status", json!([]));
    wait::until("the alert is over", || {
        let status = host.rpc("portcullis.status", json!([]));
        let alerts = status["result"]["alerts"].to_string();
        (!alerts.contains("set 1")).then_some(())
    });
    assert!(status["result"]["alerts"].is_array());
}

#[test]
fn an_address_that_leads_nowhere_marks_only_its_own_destination() {
    let folder = temporary();
    let builder = Builder::new();
    let addr = |number| builder.lease().addr(GATEWAY + number, 5080);
    let callee = Callee::start(addr(0));
    let rows = format!(
        "1 sip:{};transport=tcp 0 50\n1 sip:{} 0 40\n1 sip:{};transport=tcp 0 30\n\
         1 sip:nowhere.invalid 0 20\n1 sip:{} 4 10\n1 sip:{} 32 5\n",
        callee.addr(),
        addr(1),
        addr(2),
        addr(3),
        addr(4)
    );
    let builder = builder
        .set("resolver", "servers = [\"127.0.0.1:9\"]")
        .set("resolver", "hosts-file = false")
        .set("resolver", "timeout = \"500ms\"");
    let host = start(builder, folder.path(), &rows);
    wait_for_states(&host, &["AP", "IP", "IP", "IP", "DX", "AX"]);
    let ping = callee.next();
    assert_eq!(ping.first_word(), "OPTIONS");
    assert!(ping.headers("Via")[0].contains("SIP/2.0/TCP"), "{ping:?}");
    let failures: Vec<_> = destinations(&host)
        .iter()
        .map(|one| one["ping_failure"].to_string())
        .collect();
    assert_eq!(failures[0], "null");
    for refused in &failures[1..3] {
        assert!(refused.contains("cannot be reached"), "{failures:?}");
    }
    assert!(failures[3].contains("nowhere.invalid"), "{failures:?}");
    assert_eq!(failures[4..], ["null", "null"], "they are not pinged");
    assert!(host.metric("portcullis_dispatcher_pings_total", &["unreachable"]) > 0.0);
}

#[test]
fn a_gateway_that_asks_for_a_pause_has_it_although_it_answers_pings() {
    let folder = temporary();
    let builder = Builder::new();
    let (one, _two, rows) = two(&builder);
    let host = start(builder, folder.path(), &rows);
    wait_for_states(&host, &["AP", "AP"]);
    one.retry_after.store(3_600, Ordering::Relaxed);
    assert_eq!(
        ask(&host, 1),
        "SIP/2.0 200 Answer",
        "the next one serves it"
    );
    wait_for_states(&host, &["IP", "AP"]);
    let asked = one.requests("MESSAGE").len();
    let pings = one.requests("OPTIONS").len();
    wait::until("it answers pings", || {
        (one.requests("OPTIONS").len() > pings + 3).then_some(())
    });
    let shown = destinations(&host).remove(0);
    assert_eq!(shown["state"], "IP", "{shown}");
    assert!(
        shown["paused_until"].is_string() && shown["ping_failure"].is_null(),
        "{shown}"
    );
    assert_eq!(ask(&host, 2), "SIP/2.0 200 Answer");
    assert_eq!(one.requests("MESSAGE").len(), asked, "requests avoid it");
    let shown = host.run("dispatcher show");
    assert!(shown.contains("(Retry-After)"), "{shown}");
    host.wait_for_log("paused_until");

    // The operator ends a pause, and a short one ends by itself.
    host.run(&format!("dispatcher set-state a 1 sip:{}", one.addr));
    wait_for_states(&host, &["AP", "AP"]);
    one.retry_after.store(1, Ordering::Relaxed);
    assert_eq!(ask(&host, 3), "SIP/2.0 200 Answer");
    assert_eq!(one.requests("MESSAGE").len(), asked + 1);
    one.retry_after.store(0, Ordering::Relaxed);
    wait_for_states(&host, &["AP", "AP"]);
    wait::until("it gets requests again", || {
        assert_eq!(ask(&host, 4), "SIP/2.0 200 Answer");
        (one.requests("MESSAGE").len() > asked + 1).then_some(())
    });
}

#[test]
fn gateways_over_tls_are_pinged_and_a_wrong_certificate_is_named() {
    let (folder, stranger) = (temporary(), temporary());
    for folder in [&folder, &stranger] {
        authority(folder.path(), "ca");
    }
    let builder = Builder::new();
    let listen = builder.lease().addr(1, 5061);
    let [one, two] = [0, 1].map(|number| builder.lease().addr(GATEWAY + number, 5061));
    certificate(folder.path(), "edge", "DNS:edge.example");
    certificate(folder.path(), "one", &format!("IP:{}", one.ip()));
    certificate(folder.path(), "two", &format!("IP:{}", two.ip()));
    certificate(folder.path(), "other", "DNS:other.example");
    certificate(stranger.path(), "one", &format!("IP:{}", one.ip()));
    let file = |name: &str| format!("{:?}", folder.path().join(name));
    let rows = format!("1 sips:{one} 0 20\n1 sip:{two};transport=tls 0 10\n");
    let builder = builder
        .listen(&format!("tls:{listen}"))
        .set("tls.edge", &format!("certificate = {}", file("edge.pem")))
        .set("tls.edge", &format!("key = {}", file("edge.key")))
        .set("relay.tls", &format!("ca = {}", file("ca.pem")));
    let first = SecureGateway::start(one, folder.path(), "one");
    let second = SecureGateway::start(two, folder.path(), "other");
    // Long enough for handshakes: that they fail is no question of time.
    let host = configured(builder, folder.path(), &rows, ["200ms", "10s"]).start();
    let wait_for_failure = |slot: usize, said: &str| {
        wait::until(said, || {
            let failure = destinations(&host)[slot]["ping_failure"].to_string();
            failure.contains(said).then_some(())
        });
    };
    wait_for_states(&host, &["AP", "IP"]);
    wait_for_failure(1, "over TLS cannot be reached: TLS handshake failed: ");
    wait_for_failure(1, "not valid for name");
    let shown = host.run("dispatcher show");
    assert!(shown.contains("not valid for name"), "{shown}");
    wait::until("the log says why", || {
        let log = host.log();
        let mut down = log.lines().filter(|line| line.contains("destination_down"));
        down.any(|line| line.contains("not valid for name"))
            .then_some(())
    });
    assert_eq!(second.answered("OPTIONS"), 0, "a stranger gets nothing");
    assert_eq!(ask(&host, 1), "SIP/2.0 200 OK");
    assert_eq!(first.answered("MESSAGE"), 1);

    drop(second);
    let second = SecureGateway::start(two, folder.path(), "two");
    wait_for_states(&host, &["AP", "AP"]);
    assert!(second.answered("OPTIONS") > 0);

    drop(first);
    wait_for_states(&host, &["IP", "AP"]);
    wait_for_failure(0, "over TLS cannot be reached: ");
    let first = SecureGateway::start(one, stranger.path(), "one");
    wait_for_failure(0, "invalid peer certificate");
    assert_eq!(
        (states(&host), first.answered("OPTIONS")),
        (vec!["IP".into(), "AP".into()], 0)
    );
    drop(first);
    let _first = SecureGateway::start(one, folder.path(), "one");
    wait_for_states(&host, &["AP", "AP"]);
    assert_eq!(ask(&host, 2), "SIP/2.0 200 OK");
}

#[test]
fn pings_can_be_switched_off_and_on() {
    let folder = temporary();
    let builder = open_all(Builder::new());
    let (one, _two, rows) = two(&builder);
    let host = start(builder, folder.path(), &rows);
    wait_for_states(&host, &["AP", "AP"]);
    assert_eq!(host.run("dispatcher pings"), "on: 2 destinations pinged\n");
    assert_eq!(host.run("dispatcher pings off"), "off: nothing is pinged\n");
    let said = kamailio::kamcmd(&host.folder().join("ctl"), &["dispatcher.ping_active", "1"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("NewPingState: 1") && said.contains("OldPingState: 0"),
        "{said}"
    );
    one.answer(SILENT);
    wait_for_states(&host, &["IP", "AP"]);
}

#[test]
fn states_and_calls_survive_an_upgrade() {
    let folder = temporary();
    let builder = Builder::new();
    let (one, _two, rows) = two(&builder);
    // Nothing is pinged within the test, so that only what was known before is known after.
    let mut host = configured(builder, folder.path(), &rows, ["24h", "300ms"]).start();
    let mut caller = host.udp(CALLER);
    let invite = caller.request("INVITE", "sip:bob@example.com");
    let answer = caller.ask(&invite);
    assert_eq!(answer.start_line(), "SIP/2.0 200 Answer");
    let calls = |host: &Host| host.metric("portcullis_dispatcher_calls", &[]);
    wait::until("the call is counted", || {
        (calls(&host) == 1.0).then_some(())
    });
    one.answer(SILENT);
    for number in 0..2 {
        // The second gateway answers: nobody is told that a MESSAGE got no answer (RFC 4320 §4.2).
        assert_eq!(ask(&host, number), "SIP/2.0 200 Answer");
    }
    let second = format!("dispatcher set-state d 1 sip:{}", two_of(&rows));
    host.run(&second);
    wait_for_states(&host, &["IP", "DX"]);
    host.upgrade();
    wait_for_states(&host, &["IP", "DX"]);
    assert_eq!(calls(&host), 1.0);
    one.answer(200);
    let bye = invite.within(&answer, "BYE", 2);
    assert_eq!(caller.ask(&bye).start_line(), "SIP/2.0 200 Answer");
    wait::until("the call has ended", || (calls(&host) == 0.0).then_some(()));
}

/// The address of the second row.
fn two_of(rows: &str) -> &str {
    let second = rows.lines().nth(1).and_then(|line| line.split(' ').nth(1));
    second
        .and_then(|uri| uri.strip_prefix("sip:"))
        .expect("there are two rows")
}

/// The URIs and states that `kamcmd dispatcher.list` shows.
fn listed(socket: &Path) -> Vec<String> {
    let said = kamailio::kamcmd(socket, &["dispatcher.list", "short"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let lines = said.lines().map(str::trim);
    let shown = lines.filter(|line| line.starts_with("URI:") || line.starts_with("FLAGS:"));
    shown.map(str::to_owned).collect()
}

#[test]
fn peers_kamailio_has_the_same_states() {
    let folder = temporary();
    let builder = open_all(Builder::new());
    let gateway = |number| Gateway::start(builder.lease().addr(GATEWAY + number, 5080));
    let gateways = [gateway(0), gateway(1)];
    let rows = format!(
        "1 sip:{} 0 40\n1 sip:{} 1 30\n1 sip:{} 4 20\n",
        gateways[0].addr,
        gateways[1].addr,
        builder.lease().addr(GATEWAY + 3, 5080)
    );
    let list = folder.path().join("list");
    std::fs::write(&list, &rows).expect("the list can be written");
    let values = [
        ("SIP", builder.lease().addr(2, 5060).to_string()),
        ("LIST", list.display().to_string()),
    ];
    let kamailio = Kamailio::start(include_str!("pings/kamailio.cfg"), &values, &[]);
    let host = start(builder, folder.path(), &rows);
    let sockets = [kamailio.ctl(), host.folder().join("ctl")];
    let wait_for = |first: &str, second: &str| {
        let expected = [
            format!("URI: sip:{}", gateways[0].addr),
            format!("FLAGS: {first}"),
            format!("URI: sip:{}", gateways[1].addr),
            format!("FLAGS: {second}"),
            format!(
                "URI: sip:{}",
                rows.lines()
                    .nth(2)
                    .and_then(|line| line.split("sip:").nth(1))
                    .and_then(|rest| rest.split(' ').next())
                    .expect("a third row")
            ),
            "FLAGS: DX".to_owned(),
        ];
        for socket in &sockets {
            let mut last = Vec::new();
            let reached = wait::within(wait::PATIENCE, || {
                last = listed(socket);
                (last == expected).then_some(())
            });
            assert!(
                reached.is_some(),
                "{}: {last:?} in place of {expected:?}",
                socket.display()
            );
        }
    };
    // An inactive row, too, becomes active when it answers.
    wait_for("AP", "AP");
    gateways[0].answer(SILENT);
    wait_for("IP", "AP");
    gateways[1].answer(503);
    wait_for("IP", "IP");
    gateways[0].answer(302);
    wait_for("AP", "IP");
    gateways[1].answer(200);
    wait_for("AP", "AP");
    for words in [
        &["dispatcher.ping_active"][..],
        &["dispatcher.ping_active", "0"],
        &["dispatcher.ping_active"],
        &["dispatcher.ping_active", "5"],
        &["dispatcher.ping_active", "x"],
        &["dispatcher.ping_active", "1"],
    ] {
        let said = sockets.each_ref().map(|socket| {
            let output = kamailio::kamcmd(socket, words);
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        });
        assert_eq!(said[0], said[1], "{words:?}");
    }
}
