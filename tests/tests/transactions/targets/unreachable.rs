//! Targets that cannot be reached.

use std::net::SocketAddr;

use portcullis_testkit::host::Builder;
use portcullis_testkit::lease::Lease;
use portcullis_testkit::oracle::exceptions::TCP_REFUSED;
use portcullis_testkit::peer::Peer;
use portcullis_testkit::policy;

use super::{BOB, FAILOVER, Targets, branches_at, callees, with_targets};
use crate::call::Call;
use crate::site::{Site, Summary, wait_until_idle};

/// 17: an ICMP error says that nobody listens there.
#[test]
fn a_closed_port_fails_a_target_at_once() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let closed = builder.lease().addr(4, 5080);
    let host = with_targets(builder, FAILOVER, &[closed, callee.local()]).start();
    let call = Call::to(&Site::of(&host), BOB);
    let ok = call.is_answered_by(&callee, &call.arrives_at(&callee));
    call.is_confirmed_to(&callee, &ok);
    let attempts = |result: &str| host.metric("portcullis_attempts_total", &[result]);
    assert_eq!((attempts("unreachable"), attempts("no_answer")), (1.0, 0.0));
}

/// A target that this host cannot reach with any of its sockets.
#[test]
fn a_target_that_the_host_refuses_is_followed_by_the_next() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let nowhere = "[2001:db8::1]:5060".parse().expect("an address");
    let host = with_targets(builder, FAILOVER, &[nowhere, callee.local()]).start();
    let site = Site::of(&host);
    let caller = site.caller();
    let message = caller.request("MESSAGE", BOB);
    site.send(&caller, &message);
    callee.answer(&callee.first_request("MESSAGE"), 200);
    caller.first_response("MESSAGE", 200);
    let status = host.rpc("portcullis.status", serde_json::json!([]));
    assert_eq!(
        status["result"]["troubles"]["no_socket"]["count"], 1,
        "{status}"
    );
}

/// 18: a target over TCP that refuses connections, and one that does not accept them.
#[test]
fn a_target_without_a_connection_fails() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let (_deaf, targets) = without_connections(builder.lease(), &callee);
    let host = over_tcp(builder, &targets).start();
    third_answers_at_once(&Site::of(&host), &callee);
    wait_until_idle(&host);
    let unreachable = host.metric("portcullis_attempts_total", &["unreachable"]);
    assert_eq!(unreachable, 2.0);
}

/// 18, as the caller and the last target see it.
#[test]
fn peers_fail_over_from_tcp_as_with_kamailio() {
    let builder = Builder::new();
    let callees = callees(builder.lease());
    let (_deaf, targets) = without_connections(builder.lease(), &callees[0]);
    let host = over_tcp(builder, &targets).start();
    let ours = third_answers_at_once(&Site::of(&host), &callees[0]);
    let [refusing, deaf, _] = targets;
    let local = callees[1].local().to_string();
    let theirs = [deaf, local.clone(), local.clone()];
    let (kamailio, site) = Targets::kamailio_site(host.lease(), FAILOVER, theirs);
    let theirs = third_answers_at_once(&site, &callees[1]);
    assert_eq!(ours, theirs);
    drop(kamailio);
    let theirs = [refusing, local.clone(), local];
    let (_kamailio, site) = Targets::kamailio_site(host.lease(), FAILOVER, theirs);
    let call = Call::to(&site, BOB);
    let end = call.caller.nth(0, "a final response", |m| m.code() >= 200);
    assert_eq!(end.message.code(), 477, "{}", TCP_REFUSED.name);
    assert_eq!(branches_at(&callees[1]), 1, "of the call before");
}

/// A call to a callee whose turn comes last.
fn third_answers_at_once(site: &Site, callee: &Peer) -> Summary {
    let call = Call::to(site, BOB);
    let ok = call.is_answered_by(callee, &call.arrives_at(callee));
    call.is_completed_with(callee, &ok);
    call.summary(callee)
}

/// Two targets that no connection can be opened to, and this callee.
fn without_connections(lease: &Lease, callee: &Peer) -> (Deaf, [String; 3]) {
    let refusing = lease.addr(4, 5080);
    let deaf = Deaf::listen(lease.addr(5, 5080));
    let tcp = |addr: SocketAddr| format!("{addr};transport=tcp");
    let targets = [tcp(refusing), tcp(deaf.addr), callee.local().to_string()];
    (deaf, targets)
}

/// A host whose targets have more time than a connection may take to open.
fn over_tcp(builder: Builder, targets: &[String; 3]) -> Builder {
    let builder = builder
        .policy(policy(FAILOVER))
        .set("policy.settings", "next-hops = [\"a\", \"b\", \"c\"]")
        .set("policy.settings", "seconds = 10");
    ["a", "b", "c"]
        .iter()
        .zip(targets)
        .fold(builder, |builder, (name, target)| {
            builder.set("relay.next-hops", &format!("{name} = \"sip:{target}\""))
        })
}

/// A TCP listener whose queue is full: the system drops what would open further connections.
struct Deaf {
    addr: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl Deaf {
    fn listen(addr: SocketAddr) -> Self {
        let socket = || {
            let kind = socket2::Type::STREAM;
            socket2::Socket::new(socket2::Domain::IPV4, kind, None).expect("a socket can be made")
        };
        let listener = socket();
        listener.bind(&addr.into()).expect("the address is free");
        listener.listen(0).expect("a bound socket listens");
        // One connection more than the queue takes, at most.
        let waiting = (0..2).map(|_| {
            let client = socket();
            client
                .set_nonblocking(true)
                .expect("a socket can be nonblocking");
            let _in_progress = client.connect(&addr.into());
            client
        });
        Self {
            addr,
            _waiting: waiting.collect(),
            _listener: listener,
        }
    }
}
