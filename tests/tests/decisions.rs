//! `GET /v1/policies/{seat}/decisions`: the decisions of a seat, as they are made.

#![forbid(unsafe_code)]

use std::io::{BufRead, Read};

use portcullis_testkit::guests::{guest, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::schema;
use serde_json::{Value, json};

const ACME: &str = "acme-0123456789abcdef";
const CALLER: u8 = 10;
const OTHER: u8 = 11;

fn start() -> Host {
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.other", "uri-domains = [\"other.example\"]")
        .start();
    for (seat, code) in [("acme", 486), ("other", 487)] {
        let pushed = host.push(seat, "arrival=activate&name=p.wasm", &rejecting(code, "no"));
        assert_eq!(pushed.0, 201, "{}", pushed.1);
    }
    host
}

/// The name and the data of the next event.
fn next(events: &mut impl BufRead) -> (String, Value) {
    let mut name = String::new();
    loop {
        let mut line = String::new();
        let read = events.read_line(&mut line).expect("a line comes");
        assert!(read > 0, "the stream has ended");
        match line.trim_end().split_once(": ") {
            Some(("event", event)) => name = event.to_owned(),
            Some(("data", data)) => {
                return (name, serde_json::from_str(data).expect("the data are JSON"));
            }
            _ => {}
        }
    }
}

/// Sends a request of this method to this domain, from this address; returns its Call-ID.
fn send(host: &Host, from: u8, method: &str, domain: &str, code: u16) -> String {
    let mut caller = host.udp(from);
    let request = caller.request(method, &format!("sip:bob@{domain}"));
    assert_eq!(caller.ask(&request).code(), code);
    request.call_id
}

/// Waits for a line with this text on standard error of a command.
fn said(errors: &mut impl BufRead, text: &str) {
    let mut all = String::new();
    while !all.contains(text) {
        let read = errors.read_line(&mut all).expect("a line comes");
        assert!(read > 0, "the command has ended: {all}");
    }
}

#[test]
fn the_command_shows_decisions_also_after_a_restart() {
    let mut host = start();
    let mut command = std::process::Command::new(portcullis_testkit::binary())
        .current_dir(host.folder())
        .env("PORTCULLIS_TOKEN", ACME)
        .env("NO_COLOR", "1")
        .args([
            "policy", "tail", "acme", "--method", "MESSAGE", "--count", "2",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("portcullis runs");
    let output = command.stdout.take().expect("standard output is a pipe");
    let mut lines = std::io::BufReader::new(output).lines();
    let errors = command.stderr.take().expect("standard error is a pipe");
    let mut errors = std::io::BufReader::new(errors);
    said(&mut errors, "following the decisions of seat acme");

    send(&host, CALLER, "INFO", "acme.example", 486);
    let call_id = send(&host, CALLER, "MESSAGE", "acme.example", 486);
    let line = lines.next().expect("a line comes").expect("it is text");
    for part in [
        "MESSAGE sip:bob@acme.example from ",
        ": reject 486 no, p.wasm generation 1, ",
        "; rejected 486 no; Call-ID ",
        &call_id,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }

    // Pushed policies are in memory, so that another one is needed afterwards.
    host.kill_and_start();
    said(&mut errors, "connected again");
    let pushed = host.push(
        "acme",
        "arrival=activate&name=q.wasm",
        &rejecting(480, "off"),
    );
    assert_eq!(pushed.0, 201, "{}", pushed.1);
    send(&host, CALLER, "MESSAGE", "acme.example", 480);
    let line = lines.next().expect("a line comes").expect("it is text");
    assert!(line.contains("reject 480 off, q.wasm"), "{line}");
    let ended = command.wait().expect("the command ends");
    assert!(ended.success());
}

#[test]
fn the_command_says_which_filter_is_wrong() {
    let host = start();
    let said = host.refused("policy tail acme --verdict refer");
    assert!(
        said.contains("`refer` is not a verdict: write relay, reject"),
        "{said}"
    );
    let said = host.refused("policy tail nobody");
    assert!(said.contains("nobody"), "{said}");
}

#[test]
fn a_tenant_follows_its_own_decisions_and_no_others() {
    let host = start();
    let mut events = host.follow(Some(ACME), "/v1/policies/acme/decisions");
    send(&host, CALLER, "MESSAGE", "other.example", 487);
    let call_id = send(&host, CALLER, "MESSAGE", "acme.example", 486);
    let (name, event) = next(&mut events);
    assert_eq!(
        (name.as_str(), &event["call_id"]),
        ("decision", &json!(call_id)),
        "{event}"
    );
    assert_eq!(
        (&event["seat"], &event["tenant"], &event["kind"]),
        (&json!("acme"), &json!("acme"), &json!("reject")),
        "{event}"
    );
    assert_eq!(
        (&event["outcome"], &event["code"], &event["generation"]),
        (&json!("rejected"), &json!(486), &json!(1)),
        "{event}"
    );
    assert_eq!(event["policy"], "p.wasm");

    let (_, text) = host.get("/v1/openapi.json").expect("the host answers");
    let document: Value = serde_json::from_str(&text).expect("it is JSON");
    let described = json!({"$ref": "#/components/schemas/DecisionEvent"});
    let checked = schema::check(&document, &described, &event);
    assert_eq!(checked, Ok(()), "{event}");

    for (token, seat, status) in [
        (Some(ACME), "other", 403),
        (Some(ACME), "default", 403),
        (None, "nobody", 404),
    ] {
        let path = format!("/v1/policies/{seat}/decisions");
        assert_eq!(host.ask(token, "GET", &path, (None, b"")).0, status);
    }
}

#[test]
fn filters_select_decisions() {
    let host = start();
    let source = host.lease().ip(OTHER).to_string();
    let path = |query: String| format!("/v1/policies/acme/decisions?{query}");
    let mut from_other = host.follow(None, &path(format!("source={source}&verdict=reject")));
    let mut options = host.follow(None, &path("method=INVITE".to_owned()));
    let mut failed = host.follow(None, &path("verdict=failed".to_owned()));
    let mut nothing = host.follow(None, &path("share=0%25".to_owned()));
    let mut slow = host.follow(None, &path("rate=1".to_owned()));
    send(&host, CALLER, "MESSAGE", "acme.example", 486);
    let other = send(&host, OTHER, "MESSAGE", "acme.example", 486);
    let invite = send(&host, CALLER, "INVITE", "acme.example", 486);
    let pushed = host.push("acme", "arrival=activate", &guest("trap"));
    assert_eq!(pushed.0, 201, "{}", pushed.1);
    let broken = send(&host, CALLER, "MESSAGE", "acme.example", 503);
    assert_eq!(next(&mut from_other).1["call_id"], other);
    assert_eq!(next(&mut options).1["call_id"], invite);
    let (_, event) = next(&mut failed);
    assert_eq!(
        (&event["call_id"], &event["code"], &event["cause"]),
        (&json!(broken), &json!(503), &json!("policy_failed")),
        "{event}"
    );
    assert_eq!(next(&mut slow).0, "decision");
    // With at most one decision per second, one of four is left out unless each came in a second of its own.
    assert!(["decision", "left_out"].contains(&next(&mut slow).0.as_str()));
    // A comment comes while there is nothing to show.
    let mut line = String::new();
    nothing.read_line(&mut line).expect("a line comes");
    assert_eq!(line, ":\n");
}

#[test]
fn a_stream_ends_when_the_tenant_loses_its_token() {
    let mut host = start();
    let mut events = host.follow(Some(ACME), "/v1/policies/acme/decisions");
    let config = host.folder().join("portcullis.toml");
    let text = std::fs::read_to_string(&config).expect("it is there");
    host.write(
        "portcullis.toml",
        text.replace(ACME, "new-0123456789abcdef"),
    );
    host.rpc("tenant.reload", json!([]));
    let mut rest = String::new();
    events.read_to_string(&mut rest).expect("the stream ends");
    assert!(!rest.contains("decision"), "{rest}");
    assert!(host.is_alive());
}

#[test]
fn the_last_decisions_of_a_seat_are_kept_from_the_first_question_on() {
    let host = start();
    let recent = |token: Option<&str>, query: &str| {
        let path = format!("/v1/policies/acme/decisions/recent{query}");
        let (status, _, body) = host.ask(token, "GET", &path, (None, b""));
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let told: Value = serde_json::from_slice(&body).expect("the answer is JSON");
        let all = told["decisions"].as_array().expect("it is a list").clone();
        let ids = all
            .iter()
            .map(|one| one["call_id"].as_str().expect("it is text").to_owned());
        ids.collect::<Vec<_>>()
    };
    send(&host, CALLER, "MESSAGE", "acme.example", 486);
    assert!(recent(None, "").is_empty() && recent(Some(ACME), "").is_empty());
    send(&host, CALLER, "MESSAGE", "other.example", 487);
    let message = send(&host, CALLER, "MESSAGE", "acme.example", 486);
    let invite = send(&host, OTHER, "INVITE", "acme.example", 486);
    let both = vec![invite.clone(), message.clone()];
    portcullis_testkit::wait::until("both are kept", || {
        (recent(None, "") == both && recent(Some(ACME), "") == both).then_some(())
    });
    let source = host.lease().ip(OTHER);
    for (query, expected) in [
        ("?method=MESSAGE".to_owned(), vec![message.clone()]),
        (format!("?source={source}"), vec![invite.clone()]),
        (
            format!("?source={source}/32&verdict=reject&code=486"),
            vec![invite.clone()],
        ),
        (format!("?call_id={message}"), vec![message]),
        ("?verdict=relay".to_owned(), vec![]),
        ("?limit=1".to_owned(), vec![invite]),
    ] {
        assert_eq!(recent(None, &query), expected, "{query}");
    }
}

#[test]
fn events_of_the_host_are_followed_and_a_client_goes_on_where_it_was() {
    let host = start();
    let mut past = host.follow(None, "/v1/events?past=true&names=serving,policy_pushed");
    let (name, event) = next(&mut past);
    assert_eq!(
        (name.as_str(), &event["event"]),
        ("event", &json!("serving"))
    );
    assert!(
        event["time"].is_string() && event["level"] == "info",
        "{event}"
    );
    for seat in ["acme", "other"] {
        let (_, event) = next(&mut past);
        assert_eq!(event["seat"], seat, "{event}");
    }
    let mut new = host.follow(None, "/v1/events?names=policy_pushed");
    host.push("acme", "", &rejecting(480, "no"));
    let mut id = String::new();
    while !id.starts_with("id: ") {
        id.clear();
        new.read_line(&mut id).expect("a line comes");
    }
    let (_, event) = next(&mut new);
    assert_eq!(
        (&event["seat"], &event["generation"]),
        (&json!("acme"), &json!(2))
    );
    host.push("other", "", &rejecting(480, "no"));
    let mut more = host.follow_after(
        id.trim_start_matches("id: ").trim(),
        "/v1/events?names=policy_pushed",
    );
    let (_, event) = next(&mut more);
    assert_eq!(event["seat"], "other", "{event}");
    let mut all = host.follow_after("1-1", "/v1/events");
    assert_eq!(next(&mut all).0, "event", "an id of another process");
    assert_eq!(
        host.ask(Some(ACME), "GET", "/v1/events", (None, b"")).0,
        403
    );
}
