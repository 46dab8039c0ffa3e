//! The dispatcher, end to end: sets of gateways behind the host, their failures, and Kamailio's tools and choices.

#![forbid(unsafe_code)]

use std::net::UdpSocket;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::control::open_all;
use portcullis_testkit::guests::module;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{self, Kamailio};
use portcullis_testkit::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The last byte of the address of the first gateway.
const GATEWAY: u8 = 20;
const CALLER: u8 = 10;

/// A policy that relays to destinations of set 1 by this algorithm, and rejects with 503 if none is up.
fn dispatching(algorithm: u8, limit: u8) -> Vec<u8> {
    module(&format!(
        r#"(module
            (import "portcullis:policy/dispatcher@0.1.0" "add-set"
              (func $add-set (param i32 i32 i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\01\00\00\00\f7\01\00\00")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32)
              (call $add-set (i32.const 1) (i32.const {algorithm}) (i32.const 256) (i32.const 0)
                (i32.const {limit}) (i32.const 0) (i32.const 512))
              (if (i32.load8_u (i32.const 512)) (then (return (i32.const 16))))
              (if (i32.eqz (i32.load8_u (i32.const 513))) (then (return (i32.const 16))))
              i32.const 64))"#
    ))
}

/// A host with this set 1 of gateways, whose policy has this algorithm, and the directory of its list.
fn start(builder: Builder, lines: &[String], algorithm: u8) -> (Host, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let policy = folder.path().join("dispatching.wasm");
    std::fs::write(&policy, dispatching(algorithm, 16)).expect("the policy can be written");
    let list = folder.path().join("dispatcher.list");
    std::fs::write(&list, lines.join("\n")).expect("the list can be written");
    let host = builder
        .policy(&policy)
        .set("dispatcher", &format!("file = {list:?}"))
        .set("dispatcher", "ping = \"0s\"")
        .set("dispatcher", "down-after = 2")
        .set("dispatcher", "rest = \"3s\"")
        .set("relay", "no-answer = \"200ms\"")
        .start();
    (host, folder)
}

fn gateways(builder: &Builder, count: u8) -> Vec<Callee> {
    let addr = |number| builder.lease().addr(GATEWAY + number, 5080);
    (0..count)
        .map(|number| Callee::start(addr(number)))
        .collect()
}

fn lines(gateways: &[Callee]) -> Vec<String> {
    let lines = gateways.iter().enumerate();
    // Slots have the reverse order of the rows, so priorities say which is the first.
    lines
        .map(|(number, gateway)| format!("1 sip:{} 0 {}", gateway.addr(), 100 - number))
        .collect()
}

fn ask(host: &Host, number: usize) -> String {
    let mut caller = host.udp(CALLER);
    let mut request = caller.request("MESSAGE", "sip:bob@example.com");
    request.call_id = format!("call-{number}");
    caller.ask(&request).start_line().to_owned()
}

fn states(host: &Host) -> Vec<String> {
    let shown = host.rpc("dispatcher.show", json!([]));
    let all = shown["result"]["sets"][0]["destinations"].as_array();
    let all = all.unwrap_or_else(|| panic!("{shown}"));
    let state = |one: &Value| one["state"].as_str().expect("a text").to_owned();
    all.iter().map(state).collect()
}

#[test]
fn requests_go_around_the_gateways_of_a_set() {
    let builder = Builder::new();
    let gateways = gateways(&builder, 3);
    let (host, _folder) = start(builder, &lines(&gateways), 4);
    for number in 0..6 {
        assert_eq!(ask(&host, number), "SIP/2.0 200 OK");
        let request = gateways[number % 3].next();
        assert_eq!(request.first_word(), "MESSAGE");
    }
    assert!(gateways.iter().all(Callee::saw_nothing_more));
}

#[test]
fn a_silent_gateway_is_left_out_and_tried_again() {
    let builder = Builder::new();
    let silent = UdpSocket::bind(builder.lease().addr(GATEWAY + 9, 5080)).expect("a free address");
    let gateways = gateways(&builder, 1);
    let first = silent.local_addr().expect("a bound socket has an address");
    let mut list = lines(&gateways);
    list.push(format!("1 sip:{first} 0 200"));
    let (host, _folder) = start(builder, &list, 8);
    for number in 0..2 {
        assert_eq!(
            ask(&host, number),
            "SIP/2.0 200 OK",
            "the next one serves it"
        );
        gateways[0].next();
    }
    host.wait_for_log("destination_down");
    // After its rest it is tried, and answers.
    wait::until("the gateway has rested", || {
        (states(&host)[0] == "TP").then_some(())
    });
    drop(silent);
    let back = Callee::start(first);
    assert_eq!(ask(&host, 9), "SIP/2.0 200 OK");
    assert_eq!(back.next().first_word(), "MESSAGE");
    assert_eq!(states(&host), ["AX", "AX"]);
}

#[test]
fn operators_disable_gateways_and_states_survive_a_reload() {
    let builder = open_all(Builder::new());
    let gateways = gateways(&builder, 2);
    let (host, _folder) = start(builder, &lines(&gateways), 8);
    let first = format!("sip:{}", gateways[0].addr());
    let said = host.run(&format!("dispatcher set-state d 1 {first}"));
    assert_eq!(said, "Ok. Dispatcher state updated.\n");
    assert_eq!(ask(&host, 1), "SIP/2.0 200 OK");
    gateways[1].next();
    let reloaded = host.run("dispatcher reload");
    assert!(
        reloaded.starts_with(
            "Ok. Dispatcher successfully reloaded. 2 destinations in 1 set, generation 2"
        ),
        "{reloaded}"
    );
    assert_eq!(states(&host), ["DX", "AX"]);
    host.run("dispatcher set-state d 1 all");
    assert!(ask(&host, 2).starts_with("SIP/2.0 503"));
    let shown = host.run("dispatcher show");
    assert!(shown.contains(&first) && shown.contains("DX"), "{shown}");
    let error = host.refused("dispatcher set-state a 1 sip:nowhere.example");
    assert!(error.contains("State Update Failed"), "{error}");
}

#[test]
fn calls_are_counted_until_their_bye() {
    let builder = Builder::new();
    let gateways = gateways(&builder, 1);
    let (host, _folder) = start(builder, &lines(&gateways), 10);
    let mut caller = host.udp(CALLER);
    let invite = caller.request("INVITE", "sip:bob@example.com");
    let answer = caller.ask(&invite);
    assert_eq!(answer.start_line(), "SIP/2.0 200 OK");
    let load = |host: &Host| host.metric("portcullis_dispatcher_calls", &[]);
    wait::until("the call is counted", || (load(&host) == 1.0).then_some(()));
    let bye = invite.within(&answer, "BYE", 2);
    assert_eq!(caller.ask(&bye).start_line(), "SIP/2.0 200 OK");
    wait::until("the call has ended", || (load(&host) == 0.0).then_some(()));
}

/// A Kamailio with this list.
fn kamailio(list: &str, builder: &Builder) -> (Kamailio, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("list");
    std::fs::write(&file, list).expect("the list can be written");
    let values = [
        ("SIP", builder.lease().addr(2, 5060).to_string()),
        ("LIST", file.display().to_string()),
    ];
    let started = Kamailio::start(include_str!("dispatcher/kamailio.cfg"), &values, &[]);
    (started, folder)
}

fn list_for_tools(folder: &std::path::Path) -> (std::path::PathBuf, &'static str) {
    let list = "1 sip:127.0.0.1:7001 0 0 duid=a;weight=50;rweight=50\n\
                1 sip:127.0.0.1:7002 2 0 duid=b;maxload=2\n\
                1 sip:127.0.0.1:7003;transport=tcp 8 10\n\
                1 sip:127.0.0.1:7004 9 10\n\
                1 sip:127.0.0.1:7005 4 5 site=north\n";
    let file = folder.join("dispatcher.list");
    std::fs::write(&file, list).expect("the list can be written");
    (file, list)
}

#[test]
fn peers_kamcmd_says_the_same_about_both() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let (file, list) = list_for_tools(folder.path());
    let builder = open_all(Builder::new());
    let (kamailio, _list) = kamailio(list, &builder);
    let host = builder
        .set("dispatcher", &format!("file = {file:?}"))
        .set("dispatcher", "ping = \"0s\"")
        .start();
    let said = |socket: &std::path::Path, words: &[&str]| {
        let output = kamailio::kamcmd(socket, words);
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    for words in [
        &["dispatcher.list"][..],
        &["dispatcher.list", "short"],
        &["dispatcher.list", "full"],
        &["dispatcher.hash", "4", "abc"],
        &["dispatcher.hash", "10", "alice", "192.0.2.1"],
        &["dispatcher.hash", "7", "größe"],
        &["dispatcher.hash", "0", "y"],
        &["dispatcher.hash"],
        &["dispatcher.hash", "x", "y"],
        &["dispatcher.set_state", "x", "1", "all"],
        &["dispatcher.set_state", "i", "1", "all"],
        &["dispatcher.list", "short"],
        &["dispatcher.set_state", "ap", "1", "sip:127.0.0.1:7001"],
        &["dispatcher.set_state", "dp", "1", "sip:127.0.0.1:7002"],
        &["dispatcher.set_state", "2", "1", "sip:127.0.0.1:7004"],
        &["dispatcher.set_state", "a", "99", "all"],
        &["dispatcher.set_state", "a", "1", "sip:nope"],
        &["dispatcher.set_state", "a"],
        &["dispatcher.set_duid_state", "tp", "1", "a"],
        &["dispatcher.set_duid_state", "i", "1", "zzz"],
        &["dispatcher.list", "short"],
        &["dispatcher.reload"],
    ] {
        let ours = said(&host.folder().join("ctl"), words);
        assert_eq!(ours, said(&kamailio.ctl(), words), "{words:?}");
    }
}

#[test]
fn peers_kamailio_chooses_the_same() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |most: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % most
    };
    let flags = [0, 0, 0, 2, 1, 4, 8];
    let mut list = String::new();
    for set in 1..=6 {
        for row in 0..=random(12) {
            let flags = flags[random(flags.len() as u64) as usize];
            list += &format!("{set} sip:192.0.2.{row}:50{set}0 {flags} {}\n", random(3));
        }
    }
    let file = folder.path().join("dispatcher.list");
    std::fs::write(&file, &list).expect("the list can be written");
    let builder = Builder::new();
    let (kamailio, _list) = kamailio(&list, &builder);
    let to = builder.lease().addr(2, 5060);
    let host = builder
        .set("dispatcher", &format!("file = {file:?}"))
        .start();
    let caller = UdpSocket::bind((host.lease().ip(CALLER), 0)).expect("a free address");
    caller
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a time limit");
    for round in 0..60 {
        let set = random(6) + 1;
        let user = ["alice", "bob", "größe", "+4930", "x%20y", ""][random(6) as usize];
        let port = ["", ":5060", ":5070", ":5061"][random(4) as usize];
        let at = if user.is_empty() { "" } else { "@" };
        let uri = format!("sip:{user}{at}h{}.example{port};x=1", random(100));
        for (algorithm, text) in [
            (0, format!("c{round}@h")),
            (1, uri.clone()),
            (2, uri.clone()),
            (3, uri.clone()),
            (7, uri.clone()),
            (8, String::new()),
        ] {
            let theirs = chosen_by_kamailio(&caller, to, set, algorithm, &text);
            let quoted = if algorithm == 8 {
                String::new()
            } else {
                text.clone()
            };
            let ours = host.run(format!("dispatcher test {set} {algorithm} {quoted}").trim());
            let ours: Vec<_> = ours
                .lines()
                .filter_map(|line| line.split(' ').nth(1).filter(|uri| uri.starts_with("sip:")))
                .collect();
            assert_eq!(
                ours.join(" "),
                theirs,
                "set {set}, algorithm {algorithm}, {text}\n{list}"
            );
        }
    }
    drop(kamailio);
}

/// The URIs that Kamailio chooses, in their order.
fn chosen_by_kamailio(
    caller: &UdpSocket,
    to: std::net::SocketAddr,
    set: u64,
    algorithm: u8,
    text: &str,
) -> String {
    let local = caller.local_addr().expect("a bound socket has an address");
    let uri = if text.starts_with("sip:") {
        text
    } else {
        "sip:bob@example.com"
    };
    let call_id = if text.starts_with("sip:") {
        "call"
    } else {
        text
    };
    let call_id = if call_id.is_empty() { "call" } else { call_id };
    let branch = format!("z9hG4bK{set}{algorithm}{}", text.len());
    let request = format!(
        "MESSAGE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch={branch}\r\nFrom: <{uri}>;tag=1\r\nTo: <{uri}>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\nX-Set: {set}\r\nX-Algorithm: {algorithm}\r\nX-Key: {text}\r\nContent-Length: 0\r\n\r\n"
    );
    caller
        .send_to(request.as_bytes(), to)
        .expect("the request can be sent");
    let mut buffer = [0; 65_536];
    let count = caller.recv(&mut buffer).expect("Kamailio answers");
    let reply = String::from_utf8_lossy(&buffer[..count]).into_owned();
    let all = reply.lines().find_map(|line| line.strip_prefix("X-All:"));
    all.unwrap_or_else(|| panic!("{reply}")).trim().to_owned()
}
