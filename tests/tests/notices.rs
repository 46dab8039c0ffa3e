//! Nothing is refused silently: each message that is rejected, dropped or not delivered can be found in the log, and problems that the
//! operator has to solve are logged at the default level.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::{guest, module, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{policy, wait};
use serde_json::{Value, json};

const CALLER: u8 = 10;

/// Lines of a JSON log with this value of `event`.
fn events(host: &Host, event: &str) -> Vec<Value> {
    let log = host.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["event"] == event)
        .collect()
}

/// Waits for the event about this call.
fn event_of(host: &Host, event: &str, call_id: &str) -> Value {
    wait::until(&format!("{event} of {call_id}"), || {
        let found = events(host, event);
        found.into_iter().find(|line| line["call_id"] == call_id)
    })
}

fn debug(policy: &str) -> Host {
    Builder::new()
        .policy(portcullis_testkit::policy(policy))
        .set("log", "level = \"debug\"")
        .set("log", "format = \"json\"")
        .start()
}

fn message(method: &str, uri: &str, via: &str, call_id: &str, more: &str) -> Vec<u8> {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.com>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A policy that sends everything to a next hop of this name.
fn relaying_to(next_hop: &str) -> Vec<u8> {
    let length = next_hop.len();
    module(&format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 16) "\00\00\00\00\01\00\00\00\40\00\00\00\{length:02x}")
            (data (i32.const 64) "{next_hop}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32) i32.const 16))"#
    ))
}

#[test]
fn malformed_messages_are_logged_with_source_reason_and_call_id() {
    let host = debug("observe");
    let mut caller = host.udp(CALLER);
    let source = caller.local().to_string();
    let via = format!("SIP/2.0/UDP {source};branch=z9hG4bK1");
    let uri = "sip:b@example.com";
    // What is sent, its Call-ID, and the code and phrase, or the cause of the drop.
    let rejected = [
        (
            message("INVITE", "sip:b@exa mple.com", &via, "line", ""),
            "line",
            400,
            "Bad Request Line",
        ),
        (
            message("INVITE", "sips:b@example.com", &via, "scheme", ""),
            "scheme",
            416,
            "Unsupported URI Scheme in Request URI",
        ),
        (
            message("INVITE", uri, &via, "require", "Proxy-Require: x\r\n"),
            "require",
            420,
            "Bad Proxy Require Extension",
        ),
        (
            message("INVITE", uri, &via, "header", "no colon\r\n"),
            "header",
            400,
            "Bad Header Line",
        ),
    ];
    for (bytes, call_id, code, reason) in rejected {
        caller.send(&bytes);
        let line = event_of(&host, "request_rejected", call_id);
        assert_eq!(
            (&line["code"], &line["reason"]),
            (&json!(code), &json!(reason)),
            "{line}"
        );
        assert_eq!(
            (&line["source"], &line["transport"]),
            (&json!(source), &json!("udp"))
        );
        assert_eq!(line["method"], "INVITE");
    }
    let hops = message("INVITE", uri, &via, "hops", "");
    let hops = String::from_utf8(hops)
        .expect("text")
        .replace("Max-Forwards: 70", "Max-Forwards: 0");
    caller.send(hops.as_bytes());
    assert_eq!(event_of(&host, "request_rejected", "hops")["code"], 483);
    let version = message("INVITE", uri, &via, "version", "");
    let version = String::from_utf8(version)
        .expect("text")
        .replacen("SIP/2.0\r", "SIP/3.0\r", 1);
    caller.send(version.as_bytes());
    assert_eq!(event_of(&host, "request_rejected", "version")["code"], 505);

    let answer = |via: &str, call_id: &str| {
        format!(
            "SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\n"
        )
    };
    let dropped = [
        (
            answer("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK2", "stray"),
            "stray",
            "foreign_response",
        ),
        (
            answer(
                &format!("SIP/2.0/UDP {};branch=z9hG4bK2", host.sip()),
                "forged",
            ),
            "forged",
            "forged_response",
        ),
        (
            "junk\x1b[2J\r\nCall-ID: junk\r\n\r\n".to_owned(),
            "junk",
            "not_sip",
        ),
    ];
    for (text, call_id, cause) in dropped {
        caller.send(text.as_bytes());
        let line = event_of(&host, "message_dropped", call_id);
        assert_eq!(
            (&line["cause"], &line["source"]),
            (&json!(cause), &json!(source)),
            "{line}"
        );
    }
    let junk = event_of(&host, "message_dropped", "junk");
    assert_eq!(junk["first_line"], "junk\\u{1b}[2J");

    let mut stream = host.tcp(CALLER);
    stream.send(b"neither SIP nor anything else\r\n\r\n");
    let source = stream.local().to_string();
    wait::until("the stream is told of", || {
        let found = events(&host, "stream_unframed");
        found
            .iter()
            .any(|line| line["source"] == *source)
            .then_some(())
    });
}

#[test]
fn rejections_are_logged_with_the_deciding_policy() {
    let host = debug("address-acl");
    let mut caller = host.udp(CALLER);
    let request = caller.request("INVITE", "sip:bob@example.com");
    let answer = caller.ask(&request);
    assert_eq!(answer.code(), 401);
    let call_id = answer
        .header("Call-ID")
        .expect("an answer has one")
        .to_owned();
    let line = event_of(&host, "request_rejected", &call_id);
    assert_eq!(
        (&line["code"], &line["cause"]),
        (&json!(401), &json!("policy"))
    );
    assert_eq!(
        (&line["policy"], &line["generation"]),
        (&json!("default"), &json!(1))
    );
    assert_eq!(line["reason"], "Address not authorised");
}

#[test]
fn problems_are_logged_at_the_default_level() {
    let host = Builder::new()
        .policy(policy("observe"))
        .set("log", "format = \"json\"")
        .start();
    let mut caller = host.udp(CALLER);
    let code = |caller: &mut portcullis_testkit::sip::Caller| {
        let request = caller.request("INVITE", "sip:bob@example.com");
        caller.ask(&request).code()
    };
    let serve = |bytes: &[u8]| {
        host.replace_policy(bytes);
        host.run("policy reload");
    };

    // A reason phrase with a line break.
    serve(&guest("line-break"));
    for _ in 0..50 {
        assert_eq!(code(&mut caller), 503);
    }
    let told = |event: &str| wait::until(event, || events(&host, event).pop());
    let failed = told("policy_failed");
    assert_eq!(failed["level"], "WARN");
    assert_eq!(
        (&failed["policy"], &failed["kind"]),
        (&json!("default"), &json!("invalid_verdict"))
    );
    assert!(
        failed["call_id"].as_str().is_some_and(|id| !id.is_empty()),
        "{failed}"
    );
    assert!(
        failed["example"]
            .as_str()
            .is_some_and(|text| text.contains("invalid verdict")),
        "{failed}"
    );
    // The first is logged at once, the others later in one line.
    assert!(events(&host, "policy_failed").len() <= 2);
    let status = host.rpc("policy.status", json!([]));
    let last = &status["result"]["last_failure"];
    assert_eq!(last["kind"], "invalid_verdict", "{status}");
    assert_eq!(status["result"]["failed_calls"], 50);
    let shown = host.run("policy status");
    assert!(
        shown.contains("failed calls: 50") && shown.contains("last failure: "),
        "{shown}"
    );

    // A next hop that nobody has configured.
    serve(&relaying_to("nowhere"));
    assert_eq!(code(&mut caller), 500);
    let unknown = told("unknown_next_hop");
    assert!(
        unknown["example"]
            .as_str()
            .is_some_and(|text| text.contains("`nowhere`")),
        "{unknown}"
    );
    let status = host.rpc("portcullis.status", json!([]));
    let trouble = &status["result"]["troubles"]["unknown_next_hop"];
    assert_eq!(trouble["count"], 1, "{status}");
    assert_eq!(trouble["last"]["peer"], caller.local().to_string());
    assert_eq!(status["result"]["policy_failures"]["invalid_verdict"], 50);

    serve(&rejecting(486, "good"));
    assert_eq!(code(&mut caller), 486);
}

#[test]
fn a_next_hop_that_fails_and_recovers_is_logged_once_each() {
    let builder = Builder::new();
    let hop = builder.lease().addr(20, 5060);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{hop};transport=tcp\""))
        .set("log", "format = \"json\"")
        .start();
    let mut caller = host.udp(CALLER);
    for _ in 0..5 {
        let request = caller.request("INVITE", "sip:bob@example.com");
        assert_eq!(caller.ask(&request).code(), 500);
    }
    let told = |event: &str| wait::until(event, || events(&host, event).pop());
    let down = told("next_hop_down");
    assert_eq!(
        (&down["next_hop"], &down["level"]),
        (&json!(hop.to_string()), &json!("WARN"))
    );
    let status = host.rpc("portcullis.status", json!([]));
    assert_eq!(
        status["result"]["next_hops_down"][0]["next_hop"],
        hop.to_string()
    );
    assert_eq!(status["result"]["next_hops_down"][0]["undelivered"], 5);

    let listener = std::net::TcpListener::bind(hop).expect("the next hop can listen");
    let request = caller.request("INVITE", "sip:bob@example.com");
    caller.send(&request.bytes());
    let _connection = listener.accept().expect("the host connects");
    let up = told("next_hop_up");
    assert_eq!(
        (&up["next_hop"], &up["undelivered"]),
        (&json!(hop.to_string()), &json!(5))
    );
    assert_eq!(events(&host, "next_hop_down").len(), 1);
    let status = host.rpc("portcullis.status", json!([]));
    assert_eq!(status["result"]["next_hops_down"], json!([]));
}

#[test]
fn a_loop_to_the_host_itself_is_logged() {
    let builder = Builder::new();
    let own = builder.lease().addr(1, 5060);
    let host = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{own}\""))
        .set("log", "format = \"json\"")
        .start();
    let mut caller = host.udp(CALLER);
    let request = caller.request("INVITE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 482);
    let told = wait::until("the loop is told", || events(&host, "loop_detected").pop());
    assert_eq!(told["count"], 1);
    assert!(
        told["call_id"].as_str().is_some_and(|id| !id.is_empty()),
        "{told}"
    );
}
