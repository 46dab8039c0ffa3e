//! Calls of SIPp through the host: accepted, rejected, and in-dialog requests by Record-Route, with no retransmission.

#![forbid(unsafe_code)]

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Output;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::lease::free_port_v6;
use portcullis_testkit::{peers, policy, root, wait};

const CALLER: u8 = 10;
const CALLEE: u8 = 3;
const CALLS: &str = "50";

/// Calls per second without PORTCULLIS_CALLS_PER_SECOND.
const CALLS_PER_SECOND: u32 = 100;

/// Where the peers and the host are.
struct Ends {
    caller: SocketAddr,
    proxy: SocketAddr,
    callee: SocketAddr,
}

impl Ends {
    fn of(host: &Host) -> Self {
        Self {
            caller: host.lease().addr(CALLER, 5060),
            proxy: host.sip(),
            callee: host.lease().addr(CALLEE, 5080),
        }
    }
}

fn scenario(name: &str) -> PathBuf {
    root().join("tests/scenarios").join(name)
}

fn start(allowed: bool, tcp: bool) -> Host {
    start_with(Builder::new(), allowed, tcp)
}

fn start_with(builder: Builder, allowed: bool, tcp: bool) -> Host {
    let (caller, callee) = (builder.lease().ip(CALLER), builder.lease().ip(CALLEE));
    let transport = if tcp { ";transport=tcp" } else { "" };
    let mut builder = builder
        .set(
            "relay",
            &format!("next-hop = \"sip:{callee}:5080{transport}\""),
        )
        .set("relay", &format!("domains = [\"{caller}\", \"{callee}\"]"))
        .row(&format!("200 {callee} 32"));
    if allowed {
        builder = builder.row(&format!("200 {caller} 32"));
    }
    builder.start()
}

/// Runs SIPp as the caller.
///
/// # Panics
/// When a call fails or a message is sent twice.
fn call(host: &Host, name: &str, transport: &str) {
    call_between(host, &Ends::of(host), name, transport);
}

fn call_between(host: &Host, ends: &Ends, name: &str, transport: &str) {
    let rest = ["-m", CALLS, "-r", "100", "-l", "20"];
    let column = run(host, ends, name, transport, &rest);
    assert_eq!(column("SuccessfulCall(C)"), CALLS);
    assert_eq!(column("FailedCall(C)"), "0");
    assert_eq!(column("Retransmissions(C)"), "0");
}

/// Runs SIPp as the caller. Returns its statistics by their title.
fn run(
    host: &Host,
    ends: &Ends,
    name: &str,
    transport: &str,
    rest: &[&str],
) -> impl Fn(&str) -> String {
    let output = peers::sipp(
        &scenario(name),
        host.folder(),
        ends.caller,
        ends.proxy,
        &[&["-t", transport, "-s", "bob"], rest].concat(),
    );
    assert_success(&output, host);
    let (titles, values) = statistics(host, name);
    move |title| {
        let at = titles.iter().position(|t| t == title);
        values[at.unwrap_or_else(|| panic!("SIPp prints {title}"))].clone()
    }
}

fn assert_success(output: &Output, host: &Host) {
    assert!(
        output.status.success(),
        "SIPp: {}{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        std::fs::read_dir(host.folder())
            .expect("the directory can be read")
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().contains("_errors"))
            .filter_map(|e| std::fs::read_to_string(e.path()).ok())
            .collect::<String>()
    );
}

/// Titles and last line of SIPp's statistics file.
fn statistics(host: &Host, name: &str) -> (Vec<String>, Vec<String>) {
    let stem = name.trim_end_matches(".xml");
    let file = std::fs::read_dir(host.folder())
        .expect("the directory can be read")
        .flatten()
        .find(|e| {
            let file = e.file_name().to_string_lossy().into_owned();
            file.starts_with(stem) && file.ends_with("_.csv")
        })
        .expect("SIPp writes statistics");
    let text = std::fs::read_to_string(file.path()).expect("statistics can be read");
    let split = |line: &str| line.split(';').map(str::to_owned).collect();
    let mut lines = text.lines();
    let titles = split(lines.next().expect("statistics have titles"));
    (titles, split(lines.last().expect("statistics have a line")))
}

fn with_callee(host: &Host, scenario_name: &str, transport: &str, run: impl FnOnce()) {
    with_callee_at(
        host,
        Ends::of(host).callee,
        scenario_name,
        &["-t", transport, "-m", CALLS],
        run,
    );
}

fn with_callee_at(
    host: &Host,
    local: SocketAddr,
    scenario_name: &str,
    rest: &[&str],
    run: impl FnOnce(),
) {
    let transport = rest[1];
    let mut callee = peers::sipp_server(&scenario(scenario_name), host.folder(), local, rest);
    wait::until("SIPp listens", || {
        if transport.starts_with('t') {
            std::net::TcpStream::connect(local).ok().map(drop)
        } else {
            std::net::UdpSocket::bind(local).err().map(drop)
        }
    });
    run();
    let status = wait::until("the callee has seen every call", || {
        callee.try_wait().expect("SIPp can be asked")
    });
    assert!(status.success(), "the callee's SIPp ended with {status}");
}

#[test]
fn peers_calls_over_udp() {
    let host = start(true, false);
    with_callee(&host, "callee.xml", "u1", || {
        call(&host, "caller.xml", "u1");
    });
}

#[test]
fn peers_calls_over_tcp() {
    let host = start(true, true);
    with_callee(&host, "callee.xml", "t1", || {
        call(&host, "caller.xml", "t1");
    });
}

#[test]
fn peers_calls_from_tcp_to_udp() {
    let host = start(true, false);
    with_callee(&host, "callee.xml", "u1", || {
        call(&host, "caller.xml", "t1");
    });
}

#[test]
fn peers_calls_from_udp_to_tcp() {
    let host = start(true, true);
    with_callee(&host, "callee.xml", "t1", || {
        call(&host, "caller.xml", "u1");
    });
}

#[test]
fn peers_calls_with_four_workers() {
    for (tcp, up, down) in [
        (false, "u1", "u1"),
        (false, "t1", "u1"),
        (true, "u1", "t1"),
        (true, "t1", "t1"),
    ] {
        let host = start_with(Builder::new().workers(4), true, tcp);
        // An ACK and a BYE right after it may be with different workers, and change places. This BYE is sent when the ACK has arrived.
        with_callee(&host, "callee_hangs_up.xml", down, || {
            call(&host, "caller_waits.xml", up);
        });
        wait::until("no transaction is in progress", || {
            (host.metric("portcullis_transactions_active", &[]) == 0.0).then_some(())
        });
    }
}

#[test]
fn peers_calls_over_ipv6() {
    for (parameter, transport) in [("", "u1"), (";transport=tcp", "t1")] {
        let [caller, proxy, callee] =
            [0; 3].map(|_| SocketAddr::new(Ipv6Addr::LOCALHOST.into(), free_port_v6()));
        let host = Builder::new()
            .policy(policy("observe"))
            .listen(&format!("udp:{proxy}"))
            .listen(&format!("tcp:{proxy}"))
            .set("relay", &format!("next-hop = \"sip:{callee}{parameter}\""))
            .set("relay", "domains = [\"[::1]:*\"]")
            .start();
        let ends = Ends {
            caller,
            proxy,
            callee,
        };
        let rest = ["-t", transport, "-m", CALLS];
        with_callee_at(&host, callee, "callee.xml", &rest, || {
            call_between(&host, &ends, "caller.xml", transport);
        });
    }
}

#[test]
fn peers_calls_at_a_rate() {
    let rate = std::env::var("PORTCULLIS_CALLS_PER_SECOND");
    let rate = rate.map_or(CALLS_PER_SECOND, |n| n.parse().expect("a number"));
    let (calls, rate) = ((5 * rate).to_string(), rate.to_string());
    let host = start_with(Builder::new().workers(4), true, false);
    let ends = Ends::of(&host);
    let rest = ["-t", "u1", "-m", &calls];
    with_callee_at(&host, ends.callee, "callee_hangs_up.xml", &rest, || {
        let rest = ["-m", &calls, "-r", &rate, "-l", "10000"];
        let column = run(&host, &ends, "caller_waits.xml", "u1", &rest);
        // A slow machine may send something again.
        assert_eq!(column("SuccessfulCall(C)"), calls);
        assert_eq!(column("FailedCall(C)"), "0");
    });
    wait::until("no transaction is in progress", || {
        (host.metric("portcullis_transactions_active", &[]) == 0.0).then_some(())
    });
}

#[test]
fn peers_the_callee_hangs_up() {
    let host = start(true, false);
    with_callee(&host, "callee_hangs_up.xml", "u1", || {
        call(&host, "caller_waits.xml", "u1");
    });
}

#[test]
fn peers_rejected_calls() {
    let host = start(false, false);
    call(&host, "rejected.xml", "u1");
    assert_eq!(
        host.metric("portcullis_policy_calls_total", &[]),
        CALLS.parse::<f64>().expect("a number"),
        "one decision a call: the ACKs are absorbed"
    );
}

#[test]
fn peers_sipsak_from_several_addresses() {
    let host = start(true, false);
    for source in [CALLER, CALLEE, 40, 41] {
        let output = peers::sipsak(host.lease().ip(source), &format!("sip:{}", host.sip()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("SIP/2.0 200"), "{text}");
    }
}
