//! Whose a request is, who decides on it, and what that decision may touch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::Config;
use portcullis_dataplane::pipeline::Pipeline;
use portcullis_metrics::{Shed, TenantCounters};
use portcullis_policy::{Mode, Share, Trial, VerdictKind};
use portcullis_sip::{Arrival, Framing, Transport};

use crate::support::peer::{request, start_line};
use crate::support::policies::{
    dropping, editing, guest, passing, rejecting, relaying, relaying_to,
};
use crate::support::{Parts, Setup, sent, until};

const CALLER: &str = "127.0.0.1:40000";

/// Two tenants by the host of the request URI, and next hops that belong to one of them each.
const TENANTS: &str = r#"
[policy]
default-code = 404
[relay]
domains = ["127.0.0.9"]
[relay.next-hops]
a-trunk = "sip:127.0.0.1:40001"
b-trunk = "sip:127.0.0.1:40002"
[tenants.a]
uri-domains = ["a.example"]
next-hops = ["a-trunk"]
default-code = 480
[tenants.b]
uri-domains = ["b.example"]
next-hops = ["b-trunk"]
"#;

struct Lab {
    parts: Parts,
    pipeline: Pipeline,
    out: Vec<u8>,
}

impl Lab {
    fn new(config: &str) -> Self {
        let parts = Setup::new().config(config).parts();
        Self {
            pipeline: Pipeline::new(Arc::clone(&parts.shared), 0),
            parts,
            out: Vec::new(),
        }
    }

    /// Sends an INVITE to this URI; the status or method of what is sent, and to which port.
    fn ask(&mut self, uri: &str) -> Option<(String, u16)> {
        let caller: SocketAddr = CALLER.parse().unwrap();
        let arrival = Arrival {
            source: caller,
            local: self.parts.addr(Transport::Udp),
            transport: Transport::Udp,
            connection: None,
        };
        let bytes = request("INVITE", uri, "UDP", caller);
        let (_, handled) = self
            .pipeline
            .handle(bytes, Framing::Datagram, &arrival, &mut self.out);
        let to = sent(&mut self.pipeline, handled, &mut self.out);
        let line = start_line(&self.out);
        let line = line.strip_prefix("SIP/2.0 ").unwrap_or(line);
        Some((line.to_owned(), to?.addr.port()))
    }

    fn answer(&mut self, uri: &str) -> String {
        let (line, port) = self.ask(uri).unwrap();
        assert_eq!(port, 40_000, "{line}");
        line
    }

    fn counters(&self, tenant: &str) -> Arc<[TenantCounters]> {
        let tenants = self.parts.shared.tenants.load();
        let mut all = tenants.all();
        Arc::clone(&all.find(|one| &*one.name == tenant).unwrap().counters)
    }
}

#[test]
fn each_tenant_has_its_policy_and_the_rest_is_the_operators() {
    let mut lab = Lab::new(TENANTS);
    lab.parts.seat("a", &rejecting(486, "A"));
    lab.parts.seat("b", &rejecting(487, "B"));
    assert_eq!(lab.answer("sip:x@a.example"), "486 A");
    assert_eq!(lab.answer("sip:x@b.example"), "487 B");
    assert_eq!(lab.answer("sip:x@c.example"), "404 Not Found");
    lab.parts.seat("default", &rejecting(488, "Operator"));
    assert_eq!(lab.answer("sip:x@c.example"), "488 Operator");

    let counters = lab.counters("a");
    assert_eq!(counters[0].requests.value(), 1);
    assert_eq!(counters[0].verdicts.value(VerdictKind::Reject), 1);
    assert_eq!(lab.counters("default")[0].requests.value(), 2);
}

#[test]
fn operators_policies_go_before_and_after() {
    let mut lab = Lab::new(&format!("{TENANTS}[policy.before]\n[policy.after]\n"));
    // A tenant without a policy has no opinion, and its own default.
    assert_eq!(lab.answer("sip:x@a.example"), "480 Temporarily Unavailable");
    lab.parts.seat("before", &passing());
    lab.parts.seat("a", &passing());
    lab.parts.seat("after", &rejecting(603, "After"));
    assert_eq!(lab.answer("sip:x@a.example"), "603 After");
    assert_eq!(lab.answer("sip:x@c.example"), "603 After");
    lab.parts.seat("a", &rejecting(486, "A"));
    assert_eq!(lab.answer("sip:x@a.example"), "486 A");
    lab.parts.seat("before", &rejecting(403, "Before"));
    assert_eq!(lab.answer("sip:x@a.example"), "403 Before");
}

#[test]
fn a_tenant_relays_to_its_own_next_hops_and_domains_only() {
    let mut lab = Lab::new(TENANTS);
    lab.parts.seat("a", &relaying_to("a-trunk"));
    assert_eq!(lab.ask("sip:x@a.example").unwrap().1, 40_001);
    // Another's next hop is none, and neither is a domain of the operator's.
    lab.parts.seat("a", &relaying_to("b-trunk"));
    let foreign = lab.answer("sip:x@a.example");
    lab.parts.seat("a", &relaying_to("no-such-trunk"));
    assert_eq!(
        lab.answer("sip:x@a.example"),
        foreign,
        "it does not tell what there is"
    );
    lab.parts.seat("a", &relaying());
    assert_eq!(lab.answer("sip:x@a.example"), "403 Relaying Denied");
    assert_eq!(lab.counters("a")[0].refused_relays.value(), 3);
    // The operator may still go there.
    lab.parts.seat("default", &relaying());
    assert_eq!(lab.ask("sip:x@127.0.0.9").unwrap().1, 5060);
}

#[test]
fn what_is_watched_decides_nothing() {
    let mut lab = Lab::new(TENANTS);
    lab.parts.seat("a", &dropping());
    assert_eq!(lab.ask("sip:x@a.example"), None);
    let seat = Arc::clone(lab.parts.shared.tenants.load().seat("a").unwrap());
    seat.slot.set_mode(Mode::Monitor);
    assert_eq!(lab.answer("sip:x@a.example"), "480 Temporarily Unavailable");
    let counters = lab.counters("a");
    assert_eq!(counters[0].monitored.value(VerdictKind::Drop), 1);
    assert_eq!(counters[0].verdicts.value(VerdictKind::Pass), 1);
    assert_eq!(
        seat.slot
            .current()
            .unwrap()
            .stats
            .verdicts(VerdictKind::Drop),
        2
    );
}

#[test]
fn a_canary_decides_on_its_dialogs() {
    let mut lab = Lab::new(TENANTS);
    lab.parts.seat("a", &rejecting(486, "Old"));
    let candidate = lab.parts.admit("a", &rejecting(487, "New"));
    assert_eq!(lab.answer("sip:x@a.example"), "486 Old");
    let slot = Arc::clone(&lab.parts.shared.tenants.load().seat("a").unwrap().slot);
    slot.try_out(candidate, Trial::Canary(Share::ALL)).unwrap();
    assert_eq!(lab.answer("sip:x@a.example"), "487 New");
    slot.end_trial();
    assert_eq!(lab.answer("sip:x@a.example"), "486 Old");
    slot.activate(candidate).unwrap();
    assert_eq!(lab.answer("sip:x@a.example"), "487 New");
    slot.roll_back(None).unwrap();
    assert_eq!(lab.answer("sip:x@a.example"), "486 Old");
}

#[test]
fn failures_are_answered_by_their_kind() {
    let rules = "[tenants.a.on-failure]\ntrap = \"reject 488 Trapped\"\nbad-verdict = \"default\"\ntimeout = \"last-good\"\n\
                 load = \"reject 580 No Policy\"\n";
    let mut lab = Lab::new(&format!("{TENANTS}{rules}"));
    lab.parts.seat("a", &guest("trap"));
    assert_eq!(lab.answer("sip:x@a.example"), "488 Trapped");
    lab.parts.seat("a", &guest("invalid-code"));
    assert_eq!(lab.answer("sip:x@a.example"), "480 Temporarily Unavailable");
    assert_eq!(lab.counters("a")[0].failed.value(), 1);
    // Others are as the operator says.
    lab.parts.seat("b", &guest("trap"));
    assert_eq!(lab.answer("sip:x@b.example"), "503 Policy Failure");
}

#[test]
fn a_policy_that_traps_can_leave_it_to_the_one_before() {
    let rules = "[tenants.a.on-failure]\ntrap = \"last-good\"\n";
    let mut lab = Lab::new(&format!("{TENANTS}{rules}"));
    lab.parts.seat("a", &guest("trap"));
    assert_eq!(
        lab.answer("sip:x@a.example"),
        "503 Policy Failure",
        "there is none before"
    );
    lab.parts.seat("a", &rejecting(486, "Good"));
    lab.parts.seat("a", &guest("trap"));
    assert_eq!(lab.answer("sip:x@a.example"), "486 Good");
    let failures = &lab.parts.shared.counters[0].policy_failures;
    assert_eq!(failures.value(portcullis_policy::FailureKind::Trap), 2);
}

#[test]
fn a_policy_that_fails_too_often_gives_way() {
    let config = TENANTS.replace(
        "[tenants.b]",
        "breaker-failures = 3\n[tenants.b]\nbreaker-failures = 3\n",
    );
    let mut lab = Lab::new(&config);
    lab.parts.seat("a", &rejecting(486, "Good"));
    lab.parts.seat("a", &guest("trap"));
    for _ in 0..5 {
        assert_eq!(lab.answer("sip:x@a.example"), "503 Policy Failure");
    }
    let tenants = lab.parts.shared.tenants.load_full();
    let seat = tenants.seat("a").unwrap();
    assert_eq!(
        seat.slot.current().unwrap().stats.all_failures(),
        3,
        "it was asked no more"
    );
    assert_eq!(lab.counters("a")[0].shed.value(Shed::Breaker), 2);
    seat.tend();
    assert_eq!(lab.answer("sip:x@a.example"), "486 Good");
    let alert = seat.alert().unwrap();
    assert_eq!(alert.generation, 2);
    assert!(
        alert.text.contains("generation 1 serves again"),
        "{}",
        alert.text
    );

    // Where there is nothing to go back to, it is left alone for a while.
    lab.parts.seat("b", &guest("trap"));
    for _ in 0..4 {
        lab.answer("sip:x@b.example");
    }
    let seat = tenants.seat("b").unwrap();
    seat.tend();
    assert_eq!(lab.answer("sip:x@b.example"), "503 Policy Failure");
    assert_eq!(seat.slot.current().unwrap().stats.all_failures(), 3);
    assert!(seat.alert().unwrap().text.contains("none to go back to"));
    // Somebody puts another one in its place.
    lab.parts.seat("b", &rejecting(486, "Mended"));
    seat.clear();
    assert_eq!(lab.answer("sip:x@b.example"), "486 Mended");
    assert_eq!(seat.alert(), None);
}

#[test]
fn what_is_too_much_is_turned_away_from_that_tenant_alone() {
    let config = TENANTS.replace(
        "[tenants.b]",
        "requests-per-second = 1\nrequests-burst = 2\n[tenants.b]",
    );
    let mut lab = Lab::new(&config);
    lab.parts.seat("a", &rejecting(486, "A"));
    lab.parts.seat("b", &rejecting(487, "B"));
    let answers: Vec<_> = (0..50).map(|_| lab.answer("sip:x@a.example")).collect();
    assert_eq!(answers[..2], ["486 A", "486 A"]);
    let shed = answers
        .iter()
        .filter(|answer| *answer == "503 Policy Failure")
        .count();
    // A second may have passed.
    assert!(shed >= 40, "{shed}");
    assert_eq!(lab.counters("a")[0].shed.value(Shed::Rate), shed as u64);
    assert!((0..50).all(|_| lab.answer("sip:x@b.example") == "487 B"));
}

#[test]
fn tenants_come_change_and_go_while_requests_flow() {
    let mut lab = Lab::new(TENANTS);
    lab.parts.seat("a", &rejecting(486, "A"));
    lab.parts.seat("b", &rejecting(487, "B"));
    assert_eq!(lab.answer("sip:x@a.example"), "486 A");
    let before = lab.counters("a");

    // `a` takes another domain, `b` goes, `c` comes.
    let text = TENANTS
        .replace("\"a.example\"", "\"other.example\"")
        .replace("[tenants.b]", "[tenants.c]")
        .replace("b.example", "c.example");
    let config = Config::parse(&text).unwrap();
    let apply = lab.parts.registry.apply(&config, &config.tenants);
    lab.parts.tasks.block_on(apply).unwrap();

    assert_eq!(
        lab.answer("sip:x@other.example"),
        "486 A",
        "its policy stays"
    );
    assert!(
        Arc::ptr_eq(&lab.counters("a"), &before),
        "so do its counters"
    );
    assert_eq!(lab.answer("sip:x@a.example"), "404 Not Found");
    assert_eq!(lab.answer("sip:x@b.example"), "404 Not Found");
    lab.parts.seat("c", &relaying_to("b-trunk"));
    assert_eq!(lab.ask("sip:x@c.example").unwrap().1, 40_002);
}

#[test]
fn a_shadow_is_asked_about_everything_and_decides_nothing() {
    let mut lab = Lab::new(TENANTS);
    lab.parts.seat("a", &rejecting(486, "Old"));
    let candidate = lab.parts.admit("a", &dropping());
    let seat = Arc::clone(lab.parts.shared.tenants.load().seat("a").unwrap());
    seat.slot.try_out(candidate, Trial::Shadow).unwrap();
    for _ in 0..3 {
        assert_eq!(lab.answer("sip:x@a.example"), "486 Old");
    }
    let comparison = seat.comparison().unwrap();
    until("the shadow has been asked", || comparison.different() == 3);
    assert_eq!((comparison.active, comparison.candidate), (1, candidate));
    assert_eq!((comparison.same(), comparison.not_compared()), (0, 0));
    let samples = comparison.samples();
    assert_eq!(samples.len(), 3);
    assert_eq!(
        (&*samples[0].active, &*samples[0].candidate),
        ("reject 486 Old", "drop")
    );
    assert!(
        samples[0]
            .request
            .starts_with("INVITE sip:x@a.example SIP/2.0\r\n")
    );

    // One that agrees.
    let candidate = lab.parts.admit("a", &rejecting(486, "Old"));
    seat.slot.try_out(candidate, Trial::Shadow).unwrap();
    lab.answer("sip:x@a.example");
    let comparison = seat.comparison().unwrap();
    until("the other shadow has been asked", || comparison.same() == 1);
    assert_eq!(comparison.different(), 0);
}

#[test]
fn header_fields_change_by_all_who_pass_it_on() {
    let config = TENANTS.replace("[tenants.a]", "[tenants.a]\nheaders = [\"X-By\"]")
        + "default = \"relay\"\nnext-hop = \"b-trunk\"\n[policy.before]\n";
    let mut lab = Lab::new(&config);
    lab.parts.seat("before", &editing("before"));
    lab.parts.seat("a", &editing("a"));
    lab.parts.seat("b", &editing("b"));
    let sent = |lab: &mut Lab, uri: &str| {
        let (line, _) = lab.ask(uri).unwrap();
        let text = String::from_utf8_lossy(&lab.out).into_owned();
        let by = text.lines().filter_map(|line| line.strip_prefix("X-By: "));
        (line, by.collect::<Vec<_>>().join(" "))
    };

    // B may not change any header field, and relays as its default says; the operator's policy may change all.
    let (line, by) = sent(&mut lab, "sip:x@b.example");
    assert!(line.starts_with("INVITE"), "{line}");
    assert_eq!(by, "before");
    let scope = |lab: &Lab, name: &str| {
        let tenants = lab.parts.shared.tenants.load();
        Arc::clone(&tenants.seat(name).unwrap().scope)
    };
    assert_eq!(scope(&lab, "b").crossings(), 2);

    // A's request is not relayed in the end: nothing is left of the changes.
    assert_eq!(
        sent(&mut lab, "sip:x@a.example").0,
        "480 Temporarily Unavailable"
    );
    assert_eq!(
        scope(&lab, "a").crossings(),
        1,
        "Subject is not A's to change"
    );

    // One that is only watched changes nothing.
    let before = Arc::clone(lab.parts.shared.tenants.load().seat("before").unwrap());
    before.slot.set_mode(Mode::Monitor);
    assert_eq!(sent(&mut lab, "sip:x@b.example").1, "");
}

#[test]
fn a_candidate_that_changes_other_header_fields_differs() {
    let mut lab = Lab::new(TENANTS);
    let tenants = lab.parts.shared.tenants.load_full();
    let seat = Arc::clone(tenants.seat("default").unwrap());
    lab.parts.seat("default", &editing("one"));
    let candidate = lab.parts.admit("default", &editing("two"));
    seat.slot.try_out(candidate, Trial::Shadow).unwrap();
    lab.answer("sip:x@127.0.0.1");
    let comparison = seat.comparison().unwrap();
    until("the shadow has been asked", || comparison.different() == 1);
    let sample = &comparison.samples()[0];
    assert_eq!(sample.active, "pass, add X-By: one, remove Subject");
    assert_eq!(sample.candidate, "pass, add X-By: two, remove Subject");
}

/// The candidate decides on all dialogs or on none, and a roll-out compares both generations.
#[test]
fn a_sample_of_the_canary_of_a_roll_out_is_compared_whoever_decides() {
    let mut lab = Lab::new(TENANTS);
    lab.parts.seat("a", &rejecting(486, "Old"));
    let candidate = lab.parts.admit("a", &dropping());
    let seat = Arc::clone(lab.parts.shared.tenants.load().seat("a").unwrap());
    let all = Trial::Canary(Share::ALL);
    seat.slot.try_out(candidate, all).unwrap();
    // Without a roll-out, and with one whose gate is off, nothing is compared.
    for needs in [None, Some(false)] {
        seat.serve_rollout(needs);
        assert_eq!(lab.ask("sip:x@a.example"), None, "dropped");
        assert!(seat.comparison().is_none());
    }
    seat.serve_rollout(Some(true));
    assert_eq!(lab.ask("sip:x@a.example"), None, "dropped");
    let comparison = seat.comparison().unwrap();
    until("the active one has been asked beside", || {
        comparison.different() == 1
    });
    let none = Trial::Canary(Share::of_hundredths(0).unwrap());
    seat.slot.try_out(candidate, none).unwrap();
    assert_eq!(lab.answer("sip:x@a.example"), "486 Old");
    until("the candidate has been asked beside", || {
        comparison.different() == 2
    });
    assert_eq!((comparison.active, comparison.candidate), (1, candidate));
    for sample in comparison.samples() {
        let both = (&*sample.active, &*sample.candidate);
        assert_eq!(both, ("reject 486 Old", "drop"));
    }
    // What is evaluated beside is no call of a generation.
    let lineup = seat.slot.lineup().unwrap();
    assert_eq!(lineup.active.stats.calls(), 1);
    let calls = &lineup.candidate.as_ref().unwrap().generation.stats;
    assert_eq!((calls.calls(), calls.durations().total()), (3, 3));

    // At most 20 at once.
    let later = Instant::now() + Duration::from_secs(60);
    let taken = (0..100).filter(|_| seat.samples(&lineup, later)).count();
    assert_eq!(taken, 20);
}

#[test]
fn what_is_compared_in_a_canary_counts_nothing() {
    let mut lab = Lab::new(TENANTS);
    // Answers with how often it was asked.
    let counting = r#"(module
        (import "portcullis:policy/counters@0.1.0" "add" (func $add (param i32 i32 i64 i32) (result i64)))
        (memory (export "memory") 1)
        (data (i32.const 16) "\01\00\00\00\e0\01\00\00\40\00\00\00\01")
        (data (i32.const 80) "asked")
        (func (export "decide") (result i32)
          (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.wrap_i64
            (call $add (i32.const 80) (i32.const 5) (i64.const 1) (i32.const 60)))))
          i32.const 16))"#;
    lab.parts.seat("a", counting);
    let candidate = lab.parts.admit("a", &format!("{counting};; another file"));
    let seat = Arc::clone(lab.parts.shared.tenants.load().seat("a").unwrap());
    let none = Trial::Canary(Share::of_hundredths(0).unwrap());
    seat.slot.try_out(candidate, none).unwrap();
    seat.serve_rollout(Some(true));
    for number in 1..=3 {
        assert_eq!(lab.answer("sip:x@a.example"), format!("480 {number}"));
        let comparison = seat.comparison().unwrap();
        until("the candidate gets the same answer", || {
            comparison.same() == number
        });
        assert_eq!(comparison.different(), 0);
    }
}

#[test]
fn each_tenant_reads_its_own_settings_and_counts_for_itself() {
    let config = TENANTS.replace(
        "[tenants.b]",
        "[tenants.a.settings]\ncode = 481\n[tenants.b]",
    ) + "[tenants.b.settings]\ncode = 482\n";
    let mut lab = Lab::new(&config);
    // Answers the setting `code` and, beside it, how often it was asked.
    let counting = r#"(module
        (import "portcullis:policy/settings@0.1.0" "integer" (func $integer (param i32 i32 i32)))
        (import "portcullis:policy/counters@0.1.0" "add" (func $add (param i32 i32 i64 i32) (result i64)))
        (memory (export "memory") 1)
        (data (i32.const 16) "\01\00\00\00\00\00\00\00\40\00\00\00\01")
        (data (i32.const 80) "code")
        (func (export "decide") (result i32)
          (call $integer (i32.const 80) (i32.const 4) (i32.const 512))
          (i32.store16 (i32.const 20) (i32.wrap_i64 (i64.load (i32.const 520))))
          (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.wrap_i64
            (call $add (i32.const 80) (i32.const 4) (i64.const 1) (i32.const 60)))))
          i32.const 16))"#;
    for tenant in ["a", "b"] {
        lab.parts.seat(tenant, counting);
    }
    assert_eq!(lab.answer("sip:x@a.example"), "481 1");
    assert_eq!(lab.answer("sip:x@a.example"), "481 2");
    assert_eq!(
        lab.answer("sip:x@b.example"),
        "482 1",
        "what the other counted is not there"
    );
    // Another generation goes on counting.
    lab.parts.seat("a", &format!("{counting};; another file"));
    assert_eq!(lab.answer("sip:x@a.example"), "481 3");
}
