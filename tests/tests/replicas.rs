//! Hosts on a primary and a replica: a replica that lags is not read, and a replica that is promoted takes over.

#![forbid(unsafe_code)]

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::replicas::{Replicas, Role};
use portcullis_testkit::wait;

const CALLER: u8 = 10;
const NEW: u8 = 11;

/// A host whose caller is in group 200. It does not announce itself, so that it writes nothing.
fn host(servers: &Replicas) -> Host {
    let builder = Builder::new()
        .set("database", &servers.urls())
        .set("database", "poll = \"250ms\"")
        .set("fleet", "announce = false");
    let caller = builder.lease().ip(CALLER);
    servers.add_row(Role::Primary, &caller.to_string());
    builder.start()
}

fn rows(host: &Host) -> u64 {
    host.metric("portcullis_address_rows", &[]) as u64
}

fn wait_for_rows(host: &Host, expected: u64) {
    wait::until(&format!("the host has {expected} rows"), || {
        (rows(host) == expected).then_some(())
    });
}

fn is_used(servers: &Replicas, host: &Host, role: Role) -> bool {
    let server = servers.addr(role).to_string();
    host.metric("portcullis_database_server_used", &[&server]) > 0.0
}

/// An allowed source gets 403, because the host has no next hop, and an unknown one gets 401.
fn is_allowed(host: &Host, source: u8) -> bool {
    let mut caller = host.udp(source);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    let answer = caller.ask(&request);
    assert!([401, 403].contains(&answer.code()), "{}", answer.code());
    answer.code() == 403
}

/// Adds an address through the host. Returns the status.
fn add_row(host: &Host, ip: &str) -> u16 {
    let row = format!("{{\"group\": 200, \"address\": \"{ip}\", \"mask\": 32, \"port\": 0}}");
    let sent = (Some("application/json"), row.as_bytes());
    let (status, _, _) = host.ask(None, "POST", "/v1/addresses", sent);
    status
}

/// The primary dies while its replica lacks the last change: the host keeps its tables until the replica has caught up, and follows it when it is
/// promoted.
fn a_replica_that_lags_is_not_read_and_takes_over_later(mut servers: Replicas) {
    let host = host(&servers);
    wait_for_rows(&host, 1);
    assert!(is_used(&servers, &host, Role::Primary), "a replica is used");
    servers.pause();
    let new = host.lease().ip(NEW).to_string();
    servers.add_row(Role::Primary, &new);
    wait_for_rows(&host, 2);
    assert!(is_allowed(&host, NEW));
    servers.wait_until_received();
    servers.primary_dies();
    // Ten seconds later, an operator has to decide.
    wait::until("the host says that no server has its state", || {
        assert_eq!(rows(&host), 2, "an older table is in use");
        (host.metric("portcullis_database_older", &[]) > 0.0).then_some(())
    });
    assert!(is_allowed(&host, NEW), "the last change is kept");
    let replica = servers.addr(Role::Replica).to_string();
    let log = host.log();
    let behind = log
        .lines()
        .find(|line| line.contains("database_server_behind"));
    assert!(behind.is_some_and(|line| line.contains(&replica)), "{log}");

    servers.resume();
    wait::until("the host uses the replica", || {
        assert_eq!(rows(&host), 2);
        let is_older = host.metric("portcullis_database_older", &[]) > 0.0;
        (!is_older && is_used(&servers, &host, Role::Replica)).then_some(())
    });
    let status = add_row(&host, "192.0.2.1");
    assert!(status >= 400, "{status}: it only reads");
    servers.promote();
    servers.add_row(Role::Replica, "192.0.2.1");
    wait_for_rows(&host, 3);
    wait::until("the host writes to it", || {
        (add_row(&host, "192.0.2.2") < 300).then_some(())
    });
    wait_for_rows(&host, 4);
    assert_eq!(
        servers
            .sql(Role::Replica, "SELECT COUNT(*) FROM address")
            .trim(),
        "4"
    );
    if matches!(servers, Replicas::Postgres(_)) {
        // Two primaries of PostgreSQL cannot be told apart by their positions.
        return;
    }
    // The old primary lacks what was written since.
    servers.primary_returns();
    servers.add_row(Role::Replica, "192.0.2.3");
    wait_for_rows(&host, 5);
    assert!(is_used(&servers, &host, Role::Replica));
    assert!(is_allowed(&host, CALLER) && is_allowed(&host, NEW));
}

#[test]
fn peers_a_replica_of_mariadb_that_lags_is_not_read_and_takes_over_later() {
    a_replica_that_lags_is_not_read_and_takes_over_later(Replicas::mariadb());
}

#[test]
fn peers_a_standby_of_postgres_that_lags_is_not_read_and_takes_over_later() {
    a_replica_that_lags_is_not_read_and_takes_over_later(Replicas::postgres());
}
