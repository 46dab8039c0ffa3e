//! Kamailio before and behind the host: calls of SIPp through all three.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;

use portcullis_testkit::host::Builder;
use portcullis_testkit::kamailio::{Kamailio, kamcmd};
use portcullis_testkit::messages::Transport::{self, Tcp, Udp};
use portcullis_testkit::{peers, policy, root, wait};

use crate::site::wait_until_idle;

const CALLS: &str = "50";

/// A chain, and what it is made of.
struct Chain {
    workers: usize,
    /// Transports from the caller to the first Kamailio, from there to the host, to the second Kamailio, and to the callee.
    legs: [Transport; 4],
}

#[test]
fn peers_calls_pass_a_chain_of_stateful_proxies() {
    pass_all(&[(1, [Udp; 4]), (4, [Udp; 4])]);
}

#[test]
fn peers_calls_pass_a_chain_over_tcp() {
    pass_all(&[(1, [Tcp; 4]), (4, [Tcp; 4])]);
}

#[test]
fn peers_calls_pass_a_chain_over_udp_and_tcp() {
    pass_all(&[
        (1, [Udp, Tcp, Udp, Tcp]),
        (4, [Tcp, Udp, Tcp, Udp]),
        (4, [Udp, Udp, Tcp, Tcp]),
        (4, [Tcp, Tcp, Udp, Udp]),
    ]);
}

/// Calls pass these chains at the same time: most of it is Kamailio's wait for retransmissions. Each has a number of workers, and its legs.
fn pass_all(chains: &[(usize, [Transport; 4])]) {
    thread::scope(|scope| {
        for &(workers, legs) in chains {
            scope.spawn(move || pass(&Chain { workers, legs }));
        }
    });
}

fn pass(chain: &Chain) {
    // With several workers, an ACK and a BYE right after it may change places: there the callee sends the BYE.
    let (up, down) = match chain.workers {
        1 => ("caller.xml", "callee.xml"),
        _ => ("caller_waits.xml", "callee_hangs_up.xml"),
    };
    let builder = Builder::new().workers(chain.workers);
    let [before, behind] = [2, 4].map(|n| builder.lease().addr(n, 5060));
    let callee = builder.lease().addr(3, 5080);
    let over = |leg: usize, addr: SocketAddr| match chain.legs[leg] {
        Udp => addr.to_string(),
        Tcp => format!("{addr};transport=tcp"),
    };
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{}\"", over(2, behind)))
        .start();
    let start = |listen: SocketAddr, next: String| {
        let values = [("LISTEN", listen.to_string()), ("NEXT", next)];
        Kamailio::start(include_str!("kamailio.cfg"), &values, &["NEXT"])
    };
    let proxies = [
        start(before, over(1, host.sip())),
        start(behind, over(3, callee)),
    ];
    let scenario = |name: &str| root().join("tests/scenarios").join(name);
    let sipp = |leg: usize| match chain.legs[leg] {
        Udp => "u1",
        Tcp => "t1",
    };
    let mut callees = peers::sipp_server(
        &scenario(down),
        host.folder(),
        callee,
        &["-t", sipp(3), "-m", CALLS],
    );
    wait::until("SIPp listens", || match chain.legs[3] {
        Udp => UdpSocket::bind(callee).err().map(drop),
        Tcp => TcpStream::connect(callee).ok().map(drop),
    });
    let output = peers::sipp(
        &scenario(up),
        host.folder(),
        host.lease().addr(10, 5060),
        before,
        &[
            "-t",
            sipp(0),
            "-m",
            CALLS,
            "-r",
            "50",
            "-l",
            "20",
            "-s",
            "bob",
        ],
    );
    assert!(
        output.status.success(),
        "{:?}: {}",
        chain.legs,
        String::from_utf8_lossy(&output.stdout)
    );
    let status = wait::until("the callee has seen every call", || {
        callees.try_wait().expect("SIPp can be asked")
    });
    assert!(status.success(), "the callee's SIPp ended with {status}");
    wait_until_idle(&host);
    for proxy in &proxies {
        wait::until("Kamailio has no transaction", || {
            let said = kamcmd(&proxy.ctl(), &["tm.stats"]);
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let current = said
                .lines()
                .find(|line| line.trim().starts_with("current:"));
            (current?.trim() == "current: 0").then_some(())
        });
    }
    let begun = host.metric("portcullis_transactions_begun_total", &[]);
    assert_eq!(begun, 100.0, "an INVITE and a BYE each");
    assert_eq!(host.metric("portcullis_dropped_total", &[]), 0.0);
}
