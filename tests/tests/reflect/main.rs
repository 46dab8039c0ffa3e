//! The host cannot be used against third parties: where responses go, and how many it sends.

#![forbid(unsafe_code)]

mod unproved;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use portcullis_testkit::callee::ok_to;
use portcullis_testkit::guests::{rejecting, rejecting_with};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::messages::Request;
use portcullis_testkit::policy;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait;

const CALLER: u8 = 10;
const CALLEE: u8 = 3;
const THIRD: u8 = 4;

/// A host that relays everything to a next hop, and the next hop.
fn start() -> (Host, Caller) {
    start_with("")
}

/// With further keys of `[relay]`.
fn start_with(keys: &str) -> (Host, Caller) {
    let builder = Builder::new();
    let hop = builder.lease().addr(CALLEE, 5080);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop}\"\n{keys}"))
        .start();
    let hop = Caller::udp_from(hop, host.sip());
    (host, hop)
}

fn dropped(host: &Host, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    host.metric("portcullis_dropped_total", &[label.as_str()])
}

/// A response with another Via below ours, and a body.
fn turned(seen: &Message, hop: &Caller, via: &str) -> Vec<u8> {
    let text = String::from_utf8(ok_to(seen, hop.local())).expect("a response is text");
    let own = format!("Via: {}\r\n", seen.headers("Via")[1]);
    assert!(text.contains(&own), "{text}");
    let body = "SET anything 1\r\nFLUSHALL\r\n";
    text.replace(&own, &format!("Via: {via}\r\n"))
        .replace(
            "Content-Length: 0\r\n\r\n",
            &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        )
        .into_bytes()
}

#[test]
fn a_known_branch_cannot_redirect_responses_of_a_stateless_host() {
    let (host, mut hop) = start_with("mode = \"stateless\"");
    let mut caller = host.udp(CALLER);
    let mut third = Caller::udp_from(host.lease().addr(THIRD, 5060), host.sip());
    let listener = TcpListener::bind(host.lease().addr(THIRD, 6379)).expect("the port is free");
    listener
        .set_nonblocking(true)
        .expect("it can be asked without waiting");
    let mut stream = host.tcp(CALLER);
    let callers = [
        caller.request("INVITE", "sip:b@c"),
        stream.request("INVITE", "sip:b@c"),
    ];
    let mut callers = callers.into_iter().zip([&mut caller, &mut stream]);
    let (ip, stranger) = (host.lease().ip(THIRD), host.lease().addr(5, 5099));
    let mut stranger = Caller::udp_from(stranger, host.sip());
    let mut count = 0.0;
    for (invite, caller) in &mut callers {
        caller.send(&invite.bytes());
        let seen = hop.receive();
        for via in [
            format!("SIP/2.0/UDP {ip}:5060"),
            format!("SIP/2.0/UDP x;received={ip};rport=5060"),
            format!("SIP/2.0/UDP x;maddr={ip}"),
            format!("SIP/2.0/TCP {ip}:6379"),
            format!("SIP/2.0/TCP x:6379;received={ip}"),
        ] {
            let response = turned(&seen, &hop, &via);
            stranger.send(&response);
            hop.send(&response);
            count += 2.0;
        }
        wait::until("all are dropped", || {
            let all = dropped(&host, "turned_response") + dropped(&host, "no_way_back");
            (all == count).then_some(())
        });
        // The original return path still works.
        hop.send(&ok_to(&seen, hop.local()));
        assert_eq!(caller.receive().code(), 200);
    }
    assert!(third.hears_nothing());
    let nobody = listener.accept().map_err(|error| error.kind());
    assert_eq!(nobody.map(|_| ()), Err(ErrorKind::WouldBlock));
}

#[test]
fn a_known_branch_cannot_redirect_responses_of_a_transaction() {
    let (host, mut hop) = start();
    let mut caller = host.udp(CALLER);
    let mut third = Caller::udp_from(host.lease().addr(THIRD, 5060), host.sip());
    let ip = host.lease().ip(THIRD);
    let stranger = host.lease().addr(5, 5099);
    let mut stranger = Caller::udp_from(stranger, host.sip());
    let invite = caller.request("INVITE", "sip:b@c");
    caller.send(&invite.bytes());
    let seen = hop.receive();
    // The transaction knows the source of its request, whatever the Via says.
    stranger.send(&turned(&seen, &hop, &format!("SIP/2.0/UDP {ip}:5060")));
    assert_eq!(caller.receive().code(), 200);
    // Now the transaction has ended, and further 2xx responses follow their Via.
    for via in [
        format!("SIP/2.0/UDP x;received={ip};rport=5060"),
        format!("SIP/2.0/UDP x;maddr={ip}"),
    ] {
        stranger.send(&turned(&seen, &hop, &via));
    }
    wait::until("both are dropped", || {
        let all = dropped(&host, "turned_response") + dropped(&host, "no_way_back");
        (all == 2.0).then_some(())
    });
    hop.send(&ok_to(&seen, hop.local()));
    assert_eq!(caller.receive().code(), 200);
    assert!(third.hears_nothing());
}

#[test]
fn a_callers_maddr_does_not_redirect_responses() {
    let (host, mut hop) = start();
    let mut caller = host.udp(CALLER);
    let mut third = Caller::udp_from(host.lease().addr(THIRD, 5060), host.sip());
    let request = caller.request("MESSAGE", "sip:b@c");
    let text = String::from_utf8(request.bytes()).expect("a request is text");
    let (before, after) = text.split_once(";branch").expect("it has a branch");
    caller.send(format!("{before};maddr={};branch{after}", third.local().ip()).as_bytes());
    let seen = hop.receive();
    hop.send(&ok_to(&seen, hop.local()));
    assert_eq!(caller.receive().code(), 200);
    assert!(third.hears_nothing());
}

#[test]
fn a_policys_response_over_udp_is_hardly_larger_than_the_request() {
    let headers: Vec<_> = (0..30)
        .map(|n| (format!("X-Long-{n}"), "x".repeat(400)))
        .collect();
    let builder = Builder::new();
    let known = builder.lease().ip(11);
    let claimed = builder.lease().ip(CALLER);
    let host = builder
        .row(&format!("300 {known} 32"))
        // A row that a tenant may have written makes no source known.
        .row(&format!("301 {claimed} 32"))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", "edit-groups = [301]")
        .start();
    host.replace_policy(&rejecting_with(302, "Elsewhere", &headers));
    host.run("policy reload");
    let ask = |mut caller: Caller| {
        let request = caller.request("INVITE", "sip:b@c");
        let answer = caller.ask(&request);
        assert_eq!(answer.start_line(), "SIP/2.0 302 Elsewhere");
        (
            answer.headers("X-Long-7").len(),
            request.bytes().len(),
            answer,
        )
    };
    let (fields, asked, answer) = ask(host.udp(CALLER));
    assert_eq!(fields, 0);
    let length = answer.bytes.len();
    assert!(length <= asked + 1024, "{asked} in, {length} out");
    assert_eq!(host.metric("portcullis_shortened_answers_total", &[]), 1.0);
    // Over TCP, the response is sent unchanged.
    assert_eq!(ask(host.tcp(CALLER)).0, 1);
    // A source in the address table may get a larger response, but not any size: its address may be spoofed.
    assert_eq!(ask(host.udp(11)).0, 0);
    host.replace_policy(&rejecting_with(302, "Elsewhere", &headers[..15]));
    host.run("policy reload");
    assert_eq!(ask(host.udp(11)).0, 1);
    assert_eq!(ask(host.udp(CALLER)).0, 0);
    // A response that is a few bytes larger is sent to any source.
    host.replace_policy(&rejecting_with(302, "Elsewhere", &headers[7..9]));
    host.run("policy reload");
    assert_eq!(ask(host.udp(CALLER)).0, 1);
    assert_eq!(host.metric("portcullis_shortened_answers_total", &[]), 3.0);
}

#[test]
fn responses_over_udp_are_limited_per_source() {
    const BURST: usize = 5;
    const ASKED: usize = 40;
    let builder = Builder::new();
    let known = builder.lease().ip(11);
    let claimed = builder.lease().ip(CALLER);
    let host = builder
        .row(&format!("300 {known} 32"))
        .row(&format!("301 {claimed} 32"))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", "edit-groups = [301]")
        .set("sip", "answers-per-second = 1")
        .set("sip", &format!("answers-burst = {BURST}"))
        .start();
    host.replace_policy(&rejecting(486, "Busy Here"));
    host.run("policy reload");
    let us = format!("sip:{}", host.sip());
    for (method, uri, caller) in [
        ("OPTIONS", us.as_str(), 20),
        ("MESSAGE", "tel:+49", 21),
        ("BAD", "mailto:a@b", 22),
    ] {
        let before = dropped(&host, "answer_limit");
        let mut flood = host.udp(caller);
        for _ in 0..ASKED {
            let request = flood.request(method, uri);
            flood.send(&request.bytes());
        }
        wait::until("most are not answered", || {
            let more = dropped(&host, "answer_limit") - before;
            (more >= (ASKED - BURST) as f64 / 2.0).then_some(())
        });
        // Other sources are answered meanwhile, and so are those that confirm responses.
        let mut other = host.udp(caller + 10);
        for _ in 0..3 * BURST {
            let invite = other.request("INVITE", "sip:b@c");
            let answer = other.ask(&invite);
            assert_eq!(answer.code(), 486);
            other.send(&invite.ack_for(&answer).bytes());
        }
    }
    let limited = dropped(&host, "answer_limit");
    for mut caller in [host.udp(11), host.tcp(20)] {
        for _ in 0..4 * BURST {
            let request = caller.request("OPTIONS", &us);
            assert_eq!(caller.ask(&request).code(), 200);
        }
    }
    assert_eq!(dropped(&host, "answer_limit"), limited);
}

/// A host that relays to a next hop, and answers one source no more than twice and then once per second.
fn start_with_few_answers(builder: Builder) -> (Host, SocketAddr) {
    let hop = builder.lease().addr(CALLEE, 5080);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop}\""))
        .set("sip", "answers-per-second = 1\nanswers-burst = 2")
        .start();
    (host, hop)
}

/// A caller whose INVITE the next hop has answered with this status line, and the INVITE.
fn answered(host: &Host, hop: &mut Caller, status: &str) -> (Caller, Request) {
    let mut caller = host.udp(CALLER);
    let invite = caller.request("INVITE", "sip:b@c");
    caller.send(&invite.bytes());
    let answer = String::from_utf8(ok_to(&hop.receive(), hop.local())).expect("text");
    hop.send(answer.replace("200 OK", status).as_bytes());
    let code: u16 = status[..3].parse().expect("a code");
    assert_eq!(caller.receive().code(), code);
    (caller, invite)
}

/// Nobody listens at the next hop.
#[test]
fn confirmed_answers_of_transactions_do_not_count_in_the_limit_of_answers() {
    let (host, _closed) = start_with_few_answers(Builder::new());
    let mut caller = host.udp(CALLER);
    for _ in 0..20 {
        let invite = caller.request("INVITE", "sip:b@c");
        let answer = caller.ask(&invite);
        assert_eq!(answer.code(), 500);
        caller.send(&invite.ack_for(&answer).bytes());
    }
    assert_eq!(dropped(&host, "answer_limit"), 0.0);
}

#[test]
fn provisional_responses_do_not_count_in_the_limit_of_answers() {
    let (host, hop) = start_with_few_answers(Builder::new());
    let mut hop = Caller::udp_from(hop, host.sip());
    let (mut caller, invite) = answered(&host, &mut hop, "180 Ringing");
    for _ in 0..20 {
        caller.send(&invite.bytes());
    }
    for _ in 0..20 {
        assert_eq!(caller.receive().code(), 180);
    }
    assert_eq!(dropped(&host, "answer_limit"), 0.0);
}

#[test]
fn retransmissions_of_a_final_response_count_in_the_limit_of_answers() {
    let limited = |is_known: bool| {
        let builder = Builder::new();
        let source = builder.lease().ip(CALLER);
        let builder = match is_known {
            true => builder.row(&format!("1 {source} 32 0")),
            false => builder,
        };
        let (host, hop) = start_with_few_answers(builder);
        let mut hop = Caller::udp_from(hop, host.sip());
        // Whoever forges a source repeats its request, and never acknowledges the answer.
        let (mut caller, invite) = answered(&host, &mut hop, "404 Not Found");
        let copies = 20.0;
        for _ in 0..20 {
            caller.send(&invite.bytes());
        }
        let lost = || dropped(&host, "answer_limit");
        wait::until("each copy is answered or not", || {
            let sent = host.metric(
                "portcullis_retransmissions_total",
                &["kind=\"response_sent\""],
            );
            (sent + lost() >= copies).then_some(())
        });
        lost()
    };
    let lost = limited(false);
    // Two at once, and one for each second that the test takes.
    assert!(lost >= 10.0, "{lost} of 20 are not sent");
    assert_eq!(limited(true), 0.0, "the address table has the source");
}
