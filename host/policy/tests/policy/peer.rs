//! The interface `peer`, from modules and from components.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use portcullis_policy::{StatedHost, Tape, Verdict};
use portcullis_request::Request;
use portcullis_sip::Transport;
use portcullis_tls::{Certificate, Session, SipNames};
use serde_json::json;

use crate::clock::moment;
use crate::support::{Host, asking, both_forms, embedded, invite, number_guest, reject};

const PEER: &str = "portcullis:policy/peer@0.1.0";

fn certificate() -> Certificate {
    Certificate {
        names: SipNames {
            uris: vec!["carrier.example".into()],
            dns: vec!["sbc.example".into(), "b.example".into()],
            addresses: vec!["192.0.2.7".parse().unwrap()],
        },
        uris: vec!["sip:carrier.example".into()],
        emails: vec!["noc@carrier.example".into()],
        subject: "CN=Carrier".into(),
        common_name: Some("Carrier".into()),
        issuer: "CN=Office".into(),
        serial_number: "1234".into(),
        not_before: UNIX_EPOCH + Duration::from_secs(7),
        not_after: UNIX_EPOCH + Duration::from_secs(9),
        fingerprint: [0xab; 32],
    }
}

fn session() -> Session {
    Session {
        version: "TLSv1.3".into(),
        cipher_suite: "TLS_AES_128_GCM_SHA256".into(),
        server_name: Some("edge.example".into()),
        shows_certificate: true,
        peer: Some(certificate()),
    }
}

fn over(transport: Transport) -> Request {
    let mut request = invite();
    request.arrival.transport = transport;
    request
}

/// The answer of both forms of a guest, which must agree.
fn ask(session: Option<Session>, transport: Transport, wat: &str) -> Verdict {
    let mut host = Host::new();
    host.evaluator.set_host(Arc::new(StatedHost {
        session: session.map(Arc::new),
        ..StatedHost::default()
    }));
    let [module, component] =
        both_forms(&host, &embedded(wat)).map(|policy| host.ask(&policy, over(transport)).unwrap());
    assert_eq!(module, component, "{wat}");
    module
}

/// Answers with the optional text of a function, or with 404.
fn text(function: &str) -> String {
    let import = format!(r#"(import "{PEER}" "{function}" (func $ask (param i32)))"#);
    asking(&import, "", "(call $ask (i32.const 512)) (call $reason)")
}

/// Answers with 300 and the length of a list, and with its first text.
fn list(function: &str, kind: Option<u32>) -> String {
    let (parameter, argument) = match kind {
        Some(kind) => ("i32 ", format!("(i32.const {kind}) ")),
        None => ("", String::new()),
    };
    let import = format!(r#"(import "{PEER}" "{function}" (func $ask (param {parameter}i32)))"#);
    let body = format!(
        "(call $ask {argument}(i32.const 512))
         (call $code (i32.load (i32.const 516)))
         (if (i32.load (i32.const 516)) (then
           (i32.store (i32.const 24) (i32.load (i32.load (i32.const 512))))
           (i32.store (i32.const 28) (i32.load offset=4 (i32.load (i32.const 512))))))"
    );
    asking(&import, "", &body)
}

/// Answers with 300 and the seconds of an optional time.
fn time(function: &str) -> String {
    let import = format!(r#"(import "{PEER}" "{function}" (func $ask (param i32)))"#);
    let body = "(call $ask (i32.const 512))
        (call $code (select
          (i32.wrap_i64 (i64.div_u (i64.load (i32.const 520)) (i64.const 1000)))
          (i32.const 99)
          (i32.load8_u (i32.const 512))))";
    asking(&import, "", body)
}

fn speaks_for(domain: &str) -> String {
    let import =
        format!(r#"(import "{PEER}" "speaks-for" (func $ask (param i32 i32) (result i32)))"#);
    let length = domain.len();
    let body = format!("(call $code (call $ask (i32.const 256) (i32.const {length})))");
    asking(&import, domain, &body)
}

fn truth(function: &str) -> String {
    number_guest(PEER, function, "", "")
}

#[test]
fn a_verified_peer_is_seen_as_it_is() {
    let ask = |wat: &str| ask(Some(session()), Transport::Wss, wat);
    for (function, expected) in [
        ("tls-version", "TLSv1.3"),
        ("cipher-suite", "TLS_AES_128_GCM_SHA256"),
        ("server-name", "edge.example"),
        ("subject", "CN=Carrier"),
        ("issuer", "CN=Office"),
        ("common-name", "Carrier"),
        ("serial-number", "1234"),
        ("fingerprint", &*"ab".repeat(32)),
    ] {
        assert_eq!(ask(&text(function)), reject(401, expected), "{function}");
    }
    for function in ["is-secure", "has-certificate", "is-verified"] {
        assert_eq!(ask(&truth(function)), reject(301, ""), "{function}");
    }
    for (kind, code, first) in [
        (0, 301, "sip:carrier.example"),
        (1, 302, "sbc.example"),
        (2, 301, "192.0.2.7"),
        (3, 301, "noc@carrier.example"),
    ] {
        assert_eq!(
            ask(&list("names", Some(kind))),
            reject(code, first),
            "{kind}"
        );
    }
    assert_eq!(ask(&list("domains", None)), reject(301, "carrier.example"));
    assert_eq!(ask(&time("valid-from")), reject(307, ""));
    assert_eq!(ask(&time("valid-until")), reject(309, ""));
    for (domain, code) in [
        ("Carrier.example", 301),
        ("sbc.example", 300),
        ("192.0.2.7", 301),
    ] {
        assert_eq!(ask(&speaks_for(domain)), reject(code, ""), "{domain}");
    }
}

/// A certificate that is not verified, a client without one, a transport without TLS, and a connection that is closed.
#[test]
fn of_an_unverified_peer_nothing_is_said() {
    let unverified = Session {
        peer: None,
        ..session()
    };
    let none = Session {
        shows_certificate: false,
        ..unverified.clone()
    };
    for (session, transport, has_tls, shows) in [
        (Some(unverified), Transport::Tls, true, true),
        (Some(none), Transport::Tls, true, false),
        (Some(session()), Transport::Tcp, false, false),
        (Some(session()), Transport::Ws, false, false),
        (Some(session()), Transport::Udp, false, false),
        (None, Transport::Tls, false, false),
    ] {
        let ask = |wat: &str| ask(session.clone(), transport, wat);
        for function in [
            "subject",
            "issuer",
            "common-name",
            "serial-number",
            "fingerprint",
        ] {
            assert_eq!(ask(&text(function)), reject(404, ""), "{function}");
        }
        assert_eq!(ask(&truth("is-verified")), reject(300, ""));
        assert_eq!(
            ask(&truth("has-certificate")),
            reject(300 + u16::from(shows), "")
        );
        let is_secure = u16::from(transport.is_secure());
        assert_eq!(ask(&truth("is-secure")), reject(300 + is_secure, ""));
        let version = match has_tls {
            true => reject(401, "TLSv1.3"),
            false => reject(404, ""),
        };
        assert_eq!(ask(&text("tls-version")), version);
        assert_eq!(ask(&list("names", Some(1))), reject(300, ""));
        assert_eq!(ask(&list("domains", None)), reject(300, ""));
        assert_eq!(ask(&speaks_for("carrier.example")), reject(300, ""));
        assert_eq!(ask(&time("valid-until")), reject(399, ""));
    }
}

#[test]
fn the_listener_is_written_as_in_the_configuration() {
    let import = format!(r#"(import "{PEER}" "listener" (func $ask (param i32)))"#);
    let body = "(call $ask (i32.const 24))";
    let wat = asking(&import, "", body);
    let listener = ask(None, Transport::Wss, &wat);
    assert_eq!(listener, reject(401, "wss:[2001:db8::5]:5061"));
}

#[test]
fn a_kind_of_names_that_does_not_exist_ends_the_call() {
    let mut host = Host::new();
    let policy = host
        .runtime
        .load("inline", &embedded(&list("names", Some(4))));
    assert!(host.ask(&policy.unwrap(), over(Transport::Tls)).is_err());
}

#[test]
fn a_replay_has_the_recorded_peer() {
    let mut host = Host::new();
    let policy = host
        .runtime
        .load("inline", &embedded(&list("names", Some(1))));
    let policy = policy.unwrap();
    host.evaluator.set_host(Arc::new(StatedHost {
        session: Some(Arc::new(session())),
        ..StatedHost::default()
    }));
    host.evaluator.insert_tape(Tape::new(moment()));
    let live = host.ask(&policy, over(Transport::Tls)).unwrap();
    let tape = host.evaluator.take_tape().unwrap();
    let [asked] = tape.asked() else {
        panic!("{tape:?}")
    };
    assert_eq!(asked.function, "peer.names");
    assert_eq!(asked.arguments, json!(["dns"]));
    assert_eq!(asked.answer, json!(["sbc.example", "b.example"]));

    // The connection is closed long ago.
    host.evaluator.set_host(Arc::new(StatedHost::default()));
    let replaying = Tape::replaying(moment(), tape.asked().to_vec());
    host.evaluator.insert_tape(replaying);
    assert_eq!(host.ask(&policy, over(Transport::Tls)).unwrap(), live);
    assert!(host.evaluator.take_tape().unwrap().unanswered().is_empty());
}
