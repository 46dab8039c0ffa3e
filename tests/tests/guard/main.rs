//! Strangers who scan, guess and flood are held or banned, and nobody else is concerned.

#![forbid(unsafe_code)]

mod bans;

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::callee::ok_to;
use portcullis_testkit::control::open_all;
use portcullis_testkit::guests::{module, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{self, Kamailio};
use portcullis_testkit::messages::Request;
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait;
use serde_json::{Value, json};

const SCANNER: u8 = 9;
const NEIGHBOUR: u8 = 8;
const SPY: u8 = 7;
const HOP: u8 = 3;

/// A host that relays everything to a registrar, where only the users `1000` and `phone` exist.
fn start(builder: Builder) -> Host {
    start_counting(builder).0
}

/// The same, and the number of requests that the registrar has seen for others than `phone`.
fn start_counting(builder: Builder) -> (Host, Arc<AtomicU64>) {
    let hop = builder.lease().addr(HOP, 5080);
    let socket = UdpSocket::bind(hop).expect("the address of the registrar is free");
    let seen = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&seen);
    // The thread ends with the process.
    std::thread::spawn(move || register(&socket, &counted));
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop}\""))
        .set("guard", "exempt = []")
        .start();
    (host, seen)
}

fn register(socket: &UdpSocket, seen: &AtomicU64) {
    let local = socket.local_addr().expect("a bound socket has an address");
    let mut buffer = vec![0; 65_536];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
        let request = Message::new(with_long_names(&buffer[..count]));
        if request.first_word() == "ACK" {
            continue;
        }
        let is_phone = request
            .header("To")
            .is_some_and(|to| to.contains("sip:phone@"));
        seen.fetch_add(u64::from(!is_phone), Ordering::Relaxed);
        let ok = String::from_utf8(ok_to(&request, local)).expect("a response is text");
        let answer = match answer_to(&request) {
            None => ok,
            Some(status) => ok.replacen("200 OK", &status, 1),
        };
        let _sent = socket.send_to(answer.as_bytes(), peer);
    }
}

/// A request with the long names of the header fields that a response repeats.
fn with_long_names(request: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(request).into_owned();
    for (compact, long) in [("v", "Via"), ("f", "From"), ("t", "To"), ("i", "Call-ID")] {
        text = text.replace(&format!("\r\n{compact}:"), &format!("\r\n{long}:"));
    }
    text.into_bytes()
}

/// The status line and the challenge of a registrar; `None` for 200.
fn answer_to(request: &Message) -> Option<String> {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let to = request.header("To").expect("a request has To");
    if !to.contains("sip:1000@") && !to.contains("sip:phone@") {
        return Some("404 Not Found".into());
    }
    let credentials = request.header("Authorization").unwrap_or_default();
    if credentials.contains("response=\"right\"") {
        return None;
    }
    let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
    Some(format!(
        "401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"test\", nonce=\"n{nonce}\""
    ))
}

/// A REGISTER of this user.
fn register_of(caller: &Caller, user: &str) -> Request {
    let mut request = caller.request("REGISTER", "sip:registrar.example");
    request.to = format!("<sip:{user}@registrar.example>");
    request.from.clone_from(&request.to);
    request
}

/// Registers as a phone does: with the nonce of the challenge.
fn registers(caller: &mut Caller) -> bool {
    let request = register_of(caller, "phone");
    let Some(challenge) = caller.try_ask(&request) else {
        return false;
    };
    assert_eq!(challenge.code(), 401);
    let challenge = challenge.header("WWW-Authenticate").expect("a challenge");
    let nonce = challenge.split('"').nth(3).expect("a nonce");
    let credentials =
        format!("Authorization: Digest username=\"phone\", nonce=\"{nonce}\", response=\"right\"");
    let again = register_of(caller, "phone").header(&credentials);
    caller
        .try_ask(&again)
        .is_some_and(|answer| answer.code() == 200)
}

fn listed(host: &Host) -> Vec<(String, String, String)> {
    let list: Value = serde_json::from_str(&host.run("guard list --json")).expect("a list");
    let text = |one: &Value, key: &str| one[key].as_str().expect("a text").to_owned();
    let list = list.as_array().expect("a list").iter();
    list.map(|one| (text(one, "source"), text(one, "state"), text(one, "reason")))
        .collect()
}

fn dropped(host: &Host, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    host.metric("portcullis_dropped_total", &[label.as_str()])
}

/// Asks for many users, until the source is held.
fn scan(host: &Host, caller: &mut Caller, state: &str) {
    let source = caller.local().ip().to_string();
    let mut user = 0;
    wait::until("the scanner is found", || {
        for _ in 0..10 {
            user += 1;
            caller.send(&register_of(caller, &format!("u{user}")).bytes());
        }
        let found = listed(host);
        found
            .iter()
            .any(|(one, is, _)| *one == source && is == state)
            .then_some(())
    });
}

#[test]
fn a_scan_over_udp_is_held_and_its_neighbour_is_not() {
    let host = start(Builder::new());
    let mut scanner = host.udp(SCANNER);
    scan(&host, &mut scanner, "held");
    let source = scanner.local().ip();
    let found = listed(&host);
    let [(found, state, reason)] = &found[..] else {
        panic!("one source is held: {found:?}")
    };
    assert_eq!(*found, source.to_string());
    assert_eq!((state.as_str(), reason.as_str()), ("held", "users"));
    // Nothing new comes through but two requests a second.
    let before = dropped(&host, "held");
    let begun = Instant::now();
    for user in 0..200 {
        scanner.send(&register_of(&scanner, &format!("later{user}")).bytes());
    }
    let mut neighbour = host.udp(NEIGHBOUR);
    assert!(registers(&mut neighbour));
    wait::until("the requests of the scanner are dropped", || {
        let served = 2.0 + 2.0 * begun.elapsed().as_secs_f64();
        (dropped(&host, "held") - before >= 200.0 - served.ceil()).then_some(())
    });
    let labels = ["state=\"held\"", "reason=\"users\""];
    assert_eq!(
        host.metric("portcullis_guard_sources_barred_total", &labels),
        1.0
    );
    assert_eq!(host.metric("portcullis_guard_held_sources", &[]), 1.0);
    host.wait_for_log("event=\"source_held\"");
    let text = host.run("guard list");
    assert!(text.contains("held") && text.contains("users"), "{text}");
    assert_eq!(
        host.run(&format!("guard release {source}")),
        format!("released {source}\n")
    );
    assert_eq!(host.run("guard list"), "no source is held or banned\n");
    host.wait_for_log("event=\"source_released\"");
    assert!(registers(&mut host.udp(SCANNER)));
    let again = host.refused(&format!("guard release {source}"));
    assert!(again.contains("neither held nor banned"), "{again}");
    let wrong = host.refused("guard release everybody");
    assert!(wrong.contains("is not an address"), "{wrong}");
}

/// Somebody forges the address of a phone, from another port.
#[test]
fn a_phone_is_served_although_its_address_is_forged() {
    let host = start(Builder::new());
    let mut phone = host.udp(SCANNER);
    assert!(registers(&mut phone));
    let mut forger = host.udp(SCANNER);
    scan(&host, &mut forger, "held");
    // Its user was served here before; each request would otherwise be one of two a second.
    for _ in 0..20 {
        assert!(registers(&mut phone));
        for user in 0..20 {
            forger.send(&register_of(&forger, &format!("x{user}")).bytes());
        }
    }
}

#[test]
fn a_scan_over_tcp_bans_its_source_and_closes_its_connections() {
    let host = start(Builder::new());
    let mut scanner = host.tcp(SCANNER);
    let mut user = 0;
    let mut is_open = true;
    wait::until("the scanner is banned", || {
        for _ in 0..10 {
            user += 1;
            let request = register_of(&scanner, &format!("u{user}"));
            is_open = is_open && scanner.try_ask(&request).is_some();
            if !is_open {
                break;
            }
        }
        let found = listed(&host);
        found
            .iter()
            .any(|(_, state, _)| state == "banned")
            .then_some(())
    });
    let source = scanner.local().ip();
    let mut again = Caller::tcp(source, host.sip());
    assert!(again.read_to_end().is_empty(), "it is closed at once");
    // Over UDP, nothing is accepted either.
    let before = dropped(&host, "banned");
    let mut datagrams = host.udp(SCANNER);
    datagrams.send(&register_of(&datagrams, "phone").bytes());
    wait::until("the datagram is dropped", || {
        (dropped(&host, "banned") > before).then_some(())
    });
    assert!(registers(&mut host.udp(NEIGHBOUR)));
    assert!(registers(&mut host.tcp(NEIGHBOUR)));
    host.wait_for_log("event=\"source_banned\"");
    host.run(&format!("guard release {source}"));
    assert!(registers(&mut host.udp(SCANNER)));
}

/// A forger does not see the tag that an ACK to the host's own refusal has: neither by guessing, nor by sending the same INVITE from an address of its
/// own.
#[test]
fn whoever_acknowledges_refusals_over_udp_is_banned() {
    let host = Builder::new()
        .set(
            "guard",
            "exempt = []\nusers = 0\nrefusals = 5\nheld-rate = 1000",
        )
        .start();
    host.replace_policy(&rejecting(404, "Not Found"));
    host.run("policy reload");
    let mut forger = host.udp(NEIGHBOUR);
    let mut scanner = host.udp(SCANNER);
    let mut spy = host.udp(SPY);
    for _ in 0..5 {
        let invite = forger.request("INVITE", "sip:1@b");
        // The policy refuses its ACK too. It is held then, and one of two messages at once may be dropped.
        let answer = wait::until("the forger is answered", || {
            forger.send(&invite.bytes());
            forger.receive_within(Duration::from_millis(500))
        });
        // The tag is wrong.
        let mut ack = invite.ack_for(&answer);
        ack.to = format!("{}x", ack.to);
        forger.send(&ack.bytes());
        // This one is right for another address.
        spy.send(&invite.bytes());
        let seen = spy.receive();
        forger.send(&invite.ack_for(&seen).bytes());
    }
    for _ in 0..5 {
        let invite = scanner.request("INVITE", "sip:1@b");
        let answer = scanner.ask(&invite);
        scanner.send(&invite.ack_for(&answer).bytes());
    }
    let states = || {
        let mut states = listed(&host);
        states.sort();
        states
            .into_iter()
            .map(|(_, state, _)| state)
            .collect::<Vec<_>>()
    };
    wait::until("the scanner is banned", || {
        // The refusals of the spy were acknowledged by nobody.
        (states() == ["held", "held", "banned"]).then_some(())
    });
}

#[test]
fn nobody_in_the_address_table_is_held_and_a_new_row_ends_a_ban() {
    let builder = Builder::new();
    let member = builder.lease().ip(SCANNER);
    let host = start(builder.row(&format!("7 {member} 32 5999")));
    let mut scanner = host.udp(SCANNER);
    for user in 0..200 {
        let answer = scanner.ask(&register_of(&scanner, &format!("u{user}")));
        assert_eq!(answer.code(), 404);
    }
    assert!(listed(&host).is_empty());
    let mut other = host.udp(NEIGHBOUR);
    scan(&host, &mut other, "held");
    let ip = other.local().ip();
    host.run(&format!("address add 8 {ip} 32"));
    host.run("address reload");
    for user in 0..50 {
        other.send(&register_of(&other, &format!("u{user}")).bytes());
    }
    assert!(registers(&mut host.udp(NEIGHBOUR)));
    assert!(listed(&host).is_empty());
}

#[test]
fn a_flood_is_cut_to_its_rate_and_malformed_messages_count() {
    let builder = Builder::new().set("guard", "rate = 10\nburst = 20\nmalformed = 1000");
    let host = start(builder);
    let mut flood = host.udp(SCANNER);
    for _ in 0..500 {
        flood.send(b"OPTIONS sip:x SIP/2.0\r\n\r\n");
    }
    wait::until("most are dropped", || {
        (dropped(&host, "flood") >= 400.0).then_some(())
    });
    assert!(
        listed(&host).is_empty(),
        "the address of a datagram may be forged"
    );
    assert!(registers(&mut host.udp(NEIGHBOUR)));
    let mut stream = host.tcp(SCANNER + 2);
    for _ in 0..100 {
        stream.send(b"\r\n\r\n");
    }
    let options = stream
        .request("OPTIONS", &format!("sip:{}", host.sip()))
        .bytes();
    let sent = std::iter::repeat_n(options, 50).flatten();
    stream.send(&sent.collect::<Vec<_>>());
    wait::until("the peer of the stream is banned", || {
        let found = listed(&host);
        found
            .iter()
            .any(|(_, state, reason)| state == "banned" && reason == "flood")
            .then_some(())
    });
}

#[test]
fn the_list_is_the_same_over_every_door() {
    let host = start(Builder::new().set("guard", "malformed = 3"));
    let mut scanner = host.udp(SCANNER);
    for _ in 0..5 {
        scanner.send(b"NONSENSE\r\n\r\n");
        scanner.send(&scanner.request("BLAH", "sip:a@b").bytes());
    }
    wait::until("it is held", || (!listed(&host).is_empty()).then_some(()));
    let (status, body) = host.get("/v1/guard").expect("the host answers");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body[0]["reason"]), (200, &json!("malformed")));
    let listed = host.rpc("guard.list", json!([]));
    assert_eq!(listed["result"][0]["source"], body[0]["source"]);
    let source = scanner.local().ip();
    let released = host.rpc("guard.release", json!([source.to_string()]));
    assert_eq!(released["result"]["source"], json!(source.to_string()));
}

/// The text of `pike`, with other numbers of hits and seconds.
fn shape_of(text: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name, _)) if name.contains("leaf_hits") || name.contains("expires") => {
            format!("{name}: N")
        }
        Some(_) | None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// `kamcmd` for both servers.
#[test]
fn peers_pike_says_the_same() {
    let builder = open_all(Builder::new()).set("guard", "malformed = 10\nrate = 5\nburst = 500");
    let sip = builder.lease().addr(2, 5060);
    let kamailio = Kamailio::start(
        include_str!("kamailio.cfg"),
        &[("SIP", sip.to_string())],
        &[],
    );
    let host = start(builder);
    let said = |socket: &Path, words: &[&str]| {
        let output = kamailio::kamcmd(socket, words);
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let compare = |words: &[&str]| {
        let ours = said(&host.folder().join("ctl"), words).map(|text| shape_of(&text));
        let theirs = said(&kamailio.ctl(), words).map(|text| shape_of(&text));
        assert_eq!(ours, theirs, "{words:?}");
        ours
    };
    let commands: [&[&str]; 7] = [
        &["pike.list"],
        &["pike.top"],
        &["pike.top", "ALL"],
        &["pike.list", "hot"],
        &["pike.top", "WARM"],
        &["pike.top", "nosuch"],
        &["system.methodHelp", "pike.list"],
    ];
    for words in commands {
        compare(words);
    }
    let mut scanner = host.udp(SCANNER);
    for _ in 0..40 {
        scanner.send(&scanner.request("BLAH", "sip:a@b").bytes());
    }
    let source = scanner.local().ip().to_string();
    scanner.turn_to(sip);
    for _ in 0..40 {
        scanner.send(&scanner.request("OPTIONS", "sip:a@b").bytes());
    }
    for socket in [host.folder().join("ctl"), kamailio.ctl()] {
        wait::until("the source is found", || {
            let [text, _] = said(&socket, &["pike.list"]);
            text.contains(&source).then_some(())
        });
    }
    for words in commands {
        let [text, _] = compare(words);
        let is_listed = matches!(words, ["pike.list"] | ["pike.top"] | [_, "ALL" | "hot"]);
        assert_eq!(text.contains("status: HOT"), is_listed, "{words:?}: {text}");
    }
    // One that is only suspected.
    let mut suspect = host.udp(NEIGHBOUR);
    suspect.send(&suspect.request("BLAH", "sip:a@b").bytes());
    wait::until("it is suspected", || {
        let [text, _] = said(&host.folder().join("ctl"), &["pike.top", "WARM"]);
        (text.contains(&suspect.local().ip().to_string()) && text.contains("status: WARM"))
            .then_some(())
    });
}

/// Python reads this file before a program. SIPVicious 0.3.3 has an option for the address that it sends from, and ignores it.
const SENDS_FROM: &str = r#"import os, socket

class Bound(socket.socket):
    def bind(self, address):
        super().bind((os.environ["SOURCE"], address[1]))

socket.socket = Bound
"#;

/// SIPVicious of Debian, as an attacker starts it.
#[test]
fn peers_sipvicious_is_stopped_and_its_neighbour_is_not() {
    let (host, seen) = start_counting(Builder::new().workers(2));
    host.write("sitecustomize.py", SENDS_FROM);
    let target = host.sip();
    let run = |tool: &str, source: IpAddr, words: &str| {
        let child = Command::new(tool)
            .args(["-x", &source.to_string()])
            .args(words.split_whitespace())
            .arg(target.ip().to_string())
            .env("HOME", host.folder())
            .env("PYTHONPATH", host.folder())
            .env("SOURCE", source.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child.expect("SIPVicious is installed: apt-get install sipvicious")
    };
    // What the registrar has seen of a scanner when it is held: the threshold, and what was on its way.
    for (number, (tool, words, most)) in [
        ("svwar", "-e 2000-9000 -m REGISTER --force", 60),
        ("svwar", "-e 2000-9000 -m OPTIONS --force", 60),
        ("svwar", "-e 2000-9000 -m INVITE --force", 60),
        ("svcrack", "-u 1000 -r 1-9000", 260),
    ]
    .into_iter()
    .enumerate()
    {
        let source = host.lease().ip(20 + number as u8);
        let before = seen.load(Ordering::Relaxed);
        let begun = Instant::now();
        let mut child = run(tool, source, words);
        let mut neighbour = host.udp(NEIGHBOUR);
        let mut served = 0;
        let found = wait::within(Duration::from_secs(60), || {
            assert!(registers(&mut neighbour), "the neighbour is not served");
            served += 1;
            let found = listed(&host);
            found
                .iter()
                .any(|(one, ..)| *one == source.to_string())
                .then(|| begun.elapsed())
        });
        let found = found.unwrap_or_else(|| panic!("{tool} {words} is not found"));
        let requests = seen.load(Ordering::Relaxed) - before;
        println!(
            "{tool} {words}: found after {found:?}; {requests} requests of it were relayed; the neighbour registered {served} times"
        );
        let while_held = 2 + 2 * begun.elapsed().as_secs();
        assert!(
            requests <= most + while_held,
            "{tool} {words}: {requests} requests were relayed"
        );
        // It has thousands of users or passwords left to try. Two requests a second pass, and one answer to the challenge of each.
        let (lost, since) = (dropped(&host, "held"), Instant::now());
        let at = seen.load(Ordering::Relaxed);
        wait::until("requests of the held source are dropped", || {
            (dropped(&host, "held") >= lost + 50.0).then_some(())
        });
        let more = seen.load(Ordering::Relaxed) - at;
        let passes = 2 + 2 * (1 + since.elapsed().as_secs());
        println!("{tool} {words}: {more} more in {:?}", since.elapsed());
        assert!(
            more <= 2 * passes + 2,
            "{tool} {words}: {more} requests were relayed while it was held"
        );
        let _ended = child.kill();
        let _status = child.wait();
    }
}

/// The filter of docs/guard.md finds bans in the log of the host, and nothing else.
#[test]
fn peers_fail2ban_reads_the_log() {
    let host = start(Builder::new());
    let mut scanner = host.tcp(SCANNER);
    let mut user = 0;
    wait::until("the scanner is banned", || {
        user += 1;
        let request = register_of(&scanner, &format!("u{user}"));
        let _closed = scanner.try_ask(&request)?;
        (!listed(&host).is_empty()).then_some(())
    });
    host.wait_for_log("source_banned");
    let page = std::fs::read_to_string(portcullis_testkit::root().join("docs/guard.md"));
    let page = page.expect("the page is there");
    let filter = page
        .split("[Definition]")
        .nth(1)
        .expect("the page has a filter");
    let filter = filter.split("```").next().expect("the block ends");
    host.write("filter.conf", format!("[Definition]{filter}"));
    let output = Command::new("fail2ban-regex")
        .arg(host.folder().join("log"))
        .arg(host.folder().join("filter.conf"))
        .output()
        .expect("fail2ban is installed: apt-get install fail2ban");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Failregex: 1 total"), "{text}");
}

/// Reports each sender as a scanner, and answers nobody.
const REPORTING: &str = r#"(module
    (import "portcullis:policy/guard@0.1.0" "report" (func $report (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\02")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "decide") (result i32)
      (drop (call $report (i32.const 1)))
      i32.const 16))"#;

#[test]
fn what_a_policy_reports_is_evidence_like_any_other() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let policy = folder.path().join("reporting.wasm");
    std::fs::write(&policy, module(REPORTING)).expect("a file can be written");
    let builder = Builder::new();
    let customer = builder.lease().ip(NEIGHBOUR);
    let host = builder
        .policy(policy)
        .row(&format!("200 {customer}"))
        .set("guard", "exempt = []")
        .set("guard", "malformed = 5")
        .start();
    let list_with = |source: String, state: &str| {
        wait::until("the source is listed", || {
            let wanted = (source.clone(), state.to_owned(), "malformed".to_owned());
            listed(&host).contains(&wanted).then_some(())
        });
    };
    let send = |caller: &mut Caller, count: usize| {
        for user in 0..count {
            let request = register_of(caller, &format!("u{user}"));
            caller.send(&request.bytes());
        }
    };
    // Of a member of the table, any number of reports is no evidence. Its requests are handled before those of the others.
    let mut known = host.udp(NEIGHBOUR);
    send(&mut known, 20);
    let mut over_udp = host.udp(SCANNER);
    let source = over_udp.local().ip().to_string();
    send(&mut over_udp, 4);
    // A datagram may be forged.
    send(&mut over_udp, 1);
    list_with(source.clone(), "held");
    let states: Vec<_> = listed(&host).into_iter().map(|one| one.0).collect();
    assert_eq!(states, [source], "the member of the table is not");

    let mut over_tcp = host.tcp(7);
    send(&mut over_tcp, 5);
    list_with(over_tcp.local().ip().to_string(), "banned");
}
