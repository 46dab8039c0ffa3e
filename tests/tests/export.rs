//! `[records] otlp` and `[events]`: what the host sends to other systems by itself.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::documents::Page;
use portcullis_testkit::host::Builder;
use portcullis_testkit::wait;
use serde_json::Value;

const CALLER: u8 = 10;
const STRANGER: u8 = 11;

/// A server that accepts every request, and passes on path, head and body of each.
fn server(addr: SocketAddr) -> Receiver<(String, String)> {
    let listener = TcpListener::bind(addr).expect("the address is free");
    let (requests, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let requests = requests.clone();
            thread::spawn(move || {
                let mut stream = stream.expect("a connection");
                while let Some(request) = read(&mut stream) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    if stream.write_all(answer).is_err() || requests.send(request).is_err() {
                        return;
                    }
                }
            });
        }
    });
    received
}

/// Reads a request: its head in lower case, and its body.
fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut part = [0; 16_384];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .and_then(|length| length.parse::<usize>().ok());
            if length.is_none_or(|length| body.len() >= length) {
                return Some((head, body.to_owned()));
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend_from_slice(&part[..length]),
        }
    }
}

/// The spans of an export.
fn spans(body: &str) -> Vec<Value> {
    let export: Value = serde_json::from_str(body).expect("it is JSON");
    let resource = &export["resourceSpans"][0];
    let name = &resource["resource"]["attributes"][0];
    assert_eq!(name["value"]["stringValue"], "portcullis", "{export}");
    let spans = resource["scopeSpans"][0]["spans"].as_array();
    spans.expect("spans").clone()
}

/// An attribute of a span or an event.
fn attribute<'v>(of: &'v Value, key: &str) -> &'v Value {
    let attributes = of["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    &found.unwrap_or_else(|| panic!("{key} in {of}"))["value"]["stringValue"]
}

#[test]
fn decisions_are_spans_of_the_trace_that_the_request_names() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(20, 5060));
    let collector = builder.lease().addr(21, 4318);
    let received = server(collector);
    let caller = builder.lease().ip(CALLER);
    let host = builder
        .row(&format!("200 {caller}"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set(
            "records",
            &format!("otlp = \"http://{collector}/v1/traces\""),
        )
        .set("records", "trace-header = \"traceparent\"")
        .start();
    let mut caller = host.udp(CALLER);
    let request = caller
        .request("MESSAGE", "sip:bob@example.com")
        .header(&format!("traceparent: 00-{TRACE}-{PARENT}-01"));
    assert_eq!(caller.ask(&request).code(), 200);
    let relayed = callee.next();
    let given = relayed.headers("traceparent").join(" ");

    let (head, body) = received
        .recv_timeout(wait::PATIENCE)
        .expect("an export comes");
    assert!(head.starts_with("post /v1/traces "), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let spans = spans(&body);
    let [span, policy] = &spans[..] else {
        panic!("a span for the decision and one for its policy: {body}");
    };
    assert_eq!(
        (&span["name"], &span["traceId"]),
        (&"MESSAGE".into(), &TRACE.into())
    );
    assert_eq!(span["parentSpanId"], PARENT);
    let id = span["spanId"].as_str().expect("a string");
    assert_eq!(given, format!("00-{TRACE}-{id}-01"));
    assert_eq!(attribute(span, "sip.call_id"), &request.call_id);
    assert_eq!(attribute(span, "portcullis.outcome"), "relay");
    assert_eq!(policy["parentSpanId"], id);
    assert_eq!(attribute(policy, "portcullis.seat"), "default");
    assert_eq!(attribute(policy, "portcullis.verdict"), "relay");
    let question = &policy["events"][0];
    let name = question["name"].as_str().expect("a string");
    assert!(name.contains("allow"), "{question}");
    assert!(attribute(question, "portcullis.answer").is_string());
    let nanoseconds = |of: &Value, name: &str| -> u64 {
        let text = of[name].as_str().expect("a string");
        text.parse().expect("a number")
    };
    let start = nanoseconds(policy, "startTimeUnixNano");
    let asked = nanoseconds(question, "timeUnixNano");
    let end = nanoseconds(policy, "endTimeUnixNano");
    assert!(start <= asked && asked <= end, "{policy}");
    wait::until("the spans are counted", || {
        let sent = host.metric("portcullis_export_sent_total", &["traces"]);
        (sent >= 2.0).then_some(())
    });

    // Without a given trace, the requests of a call are one.
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);
    let given = callee.next();
    let given = given.header("traceparent").expect("the host adds it");
    let (_, body) = received
        .recv_timeout(wait::PATIENCE)
        .expect("an export comes");
    let spans = self::spans(&body);
    assert!(spans[0].get("parentSpanId").is_none(), "{body}");
    let trace = spans[0]["traceId"].as_str().expect("a string");
    assert!(given.contains(trace), "{given}");
}

#[test]
fn events_reach_a_file_and_a_server_whatever_the_log_shows() {
    let builder = Builder::new();
    let addr = builder.lease().addr(21, 8080);
    let received = server(addr);
    let host = builder
        .set("log", "level = \"error\"")
        .set("events", "file = \"events.jsonl\"")
        .set("events", &format!("webhook = \"http://{addr}/hook\""))
        .set("events", "secret = \"a long secret of this test\"")
        .set("events", "level = \"info\"")
        .start();
    let mut stranger = host.udp(STRANGER);
    let request = stranger.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(stranger.ask(&request).code(), 401);
    let mut bodies = String::new();
    wait::until("the server has the event", || {
        let (head, body) = received.recv_timeout(wait::PATIENCE).ok()?;
        assert!(head.contains("\nx-portcullis-signature: sha256="), "{head}");
        assert!(head.contains("\nx-portcullis-timestamp: 1"), "{head}");
        bodies.push_str(&body);
        bodies.contains("\"event\":\"serving\"").then_some(())
    });
    let path = host.folder().join("events.jsonl");
    wait::until("the file has the event", || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains("\"event\":\"serving\"").then_some(())
    });
    let text = fs::read_to_string(&path).expect("it is there");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    let serving = lines.iter().find(|line| line["event"] == "serving");
    let serving = serving.expect("the event");
    assert_eq!(serving["level"], "info");
    assert!(serving["workers"].is_u64(), "{serving}");
    // What policies log is no event of the host.
    assert!(!text.contains("policy_log"), "{text}");
    assert!(host.metric("portcullis_export_sent_total", &["webhook"]) >= 1.0);
}

/// The command of docs/operations.md, with OpenSSL, computes the signature that the server gets.
#[test]
fn peers_openssl_verifies_the_signature_of_events() {
    const SECRET: &str = "a long secret of this test";
    let builder = Builder::new();
    let addr = builder.lease().addr(21, 8080);
    let received = server(addr);
    let host = builder
        .set("events", &format!("webhook = \"http://{addr}/hook\""))
        .set("events", &format!("secret = \"{SECRET}\""))
        .set("events", "level = \"info\"")
        .start();
    let (head, body) = received
        .recv_timeout(wait::PATIENCE)
        .expect("an event comes");
    let field = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{name} in {head}")).trim()
    };
    let given = field("x-portcullis-signature: sha256=");
    let page = Page::named("docs/operations.md");
    let blocks = page.blocks();
    let command = blocks
        .iter()
        .find(|block| block.text.contains("openssl dgst"))
        .expect("the page says how to check the signature");
    let computed = |body: &str| {
        host.write("body", body);
        let output = Command::new("sh")
            .args(["-euc", &command.text])
            .current_dir(host.folder())
            .env("TIMESTAMP", field("x-portcullis-timestamp: "))
            .env("SECRET", SECRET)
            .output()
            .expect("a shell runs");
        assert!(output.status.success(), "{output:?}");
        // "SHA2-256(stdin)= …"
        let printed = String::from_utf8(output.stdout).expect("it is text");
        let digest = printed.split_whitespace().last().map(str::to_owned);
        digest.expect("a digest is printed")
    };
    assert_eq!(computed(&body), given);
    assert_ne!(computed(&format!("{body} ")), given);
}
