//! Names that lead to several addresses (RFC 3263): real name servers, bad ones, and what becomes of calls.

#![forbid(unsafe_code)]

mod liar;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use liar::Lie;
use portcullis_testkit::callee::Callee;
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::control::{binrpc_endpoints, kamcmd, open_all};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::load::Load;
use portcullis_testkit::policy;
use portcullis_testkit::sip::Message;
use portcullis_testkit::wait;
use portcullis_testkit::zone::Zone;
use serde_json::{Value, json};
use tempfile::TempDir;

const CALLER: u8 = 10;

/// The place of the name server in the network of a test.
const DNS: (u8, u16) = (53, 5300);

/// A host that asks the name server of its network, and relays to this next hop.
fn builder(hop: &str) -> Builder {
    patient_builder(hop, "1s").set("relay", "no-answer = \"300ms\"")
}

/// The same, where a query may take this long, and a server has the usual time for its first response.
fn patient_builder(hop: &str, timeout: &str) -> Builder {
    let builder = Builder::new();
    let server = builder.lease().addr(DNS.0, DNS.1);
    builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"{hop}\""))
        .set("resolver", &format!("servers = [\"{server}\"]"))
        .set("resolver", "hosts-file = false")
        .set("resolver", "loopback = true")
        .set("resolver", &format!("timeout = {timeout:?}"))
}

fn ask(host: &Host) -> Message {
    let mut caller = host.udp(CALLER);
    let request = caller.request("MESSAGE", "sip:bob@elsewhere.example");
    caller.ask(&request)
}

/// The address of a callee of the network, as a record has it.
fn ip(builder: &Builder, host: u8) -> String {
    builder.lease().ip(host).to_string()
}

#[test]
fn peers_naptr_and_srv_records_lead_to_the_servers_and_past_those_that_are_dead() {
    let builder = builder("sip:carrier.example");
    let server = builder.lease().addr(DNS.0, DNS.1);
    let (dead, silent, fine) = (ip(&builder, 2), ip(&builder, 3), ip(&builder, 4));
    let records = format!(
        "@ NAPTR 10 50 \"s\" \"SIP+D2U\" \"\" _sip._udp\n@ NAPTR 5 50 \"s\" \"SIPS+D2T\" \"\" _sips._tcp\n\
         _sip._udp SRV 10 10 5070 dead\n_sip._udp SRV 20 10 5071 silent\n_sip._udp SRV 30 10 5072 fine\n\
         dead A {dead}\nsilent A {silent}\nfine A {fine}\n"
    );
    let _zone = Zone::start(server, &records);
    // It takes datagrams and answers none.
    let silent = std::net::UdpSocket::bind(builder.lease().addr(3, 5071)).unwrap();
    let callee = Callee::start(builder.lease().addr(4, 5072));
    let host = builder.start();
    assert_eq!(ask(&host).code(), 200);
    assert_eq!(callee.next().first_word(), "MESSAGE");
    let mut buffer = [0; 4_096];
    let (n, _) = silent.recv_from(&mut buffer).unwrap();
    assert!(buffer[..n].starts_with(b"MESSAGE "), "it was tried before");
    assert_eq!(host.metric("portcullis_address_failovers_total", &[]), 2.0);
    // Addresses that have failed are the last ones for 30 s.
    assert_eq!(ask(&host).code(), 200);
    assert_eq!(host.metric("portcullis_address_failovers_total", &[]), 2.0);
    assert!(host.metric("portcullis_dns_queries_total", &["found"]) >= 5.0);
}

/// The authority of both sides, and a certificate `edge` of the host that asks.
fn office() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    authority(folder.path(), "ca");
    certificate(folder.path(), "edge", "DNS:edge.example");
    folder
}

/// Lines with the certificate of this name.
fn pair(builder: Builder, section: &str, office: &TempDir, name: &str) -> Builder {
    let file = |end: &str| office.path().join(format!("{name}.{end}"));
    builder
        .set(section, &format!("certificate = {:?}", file("pem")))
        .set(section, &format!("key = {:?}", file("key")))
}

/// A host that asks the name server, and may open connections over TLS.
fn secure_builder(hop: &str, office: &TempDir) -> Builder {
    let builder = builder(hop);
    let listen = format!("tls:{}", builder.lease().addr(1, 5061));
    let authority = format!("ca = {:?}", office.path().join("ca.pem"));
    pair(builder.listen(&listen), "tls.edge", office, "edge").set("relay.tls", &authority)
}

/// A server on TLS port 5061 of its network, whose certificate has this name, in front of a callee.
fn server_over_tls(office: &TempDir, name: &str) -> (Host, Callee) {
    let file = name.replace('.', "-");
    certificate(office.path(), &file, &format!("DNS:{name}"));
    let builder = Builder::new().policy(policy("observe"));
    let callee = Callee::start(builder.lease().addr(2, 5080));
    let listen = format!("tls:{}", builder.lease().addr(1, 5061));
    let hop = format!("next-hop = \"sip:{}\"", callee.addr());
    let builder = builder.listen(&listen).set("relay", &hop);
    (pair(builder, "tls.server", office, &file).start(), callee)
}

fn handshakes(host: &Host, result: &str) -> f64 {
    let result = format!("result=\"{result}\"");
    let labels = ["direction=\"opened\"", &result];
    host.metric("portcullis_tls_handshakes_total", &labels)
}

#[test]
fn peers_naptr_and_srv_records_lead_to_a_server_whose_certificate_names_the_domain() {
    let office = office();
    let (server, callee) = server_over_tls(&office, "carrier.example");
    // The domain asks for TLS before UDP, and a URI may demand TLS by itself.
    for hop in [
        "sip:carrier.example",
        "sips:carrier.example",
        "sip:carrier.example;transport=tls",
    ] {
        let builder = secure_builder(hop, &office);
        let (dns, plain) = (builder.lease().addr(DNS.0, DNS.1), ip(&builder, 2));
        let records = format!(
            "@ NAPTR 5 50 \"s\" \"SIPS+D2T\" \"\" _sips._tcp.hosting\n@ NAPTR 10 50 \"s\" \"SIP+D2U\" \"\" _sip._udp\n\
             _sips._tcp.hosting SRV 10 10 5061 edge.hosting\n_sip._udp SRV 10 10 5070 plain\n\
             edge.hosting A {}\nplain A {plain}\n",
            server.sip().ip()
        );
        let _zone = Zone::start(dns, &records);
        let host = builder.start();
        assert_eq!(ask(&host).code(), 200, "{hop}: {}", host.log());
        assert_eq!(callee.next().first_word(), "MESSAGE");
        assert_eq!(handshakes(&host, "tls1.3"), 1.0, "{hop}");

        let found = host.run(&format!("resolve {hop} --json"));
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["addresses"][0]["transport"], "tls", "{found}");
        let address = format!("{}:5061", server.sip().ip());
        assert_eq!(found["addresses"][0]["address"], address.as_str());
        // Only a URI that does not demand TLS may lead to the server over UDP.
        let addresses = 1 + usize::from(hop == "sip:carrier.example");
        assert_eq!(found["addresses"].as_array().unwrap().len(), addresses);
    }
}

#[test]
fn peers_a_server_whose_certificate_names_itself_and_not_the_domain_is_passed_over() {
    let office = office();
    // The name of the SRV record, which the DNS could forge: RFC 5922 §7.
    let (wrong, _) = server_over_tls(&office, "edge.carrier.example");
    let (right, callee) = server_over_tls(&office, "carrier.example");
    let zone = |builder: &Builder, servers: &str| {
        let records = format!(
            "{servers}edge A {}\nright A {}\n",
            wrong.sip().ip(),
            right.sip().ip()
        );
        Zone::start(builder.lease().addr(DNS.0, DNS.1), &records)
    };
    // Alone, it gets nothing.
    let builder = secure_builder("sips:carrier.example", &office);
    let _zone = zone(&builder, "_sips._tcp SRV 10 10 5061 edge\n");
    let host = builder.start();
    assert_eq!(ask(&host).code(), 500);
    assert_eq!(handshakes(&host, "bad_certificate"), 1.0);
    host.wait_for_log("not valid for");
    assert_eq!(handshakes(&host, "tls1.3"), 0.0);

    // Before another one, the call goes to that one.
    let builder = secure_builder("sips:carrier.example", &office);
    let _zone = zone(
        &builder,
        "_sips._tcp SRV 10 10 5061 edge\n_sips._tcp SRV 20 10 5061 right\n",
    );
    let host = builder.start();
    assert_eq!(ask(&host).code(), 200, "{}", host.log());
    assert_eq!(callee.next().first_word(), "MESSAGE");
    assert_eq!(handshakes(&host, "bad_certificate"), 1.0);
    assert_eq!(handshakes(&host, "tls1.3"), 1.0);
    assert_eq!(host.metric("portcullis_address_failovers_total", &[]), 1.0);
}

/// Proxies name themselves by their address in Record-Route, and their certificates name their domain.
#[test]
fn peers_requests_within_a_dialog_demand_the_name_of_the_domain() {
    let office = office();
    let (server, callee) = server_over_tls(&office, "carrier.example");
    let builder = secure_builder("sips:carrier.example", &office);
    let there = server.sip().ip();
    let records = format!("_sips._tcp SRV 10 10 5061 edge\nedge A {there}\n");
    let _zone = Zone::start(builder.lease().addr(DNS.0, DNS.1), &records);
    let host = builder.start();
    let mut caller = host.udp(CALLER);
    let invite = caller.request("INVITE", "sip:bob@elsewhere.example");
    let answer = caller.ask(&invite);
    assert_eq!(answer.code(), 200, "{}", host.log());
    let routes = answer.headers("Record-Route");
    let theirs = format!("{there}:5061;transport=tls");
    assert!(
        routes.iter().any(|route| route.contains(&theirs)),
        "{routes:?}"
    );
    caller.send(&invite.within(&answer, "ACK", 1).bytes());
    for method in ["INVITE", "ACK"] {
        assert_eq!(callee.next().first_word(), method);
    }
    assert_eq!(caller.ask(&invite.within(&answer, "INFO", 2)).code(), 200);
    assert_eq!(callee.next().first_word(), "INFO");
    assert_eq!(handshakes(&host, "tls1.3"), 1.0, "the call has one");

    // Without it, another connection is opened, with a session of the same name.
    let open = host.run("tls connections --json");
    let open: Value = serde_json::from_str(&open).unwrap();
    host.run(&format!("tls kill {}", open[0]["id"]));
    let bye = caller.ask(&invite.within(&answer, "BYE", 3));
    assert_eq!(bye.code(), 200, "{}", host.log());
    assert_eq!(callee.next().first_word(), "BYE");
    assert_eq!(handshakes(&host, "tls1.3"), 1.0);
    assert_eq!(handshakes(&host, "resumed"), 1.0);
    assert_eq!(handshakes(&host, "bad_certificate"), 0.0);
}

#[test]
fn peers_a_503_leads_to_the_next_address_unless_there_is_to_be_one_only() {
    for (addresses, expected) in [(4, 200), (1, 500)] {
        let builder = builder("sip:carrier.example;transport=udp")
            .set("resolver", &format!("addresses = {addresses}"));
        let server = builder.lease().addr(DNS.0, DNS.1);
        let (one, two) = (ip(&builder, 2), ip(&builder, 3));
        let records = format!(
            "_sip._udp SRV 10 10 5070 one\n_sip._udp SRV 20 10 5070 two\none A {one}\ntwo A {two}\n"
        );
        let _zone = Zone::start(server, &records);
        let overloaded = portcullis_testkit::peer::Peer::udp_at(builder.lease().addr(2, 5070));
        let _callee = Callee::start(builder.lease().addr(3, 5070));
        let host = builder.start();
        let mut caller = host.udp(CALLER);
        let request = caller.request("MESSAGE", "sip:bob@elsewhere.example");
        caller.send(&request.bytes());
        let seen = overloaded.first_request("MESSAGE");
        overloaded.answer(&seen, 503);
        assert_eq!(caller.receive().code(), expected);
    }
}

#[test]
fn peers_a_zone_that_changes_under_load_is_followed_and_no_request_is_lost() {
    let builder = builder("sip:carrier.example:5070");
    let server = builder.lease().addr(DNS.0, DNS.1);
    let (before, after) = (ip(&builder, 2), ip(&builder, 3));
    let zone = Zone::start(server, &format!("@ A {before}\n"));
    let [first, second] = [2, 3].map(|n| Callee::start(builder.lease().addr(n, 5070)));
    let host = builder.start();
    let load = Load::start(&host, CALLER, 2);
    for (old, new, address) in [(&first, &second, &after), (&second, &first, &before)] {
        load.wait_for(100);
        assert!(!old.saw_nothing_more() && new.saw_nothing_more());
        zone.replace("@", "A", address);
        wait::until("requests go to the new address", || {
            (!new.saw_nothing_more()).then_some(())
        });
        // The requests that were on their way to the old address.
        load.wait_for(200);
        forget(old);
        load.wait_for(1_000);
        assert!(old.saw_nothing_more(), "a request to the old address");
        forget(new);
    }
    let report = load.stop();
    assert_eq!(report.answers, [(200, report.sent)].into());
    assert_eq!(report.duplicates, 0);
    host.wait_for_log("name_resolved");
}

/// Forgets the requests that a callee has received.
fn forget(callee: &Callee) {
    while !callee.saw_nothing_more() {}
}

/// The port of the first of many servers; the others have those after it.
const FIRST: u16 = 6_000;

/// The records of so many servers of one domain, whose names begin with `name`. Each has a port of its own.
fn many_servers(count: u16, name: &str, address: &str, priority: impl Fn(u16) -> u16) -> String {
    let each = (0..count).map(|n| {
        let (priority, port) = (priority(n), FIRST + n);
        format!("_sip._udp SRV {priority} 10 {port} {name}{n}\n{name}{n} A {address}\n")
    });
    each.collect()
}

#[test]
fn peers_sixty_servers_come_over_tcp_and_calls_of_all_of_them_are_shared_out() {
    const SERVERS: u16 = 60;
    const CALLS: usize = 300;
    let builder = patient_builder("sip:carrier.example;transport=udp", "5s");
    let server = builder.lease().addr(DNS.0, DNS.1);
    let address = ip(&builder, 2);
    let _zone = Zone::start(
        server,
        &many_servers(SERVERS, "server-with-a-long-name-", &address, |_| 10),
    );
    let callees: Vec<_> = (0..SERVERS)
        .map(|n| Callee::start(builder.lease().addr(2, FIRST + n)))
        .collect();
    let host = builder.start();
    let output = host.run("resolve sip:carrier.example;transport=udp --json");
    let found: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(found["addresses"].as_array().unwrap().len(), 60, "{output}");
    let text = host.run("resolve carrier.example");
    assert!(
        text.contains("NAPTR carrier.example.: 5 s, no such record"),
        "{text}"
    );
    let mut caller = host.udp(CALLER);
    for number in 0..CALLS {
        let mut request = caller.request("MESSAGE", "sip:bob@elsewhere.example");
        request.call_id = format!("call-{number}");
        assert_eq!(caller.ask(&request).code(), 200);
    }
    let mut counts = vec![0_usize; callees.len()];
    wait::until("the servers have noted all calls", || {
        for (count, callee) in counts.iter_mut().zip(&callees) {
            while callee.taken().is_some() {
                *count += 1;
            }
        }
        (counts.iter().sum::<usize>() == CALLS).then_some(())
    });
    // Five calls are for each server. Chi-square with 59 degrees of freedom exceeds 120 less than once in 100,000 runs.
    let expected = CALLS as f64 / f64::from(SERVERS);
    let square = |count: &usize| (*count as f64 - expected).powi(2) / expected;
    let distance: f64 = counts.iter().map(square).sum();
    assert!(distance < 120.0, "{distance:.0}: {counts:?}");
    assert_eq!(host.metric("portcullis_address_failovers_total", &[]), 0.0);
}

/// The zone has more servers than the host uses: those with the lowest priorities stay, whatever their place in the answer.
#[test]
fn peers_of_a_thousand_servers_the_first_by_priority_are_used() {
    const SERVERS: u16 = 1_000;
    let builder = patient_builder("sip:carrier.example;transport=udp", "5s");
    let server = builder.lease().addr(DNS.0, DNS.1);
    let address = ip(&builder, 2);
    let records = many_servers(SERVERS, "s", &address, |n| SERVERS - n);
    let _zone = Zone::start(server, &records);
    let callee = Callee::start(builder.lease().addr(2, FIRST + SERVERS - 1));
    let host = builder.start();
    let output = host.run("resolve sip:carrier.example;transport=udp --json");
    let found: Value = serde_json::from_str(&output).unwrap();
    let addresses = found["addresses"].as_array().unwrap();
    let ports = addresses.iter().map(|one| {
        let address: SocketAddr = one["address"].as_str().unwrap().parse().unwrap();
        address.port()
    });
    let expected = (SERVERS - 64..SERVERS).map(|n| FIRST + n);
    assert_eq!(
        ports.collect::<BTreeSet<_>>(),
        expected.collect::<BTreeSet<_>>()
    );
    for _ in 0..3 {
        assert_eq!(ask(&host).code(), 200);
        callee.next();
    }
}

#[test]
fn a_silent_name_server_does_not_delay_the_other_names() {
    // All queries of a name that is silent take three times as long as this test waits for anything.
    let builder = patient_builder("sip:good.example:5070", "60s");
    let server = builder.lease().addr(DNS.0, DNS.1);
    let [before, after] = [2, 3].map(|n| builder.lease().addr(n, 5070));
    let octets = |addr: SocketAddr| match addr {
        SocketAddr::V4(addr) => addr.ip().octets(),
        SocketAddr::V6(_) => panic!("the network of a test has IPv4 addresses"),
    };
    let (first, second) = (octets(before), octets(after));
    let is_later = Arc::new(AtomicBool::new(false));
    let later = Arc::clone(&is_later);
    liar::start(server, move |name| {
        match (name, later.load(Ordering::Relaxed)) {
            ("good.example.", false) => Lie::Address(first),
            ("good.example.", true) => Lie::Address(second),
            (_, false) => Lie::NoName,
            (_, true) => Lie::Silence,
        }
    });
    let [first, second] = [before, after].map(Callee::start);
    let host = builder
        .set("relay", "domains = [\"silent.example\"]")
        .start();
    assert_eq!(ask(&host).code(), 200);
    first.next();
    is_later.store(true, Ordering::Relaxed);
    // All names are asked for at once, and one of them has no answer.
    host.rpc("dns.delete_all", json!([]));
    wait::until("requests go to the new address", || {
        assert_eq!(ask(&host).code(), 200);
        second.taken().map(drop)
    });
}

#[test]
fn peers_kamcmd_shows_and_clears_the_cache() {
    let builder = builder("sip:carrier.example:5070");
    let server = builder.lease().addr(DNS.0, DNS.1);
    let address = ip(&builder, 2);
    let _zone = Zone::start(
        server,
        &format!("@ A {address}\n_sip._udp SRV 10 20 5070 pbx\npbx A {address}\n"),
    );
    let host = open_all(builder).start();
    let endpoint = &binrpc_endpoints(&host)[0];
    let kamcmd = |words: &[&str]| kamcmd(&host, endpoint, words);
    let found = kamcmd(&["dns.lookup", "SRV", "_sip._udp.carrier.example"]);
    for line in [
        "{\n\tname: _sip._udp.carrier.example\n\ttype: SRV\n\tsize_bytes: ",
        "\treference_counter: 1\n\tpermanent: no\n\texpires: 5\n\tlast_used: 0\n\tnegative_entry: no\n\trecords: {\n\t\t{\n",
        "\t\t\trr_idx: 0\n\t\t\trr_name: pbx.carrier.example.\n\t\t\trr_port: 5070\n\t\t\trr_priority: 10\n\t\t\trr_weight: 20\n",
    ] {
        assert!(found.contains(line), "{line:?} is not in {found}");
    }
    let view = kamcmd(&["dns.view"]);
    let address = format!("\t\t\trr_ip: {address}\n");
    assert!(view.contains(&address), "{view}");
    assert_eq!(
        kamcmd(&["dns.lookup", "A", "x.invalid"]),
        "error: 400 - Not found\n"
    );
    assert_eq!(
        kamcmd(&["dns.lookup", "FOO", "x"]),
        "error: 400 - Invalid type\n"
    );
    assert_eq!(kamcmd(&["dns.mem_info"]).lines().count(), 2);
    let queries = || host.metric("portcullis_dns_queries_total", &["found"]);
    let before = queries();
    assert_eq!(kamcmd(&["dns.delete_all"]), "{\n\tstatus: ok\n}\n");
    wait::until("the names are asked for again", || {
        (queries() > before).then_some(())
    });
    assert_eq!(host.metric("portcullis_address_failovers_total", &[]), 0.0);
}

#[test]
fn bad_name_servers_hold_up_nothing_and_are_named() {
    let builder = builder("sip:good.example:5070");
    let server = builder.lease().addr(DNS.0, DNS.1);
    let SocketAddr::V4(callee_addr) = builder.lease().addr(2, 5070) else {
        panic!("the network of a test has IPv4 addresses");
    };
    let good = callee_addr.ip().octets();
    liar::start(server, move |name| match name {
        "good.example." => Lie::Address(good),
        "silent.example." => Lie::Silence,
        "failing.example." => Lie::Failure,
        "looping.example." => Lie::Loop,
        "garbage.example." => Lie::Garbage,
        "cut.example." => Lie::Cut,
        "other.example." => Lie::AnswerTo("good.example.", good),
        _ => Lie::NoName,
    });
    let callee = Callee::start(callee_addr.into());
    let names = [
        "silent", "failing", "looping", "garbage", "cut", "other", "absent",
    ];
    let domains = names.map(|name| format!("{name}.example"));
    let host = builder
        .set("relay", &format!("domains = {domains:?}"))
        .start();
    for _ in 0..20 {
        assert_eq!(ask(&host).code(), 200);
        callee.next();
    }
    for (name, expected) in [
        ("silent.example", "leads nowhere"),
        ("failing.example", "leads nowhere"),
        ("looping.example", "leads nowhere"),
        ("garbage.example", "leads nowhere"),
        ("cut.example", "leads nowhere"),
        ("other.example", "leads nowhere"),
        ("absent.example", "does not exist, or has no address"),
    ] {
        let said = host.refused(&format!("resolve {name}:5060"));
        assert!(said.contains(expected), "{name}: {said}");
        let mut caller = host.udp(CALLER);
        let request = caller.request("MESSAGE", &format!("sip:bob@{name}"));
        assert_eq!(caller.ask(&request).code(), 503, "{name}");
    }
    // The start does not wait for the silent server for longer than one query: its line comes with the next resolution.
    for name in names {
        let is_told = |line: &str| line.contains("name_unresolved") && line.contains(name);
        wait::until(&format!("the log names {name}"), || {
            host.log().lines().any(is_told).then_some(())
        });
    }
    assert!(
        host.run("resolve good.example:5070")
            .contains("A good.example: 5 s")
    );
}
