//! Several targets for a request: forking and failover.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_testkit::guests::guest;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::lease::Lease;
use portcullis_testkit::oracle::exceptions::{MAX_BREADTH, TCP_REFUSED};
use portcullis_testkit::peer::{Peer, branch_of};
use portcullis_testkit::policy;

use crate::call::Call;
use crate::site::{Site, Summary, wait_until_idle};

/// The policies of these tests, by the name of their crate.
const FORK: &str = "fork";
const FAILOVER: &str = "failover";

/// Whom the callers of these tests call. The policy names the targets.
const BOB: &str = "sip:bob@example.com";

/// A proxy that sends each call to three callees.
struct Targets {
    site: Site,
    callees: [Peer; 3],
}

/// A scenario of the oracle. It returns what the caller and each callee have seen.
type Scenario = fn(&Targets) -> Vec<Summary>;

impl Targets {
    /// A host with this policy, and these many of its targets.
    fn host(name: &str, count: usize) -> (Host, Self) {
        Self::host_with(name, count, Builder::new())
    }

    fn host_with(name: &str, count: usize, builder: Builder) -> (Host, Self) {
        let callees = callees(builder.lease());
        let addrs = callees.each_ref().map(Peer::local);
        let host = with_targets(builder, name, &addrs[..count]).start();
        let site = Site::of(&host);
        (host, Self { site, callees })
    }

    /// Kamailio with the part of its configuration that does what the policy does.
    fn kamailio(lease: &Lease, name: &str) -> (Kamailio, Self) {
        let callees = callees(lease);
        let addrs = callees.each_ref().map(|peer| peer.local().to_string());
        let (kamailio, site) = Self::kamailio_site(lease, name, addrs);
        (kamailio, Self { site, callees })
    }

    /// Kamailio with these targets: addresses, which parameters of URIs may follow.
    fn kamailio_site(lease: &Lease, name: &str, targets: [String; 3]) -> (Kamailio, Site) {
        let [t0, t1, t2] = targets;
        let values = [("T0", t0), ("T1", t1), ("T2", t2)];
        Site::kamailio_with(lease, &values, &[name])
    }

    fn call(&self) -> Call {
        Call::to(&self.site, BOB)
    }

    fn summaries(&self, call: &Call) -> Vec<Summary> {
        let each = self.callees.iter();
        each.map(|callee| call.summary(callee)).collect()
    }
}

fn callees(lease: &Lease) -> [Peer; 3] {
    [0; 3].map(|_| Peer::udp(lease.ip(3)))
}

fn with_targets(builder: Builder, name: &str, targets: &[SocketAddr]) -> Builder {
    let names = names_of(targets);
    let settings = format!("next-hops = {names:?}");
    let builder = builder
        .policy(policy(name))
        .set("policy.settings", &settings);
    with_next_hops(builder, targets)
}

fn names_of(targets: &[SocketAddr]) -> Vec<String> {
    (0..targets.len()).map(|n| format!("target-{n}")).collect()
}

fn with_next_hops(builder: Builder, targets: &[SocketAddr]) -> Builder {
    names_of(targets)
        .iter()
        .zip(targets)
        .fold(builder, |builder, (name, target)| {
            builder.set("relay.next-hops", &format!("{name} = \"sip:{target}\""))
        })
}

/// 12: the first 200 cancels what rings.
fn one_answers(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [busy, answering, ringing] = &targets.callees;
    call.is_refused_by(busy, &call.arrives_at(busy), 486);
    let other = call.rings_at(ringing);
    let seen = call.rings_at(answering);
    let ok = call.is_answered_by(answering, &seen);
    let cancel = call.is_cancelled_at(ringing, &other, 487);
    assert_eq!(branch_of(&cancel.message), branch_of(&other.message));
    call.is_completed_with(answering, &ok);
    targets.summaries(&call)
}

/// 13: a 603 cancels what rings, and is passed on when that has ended.
fn one_declines(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [unknown, declining, ringing] = &targets.callees;
    call.is_refused_by(unknown, &call.arrives_at(unknown), 404);
    let other = call.rings_at(ringing);
    call.is_refused_by(declining, &call.arrives_at(declining), 603);
    call.is_cancelled_at(ringing, &other, 487);
    call.fails_with(603);
    targets.summaries(&call)
}

/// 14: the best response has the challenges of all (RFC 3261 §16.7(7)).
fn all_challenge(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [server, proxy, busy] = &targets.callees;
    let digest = |name: &str| format!("{name}: Digest realm=\"{name}\", nonce=\"1\"");
    let (first, second) = (digest("WWW-Authenticate"), digest("Proxy-Authenticate"));
    server.answer_with(&call.arrives_at(server), 401, &[&first]);
    server.first_request("ACK");
    proxy.answer_with(&call.arrives_at(proxy), 407, &[&second]);
    proxy.first_request("ACK");
    call.is_refused_by(busy, &call.arrives_at(busy), 486);
    let challenge = call.fails_with(401);
    for line in [&first, &second] {
        let (name, value) = line.split_once(": ").expect("a header line");
        assert_eq!(challenge.message.header(name), Some(value));
    }
    targets.summaries(&call)
}

/// 16: the first is unavailable, and the second silent.
fn third_answers(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [unavailable, silent, answering] = &targets.callees;
    let first = call.arrives_at(unavailable);
    call.is_refused_by(unavailable, &first, 503);
    let second = call.arrives_at(silent);
    let third = call.arrives_at(answering);
    assert!(third.at - second.at >= Duration::from_millis(3_600));
    let ok = call.is_answered_by(answering, &third);
    call.is_completed_with(answering, &ok);
    let branches = [&first, &second, &third].map(|seen| branch_of(&seen.message));
    assert!(branches[0] != branches[1] && branches[1] != branches[2]);
    for seen in [&second, &third] {
        assert_eq!(seen.message.header("CSeq"), Some("1 INVITE"));
    }
    targets.summaries(&call)
}

/// A CANCEL of the caller ends all that rings.
fn fork_cancelled(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let seen = targets
        .callees
        .each_ref()
        .map(|callee| call.rings_at(callee));
    call.cancels();
    for (callee, seen) in targets.callees.iter().zip(&seen) {
        call.is_cancelled_at(callee, seen, 487);
    }
    call.fails_with(487);
    targets.summaries(&call)
}

/// After a CANCEL, no further target has its turn.
fn second_cancelled(targets: &Targets) -> Vec<Summary> {
    let call = targets.call();
    let [first, second, third] = &targets.callees;
    call.is_refused_by(first, &call.arrives_at(first), 503);
    let seen = call.rings_at(second);
    call.cancels();
    // A callee may answer so, too.
    call.is_cancelled_at(second, &seen, 503);
    let end = call.caller.nth(0, "a final response", |m| {
        m.code() >= 300 && m.header("CSeq") == Some("1 INVITE")
    });
    targets.site.ack_failure(&call.caller, &call.invite, &end);
    assert!(third.seen().is_empty(), "its turn does not come");
    targets.summaries(&call)
}

#[test]
fn a_cancel_ends_all_branches() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = fork_cancelled(&targets);
    assert_eq!(summaries[0].finals, [487]);
    assert_eq!(numbers(&summaries), [(1, 1); 3]);
    wait_until_idle(&host);
}

#[test]
fn no_target_has_its_turn_after_a_cancel() {
    let (host, targets) = Targets::host(FAILOVER, 3);
    let summaries = second_cancelled(&targets);
    assert_eq!(numbers(&summaries), [(0, 1), (1, 1), (0, 0)]);
    wait_until_idle(&host);
}

/// The first target answers after the second has had its turn.
#[test]
fn a_late_200_of_the_first_target_wins() {
    let (host, targets) = Targets::host(FAILOVER, 2);
    let call = targets.call();
    let [first, second, _] = &targets.callees;
    let slow = call.arrives_at(first);
    let seen = call.rings_at(second);
    let ok = call.is_answered_by(first, &slow);
    call.is_cancelled_at(second, &seen, 487);
    call.is_completed_with(first, &ok);
    assert_eq!(call.summary(second).finals, [200]);
    wait_until_idle(&host);
}

/// `on-failure` adds a target.
#[test]
fn the_last_resort_has_its_turn_when_all_have_failed() {
    let builder = Builder::new();
    let callees = callees(builder.lease());
    let [a, b, c] = callees.each_ref().map(Peer::local);
    let host = with_targets(builder, FAILOVER, &[a, b])
        .set("policy.settings", "last-resort = \"resort\"")
        .set("relay.next-hops", &format!("resort = \"sip:{c}\""))
        .start();
    let site = Site::of(&host);
    let targets = Targets { site, callees };
    let call = targets.call();
    let [first, second, resort] = &targets.callees;
    for callee in [first, second] {
        call.is_refused_by(callee, &call.arrives_at(callee), 503);
    }
    let ok = call.is_answered_by(resort, &call.arrives_at(resort));
    call.is_completed_with(resort, &ok);
    wait_until_idle(&host);
}

/// A request other than INVITE fails over, too: the second target has its turn while the caller still waits.
#[test]
fn a_message_goes_to_the_next_target() {
    let (host, targets) = Targets::host(FAILOVER, 2);
    let caller = targets.site.caller();
    let message = caller.request("MESSAGE", BOB);
    targets.site.send(&caller, &message);
    let [silent, answering, _] = &targets.callees;
    silent.first_request("MESSAGE");
    answering.answer(&answering.first_request("MESSAGE"), 200);
    caller.first_response("MESSAGE", 200);
    wait_until_idle(&host);
}

#[test]
fn the_first_to_answer_gets_the_call() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = one_answers(&targets);
    assert_eq!(summaries[0].finals, [200]);
    assert_eq!(numbers(&summaries), [(0, 1), (0, 1), (1, 1)]);
    wait_until_idle(&host);
}

#[test]
fn a_603_ends_a_fork() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = one_declines(&targets);
    assert_eq!(summaries[0].finals, [603]);
    assert_eq!(numbers(&summaries), [(0, 1), (0, 1), (1, 1)]);
    wait_until_idle(&host);
}

#[test]
fn the_challenges_of_all_targets_are_passed_on() {
    let (host, targets) = Targets::host(FORK, 3);
    let summaries = all_challenge(&targets);
    assert_eq!(summaries[0].finals, [401]);
    wait_until_idle(&host);
}

/// 15: both callees answer.
#[test]
fn a_second_200_is_passed_on_too() {
    let (host, targets) = Targets::host(FORK, 2);
    let call = targets.call();
    let [one, two, _] = &targets.callees;
    let seen = [one, two].map(|callee| call.arrives_at(callee));
    one.answer(&seen[0], 200);
    two.answer(&seen[1], 200);
    for n in 0..2 {
        let ok = call.caller.nth_response(n, "INVITE", 200);
        let mut own = call.invite.clone();
        own.branch = format!("{}-{n}", own.branch);
        targets.site.ack(&call.caller, &own, &ok);
    }
    for callee in [one, two] {
        callee.first_request("ACK");
    }
    wait_until_idle(&host);
    assert_eq!(host.metric("portcullis_late_successes_total", &[]), 1.0);
}

#[test]
fn the_next_target_has_its_turn_when_one_fails() {
    let (host, targets) = Targets::host(FAILOVER, 3);
    let summaries = third_answers(&targets);
    assert_eq!(summaries[0].finals, [200]);
    let [unavailable, _, answering] = &targets.callees;
    for callee in [unavailable, answering] {
        // On a slow machine, timer A of the host may fire.
        assert_eq!(branches_at(callee), 1);
    }
    // The silent target may still answer: its branch ends with timer B.
    let ended = host.metric("portcullis_attempts_total", &["no_answer"]);
    assert_eq!(ended, 1.0);
}

/// The operator's policy decides on a request of a tenant, which has no next hops itself.
fn before_a_tenant(builder: Builder, name: &str, settings: &str, targets: &[SocketAddr]) -> Host {
    let file = policy(name);
    with_next_hops(builder, targets)
        .set("policy.before", &format!("file = {file:?}"))
        .set("policy.before.settings", settings)
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start()
}

#[test]
fn a_policy_of_the_operator_names_targets_for_a_request_of_a_tenant() {
    let builder = Builder::new();
    let callees = callees(builder.lease());
    let [busy, answering, _] = &callees;
    let targets = [busy.local(), answering.local()];
    let settings = format!("next-hops = {:?}", names_of(&targets));
    let host = before_a_tenant(builder, FAILOVER, &settings, &targets);
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", "sip:bob@acme.example");
    site.send(&caller, &invite);
    busy.answer(&busy.first_request("INVITE"), 503);
    busy.first_request("ACK");
    answering.answer(&answering.first_request("INVITE"), 200);
    let ok = caller.first_response("INVITE", 200);
    site.ack(&caller, &invite, &ok);
    answering.first_request("ACK");
    site.hang_up(&caller, answering, &invite, &ok);
}

/// Opening hours of one minute each day, half a day from now.
fn hours_far_from_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let minute = since.expect("after 1970").as_secs() / 60 + 12 * 60;
    let time = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
    let open = minute % (24 * 60);
    let hours = format!("[\"{}-{}\"]", time(open), time(open + 1));
    let days = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let days = days.map(|day| format!("{day} = {hours}"));
    format!("{{ {} }}", days.join(", "))
}

#[test]
fn a_policy_of_the_operator_names_the_next_hop_of_a_request_of_a_tenant() {
    let builder = Builder::new();
    let voicemail = Peer::udp(builder.lease().ip(3));
    let settings = format!(
        "closed-next-hop = \"target-0\"\nhours = {}",
        hours_far_from_now()
    );
    let host = before_a_tenant(builder, "business-hours", &settings, &[voicemail.local()]);
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", "sip:bob@acme.example");
    site.send(&caller, &invite);
    voicemail.answer(&voicemail.first_request("INVITE"), 200);
    let ok = caller.first_response("INVITE", 200);
    site.ack(&caller, &invite, &ok);
    voicemail.first_request("ACK");
    site.hang_up(&caller, &voicemail, &invite, &ok);
}

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

#[test]
fn a_stateless_host_uses_the_first_target() {
    let builder = Builder::new();
    let callees = callees(builder.lease());
    let targets = [callees[0].local(), callees[1].local()];
    let host = with_targets(builder, FAILOVER, &targets)
        .set("relay", "mode = \"stateless\"")
        .start();
    let site = Site::of(&host);
    let caller = site.caller();
    let message = caller.request("MESSAGE", BOB);
    site.send(&caller, &message);
    callees[0].answer(&callees[0].first_request("MESSAGE"), 503);
    caller.first_response("MESSAGE", 503);
    assert_eq!(callees[1].times_of("MESSAGE").len(), 0);
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

/// 24: Max-Breadth leaves room for one target at a time (RFC 5393 §5.3).
#[test]
fn targets_have_their_turns_within_max_breadth() {
    let (host, targets) = Targets::host(FORK, 2);
    let call = call_with_breadth(&targets, 1);
    let [one, two, _] = &targets.callees;
    let seen = call.rings_at(one);
    assert_eq!(seen.message.header("Max-Breadth"), Some("1"));
    assert!(two.seen().is_empty(), "its turn has not come");
    call.is_refused_by(one, &seen, 486);
    let seen = call.arrives_at(two);
    assert_eq!(seen.message.header("Max-Breadth"), Some("1"));
    let ok = call.is_answered_by(two, &seen);
    call.is_confirmed_to(two, &ok);
    wait_until_idle(&host);
}

/// 24: nothing is left of Max-Breadth (RFC 5393 §5.3.3).
#[test]
fn a_request_whose_breadth_is_used_up_is_refused() {
    let (host, targets) = Targets::host(FORK, 2);
    let call = call_with_breadth(&targets, 0);
    call.fails_with(440);
    for callee in &targets.callees {
        assert!(callee.seen().is_empty());
    }
    assert_eq!(host.metric("portcullis_transactions_begun_total", &[]), 0.0);
}

/// [`MAX_BREADTH`], the exception.
#[test]
fn peers_kamailio_ignores_max_breadth() {
    let lease = Lease::new();
    let (_kamailio, targets) = Targets::kamailio(&lease, FORK);
    let call = call_with_breadth(&targets, 1);
    let breadth = MAX_BREADTH.name;
    for callee in &targets.callees {
        let seen = call.arrives_at(callee);
        assert_eq!(seen.message.header("Max-Breadth"), Some("1"), "{breadth}");
    }
    for callee in &targets.callees {
        call.is_refused_by(callee, &call.arrives_at(callee), 486);
    }
    call.fails_with(486);
}

fn call_with_breadth(targets: &Targets, breadth: u8) -> Call {
    let caller = targets.site.caller();
    let invite = caller.request("INVITE", BOB);
    let invite = invite.header(&format!("Max-Breadth: {breadth}"));
    Call::of(&targets.site, caller, invite)
}

#[test]
fn peers_fork_as_kamailio_does() {
    compare(
        FORK,
        &[
            ("one_answers", one_answers),
            ("one_declines", one_declines),
            ("all_challenge", all_challenge),
            ("fork_cancelled", fork_cancelled),
        ],
    );
}

#[test]
fn peers_fail_over_as_kamailio_does() {
    compare(
        FAILOVER,
        &[
            ("third_answers", third_answers),
            ("second_cancelled", second_cancelled),
        ],
    );
}

fn compare(name: &str, scenarios: &[(&str, Scenario)]) {
    thread::scope(|scope| {
        for (scenario, run) in scenarios {
            scope.spawn(move || {
                let (host, ours) = Targets::host(name, 3);
                let (_kamailio, theirs) = Targets::kamailio(host.lease(), name);
                let theirs = scope.spawn(move || run(&theirs));
                let ours = run(&ours);
                let theirs = theirs.join().expect("the scenario works with Kamailio");
                assert_eq!(ours, theirs, "the host, and Kamailio: {scenario}");
            });
        }
    });
}

/// Number of branches of the INVITEs that a callee has seen.
fn branches_at(callee: &Peer) -> usize {
    let seen = callee.seen();
    let invites = seen.iter().map(|seen| &seen.message);
    let invites = invites.filter(|message| message.first_word() == "INVITE");
    let branches: HashSet<_> = invites.map(branch_of).collect();
    branches.len()
}

/// CANCELs and ACKs of each callee.
fn numbers(summaries: &[Summary]) -> Vec<(usize, usize)> {
    let each = summaries.iter();
    each.map(|summary| (summary.cancels, summary.acks))
        .collect()
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

#[test]
fn the_place_that_the_request_led_to_is_not_tried_again_under_a_name() {
    let builder = Builder::new();
    let callee = Peer::udp(builder.lease().ip(3));
    let host = with_names_for_one(builder, "again-unnamed", callee.local());
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", BOB);
    site.send(&caller, &invite);
    callee.answer(&callee.first_request("INVITE"), 480);
    callee.first_request("ACK");
    let failure = caller.first_response("INVITE", 480);
    site.ack_failure(&caller, &invite, &failure);
    assert_eq!(callee.times_of("INVITE").len(), 1);
    wait_until_idle(&host);
    let refused = host.metric("portcullis_attempts_total", &["result=\"refused\""]);
    assert_eq!(refused, 1.0);
}

/// The sender gets what it would get without the second target.
#[test]
fn a_place_that_cannot_be_reached_is_not_reported_as_a_loop() {
    let builder = Builder::new();
    let closed = builder.lease().addr(4, 5080);
    let host = with_names_for_one(builder, "again-unnamed", closed);
    let site = Site::of(&host);
    let caller = site.caller();
    let invite = caller.request("INVITE", BOB);
    site.send(&caller, &invite);
    let failure = caller.first_response("INVITE", 500);
    site.ack_failure(&caller, &invite, &failure);
    let attempts = |result: &str| host.metric("portcullis_attempts_total", &[result]);
    assert_eq!((attempts("unreachable"), attempts("refused")), (1.0, 1.0));
}

/// Trunks of one SBC may share an address.
#[test]
fn a_named_next_hop_may_have_the_address_of_another() {
    for name in ["again-named", "again-with-header"] {
        let builder = Builder::new();
        let callee = Peer::udp(builder.lease().ip(3));
        let host = with_names_for_one(builder, name, callee.local());
        let site = Site::of(&host);
        let caller = site.caller();
        let message = caller.request("MESSAGE", BOB);
        site.send(&caller, &message);
        let first = callee.first_request("MESSAGE");
        callee.answer(&first, 480);
        let second = callee.nth(0, "MESSAGE on another branch", |message| {
            message.first_word() == "MESSAGE" && branch_of(message) != branch_of(&first.message)
        });
        callee.answer(&second, 200);
        caller.first_response("MESSAGE", 200);
    }
}

/// A host whose default next hop and all named ones have this address.
fn with_names_for_one(builder: Builder, name: &str, addr: SocketAddr) -> Host {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("again.wasm");
    std::fs::write(&file, guest(name)).expect("it can be written");
    let uri = format!("\"sip:{addr}\"");
    builder
        .policy(file)
        .set("relay", &format!("next-hop = {uri}"))
        .set(
            "relay.next-hops",
            &format!("trunk = {uri}\ncarrier = {uri}"),
        )
        .start()
}
