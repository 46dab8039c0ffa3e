//! Bans by operators, and bans that the hosts of a fleet share.

use std::net::IpAddr;

use portcullis_testkit::control::{binrpc_endpoints, kamcmd, open_all};
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::redis::Redis;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use serde_json::{Value, json};

use super::{NEIGHBOUR, SCANNER, SPY};

/// A host that shares what it bans through this Redis.
fn of_fleet(redis: &Redis, builder: Builder) -> Host {
    let host = builder
        .set(
            "fleet.redis",
            &format!("url = \"redis://{}\"", redis.addr()),
        )
        .set("fleet.redis", "interval = \"100ms\"")
        .set("guard", "exempt = []")
        .set("guard", "malformed = 3")
        .start();
    host.wait_for_log("event=\"exchange_hosts\"");
    host
}

/// Bans the source on this host: three requests with an unknown method over TCP.
fn ban(host: &Host, source: IpAddr) {
    let mut stranger = Caller::tcp(source, host.sip());
    for _ in 0..3 {
        let request = stranger.request("ODD", "sip:bob@example.com");
        stranger.send(&request.bytes());
    }
    wait_for_state(host, source, Some("banned"));
}

/// What `guard list` says about a source.
fn told(host: &Host, source: IpAddr) -> Option<Value> {
    let list: Value = serde_json::from_str(&host.run("guard list --json")).expect("a list");
    let mut list = list.as_array().expect("a list").iter();
    list.find(|one| one["source"] == source.to_string())
        .cloned()
}

fn wait_for_state(host: &Host, source: IpAddr, state: Option<&str>) {
    let what = format!("{source} is {state:?}");
    wait::until(&what, || {
        let told = told(host, source);
        (told.as_ref().and_then(|one| one["state"].as_str()) == state).then_some(())
    });
}

#[test]
fn peers_a_ban_of_one_host_is_one_of_the_others_until_any_of_them_releases_the_source() {
    let lease = Lease::new();
    let mut redis = Redis::start(lease.addr(1, 6379));
    let one = of_fleet(&redis, Builder::new());
    let [scanner, member, later] = [SCANNER, NEIGHBOUR, SPY].map(|number| one.lease().ip(number));
    let row = format!("900 {member} 32");
    let other = of_fleet(&redis, Builder::new().row(&row));

    ban(&one, scanner);
    wait_for_state(&other, scanner, Some("banned"));
    let [here, there] = [&one, &other].map(|host| told(host, scanner).expect("it is banned"));
    assert_eq!([&here["reason"], &there["reason"]], ["malformed"; 2]);
    let seconds = [&here, &there].map(|ban| ban["seconds"].as_u64().expect("a number"));
    assert!(seconds[0].abs_diff(seconds[1]) <= 5, "{seconds:?}");
    assert_eq!(here.get("host"), None, "it is a ban of its own");
    assert!(there["host"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(other.run("guard list").contains("banned by "));
    let mut again = Caller::tcp(scanner, other.sip());
    assert!(again.read_to_end().is_empty(), "it is closed at once");
    other.wait_for_log("event=\"source_banned\"");
    let shared = |host: &Host, result: &str| {
        let label = format!("result={result:?}");
        host.metric("portcullis_guard_shared_bans_total", &[label.as_str()])
    };
    assert_eq!(shared(&other, "banned"), 1.0);

    // An address that a host knows is not banned there.
    ban(&one, member);
    wait::until("the ban of the member has arrived", || {
        (shared(&other, "exempt") == 1.0).then_some(())
    });
    assert_eq!(told(&other, member), None);
    let mut known = Caller::udp(member, other.sip());
    let request = known.request("OPTIONS", "sip:bob@example.com");
    assert!(known.try_ask(&request).is_some(), "it is served there");

    other.run(&format!("guard release {scanner}"));
    wait_for_state(&one, scanner, None);
    assert_eq!(shared(&one, "released"), 1.0);

    // Without Redis, a host bans for itself. A Redis that has lost all gets it again.
    redis.kill();
    ban(&one, later);
    one.wait_for_log("event=\"exchange_lost\"");
    assert_eq!(told(&other, later), None);
    redis.restart();
    wait_for_state(&other, later, Some("banned"));
    assert_eq!(told(&other, scanner), None, "a release is not forgotten");
    // So does a host that comes later.
    let third = of_fleet(&redis, Builder::new());
    wait_for_state(&third, later, Some("banned"));
    wait_for_state(&third, member, Some("banned"));
    assert_eq!(told(&third, scanner), None);
}

/// Whether the host answers an OPTIONS of this address over UDP.
fn is_served(host: &Host, source: IpAddr) -> bool {
    let mut caller = Caller::udp(source, host.sip());
    let request = caller.request("OPTIONS", "sip:bob@example.com");
    caller.try_ask(&request).is_some()
}

#[test]
fn peers_a_ban_by_an_operator_is_in_force_on_all_hosts_until_one_of_them_lifts_it() {
    let lease = Lease::new();
    let mut redis = Redis::start(lease.addr(1, 6379));
    let one = of_fleet(&redis, Builder::new());
    let [stranger, member, later] = [SCANNER, NEIGHBOUR, SPY].map(|number| one.lease().ip(number));
    let row = format!("900 {member} 32");
    let mut other = of_fleet(&redis, Builder::new().row(&row));
    assert!(is_served(&one, stranger) && is_served(&other, stranger));

    let said = one.run(&format!("guard ban {stranger} --for 1h"));
    let expected = format!("banned {stranger} for 3600 s on all hosts that share bans\n");
    assert_eq!(said, expected);
    wait_for_state(&other, stranger, Some("banned"));
    let check = |host: &Host| {
        let ban = told(host, stranger).expect("it is banned");
        assert_eq!(ban["reason"], "operator");
        let seconds = ban["seconds"].as_u64().expect("a number");
        assert!((3_000..=3_600).contains(&seconds), "{ban}");
        let mut peer = Caller::tcp(stranger, host.sip());
        assert!(peer.read_to_end().is_empty(), "it is closed at once");
    };
    check(&one);
    check(&other);
    other.wait_for_log("event=\"source_banned\"");
    let labels = ["state=\"banned\"", "reason=\"operator\""];
    let commanded = |host: &Host| host.metric("portcullis_guard_sources_barred_total", &labels);
    assert_eq!([commanded(&one), commanded(&other)], [1.0, 0.0]);

    // Another policy, and another process, which hears of the ban through Redis.
    other.replace_policy(&rejecting(404, "Not Found"));
    other.run("policy reload");
    check(&other);
    other.kill_and_start();
    wait_for_state(&other, stranger, Some("banned"));
    check(&other);

    assert_eq!(
        other.run(&format!("guard unban {stranger}")),
        format!("released {stranger}\n")
    );
    for host in [&one, &other] {
        wait_for_state(host, stranger, None);
        assert!(is_served(host, stranger));
    }

    // A host bans nobody that it knows, whoever says so.
    let refused = other.refused(&format!("guard ban {member}"));
    assert!(refused.contains("the address table"), "{refused}");
    one.run(&format!("guard ban {member}"));
    wait::until("the ban of the member has arrived", || {
        let label = "result=\"exempt\"";
        (other.metric("portcullis_guard_shared_bans_total", &[label]) == 1.0).then_some(())
    });
    assert_eq!(told(&other, member), None);
    assert!(is_served(&other, member));
    // It can still be released from there.
    other.run(&format!("guard release {member}"));
    wait_for_state(&one, member, None);

    // Without Redis, a ban is one of its host, which says so; the others hear of it when Redis is back.
    redis.kill();
    wait::until("the other host is not heard", || {
        (one.metric("portcullis_exchange_hosts", &[]) == 0.0).then_some(())
    });
    let said = one.run(&format!("guard ban {later} --for 10m"));
    assert!(said.contains("when they are heard again"), "{said}");
    wait_for_state(&one, later, Some("banned"));
    assert_eq!(told(&other, later), None);
    redis.restart();
    wait_for_state(&other, later, Some("banned"));
}

#[test]
fn an_operator_bans_and_releases_over_every_door_and_is_told_what_is_wrong() {
    const READER: &str = "reader-0123456789abcdef";
    let host = open_all(Builder::new())
        .set("guard", "exempt = []\nban = \"200s\"")
        .set("control.tokens.wall", &format!("token = \"{READER}\""))
        .set("control.tokens.wall", "role = \"read\"")
        .start();
    let ip = host.lease().ip(SCANNER);
    let seconds = || {
        let ban = told(&host, ip).expect("it is banned");
        assert_eq!(
            (&ban["state"], &ban["reason"]),
            (&json!("banned"), &json!("operator"))
        );
        ban["seconds"].as_u64().expect("a number")
    };
    assert_eq!(
        host.run(&format!("guard ban {ip}")),
        format!("banned {ip} for 200 s on this host\n")
    );
    assert!((100..=200).contains(&seconds()));
    // A ban replaces the one before, also if it is shorter.
    let path = format!("/v1/guard/{ip}?for=90s");
    let (status, _, body) = host.ask(None, "PUT", &path, (None, &b""[..]));
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let expected = json!({"source": ip.to_string(), "seconds": 90, "reach": "host"});
    assert_eq!((status, &body), (200, &expected));
    assert!(seconds() <= 90);
    let answer = host.rpc("guard.ban", json!([ip.to_string(), "10m"]));
    assert_eq!(answer["result"]["seconds"], 600);
    assert!(seconds() > 90);
    let endpoint = &binrpc_endpoints(&host)[0];
    let text = format!("s:{ip}");
    let said = kamcmd(&host, endpoint, &["guard.ban", &text, "50"]);
    assert!(said.contains("seconds: 50"), "{said}");
    assert!(seconds() <= 50);
    let said = kamcmd(&host, endpoint, &["guard.release", &text]);
    assert!(said.contains(&ip.to_string()), "{said}");
    assert_eq!(told(&host, ip), None);

    for (words, why) in [
        ("everybody", "is not an address"),
        ("192.0.2.0/24", "is a network"),
        ("192.0.2.1 --for 25h", "at most 24h"),
        ("192.0.2.1 --for 10", "is not a time of a ban"),
        ("239.0.0.1", "is no address that messages come from"),
    ] {
        let refused = host.refused(&format!("guard ban {words}"));
        assert!(refused.contains(why), "{words}: {refused}");
    }
    assert_eq!(host.run("guard list"), "no source is held or banned\n");
    let path = format!("/v1/guard/{ip}");
    let (status, ..) = host.ask(Some(READER), "PUT", &path, (None, &b""[..]));
    assert_eq!(status, 403);
    let audit = host.run("audit --command guard.ban");
    assert!(audit.contains(&format!("source {ip} for 90 s")), "{audit}");

    // An IPv6 /64 is one source.
    host.run("guard ban 2001:db8:0:7::5 --for 1h");
    let list = host.run("guard list");
    assert!(list.contains("2001:db8:0:7::/64"), "{list}");
    host.run("guard unban 2001:db8:0:7::/64");

    let off = Builder::new().set("guard", "enabled = false").start();
    let refused = off.refused("guard ban 192.0.2.1");
    assert!(
        refused.contains("`enabled` in [guard] is false"),
        "{refused}"
    );
}
