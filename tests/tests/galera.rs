//! Hosts on a Galera cluster whose nodes fail and return, and on one that was restored from an old state.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portcullis_testkit::galera::{Fault, Galera, NODES};
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::wait;

const CALLER: u8 = 10;
const STRANGER: u8 = 20;

/// A host that begins with this node. Its caller is in group 200.
fn host(cluster: &Galera, first: usize) -> Host {
    let builder = Builder::new()
        .set("database", &cluster.urls(first))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]");
    let caller = builder.lease().ip(CALLER);
    cluster.add_row(0, &caller.to_string());
    builder.start()
}

/// The node that a host uses.
fn used(cluster: &Galera, host: &Host) -> usize {
    let is_used = |node: &usize| {
        let server = cluster.addr(*node).to_string();
        host.metric("portcullis_database_server_used", &[&server]) > 0.0
    };
    (0..NODES)
        .find(is_used)
        .expect("the host uses one of the nodes")
}

fn rows(host: &Host) -> u64 {
    host.metric("portcullis_address_rows", &[]) as u64
}

/// Asks for verdicts until it is over. Returns how many were wrong: an allowed source gets 403, because the host has no next hop, and an unknown
/// one gets 401.
fn traffic(host: &Host, is_over: &AtomicBool, answered: &AtomicU64) -> u64 {
    let mut wrong = 0;
    let mut callers = [(host.udp(CALLER), 403), (host.udp(STRANGER), 401)];
    while !is_over.load(Ordering::Relaxed) {
        for (caller, expected) in &mut callers {
            let request = caller.request("MESSAGE", "sip:bob@example.com");
            if let Some(answer) = caller.try_ask(&request) {
                answered.fetch_add(1, Ordering::Relaxed);
                wrong += u64::from(answer.code() != *expected);
            }
        }
        // A pace that leaves the processors to the nodes.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    wrong
}

/// Ends the traffic, also if an assertion fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn peers_nodes_of_a_cluster_fail_one_after_another_and_no_verdict_and_no_push_is_lost() {
    let mut cluster = Galera::start();
    let hosts = [host(&cluster, 0), host(&cluster, 1)];
    let mut expected = 2;
    for host in &hosts {
        wait::until("the host has the rows", || {
            (rows(host) == expected).then_some(())
        });
    }
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut pushed = 0;
    std::thread::scope(|scope| {
        let (over, count) = (&is_over, &answered);
        let _ends = Ends(over);
        let traffics = hosts
            .each_ref()
            .map(|host| scope.spawn(move || traffic(host, over, count)));
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            let node = used(&cluster, &hosts[0]);
            fault.begin(&mut cluster, node);
            let policy = rejecting(486, &format!("push {n}"));
            let (status, said) = hosts[0].push("acme", "", &policy);
            assert!(status < 300, "{fault:?}: {status} {said}");
            pushed += 1;
            cluster.add_row((node + 1) % NODES, &format!("192.0.2.{n}"));
            expected += 1;
            for host in &hosts {
                wait::until(&format!("the row is live beside {fault:?}"), || {
                    (rows(host) == expected).then_some(())
                });
                assert_ne!(used(&cluster, host), node, "{fault:?}");
            }
            fault.end(&mut cluster, node);
            // A change on the node that has returned reaches hosts that use others.
            cluster.add_row(node, &format!("198.51.100.{n}"));
            expected += 1;
            for host in &hosts {
                wait::until(&format!("the row is live after {fault:?}"), || {
                    (rows(host) == expected).then_some(())
                });
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for traffic in traffics {
            assert_eq!(
                traffic.join().expect("the callers end"),
                0,
                "wrong verdicts"
            );
        }
    });
    assert!(answered.load(Ordering::Relaxed) > 0);
    let count = "SELECT COUNT(*) FROM portcullis_generation WHERE seat = 'acme'";
    for node in 0..NODES {
        wait::until("each push is stored once on each node", || {
            (cluster.sql(node, "kamailio", count).trim() == pushed.to_string()).then_some(())
        });
    }
    assert!(hosts[0].metric("portcullis_database_server_changes_total", &[]) >= 1.0);
    hosts[0].wait_for_log("database_server_changed");
    for host in &hosts {
        assert!(
            !host.log().contains("kamailiorw"),
            "a password is in the log"
        );
    }
}

#[test]
fn peers_a_cluster_that_was_started_from_an_old_state_is_not_read_until_that_is_accepted() {
    let mut cluster = Galera::start();
    let host = host(&cluster, 0);
    wait::until("the host has its row", || (rows(&host) == 1).then_some(()));
    // Node 2 lacks the last change.
    cluster.die(2);
    cluster.add_row(0, "192.0.2.1");
    wait::until("the row is live", || (rows(&host) == 2).then_some(()));
    cluster.die(1);
    cluster.die(0);
    cluster.permit_bootstrap(2);
    cluster.bootstrap(2);
    wait::until("the host says that the state is older", || {
        (host.metric("portcullis_database_older", &[]) > 0.0).then_some(())
    });
    assert_eq!(rows(&host), 2);
    let alerts = host.run("alert list");
    assert!(alerts.contains("address reload"), "{alerts}");
    let check = host.command("check");
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.contains("serves, at "), "{check}");
    // A single node of the cluster is there: the others are named as unreachable.
    assert!(check.contains(&cluster.addr(0).to_string()), "{check}");
    host.run("address reload");
    assert_eq!(rows(&host), 1);
    assert!(host.metric("portcullis_database_older", &[]) < 1.0);
    cluster.add_row(2, "192.0.2.7");
    wait::until("changes are live again", || {
        (rows(&host) == 2).then_some(())
    });
}
