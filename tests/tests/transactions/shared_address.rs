//! Two hosts that live behind one address: the next message of a call may reach the host that has not seen the ones before, and is passed to the one
//! with the transaction.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::pair::KEY;
use portcullis_testkit::peer::{Peer, branch_of};
use portcullis_testkit::spreader::Spreader;
use portcullis_testkit::{policy, wait};
use tempfile::TempDir;

use crate::call::Call;
use crate::site::{Site, wait_until_idle};
use crate::targets::{BOB, FAILOVER, with_targets};

/// Two hosts that know each other, and what is between them and their peers.
struct Service {
    hosts: [Host; 2],
    spreader: Spreader,
    site: Site,
    _peers: Lease,
    _keys: TempDir,
}

impl Service {
    /// Hosts that pass `what`, with a configuration that may name the addresses of three callees.
    fn start(what: &str, configure: impl Fn(Builder, &Spreader) -> Builder) -> Self {
        let builders = [0, 1].map(|_| Builder::new());
        let addrs = builders.each_ref().map(|it| it.lease().addr(1, 5060));
        let peers = builders.each_ref().map(|it| it.lease().addr(1, 5070));
        let lease = Lease::new();
        let spreader = Spreader::start(lease.ip(1), addrs);
        let keys = tempfile::tempdir().expect("a temporary directory can be made");
        let key = keys.path().join("seal.key");
        std::fs::write(&key, KEY).expect("a key file can be written");
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("its mode can be set");
        let mut own = peers.into_iter();
        let hosts = builders.map(|builder| {
            let listen = own.next().expect("there are two");
            let builder = builder
                .policy(policy("observe"))
                .advertise(spreader.addr())
                .set("relay", &format!("domains = [\"{}/24:*\"]", lease.ip(0)))
                .set("sip", &format!("key-file = {key:?}"))
                .set("transactions", "adopt = \"always\"")
                .set("fleet", &format!("peers-listen = \"{listen}\""))
                .set(
                    "fleet",
                    &format!("peers = [\"{}\", \"{}\"]", peers[0], peers[1]),
                )
                .set("fleet", &format!("peers-pass = \"{what}\""));
            configure(builder, &spreader).start()
        });
        let service = Self {
            site: Site::of(&hosts[0]).at(spreader.addr(), lease.ip(3)),
            hosts,
            spreader,
            _peers: lease,
            _keys: keys,
        };
        for host in &service.hosts {
            wait::until("the hosts have met", || {
                (host.metric("portcullis_peers_alive", &[]) == 1.0).then_some(())
            });
        }
        service
    }

    /// A call whose caller reaches the first host and whose callee reaches the second one.
    fn crossing_call(&self) -> (Call, Peer) {
        let (caller, callee) = (self.site.caller(), self.site.callee());
        self.spreader.pin(caller.local(), 0);
        self.spreader.pin(callee.local(), 1);
        let uri = format!("sip:bob@{}", self.spreader.inside(callee.local()));
        let invite = caller.request("INVITE", &uri);
        (Call::of(&self.site, caller, invite), callee)
    }

    /// The sum over both hosts.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.hosts
            .iter()
            .map(|host| host.metric(name, labels))
            .sum()
    }

    fn unmatched(&self, kind: &str) -> f64 {
        let label = format!("kind=\"{kind}\"");
        self.sum("portcullis_unmatched_messages_total", &[&label])
    }

    /// All calls have ended at the hosts that had them, and nobody has sent anything along the Vias only.
    fn is_settled(&self) {
        for host in &self.hosts {
            wait_until_idle(host);
        }
        assert_eq!(
            (self.unmatched("adopted"), self.unmatched("stray")),
            (0.0, 0.0)
        );
        assert_eq!(self.sum("portcullis_peer_packets_refused_total", &[]), 0.0);
    }
}

fn passed(host: &Host, kind: &str) -> f64 {
    let label = format!("kind=\"{kind}\"");
    host.metric("portcullis_peer_messages_total", &[&label])
}

/// The host that has the call hears all answers, though each of them reaches the other host.
#[test]
fn an_answer_at_the_other_host_reaches_the_one_with_the_call() {
    let service = Service::start("answers", |builder, _| builder);
    let (call, callee) = service.crossing_call();
    let seen = call.rings_at(&callee);
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
    service.is_settled();
    // 180 and 200 at least; the answer to the BYE goes to the host that has relayed it.
    let answers = passed(&service.hosts[1], "answer");
    assert!(answers >= 2.0, "{answers}");
    assert_eq!(passed(&service.hosts[0], "received"), answers);
    let begun = |host: &Host| host.metric("portcullis_transactions_begun_total", &[]);
    assert_eq!(begun(&service.hosts[1]), 0.0);
    let answered = service.hosts[0].metric("portcullis_transactions_ended_total", &["2xx"]);
    assert_eq!(answered, begun(&service.hosts[0]), "INVITE and BYE");
}

/// A failure that comes to the other host is acknowledged by the host with the call.
#[test]
fn a_failure_at_the_other_host_is_acknowledged() {
    let service = Service::start("answers", |builder, _| builder);
    let (call, callee) = service.crossing_call();
    let seen = call.arrives_at(&callee);
    call.is_refused_by(&callee, &seen, 486);
    call.fails_with(486);
    service.is_settled();
}

/// Whichever host the branch selects: INVITE and CANCEL come to different hosts, and meet at one.
#[test]
fn a_cancel_at_the_other_host_ends_the_call() {
    let service = Service::start("all", |builder, _| builder);
    let (call, callee) = service.crossing_call();
    let seen = call.rings_at(&callee);
    service.spreader.pin(call.caller.local(), 1);
    call.cancels();
    let cancel = call.is_cancelled_at(&callee, &seen, 487);
    assert_eq!(branch_of(&cancel.message), branch_of(&seen.message));
    call.fails_with(487);
    service.is_settled();
    assert!(service.sum("portcullis_peer_messages_total", &["kind=\"request\""]) >= 1.0);
    assert_eq!(service.sum("portcullis_transactions_begun_total", &[]), 1.0);
    assert_eq!(
        service.sum("portcullis_transactions_cancelled_total", &[]),
        1.0
    );
}

/// A copy is absorbed by the host with the call, which sends its last answer again.
#[test]
fn a_copy_at_the_other_host_is_absorbed() {
    let service = Service::start("all", |builder, _| builder);
    let (call, callee) = service.crossing_call();
    let seen = call.rings_at(&callee);
    let before = callee.times_of("INVITE").len();
    for (turn, host) in [1, 0].into_iter().enumerate() {
        service.spreader.pin(call.caller.local(), host);
        call.repeat();
        call.caller.nth_response(turn + 1, "INVITE", 180);
    }
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
    assert_eq!(
        callee.times_of("INVITE").len(),
        before,
        "no copy came through"
    );
    service.is_settled();
}

/// Serial forking: each datagram reaches the other host than the one before, and the call goes to its next target.
#[test]
fn a_call_goes_to_its_next_target_while_every_message_crosses() {
    let lease = Lease::new();
    let callees = [0; 2].map(|_| Peer::udp(lease.ip(3)));
    let service = Service::start("all", |builder, spreader| {
        let inside = callees.each_ref().map(|it| spreader.inside(it.local()));
        with_targets(builder, FAILOVER, &inside)
    });
    for _ in 0..4 {
        let [busy, free] = &callees;
        let before = [busy, free].map(|callee| callee.times_of("INVITE").len());
        let call = Call::to(&service.site, BOB);
        let seen = busy.nth_request(before[0], "INVITE");
        call.is_refused_by(busy, &seen, 503);
        let seen = free.nth_request(before[1], "INVITE");
        let ok = call.is_answered_by(free, &seen);
        call.is_confirmed_to(free, &ok);
        for host in &service.hosts {
            wait_until_idle(host);
        }
        for callee in [busy, free] {
            callee.forget();
        }
    }
    service.is_settled();
    assert_eq!(service.sum("portcullis_transactions_begun_total", &[]), 4.0);
    assert!(service.sum("portcullis_peer_messages_total", &["kind=\"answer\""]) >= 1.0);
}

/// Without the host that has the call, the answer goes along its Vias, as without `peers-listen`.
#[test]
fn an_answer_finds_its_way_when_the_host_with_the_call_is_gone() {
    let mut service = Service::start("answers", |builder, _| builder);
    let (call, callee) = service.crossing_call();
    let seen = call.rings_at(&callee);
    service.hosts[0].kill();
    let left = &service.hosts[1];
    wait::until("the host is missed", || {
        (left.metric("portcullis_peers_alive", &[]) == 0.0).then_some(())
    });
    service.spreader.pin(call.caller.local(), 1);
    let ok = call.is_answered_by(&callee, &seen);
    call.is_completed_with(&callee, &ok);
    let adopted = &["kind=\"adopted\""];
    assert_eq!(
        left.metric("portcullis_unmatched_messages_total", adopted),
        1.0
    );
    left.wait_for_log("event=\"peer_down\"");
}

/// An upgrade gives the address to the new process, which passes on what belongs to the old one.
#[test]
fn an_answer_reaches_the_process_before_an_upgrade() {
    let mut service = Service::start("answers", |builder, _| builder);
    let (call, callee) = service.crossing_call();
    let seen = call.rings_at(&callee);
    service.hosts[0].upgrade();
    wait::until("the new process is known", || {
        let processes = service.hosts[1].log().matches("event=\"peer_up\"").count();
        (processes == 2).then_some(())
    });
    let ok = call.is_answered_by(&callee, &seen);
    call.is_confirmed_to(&callee, &ok);
    assert_eq!(service.unmatched("adopted"), 0.0);
}

#[test]
fn foreign_packets_are_counted_and_told_once() {
    let service = Service::start("answers", |builder, _| builder);
    let host = &service.hosts[0];
    let socket = std::net::UdpSocket::bind((host.lease().ip(9), 0)).expect("it can be bound");
    for packet in [&b"SIP/2.0 200 OK\r\n\r\n"[..], b"", &[0; 9_000]] {
        let to = host.lease().addr(1, 5070);
        socket.send_to(packet, to).expect("it can be sent");
    }
    wait::until("they are refused", || {
        let refused = |why| host.metric("portcullis_peer_packets_refused_total", &[why]);
        (refused("unsealed") == 3.0).then_some(())
    });
    host.wait_for_log("peer_packets_refused");
    assert_eq!(host.metric("portcullis_peers_alive", &[]), 1.0);
    assert_eq!(host.log().matches("peer_packets_refused").count(), 1);
}

#[test]
fn a_host_that_passes_messages_needs_a_key_and_others() {
    let builder = Builder::new();
    let listen = builder.lease().addr(1, 5070);
    let host = builder
        .set("fleet", &format!("peers-listen = \"{listen}\""))
        .start();
    let said = host.run("check");
    assert!(said.contains("`peers-listen` without a key-file"), "{said}");
    assert!(said.contains("`peers` names no other host"), "{said}");
}
