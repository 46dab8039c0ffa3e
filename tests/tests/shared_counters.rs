//! Hosts that count together through Redis: one limit for all of them, whichever host a caller asks.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::redis::{PASSWORD, Redis};
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;

/// Requests of one source at once.
const BURST: usize = 20;

/// A host with a limit that is not refilled while a test runs.
fn host(redis: &str, more: &[(&str, &str)]) -> Host {
    let mut builder = Builder::new()
        .policy(policy("rate-guard"))
        .set("policy", "fleet-counters = [\"127.\"]")
        .set("policy.settings", "per-second = 0.0001")
        .set("policy.settings", &format!("burst = {BURST}"))
        .set("policy.settings", "flood = 100000")
        .set("fleet.redis", &format!("url = \"{redis}\""))
        .set("fleet.redis", "interval = \"50ms\"");
    for (section, line) in more {
        builder = builder.set(section, line);
    }
    builder.start()
}

/// Sends this many requests from one source. Returns how many of them were within the limit.
fn admitted(host: &Host, source: IpAddr, requests: usize) -> usize {
    let mut caller = Caller::udp(source, host.sip());
    let admitted = (0..requests).filter(|_| {
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        match caller.ask(&request).start_line() {
            "SIP/2.0 403 Forbidden" => true,
            "SIP/2.0 503 Too many requests" => false,
            other => panic!("{other}"),
        }
    });
    admitted.count()
}

/// Waits until each host has sent everything, and has read what the others have sent.
fn exchange(hosts: &[&Host]) {
    for _ in 0..2 {
        let exchanges = |host: &Host| host.metric("portcullis_exchange_exchanges_total", &[]);
        let before: Vec<_> = hosts.iter().map(|host| exchanges(host)).collect();
        for (host, before) in hosts.iter().zip(before) {
            wait::until("two exchanges have been made", || {
                (exchanges(host) >= before + 2.0).then_some(())
            });
        }
    }
}

/// What `portcullis check` prints.
fn check(host: &Host) -> String {
    let output = host.command("check");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_for_hosts(hosts: &[&Host], number: f64) {
    for host in hosts {
        wait::until(&format!("{number} hosts count together"), || {
            (host.metric("portcullis_exchange_hosts", &[]) == number).then_some(())
        });
    }
}

#[test]
fn peers_hosts_hold_one_limit_together_and_go_on_without_redis() {
    let place = portcullis_testkit::lease::Lease::new();
    let mut redis = Redis::start(place.addr(6, 6379));
    let url = format!("redis://{}", redis.addr());
    let (a, b, c) = (host(&url, &[]), host(&url, &[]), host(&url, &[]));
    let hosts = [&a, &b, &c];
    wait_for_hosts(&hosts, 3.0);
    assert!(
        a.run("status")
            .contains("exchange:     3 hosts through 127.")
    );
    let said = check(&a);
    assert!(said.contains("Redis at 127."), "{said}");

    let source = place.ip(20);
    for host in hosts {
        assert_eq!(admitted(host, source, 1), 1);
        exchange(&hosts);
    }
    assert_eq!(admitted(&a, source, 10), 10);
    exchange(&hosts);
    assert_eq!(admitted(&b, source, BURST), BURST - 3 - 10);
    exchange(&hosts);
    for host in hosts {
        assert_eq!(admitted(host, source, 3), 0);
    }
    // Another source has its own limit.
    assert_eq!(admitted(&c, place.ip(21), BURST + 5), BURST);

    redis.kill();
    wait_for_hosts(&hosts, 0.0);
    let status = a.run("status");
    assert!(
        status.contains("this host limits a share of 1/3"),
        "{status}"
    );
    assert!(
        status.contains("alert:        shared counters: the other hosts are not heard"),
        "{status}"
    );
    a.wait_for_log("exchange_lost");
    // Each host has its share of the burst.
    for host in hosts {
        assert_eq!(admitted(host, place.ip(22), BURST), BURST.div_ceil(3));
        assert_eq!(admitted(host, place.ip(23), 2), 2);
    }

    redis.restart();
    wait_for_hosts(&hosts, 3.0);
    exchange(&hosts);
    a.wait_for_log("exchange_back");
    assert!(!a.run("status").contains("alert:"));
    // What each host took of its share counts once, whichever host came back first: three times two tokens.
    assert_eq!(admitted(&b, place.ip(22), 5), 0);
    assert_eq!(admitted(&b, place.ip(23), BURST), BURST - 6);
    exchange(&hosts);
    assert_eq!(admitted(&a, place.ip(23), 5), 0);
    // Redis holds nothing that does not end.
    for key in redis.cli(&["keys", "*"]).lines() {
        let left: i64 = redis.cli(&["pttl", key]).parse().expect("a number");
        assert!(
            key.starts_with("{portcullis}:") && left > 0,
            "{key}: {left}"
        );
    }
}

#[test]
fn peers_hosts_count_together_over_tls_with_a_password() {
    let place = portcullis_testkit::lease::Lease::new();
    let addr = place.addr(6, 6379);
    let redis = Redis::start_secure(addr, &format!("IP:{}", addr.ip()));
    let password = redis.folder().join("password");
    std::fs::write(&password, PASSWORD).expect("a file can be written");
    let ca = format!("ca = {:?}", redis.folder().join("ca.pem"));
    let password = format!("password-file = {password:?}");
    let files = [
        ("fleet.redis", ca.as_str()),
        ("fleet.redis", password.as_str()),
    ];
    let url = format!("rediss://{addr}");
    let (a, b) = (host(&url, &files), host(&url, &files));
    wait_for_hosts(&[&a, &b], 2.0);
    let source = place.ip(20);
    assert_eq!(admitted(&a, source, 1) + admitted(&b, source, 1), 2);
    exchange(&[&a, &b]);
    assert_eq!(admitted(&a, source, BURST), BURST - 2);
    exchange(&[&a, &b]);
    assert_eq!(admitted(&b, source, 5), 0);

    // Without the password, one clear message; requests are decided all the same.
    let c = host(&url, &files[..1]);
    c.wait_for_log("refuses the password");
    assert_eq!(admitted(&c, source, BURST + 1), BURST);
    let said = check(&c);
    assert!(said.contains("refuses the password"), "{said}");
}
