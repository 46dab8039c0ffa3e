//! What requests do beyond their description: trials without effect, conditions, and keys of repeated requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::Builder;
use serde_json::{Value, json};

use super::{ACME, MESSAGE, start};

#[test]
fn a_policy_of_any_origin_is_tried_without_effect() {
    let host = Builder::new()
        .row("200 10.0.0.1")
        .row("201 192.0.2.0 24")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.acme", "groups = [200]")
        .start();
    let attempt = |token: Option<&str>, seat: &str, given: Value| {
        let path = format!("/v1/policies/{seat}/try");
        let body = given.to_string();
        let sent = (Some("application/json"), body.as_bytes());
        let (status, _, body) = host.ask(token, "POST", &path, sent);
        let answer: Value = serde_json::from_slice(&body).expect("the answer is JSON");
        (status, answer)
    };
    // The policy of the operator is a file.
    let given = json!({"message": MESSAGE, "source": "192.0.2.7:5062", "transport": "TCP", "time": "2026-12-24T18:00:00Z"});
    let (status, tried) = attempt(None, "default", given);
    assert_eq!(
        (status, &tried["verdict"]),
        (200, &json!("reject")),
        "{tried}"
    );
    assert_eq!(tried["status"], 401);
    assert_eq!(
        (&tried["source"], &tried["transport"], &tried["time"]),
        (
            &json!("192.0.2.7:5062"),
            &json!("tcp"),
            &json!("2026-12-24T18:00:00Z")
        )
    );
    let asked = &tried["asked"][0];
    assert_eq!(
        asked["function"], "permissions.allow-source-address",
        "{tried}"
    );
    let reason = asked["reason"].as_str().expect("there is a reason");
    assert!(reason.contains("there is group 201"), "{reason}");
    let (_, tried) = attempt(
        None,
        "default",
        json!({"message": MESSAGE, "source": "10.0.0.1"}),
    );
    assert_eq!(tried["verdict"], "relay", "{tried}");
    let reason = tried["asked"][0]["reason"].as_str();
    let reason = reason.expect("there is a reason");
    assert!(reason.starts_with("row: group 200, any port"), "{reason}");

    // A tenant tries a file, and sees rows of its groups only.
    let acl = std::fs::read(portcullis_testkit::policy("address-acl")).expect("it is built");
    let policy = STANDARD.encode(&acl);
    let given = json!({"message": MESSAGE, "source": "192.0.2.7", "policy": policy});
    let (status, tried) = attempt(Some(ACME), "acme", given);
    assert_eq!((status, &tried["status"]), (200, &json!(401)), "{tried}");
    assert_eq!(tried["asked"][0]["reason"], "no row has 192.0.2.7");
    assert_eq!(tried["generation"], Value::Null);
    let plain = json!({"message": MESSAGE, "source": "192.0.2.7"});
    assert_eq!(
        attempt(Some(ACME), "acme", plain.clone()).0,
        404,
        "it has no policy"
    );
    assert_eq!(attempt(Some(ACME), "default", plain).0, 403);

    // Nothing was counted or noted.
    let status = host.rpc("policy.status", json!(["default"]))["result"].take();
    assert_eq!(status["calls"], 0, "{status}");
    let (_, audit) = host.get("/v1/audit").expect("the host answers");
    let audit: Value = serde_json::from_str(&audit).expect("it is JSON");
    assert_eq!(audit["entries"], json!([]));
}

#[test]
fn reads_have_tags_and_changes_conditions() {
    let host = start().host;
    let wasm = ("Content-Type", "application/wasm");
    let one = rejecting(486, "one");
    let path = "/v1/policies/acme";
    let tag = |path: &str| {
        let answer = host.send("GET", path, &[], b"");
        assert_eq!(answer.status(), 200);
        let tag = answer.headers()["etag"].to_str().expect("it is ASCII");
        tag.to_owned()
    };
    let empty = tag(path);
    let known = host.send("GET", path, &[("If-None-Match", &empty)], b"");
    assert_eq!((known.status().as_u16(), known.body().len()), (304, 0));
    let pushed = host.send("POST", path, &[wasm, ("If-Match", &empty)], &one);
    assert_eq!(pushed.status(), 201);
    let kept = tag(path);
    assert_ne!(kept, empty);
    assert_eq!(tag("/v1/policies/acme/generations"), kept);
    let activate = |tag: &str| {
        let path = "/v1/policies/acme/activate?generation=1";
        host.send("POST", path, &[("If-Match", tag)], b"")
            .status()
            .as_u16()
    };
    assert_eq!(
        (activate(&empty), activate(&kept), activate(&kept)),
        (412, 200, 412)
    );
    assert_eq!(activate("*"), 200);

    let rows = tag("/v1/addresses");
    let json = ("Content-Type", "application/json");
    let row = b"{\"group\": 300, \"address\": \"10.3.0.1\"}";
    let added = host.send("POST", "/v1/addresses", &[json, ("If-Match", &rows)], row);
    assert_eq!(added.status(), 400, "a new row has no condition");
    assert_eq!(
        host.send("POST", "/v1/addresses", &[json], row).status(),
        201
    );
    let read = host.send("GET", "/v1/addresses", &[("If-None-Match", &rows)], b"");
    assert_eq!(read.status(), 200);

    let toml = ("Content-Type", "application/toml");
    let tenant = "/v1/tenants/stored";
    let section = b"uri-domains = [\"stored.example\"]";
    let create = || host.send("PUT", tenant, &[toml, ("If-None-Match", "*")], section);
    assert_eq!(
        (create().status().as_u16(), create().status().as_u16()),
        (200, 412)
    );
    let before = tag(tenant);
    assert_eq!(
        host.send("PUT", tenant, &[toml], b"uri-domains = [\"new.example\"]")
            .status(),
        200
    );
    let remove = |tag: &str| {
        host.send("DELETE", tenant, &[("If-Match", tag)], b"")
            .status()
    };
    assert_eq!(
        (remove(&before).as_u16(), remove(&tag(tenant)).as_u16()),
        (412, 200)
    );
}

#[test]
fn a_repeated_request_with_a_key_is_executed_once() {
    let host = start().host;
    let path = "/v1/policies/acme?note=first";
    let push = |path: &str, key: &str, body: &[u8]| {
        let fields = [
            ("Content-Type", "application/wasm"),
            ("Idempotency-Key", key),
        ];
        let answer = host.send("POST", path, &fields, body);
        let is_again = answer.headers().contains_key("idempotency-replayed");
        let told: Value = serde_json::from_slice(answer.body()).expect("the answer is JSON");
        (answer.status().as_u16(), is_again, told)
    };
    let (one, two) = (rejecting(486, "one"), rejecting(487, "two"));
    let first = push(path, "4711", &one);
    assert_eq!((first.0, first.1), (201, false), "{}", first.2);
    let again = push(path, "4711", &one);
    assert_eq!((again.0, again.1), (201, true), "{}", again.2);
    assert_eq!(first.2, again.2);
    assert_eq!(push(path, "4712", &one).2["generation"], 2);
    // Another body or another target is another request.
    assert_eq!(push(path, "4711", &two).0, 422);
    assert_eq!(push("/v1/policies/acme", "4711", &one).0, 422);
    // A request that failed can be repeated.
    assert_eq!(push(path, "4713", b"no policy").0, 422);
    assert_eq!(push(path, "4713", &two).0, 201);
    assert_eq!(push(path, "with blank", &two).0, 400);
}
