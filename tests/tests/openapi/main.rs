//! `GET /v1/openapi.json` and the host: each operation and each JSON-RPC command is called, and every response has the status, the media
//! type and the schema of the description.

#![forbid(unsafe_code)]

mod requests;
mod rows;

use std::collections::BTreeSet;

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::schema;
use serde_json::{Value, json};

const ACME: &str = "acme-0123456789abcdef";

const WASM: Option<&str> = Some("application/wasm");
const TOML: Option<&str> = Some("application/toml");

/// A host with a description of itself.
struct Described {
    host: Host,
    document: Value,
    /// The operations that were called, by their ids.
    done: BTreeSet<String>,
    /// What replaces `{seat}` and `{row}` in a path.
    seat: &'static str,
    row: String,
}

fn start() -> Described {
    let host = Builder::new()
        .row("200 10.0.0.1")
        .row("201 10.1.0.0 16")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.filed", "uri-domains = [\"filed.example\"]")
        .set("tenants.filed", "file = \"filed.wasm\"")
        .set("fleet", "announce = true")
        .start();
    let (status, text) = host.get("/v1/openapi.json").expect("the host answers");
    assert_eq!(status, 200);
    Described {
        host,
        document: serde_json::from_str(&text).expect("the description is JSON"),
        done: BTreeSet::new(),
        seat: "acme",
        row: String::new(),
    }
}

impl Described {
    /// Sends a request, compares status, media type and body with the description, and returns the body.
    fn ask(
        &mut self,
        token: Option<&str>,
        (method, path, query): (&str, &str, &str),
        sent: (Option<&str>, &[u8]),
        expected: u16,
    ) -> Value {
        let what = format!("{method} {path}{query}");
        let concrete = path
            .replace("{seat}", self.seat)
            .replace("{row}", &self.row)
            .replace("{name}", "stored")
            .replace("{address}", "192.0.2.1")
            .replace("{host}", "edge-9")
            .replace("{id}", "1")
            .replace("{generation}", "active");
        let (status, media, body) = self.host.ask(token, method, &(concrete + query), sent);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, expected, "{what}: {text}");
        let operation = &self.document["paths"][path][method.to_lowercase()];
        let described = self.resolved(&operation["responses"][expected.to_string()]);
        assert!(described.is_object(), "{what}: {expected} is not described");
        let media = media.unwrap_or_default();
        let content = described["content"][media.as_str()].clone();
        assert!(content.is_object(), "{what}: {expected} is not in {media}");
        if expected < 300 {
            let name = operation["operationId"].as_str();
            let name = name.expect("an operation has a name").to_owned();
            self.done.insert(name);
        }
        if !["application/json", "application/problem+json"].contains(&media.as_str()) {
            return Value::Null;
        }
        let value: Value = serde_json::from_slice(&body).expect("the answer is JSON");
        assert_eq!(
            expected >= 300,
            media == "application/problem+json",
            "{what}"
        );
        self.check(&what, &content["schema"], &value);
        value
    }

    fn check(&self, what: &str, schema: &Value, value: &Value) {
        if let Err(error) = schema::check(&self.document, schema, value) {
            panic!("{what}: {error}\n{value:#}");
        }
    }

    /// Resolves a reference.
    fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        let reference = value["$ref"].as_str();
        let pointer = reference.and_then(|reference| reference.strip_prefix('#'));
        match pointer {
            Some(pointer) => self.document.pointer(pointer).expect("it is there"),
            None => value,
        }
    }
}

const SEAT: &str = "/v1/policies/{seat}";
const GENERATIONS: &str = "/v1/policies/{seat}/generations";
const FILE: &str = "/v1/policies/{seat}/generations/{generation}";
const ACTIVATE: &str = "/v1/policies/{seat}/activate";
const ROLLBACK: &str = "/v1/policies/{seat}/rollback";
const MODE: &str = "/v1/policies/{seat}/mode";
const SHADOW: &str = "/v1/policies/{seat}/shadow";
const CANARY: &str = "/v1/policies/{seat}/canary";
const TRY: &str = "/v1/policies/{seat}/try";
const SETTINGS: &str = "/v1/policies/{seat}/settings";
const RECENT: &str = "/v1/policies/{seat}/decisions/recent";
const DECISIONS: &str = "/v1/policies/{seat}/decisions";
const ADDRESSES: &str = "/v1/addresses";
const MATCH: &str = "/v1/addresses/match";
const IMPORT: &str = "/v1/addresses/import";
const ADDRESS_CHANGES: &str = "/v1/addresses/changes";
const ADDRESS: &str = "/v1/addresses/{row}";
const TRUSTED: &str = "/v1/trusted";
const PEER: &str = "/v1/trusted/{row}";
const GATEWAYS: &str = "/v1/dispatcher/rows";
const GATEWAY: &str = "/v1/dispatcher/rows/{row}";
const INSPECT: &str = "/v1/policies/{seat}/inspect";
const ACKNOWLEDGE: &str = "/v1/alerts/{id}/acknowledge";
const CANDIDATE: &str = "/v1/policies/{seat}/candidate";
const TENANTS: &str = "/v1/tenants";
const TENANT: &str = "/v1/tenants/{name}";
const STORED: &str = "/v1/stored-tenants";
const STORED_CHECK: &str = "/v1/stored-tenants/check";
const STORED_CHANGES: &str = "/v1/stored-tenants/changes";
const SOURCE: &str = "/v1/guard/{address}";
const ROLLOUT: &str = "/v1/rollouts/{seat}";
const TLS: &str = "/v1/tls/connections";
const TLS_ONE: &str = "/v1/tls/connections/{id}";

#[test]
fn every_operation_matches_its_description() {
    let mut host = start();
    let none = (None, &b""[..]);
    let one = rejecting(486, "one");
    let two = rejecting(487, "two");
    let toml = &b"uri-domains = [\"stored.example\"]\n"[..];
    host.ask(None, ("GET", "/v1/openapi.json", ""), none, 200);
    host.ask(None, ("GET", SEAT, ""), none, 200);
    host.ask(None, ("GET", GENERATIONS, ""), none, 200);
    let first = "?arrival=activate&name=one.wasm&author=ann&note=first";
    let pushed = host.ask(None, ("POST", SEAT, first), (WASM, &one), 201);
    assert_eq!(
        (&pushed["generation"], &pushed["arrival"]),
        (&json!(1), &json!("active"))
    );
    assert!(pushed["load_ms"].is_u64(), "{pushed}");
    let pushed = host.ask(Some(ACME), ("POST", SEAT, ""), (WASM, &two), 201);
    assert_eq!(
        (&pushed["generation"], &pushed["arrival"]),
        (&json!(2), &json!("kept"))
    );
    assert!(pushed["load_ms"].is_null(), "{pushed}");
    host.ask(None, ("GET", FILE, ""), none, 200);
    let seat = host.ask(None, ("GET", SEAT, ""), none, 200);
    assert_eq!(
        (&seat["generation"], &seat["calls"]),
        (&json!(1), &json!(0))
    );
    host.ask(None, ("POST", SHADOW, "?generation=2"), none, 200);
    let mut caller = host.host.udp(10);
    let request = caller.request("MESSAGE", "sip:bob@acme.example");
    caller.ask(&request);
    // The comparison takes place after the response has been sent.
    portcullis_testkit::wait::until("the request is compared", || {
        let (_, _, body) = host
            .host
            .ask(None, "GET", "/v1/policies/acme/candidate", none);
        let compared: Value = serde_json::from_slice(&body).ok()?;
        (compared["different"] == 1).then_some(())
    });
    let compared = host.ask(None, ("GET", CANDIDATE, ""), none, 200);
    assert_eq!(compared["different"], 1);
    host.ask(None, ("DELETE", CANDIDATE, ""), none, 200);
    host.ask(
        None,
        ("POST", CANARY, "?generation=2&share=12.5%25"),
        none,
        200,
    );
    let generations = host.ask(None, ("GET", GENERATIONS, ""), none, 200);
    assert_eq!(generations[1]["role"], "candidate");
    let changed = host.ask(None, ("POST", ACTIVATE, "?generation=2"), none, 200);
    assert_eq!(changed["status"], "Activated");
    let changed = host.ask(Some(ACME), ("POST", ROLLBACK, ""), none, 200);
    assert_eq!(changed["status"], "Rolled back");
    let seat = host.ask(None, ("PUT", SEAT, "?author=ann"), (WASM, &one), 200);
    assert_eq!(seat["generation"], 1, "it is active already");
    host.ask(None, ("PUT", SEAT, ""), (WASM, b"no policy"), 422);
    let mode = host.ask(None, ("PUT", MODE, "?mode=monitor"), none, 200);
    assert_eq!(mode, "acme: monitor");
    host.ask(None, ("PUT", TENANT, "?author=ann"), (TOML, toml), 200);
    let stored = host.ask(None, ("GET", TENANT, ""), none, 200);
    assert_eq!(
        (&stored["changed_by"], &stored["revision"]),
        (&json!("ann"), &json!(1))
    );
    let tenants = host.ask(None, ("GET", TENANTS, ""), none, 200);
    let from = |name: &str| {
        let all = tenants.as_array().expect("it is a list");
        let found = all.iter().find(|tenant| tenant["name"] == name);
        found.expect("it is listed")["from"].clone()
    };
    assert_eq!(
        (from("stored"), from("acme")),
        (json!("database"), json!("file"))
    );
    let all = host.ask(None, ("GET", STORED, "?limit=1"), none, 200);
    assert_eq!(all["tenants"], json!([stored]));
    host.ask(Some(ACME), ("GET", STORED, ""), none, 403);
    let asked = json!({"put": {"other": "uri-domains = [\"stored.example\"]"}, "remove": []});
    let asked = asked.to_string();
    let asked = (Some("application/json"), asked.as_bytes());
    let checked = host.ask(None, ("POST", STORED_CHECK, ""), asked, 200);
    assert_eq!(checked["errors"][0]["name"], "other");
    host.ask(None, ("POST", STORED_CHANGES, ""), asked, 422);
    for changes in [
        json!({"put": {"third": "uri-domains = [\"third.example\"]"}}),
        json!({"remove": ["third"]}),
    ] {
        let changes = changes.to_string();
        let sent = (Some("application/json"), changes.as_bytes());
        let changed = host.ask(None, ("POST", STORED_CHANGES, "?author=ann"), sent, 200);
        assert_eq!(changed["names"], json!(["third"]));
    }
    let settings = (
        Some("application/json"),
        &b"{\"settings\": {\"limit\": 5}}"[..],
    );
    // Those of a tenant in the file are changed there.
    host.ask(None, ("PUT", SETTINGS, ""), settings, 409);
    host.seat = "stored";
    host.ask(None, ("PUT", SETTINGS, "?author=bob"), settings, 200);
    let shown = host.ask(None, ("GET", SETTINGS, ""), none, 200);
    assert_eq!(
        (&shown["settings"], &shown["origin"]),
        (&json!({"limit": 5}), &json!("stored_tenant"))
    );
    host.seat = "acme";
    host.ask(None, ("DELETE", TENANT, ""), none, 200);
    let own = host.ask(Some(ACME), ("GET", "/v1/tenants/self", ""), none, 200);
    assert_eq!(
        (&own["name"], &own["limits"]["uri_domains"]),
        (&json!("acme"), &json!(["acme.example"]))
    );
    rows::tables(&mut host);
    host.host.run("dispatcher add 1 sip:192.0.2.20");
    host.host.run("dispatcher reload");
    let shown = host.ask(None, ("GET", "/v1/dispatcher", ""), none, 200);
    assert_eq!(shown["sets"][0]["destinations"][0]["uri"], "sip:192.0.2.20");
    let banned = host.ask(None, ("PUT", SOURCE, "?for=1h"), none, 200);
    assert_eq!(banned["seconds"], 3_600);
    host.ask(None, ("PUT", SOURCE, "?for=25h"), none, 422);
    let held = host.ask(None, ("GET", "/v1/guard", ""), none, 200);
    assert_eq!(held[0]["reason"], "operator");
    host.ask(None, ("DELETE", SOURCE, ""), none, 200);
    host.ask(None, ("DELETE", SOURCE, ""), none, 404);
    portcullis_testkit::wait::until("the host has announced what is active", || {
        let (_, text) = host.host.get("/v1/fleet")?;
        let fleet: Value = serde_json::from_str(&text).ok()?;
        (fleet["hosts"][0]["seats"]["acme"]["active"] == 1).then_some(())
    });
    let fleet = host.ask(None, ("GET", "/v1/fleet", ""), none, 200);
    assert_eq!(fleet["hosts"][0]["stage"], "serving");
    // A host that is drained ends: only the errors are checked here, and the rest in fleet.rs.
    host.ask(None, ("POST", "/v1/fleet/{host}/drain", ""), none, 404);
    host.ask(None, ("DELETE", "/v1/fleet/{host}", ""), none, 404);
    host.ask(Some(ACME), ("GET", "/v1/fleet", ""), none, 403);
    host.done
        .extend(["drainHost", "forgetHost"].map(str::to_owned));
    rollouts(&mut host);
    // A connection needs a client: only the error is checked here, and the rest in tls.rs.
    assert_eq!(host.ask(None, ("GET", TLS, ""), none, 200), json!([]));
    host.ask(None, ("DELETE", TLS_ONE, ""), none, 404);
    host.done.insert("endTlsConnection".to_owned());
    let found = host.ask(None, ("POST", INSPECT, ""), (WASM, &one), 200);
    assert_eq!(found["bytes"], one.len());
    host.ask(None, ("POST", INSPECT, ""), (WASM, b"no policy"), 422);
    portcullis_testkit::wait::until("the requests are in the past", || {
        let (_, _, body) = host.host.ask(Some(ACME), "GET", "/v1/stats", none);
        let stats: Value = serde_json::from_slice(&body).ok()?;
        (stats["tenants"][0]["name"] == "acme").then_some(())
    });
    let stats = host.ask(None, ("GET", "/v1/stats", "?seconds=60"), none, 200);
    assert!(stats["seconds"][0]["requests"].is_u64(), "{stats}");
    let alerts = host.ask(None, ("GET", "/v1/alerts", ""), none, 200);
    assert_eq!(alerts, json!([]));
    // An alert needs a policy that fails: only the error is checked here, and the rest in rights.rs.
    host.ask(None, ("POST", ACKNOWLEDGE, ""), none, 404);
    host.done.insert("acknowledgeAlert".to_owned());
    let audit = host.ask(
        None,
        ("GET", "/v1/audit", "?command=address.add"),
        none,
        200,
    );
    // The newest action is first: the row that was refused.
    assert_eq!(audit["kept"], "database");
    let audit = &audit["entries"];
    assert_eq!(audit[0]["by"], "operator");
    assert!(audit[0]["error"].is_string(), "{audit}");
    let all = audit.as_array().expect("it is a list");
    let added = all.iter().find(|action| action["by"] == "ann");
    let added = added.expect("what was added is listed");
    assert_eq!(
        (&added["door"], &added["error"]),
        (&json!("http"), &Value::Null)
    );

    trials(&mut host);
    // A stream never ends: only its errors are checked here, and its content in trace.rs and decisions.rs.
    host.ask(None, ("GET", "/v1/trace", "?outcome=lost"), none, 400);
    host.done.insert("trace".to_owned());
    host.ask(None, ("GET", DECISIONS, "?verdict=refer"), none, 400);
    host.done.insert("followDecisions".to_owned());
    host.ask(None, ("GET", "/v1/events", "?level=loud"), none, 400);
    host.done.insert("followEvents".to_owned());
    let paths = host.document["paths"].as_object().expect("there are paths");
    let operations = paths
        .values()
        .flat_map(|path| path.as_object().expect("it has methods"));
    let described: BTreeSet<_> = operations
        .filter_map(|(_, operation)| operation["operationId"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(host.done, described);
}

/// A roll-out that is begun, paused, continued and given up.
fn rollouts(host: &mut Described) {
    let none = (None, &b""[..]);
    let query = "?generation=2&steps=50%25,100%25&step_time=10m&min_calls=0&author=ann";
    let begun = host.ask(None, ("POST", ROLLOUT, query), none, 200);
    assert_eq!(begun["state"], "running", "{begun}");
    for (end, state) in [("pause", "paused"), ("resume", "running")] {
        let path = format!("{ROLLOUT}/{end}");
        let said = host.ask(None, ("POST", &path, ""), none, 200);
        assert_eq!(said["state"], state, "{said}");
    }
    let shown = host.ask(None, ("GET", ROLLOUT, ""), none, 200);
    assert_eq!(shown["generation"], 2, "{shown}");
    let all = host.ask(None, ("GET", "/v1/rollouts", ""), none, 200);
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    let path = format!("{ROLLOUT}/abort");
    host.ask(None, ("POST", &path, ""), none, 200);
    host.ask(Some(ACME), ("GET", "/v1/rollouts", ""), none, 403);
}

/// A request as text.
const MESSAGE: &str = "MESSAGE sip:bob@acme.example SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1\nMax-Forwards: 70\n\
    From: <sip:alice@acme.example>;tag=1\nTo: <sip:bob@acme.example>\nCall-ID: 1\nCSeq: 1 MESSAGE\n\n";

/// What a policy would decide, its settings, and its last decisions.
fn trials(host: &mut Described) {
    let none = (None, &b""[..]);
    let json_type = Some("application/json");
    let settings = host.ask(None, ("GET", SETTINGS, ""), none, 200);
    assert_eq!(
        (&settings["settings"], &settings["origin"]),
        (&json!({}), &json!("configuration"))
    );
    let recent = host.ask(Some(ACME), ("GET", RECENT, "?verdict=reject"), none, 200);
    assert_eq!(recent["decisions"], json!([]));
    for query in ["?limit=0", "?limit=501", "?verdict=refer", "?source=here"] {
        host.ask(None, ("GET", RECENT, query), none, 400);
    }
    host.ask(None, ("GET", "/v1/audit", "?limit=0"), none, 400);
    host.ask(None, ("GET", "/v1/stats", "?seconds=601"), none, 400);

    let body = json!({"message": MESSAGE, "source": "10.0.0.1"}).to_string();
    let tried = host.ask(
        Some(ACME),
        ("POST", TRY, ""),
        (json_type, body.as_bytes()),
        200,
    );
    assert_eq!(
        (&tried["verdict"], &tried["status"], &tried["reason"]),
        (&json!("reject"), &json!(486), &json!("one")),
        "{tried}"
    );
    assert!(
        tried["fuel"].is_u64() && tried["not_called"].is_null(),
        "{tried}"
    );
    for (body, status) in [
        (json!({"message": "no", "source": "10.0.0.1"}), 422),
        (json!({"message": MESSAGE, "source": "here"}), 422),
        (
            json!({"message": MESSAGE, "source": "10.0.0.1", "generation": 99}),
            404,
        ),
        (
            json!({"message": MESSAGE, "source": "10.0.0.1", "policy": "AAAA"}),
            422,
        ),
        (json!({"message": MESSAGE}), 400),
    ] {
        let body = body.to_string();
        host.ask(
            None,
            ("POST", TRY, ""),
            (json_type, body.as_bytes()),
            status,
        );
    }
    host.ask(None, ("POST", TRY, ""), (WASM, body.as_bytes()), 415);
}

#[test]
fn errors_match_their_description() {
    let mut host = start();
    let none = (None, &b""[..]);
    let wasm = (WASM, &b"no policy"[..]);
    for (method, path, query, sent, status) in [
        ("POST", SEAT, "", wasm, 422),
        ("POST", SEAT, "", (Some("text/plain"), &b""[..]), 415),
        ("POST", SEAT, "?arrival=now", wasm, 400),
        ("POST", SEAT, "?arrival=canary", wasm, 400),
        ("POST", SEAT, "?other=1", wasm, 400),
        ("POST", ACTIVATE, "", none, 400),
        ("POST", ACTIVATE, "?generation=99", none, 404),
        ("POST", ACTIVATE, "?generation=1&generation=1", none, 400),
        ("POST", ACTIVATE, "?generation=1&share=5%25", none, 400),
        ("POST", ROLLBACK, "", none, 404),
        ("POST", CANARY, "?generation=1&share=200%25", none, 400),
        ("PUT", MODE, "?mode=off", none, 400),
        ("GET", CANDIDATE, "", none, 404),
        ("DELETE", CANDIDATE, "", none, 404),
        ("GET", TENANT, "", none, 404),
        ("DELETE", TENANT, "", none, 404),
        ("PUT", TENANT, "", (TOML, &b"colour = \"red\""[..]), 422),
        ("PUT", TENANT, "", (TOML, &b"\xff"[..]), 400),
        ("PUT", TENANT, "", (Some("text/plain"), &b""[..]), 415),
    ] {
        let refused = host.ask(None, (method, path, query), sent, status);
        let error = refused["error"].as_str().expect("it says why");
        assert!(error.len() > 8, "{error}");
        assert_eq!(
            (&refused["status"], &refused["detail"]),
            (&json!(status), &refused["error"])
        );
    }
    // Without a token, and with the token of a tenant.
    for path in [SEAT, TENANTS, "/v1/trace", "/v1/openapi.json"] {
        host.ask(Some("nobody-0123456789abc"), ("GET", path, ""), none, 401);
    }
    for (method, path) in [("GET", TENANTS), ("PUT", TENANT), ("GET", "/v1/trace")] {
        host.ask(Some(ACME), (method, path, ""), none, 403);
    }
    host.ask(Some(ACME), ("GET", TRUSTED, ""), none, 403);
    host.ask(None, ("GET", "/v1/tenants/self", ""), none, 404);
    // What the router itself refuses is a problem, too.
    for (method, path, status) in [("GET", "/v1/nothing", 404), ("PATCH", TENANTS, 405)] {
        let (told, media, body) = host.host.ask(None, method, path, none);
        let problem: Value = serde_json::from_slice(&body).expect("the answer is JSON");
        assert_eq!((told, &problem["status"]), (status, &json!(status)));
        assert_eq!(media.as_deref(), Some("application/problem+json"));
        assert_eq!(problem["instance"], path);
    }
}

/// The commands in their order, with valid parameters. The first push gives them something to report.
#[test]
fn every_json_rpc_command_matches_its_description() {
    let host = start();
    for code in [486, 487] {
        let pushed = host
            .host
            .push("acme", "arrival=activate", &rejecting(code, "no"));
        assert_eq!(pushed.0, 201, "{}", pushed.1);
    }
    let gateway = "sip:192.0.2.20";
    host.host
        .run(&format!("dispatcher add 1 {gateway} 0 0 duid=a"));
    let uri = "sip:alice@example.com";
    for (name, described) in host.document["x-json-rpc"]
        .as_object()
        .expect("it has commands")
    {
        let params = match name.as_str() {
            "core.echo" => json!(["a", 5]),
            "dispatcher.add" | "dispatcher.remove" => json!([2, "sip:192.0.2.21"]),
            "dispatcher.hash" => json!([4, "alice"]),
            "dispatcher.set_duid_state" => json!(["a", 1, "a"]),
            "dispatcher.set_state" => json!(["a", 1, gateway]),
            "dns.lookup" => json!(["A", "localhost"]),
            "fleet.drain" | "fleet.forget" => json!(["edge-9"]),
            "guard.ban" => json!(["192.0.2.1", "1m"]),
            "guard.release" => json!(["192.0.2.1"]),
            "jsonrpc.echo" => json!(["a", 5]),
            "permissions.allowUri" | "permissions.testUri" => json!(["calls", uri, uri]),
            "policy.activate" => json!(["acme", "2"]),
            "policy.canary" => json!(["acme", "1", "5%"]),
            "policy.shadow" => json!(["acme", "2"]),
            "policy.endTrial" | "policy.rollback" => json!(["acme"]),
            "policy.list" | "policy.status" => json!(["acme"]),
            "policy.mode" => json!(["acme", "monitor"]),
            "stats.fetch" | "stats.fetchn" | "stats.get_statistics" => json!(["all"]),
            "system.methodHelp" => json!(["core.echo"]),
            "tls.kill" => json!([1]),
            "tm.cancel" => json!(["a-call", 1]),
            _ => json!([]),
        };
        let answer = host.host.rpc(name, params);
        match name.as_str() {
            // There are no connections, no calls, no comparison and no TLS.
            "tm.cancel" => assert_eq!(answer["error"]["message"], "Transaction not found"),
            "ctl.who" => assert_eq!(answer["error"]["code"], 400),
            "fleet.drain" | "fleet.forget" | "policy.diff" | "tls.kill" => {
                assert_eq!(answer["error"]["code"], 404);
            }
            "tls.reload" => assert_eq!(answer["error"]["code"], 500),
            _ => host.check(name, &described["result"], &answer["result"]),
        }
        assert!(
            described["summary"]
                .as_str()
                .is_some_and(|help| help.len() > 10)
        );
    }
    // The identity of the caller is not a parameter: it follows from the control interface.
    let answer = host
        .host
        .rpc("policy.mode", json!(["acme", "enforce", "by=mallory"]));
    assert_eq!(answer["error"]["message"], "policy.mode takes seat, mode");
}
