//! The bundled policies that use settings, counters, the clock and header changes, end to end.

#![forbid(unsafe_code)]

use std::fs;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::Builder;
use portcullis_testkit::policy;
use portcullis_testkit::sip::Caller;
use serde_json::json;

const OFFICE: u8 = 10;
const STRANGER: u8 = 30;
const URI: &str = "sip:bob@example.com";

fn ask(caller: &mut Caller, method: &str) -> String {
    let request = caller.request(method, URI);
    caller.ask(&request).start_line().to_owned()
}

#[test]
fn a_source_above_its_rate_is_rejected() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy("rate-guard"))
        .set("policy", "default = \"relay\"")
        .set("policy.settings", "per-second = 0.01")
        .set("policy.settings", "burst = 3")
        .set("policy.settings", "flood = 2")
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    let mut office = host.udp(OFFICE);
    for _ in 0..3 {
        assert_eq!(ask(&mut office, "MESSAGE"), "SIP/2.0 200 OK");
    }
    let request = office.request("MESSAGE", URI);
    let refused = office.ask(&request);
    assert_eq!(refused.start_line(), "SIP/2.0 503 Too many requests");
    assert_eq!(refused.header("Retry-After"), Some("5"));
    // Over TCP, another worker may handle the request, with the same counter.
    let mut second = host.tcp(OFFICE);
    let flood = second.request("MESSAGE", URI);
    second.send(&flood.bytes());
    host.wait_for_log("is flooding: 2 requests above its rate");
    assert_eq!(ask(&mut host.udp(STRANGER), "MESSAGE"), "SIP/2.0 200 OK");
    let tenants = host.rpc("tenant.list", json!([]));
    let operator = &tenants["result"][0];
    assert_eq!(operator["counters"], 3, "{operator}");
    assert_eq!(operator["evicted_counters"], 0, "{operator}");
}

#[test]
fn settings_are_refused_at_the_push() {
    let host = Builder::new()
        .set("policy", "file = \"\"")
        .set("tenants.acme", "source-groups = [200]")
        .set("tenants.acme.settings", "zone = \"Mars/Olympus\"")
        .set("tenants.acme.settings.hours", "monday = [\"08:00-18:00\"]")
        .start();
    let file = fs::read(policy("business-hours")).expect("the policy is built");
    let (code, answer) = host.push("acme", "arrival=activate", &file);
    assert_eq!(code, 422, "{answer}");
    let said = answer.to_string();
    assert!(
        said.contains("refuses its settings: `zone`: unknown time zone Mars/Olympus"),
        "{said}"
    );
    let words = format!(
        "policy check --seat acme {}",
        policy("business-hours").display()
    );
    let output = host.command(&words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("Mars/Olympus"),
        "{said}"
    );
}

#[test]
fn the_office_is_open_and_then_closed_without_a_restart() {
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let office = builder.lease().ip(OFFICE);
    let days = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let mut builder = builder
        .set("policy", "file = \"\"")
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .row(&format!("200 {office} 32 0 Office"))
        .set("tenants.acme", "source-groups = [200]")
        .set("tenants.acme", "default = \"relay\"")
        .set(
            "tenants.acme",
            &format!("domains = [\"{}:*\"]", callee.addr().ip()),
        )
        .set("tenants.acme.settings", "closed-reason = \"Morgen wieder\"");
    for day in days {
        builder = builder.set(
            "tenants.acme.settings.hours",
            &format!("{day} = [\"00:00-24:00\"]"),
        );
    }
    let host = builder.start();
    let file = fs::read(policy("business-hours")).expect("the policy is built");
    let (code, answer) = host.push("acme", "arrival=activate", &file);
    assert_eq!(code, 201, "{answer}");
    let mut caller = host.udp(OFFICE);
    let uri = format!("sip:bob@{}", callee.addr());
    let mut invite = caller.request("INVITE", &uri);
    assert_eq!(caller.ask(&invite).start_line(), "SIP/2.0 200 OK");

    let config = host.folder().join("portcullis.toml");
    let text = fs::read_to_string(&config).expect("the configuration is there");
    let rewrite = |text: &str| fs::write(&config, text).expect("it can be written");
    rewrite(&text.replace("00:00-24:00", "24:00-00:00"));
    let output = host.command("tenant reload");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("tenant acme: the policy refuses its settings: `hours.friday`"),
        "{said}"
    );
    rewrite(&text.replace("\"00:00-24:00\"", ""));
    host.run("tenant reload");
    invite = caller.request("INVITE", &uri);
    assert_eq!(
        caller.ask(&invite).start_line(),
        "SIP/2.0 480 Morgen wieder"
    );
}
