//! The dispatcher, end to end: sets of gateways behind the host, their failures, and Kamailio's tools and choices.

#![forbid(unsafe_code)]

use std::net::UdpSocket;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::control::open_all;
use portcullis_testkit::guests::module;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{self, Kamailio};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::redis::Redis;
use portcullis_testkit::sip::Caller;
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
    let builder = builder.set("relay", "no-answer = \"200ms\"");
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

#[test]
fn a_disabled_gateway_keeps_its_calls_until_its_row_is_gone() {
    let builder = open_all(Builder::new());
    let gateways = gateways(&builder, 2);
    let rows = lines(&gateways);
    let (host, folder) = start(builder, &rows, 8);
    let mut caller = host.udp(CALLER);
    let [(one, its_answer), (other, other_answer)] = [(); 2].map(|()| {
        let invite = caller.request("INVITE", "sip:bob@example.com");
        let answer = caller.ask(&invite);
        assert_eq!(answer.start_line(), "SIP/2.0 200 OK");
        assert_eq!(gateways[0].next().first_word(), "INVITE");
        (invite, answer)
    });
    let first = format!("sip:{}", gateways[0].addr());
    host.run(&format!("dispatcher set-state d 1 {first}"));
    assert_eq!(ask(&host, 1), "SIP/2.0 200 OK");
    assert_eq!(gateways[1].next().first_word(), "MESSAGE");
    let bye = one.within(&its_answer, "BYE", 2);
    assert_eq!(caller.ask(&bye).start_line(), "SIP/2.0 200 OK");
    assert_eq!(gateways[0].next().first_word(), "BYE");
    wait::until("the other call is counted", || {
        (host.metric("portcullis_dispatcher_calls", &[]) == 1.0).then_some(())
    });

    // The row says that requests may go there.
    std::fs::write(folder.path().join("dispatcher.list"), &rows[1])
        .expect("the list can be written");
    let mut number = 2;
    wait::until("requests within the call are refused", || {
        number += 1;
        let info = other.within(&other_answer, "INFO", number);
        (caller.ask(&info).code() == 403).then_some(())
    });
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
        &["dispatcher.add"],
        &["dispatcher.add", "1"],
        &["dispatcher.add", "x", "sip:127.0.0.1:7009"],
        &["dispatcher.add", "1", "sip:127.0.0.1:7009"],
        &[
            "dispatcher.add",
            "1",
            "sip:127.0.0.1:7010",
            "8",
            "5",
            "duid=c;weight=5",
        ],
        &["dispatcher.remove"],
        &["dispatcher.remove", "1"],
        &["dispatcher.remove", "1", "sip:127.0.0.1:7001"],
        &["dispatcher.remove", "1", "sip:127.0.0.1:7999"],
    ] {
        let ours = said(&host.folder().join("ctl"), words);
        assert_eq!(ours, said(&kamailio.ctl(), words), "{words:?}");
    }
    // Kamailio turns the order of rows with the same priority around with each change.
    let uris = |socket: &std::path::Path| {
        let [listed, _] = said(socket, &["dispatcher.list", "short"]);
        let lines = listed.lines().map(str::trim);
        let mut uris: Vec<_> = lines
            .filter(|line| line.starts_with("URI: "))
            .map(str::to_owned)
            .collect();
        uris.sort_unstable();
        uris
    };
    let ours = uris(&host.folder().join("ctl"));
    assert_eq!(ours, uris(&kamailio.ctl()));
    assert_eq!(ours.len(), 6, "two more, and one less: {ours:?}");
}

#[test]
fn peers_kamailio_chooses_the_same() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let mut random = numbers();
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
            let theirs = chosen_by_kamailio(&caller, to, "MESSAGE", (set, algorithm), &text);
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

/// Numbers below the given ones that look random, and are the same in each run (xorshift).
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    move |most| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % most
    }
}

/// So many numbers from 1 on, whose sum is 100: then Kamailio's table of 100 slots has each weight exactly.
fn shares(count: u64, random: &mut impl FnMut(u64) -> u64) -> Vec<u64> {
    let mut left = 100;
    let mut shares = Vec::new();
    for others in (0..count).rev() {
        let share = match others {
            0 => left,
            others => 1 + random((left - others) / 2),
        };
        left -= share;
        shares.push(share);
    }
    shares
}

const SHARING: u8 = 6;

/// Gateways with random rows in set 1. For algorithms that give the share of one that is down to the same others as Kamailio, the last one is disabled.
struct Sharing {
    gateways: Vec<Callee>,
    weights: Vec<u64>,
    list: String,
}

impl Sharing {
    fn start(builder: &Builder, algorithm: u8) -> Self {
        let mut random = numbers();
        let weights = shares(SHARING.into(), &mut random);
        let gateways = gateways(builder, SHARING);
        let mut list = String::new();
        for (number, (gateway, weight)) in gateways.iter().zip(&weights).enumerate() {
            let is_last = number + 1 == gateways.len();
            let flags = match (algorithm, is_last) {
                (4 | 10 | 13, true) => 4,
                _ => [0, 2][random(2) as usize],
            };
            list += &format!(
                "1 sip:{} {flags} {} duid=g{number};weight={weight};rweight={weight};maxload={}\n",
                gateway.addr(),
                random(2),
                1 + random(3)
            );
        }
        Self {
            gateways,
            weights,
            list,
        }
    }

    /// The gateway that gets the next request.
    fn next(&self) -> usize {
        wait::until("a gateway has the request", || {
            let mut gateways = self.gateways.iter();
            gateways.position(|gateway| gateway.taken().is_some())
        })
    }

    /// The gateway with this URI. `None` for an empty text.
    fn number_of(&self, uri: &str) -> Option<usize> {
        let is_it = |gateway: &Callee| format!("sip:{}", gateway.addr()) == uri;
        let found = self.gateways.iter().position(is_it);
        assert_eq!(found.is_none(), uri.is_empty(), "{uri}");
        found
    }
}

/// The gateways that get so many requests, one after the other, through the host and by Kamailio's choice. `None`: none is left.
fn asked(algorithm: u8, method: &str, requests: usize) -> (Sharing, [Vec<Option<usize>>; 2]) {
    let builder = Builder::new();
    let sharing = Sharing::start(&builder, algorithm);
    let (kamailio, _list) = kamailio(&sharing.list, &builder);
    let to = builder.lease().addr(2, 5060);
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let policy = folder.path().join("dispatching.wasm");
    std::fs::write(&policy, dispatching(algorithm, 1)).expect("the policy can be written");
    let list = folder.path().join("dispatcher.list");
    std::fs::write(&list, &sharing.list).expect("the list can be written");
    let host = builder
        .policy(&policy)
        .set("dispatcher", &format!("file = {list:?}"))
        .set("dispatcher", "ping = \"0s\"")
        .start();
    let socket = UdpSocket::bind((host.lease().ip(CALLER), 0)).expect("a free address");
    socket
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a time limit");
    let mut caller = host.udp(CALLER);
    let mut calls = 0_u32;
    let mut all = [Vec::new(), Vec::new()];
    for number in 0..requests {
        let call = format!("call-{number}");
        let mut request = caller.request(method, "sip:bob@example.com");
        request.call_id.clone_from(&call);
        let code = caller.ask(&request).code();
        all[0].push(match code {
            503 => None,
            200 => Some(sharing.next()),
            code => panic!("{code}"),
        });
        if method == "INVITE" && code == 200 {
            calls += 1;
            wait::until("the call is counted", || {
                let counted = host.metric("portcullis_dispatcher_calls", &[]);
                (counted == f64::from(calls)).then_some(())
            });
        }
        let theirs = chosen_by_kamailio(&socket, to, method, (1, algorithm), &call);
        let first = theirs.split(' ').next().unwrap_or_default();
        all[1].push(sharing.number_of(first));
    }
    drop(kamailio);
    (sharing, all)
}

#[test]
fn peers_turns_loads_and_latencies_choose_what_kamailio_chooses() {
    for (algorithm, method, requests) in [
        (4, "MESSAGE", 20),
        (13, "MESSAGE", 20),
        // More calls than there is room for.
        (10, "INVITE", 1 + 3 * usize::from(SHARING - 1)),
    ] {
        let (sharing, [ours, theirs]) = asked(algorithm, method, requests);
        assert_eq!(ours, theirs, "algorithm {algorithm}\n{}", sharing.list);
        assert_eq!(algorithm == 10, ours.contains(&None), "{ours:?}");
    }
}

#[test]
fn peers_weights_and_chance_share_requests_out_as_kamailio_does() {
    const REQUESTS: usize = 200;
    for algorithm in [6, 9, 11] {
        let (sharing, all) = asked(algorithm, "MESSAGE", REQUESTS);
        let [ours, theirs] = all.map(|chosen| {
            let mut counts = vec![0_u64; sharing.gateways.len()];
            for gateway in chosen {
                counts[gateway.expect("a gateway is up")] += 1;
            }
            counts
        });
        let what = format!(
            "algorithm {algorithm}: ours {ours:?}, Kamailio's {theirs:?}\n{}",
            sharing.list
        );
        if algorithm == 6 {
            // Chi-square with five degrees of freedom exceeds 36 once in a million runs.
            let expected = REQUESTS as f64 / ours.len() as f64;
            for counts in [&ours, &theirs] {
                let square = |count: &u64| (*count as f64 - expected).powi(2) / expected;
                assert!(counts.iter().map(square).sum::<f64>() < 36.0, "{what}");
            }
            continue;
        }
        // Twice Kamailio's table of 100 slots, and an even sequence.
        let expected: Vec<_> = sharing.weights.iter().map(|weight| 2 * weight).collect();
        assert_eq!(theirs, expected, "{what}");
        let mut both = ours.iter().zip(&expected);
        assert!(both.all(|(own, share)| own.abs_diff(*share) <= 4), "{what}");
    }
}

#[test]
fn peers_all_gateways_of_a_set_get_a_request_at_once_as_with_kamailio() {
    let builder = Builder::new();
    let gateways = gateways(&builder, 3);
    let list = lines(&gateways);
    let (kamailio, _list) = kamailio(&list.join("\n"), &builder);
    let theirs = builder.lease().addr(2, 5060);
    let (host, _folder) = start(builder, &list, 12);
    for server in [host.sip(), theirs] {
        let mut caller = host.udp(CALLER);
        caller.turn_to(server);
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        let request = request
            .header("X-Set: 1")
            .header("X-Algorithm: 12")
            .header("X-Relay: yes");
        assert_eq!(caller.ask(&request).code(), 200, "{server}");
        for gateway in &gateways {
            assert_eq!(gateway.next().header("X-Relay"), Some("yes"), "{server}");
        }
        assert!(gateways.iter().all(Callee::saw_nothing_more), "{server}");
    }
    drop(kamailio);
}

/// The URIs that Kamailio chooses, in their order.
fn chosen_by_kamailio(
    caller: &UdpSocket,
    to: std::net::SocketAddr,
    method: &str,
    (set, algorithm): (u64, u8),
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
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch={branch}\r\nFrom: <{uri}>;tag=1\r\nTo: <{uri}>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 {method}\r\nMax-Forwards: 70\r\nX-Set: {set}\r\nX-Algorithm: {algorithm}\r\nX-Key: {text}\r\nContent-Length: 0\r\n\r\n"
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

/// The calls to each gateway, as a host sees them: all, and its own.
fn loads(host: &Host) -> Vec<[u64; 2]> {
    let shown = host.rpc("dispatcher.show", json!([]));
    let all = shown["result"]["sets"][0]["destinations"].as_array();
    let all = all.unwrap_or_else(|| panic!("{shown}"));
    let calls = |one: &Value| {
        ["calls", "own_calls"].map(|key| one[key].as_u64().unwrap_or_else(|| panic!("{one}")))
    };
    all.iter().map(calls).collect()
}

fn wait_for_loads(host: &Host, expected: &[[u64; 2]]) {
    let what = format!("the loads are {expected:?}");
    wait::until(&what, || (loads(host) == expected).then_some(()));
}

/// Two hosts with the same gateways, which take two calls at most.
#[test]
fn peers_hosts_of_a_fleet_count_calls_together() {
    let lease = Lease::new();
    let mut redis = Redis::start(lease.addr(1, 6379));
    let builders = [(); 2].map(|()| Builder::new());
    let gateways = gateways(&builders[0], 2);
    let rows = lines(&gateways).into_iter();
    let rows: Vec<_> = rows.map(|row| format!("{row} maxload=2")).collect();
    let [(one, _kept), (other, _kept_too)] = builders.map(|builder| {
        let builder = builder
            .set(
                "fleet.redis",
                &format!("url = \"redis://{}\"", redis.addr()),
            )
            .set("fleet.redis", "interval = \"100ms\"");
        start(builder, &rows, 10)
    });
    for host in [&one, &other] {
        host.wait_for_log("event=\"exchange_hosts\" hosts=2");
    }
    let [mut first, mut second] = [&one, &other].map(|host| host.udp(CALLER));
    let invite = first.request("INVITE", "sip:bob@example.com");
    let answer = first.ask(&invite);
    assert_eq!(answer.start_line(), "SIP/2.0 200 OK");
    gateways[0].next();
    wait_for_loads(&one, &[[1, 1], [0, 0]]);
    wait_for_loads(&other, &[[1, 0], [0, 0]]);
    assert!(other.run("dispatcher show").contains("1 (0 here)"));

    // The gateway without calls is the next one, whichever host is asked.
    let call = |caller: &mut Caller| {
        let invite = caller.request("INVITE", "sip:bob@example.com");
        caller.ask(&invite).code()
    };
    assert_eq!(call(&mut second), 200);
    gateways[1].next();
    wait_for_loads(&one, &[[1, 1], [1, 0]]);
    // All gateways have two calls then.
    for calls in [[[2, 2], [1, 0]], [[2, 2], [2, 1]]] {
        assert_eq!(call(&mut first), 200);
        wait_for_loads(&one, &calls);
    }
    wait_for_loads(&other, &[[2, 0], [2, 1]]);
    assert_eq!([call(&mut first), call(&mut second)], [503, 503]);
    let others = |host: &Host| host.metric("portcullis_dispatcher_calls_of_other_hosts", &[]);
    assert_eq!([others(&one), others(&other)], [1.0, 3.0]);

    // Without Redis, each host has its half, and goes by its own calls.
    redis.kill();
    wait_for_loads(&one, &[[2, 2], [1, 1]]);
    wait_for_loads(&other, &[[0, 0], [1, 1]]);
    assert_eq!(call(&mut first), 503);
    assert_eq!(call(&mut second), 200);
    wait_for_loads(&other, &[[1, 1], [1, 1]]);
    assert_eq!(call(&mut second), 503);
    redis.restart();
    wait_for_loads(&one, &[[3, 2], [2, 1]]);
    wait_for_loads(&other, &[[3, 1], [2, 1]]);

    // A call ends on its host, and is gone on both.
    let bye = invite.within(&answer, "BYE", 2);
    assert_eq!(first.ask(&bye).start_line(), "SIP/2.0 200 OK");
    wait_for_loads(&other, &[[2, 1], [2, 1]]);
    // A host that vanishes takes its calls along.
    drop(one);
    wait_for_loads(&other, &[[1, 1], [1, 1]]);
    assert_eq!(call(&mut second), 200);
}
