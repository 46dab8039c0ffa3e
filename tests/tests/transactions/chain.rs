//! Kamailio before and behind the host: calls of SIPp through all three.

use portcullis_testkit::host::Builder;
use portcullis_testkit::kamailio::{Kamailio, kamcmd};
use portcullis_testkit::{peers, policy, root, wait};

use crate::site::wait_until_idle;

const CALLS: &str = "50";

#[test]
fn peers_calls_pass_a_chain_of_stateful_proxies() {
    // With several workers, an ACK and a BYE right after it may change places: there the callee sends the BYE.
    for (workers, up, down) in [
        (1, "caller.xml", "callee.xml"),
        (4, "caller_waits.xml", "callee_hangs_up.xml"),
    ] {
        let builder = Builder::new().workers(workers);
        let [before, behind] = [2, 4].map(|n| builder.lease().addr(n, 5060));
        let callee = builder.lease().addr(3, 5080);
        let host = builder
            .policy(policy("observe"))
            .set("relay", &format!("next-hop = \"sip:{behind}\""))
            .start();
        let start = |listen: std::net::SocketAddr, next: std::net::SocketAddr| {
            let values = [("LISTEN", listen.to_string()), ("NEXT", next.to_string())];
            Kamailio::start(include_str!("kamailio.cfg"), &values, &["NEXT"])
        };
        let proxies = [start(before, host.sip()), start(behind, callee)];
        let scenario = |name: &str| root().join("tests/scenarios").join(name);
        let mut callees = peers::sipp_server(
            &scenario(down),
            host.folder(),
            callee,
            &["-t", "u1", "-m", CALLS],
        );
        wait::until("SIPp listens", || {
            std::net::UdpSocket::bind(callee).err().map(drop)
        });
        let output = peers::sipp(
            &scenario(up),
            host.folder(),
            host.lease().addr(10, 5060),
            before,
            &["-t", "u1", "-m", CALLS, "-r", "50", "-l", "20", "-s", "bob"],
        );
        assert!(
            output.status.success(),
            "{}",
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
}
