//! What named tokens and the tokens of tenants permit over HTTP.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::{guest, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::wait;
use serde_json::{Value, json};

const ACME: &str = "acme-0123456789abcdef";
const WALL: &str = "wall-0123456789abcdef";
const CI: &str = "ci-0123456789abcdefgh";

const JSON: Option<&str> = Some("application/json");
const CSV: Option<&str> = Some("text/csv");

/// The status and the body of an answer.
fn ask(
    host: &Host,
    token: &str,
    method: &str,
    path: &str,
    sent: (Option<&str>, &[u8]),
) -> (u16, Value) {
    let (status, _, body) = host.ask(Some(token), method, path, sent);
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[test]
fn a_named_token_permits_what_its_role_does() {
    let host = Builder::new()
        .set("control.tokens.wall", &format!("token = \"{WALL}\""))
        .set("control.tokens.wall", "role = \"read\"")
        .set("control.tokens.ci", &format!("token = \"{CI}\""))
        .set("control.tokens.ci", "role = \"ship\"")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    let none = (None, &b""[..]);
    let wasm = rejecting(486, "no");
    let push = (Some("application/wasm"), &wasm[..]);
    let row = (JSON, &b"{\"group\": 200, \"address\": \"10.9.0.1\"}"[..]);
    for (token, method, path, sent, status) in [
        (WALL, "GET", "/v1/policies/acme", none, 200),
        (WALL, "GET", "/v1/tenants", none, 200),
        (WALL, "GET", "/v1/addresses", none, 200),
        (WALL, "POST", "/v1/policies/acme", push, 403),
        (
            WALL,
            "GET",
            "/v1/policies/acme/generations/active",
            none,
            403,
        ),
        (WALL, "POST", "/v1/addresses", row, 403),
        (
            CI,
            "POST",
            "/v1/policies/acme?arrival=activate&author=ann",
            push,
            201,
        ),
        (CI, "GET", "/v1/policies/acme/generations/active", none, 200),
        (CI, "POST", "/v1/addresses", row, 403),
        (CI, "DELETE", "/v1/tenants/acme", none, 403),
        ("nobody-0123456789abcdef", "GET", "/v1/tenants", none, 401),
    ] {
        let (told, body) = ask(&host, token, method, path, sent);
        assert_eq!(told, status, "{method} {path}: {body}");
    }
    let call = br#"{"jsonrpc": "2.0", "id": 1, "method": "tenant.reload"}"#;
    let (_, answer) = ask(&host, CI, "POST", "/RPC", (JSON, call));
    assert_eq!(answer["error"]["code"], 403, "{answer}");
    let call = br#"{"jsonrpc": "2.0", "id": 1, "method": "core.version"}"#;
    let (_, answer) = ask(&host, WALL, "POST", "/RPC", (JSON, call));
    assert!(answer["result"].is_string(), "{answer}");

    let (_, audit) = ask(&host, WALL, "GET", "/v1/audit?command=policy.push", none);
    let audit = &audit["entries"];
    let of = |at: usize| {
        let entry = &audit[at];
        [&entry["token"], &entry["by"], &entry["seat"]].map(Value::clone)
    };
    assert_eq!(of(0), [json!("ci"), json!("ci: ann"), json!("acme")]);
    assert_eq!(audit[0]["error"], Value::Null);
    // What a role does not permit is there, too: the push before, and the download.
    let needs = |role: &str| {
        format!(
            "the token wall has the role read, and this needs the role {role}: see [control.tokens.wall]"
        )
    };
    assert_eq!(of(1), [json!("wall"), json!("wall"), json!("acme")]);
    assert_eq!(audit[1]["error"], json!(needs("ship")));
    let (_, pulled) = ask(&host, WALL, "GET", "/v1/audit?command=policy.pull", none);
    let entries = pulled["entries"].as_array().expect("it is a list");
    let refused: Vec<_> = entries
        .iter()
        .map(|entry| (&entry["by"], &entry["error"]))
        .collect();
    assert_eq!(
        refused,
        [
            (&json!("ci"), &Value::Null),
            (&json!("wall"), &json!(needs("ship")))
        ]
    );
    host.wait_for_log("control_action");

    // The command line shows the same, also page by page.
    let shown = |words: &str| {
        let output = host.command_as(WALL, words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words}: {output:?}");
        text
    };
    let json: Value = serde_json::from_str(&shown("audit --command policy.push --json"))
        .expect("the command prints JSON");
    assert_eq!(&json["entries"], audit);
    assert!(shown("audit --by nobody").starts_with("no such action\n"));
    let last = shown("audit --limit 1");
    let id = last.rsplit_once("--before ").expect("there are older ones");
    let id = id.1.split(',').next().unwrap_or_default();
    let older = shown(&format!("audit --command policy.push --before {id}"));
    assert!(
        older.contains("ci: ann") && older.contains("done"),
        "{older}"
    );
    let refused = host.command_as("nobody-0123456789abcdef", "audit");
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn a_tenant_sees_its_groups_and_changes_those_that_it_may() {
    let host = Builder::new()
        .row("200 10.0.0.1 32 0 seen")
        .row("201 10.0.0.1 32 0 edited")
        .row("300 10.0.0.1 32 0 hidden")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.acme", "groups = [200, 201]")
        .set("tenants.acme", "edit-groups = [201]")
        .set("tenants.acme", "edit-rows = 2")
        .start();
    let none = (None, &b""[..]);
    let get = |path: &str| ask(&host, ACME, "GET", path, none);
    let tags = |rows: &Value| {
        let rows = rows.as_array().expect("it is a list").iter();
        rows.map(|row| row["tag"].clone()).collect::<Vec<_>>()
    };
    let (_, listed) = get("/v1/addresses");
    assert_eq!(tags(&listed["rows"]), ["seen", "edited"]);
    assert_eq!(listed["source"], "database");
    let (_, first) = get("/v1/addresses?limit=1");
    assert_eq!(
        (tags(&first["rows"]), &first["total"]),
        (vec![json!("seen")], &json!(2))
    );
    let next = first["next"].as_str().expect("there is a further page");
    let (_, second) = get(&format!("/v1/addresses?limit=1&after={next}"));
    assert_eq!(tags(&second["rows"]), ["edited"]);
    assert_eq!(
        (&second["total"], &second["next"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(get("/v1/addresses?group=300").1["total"], 0);
    assert_eq!(get("/v1/addresses?after=7").0, 400);
    // In the order in which they are tried: of two rows for one address the later one is first, as in Kamailio.
    let (_, found) = get("/v1/addresses/match?source=10.0.0.1:5060");
    assert_eq!(tags(&found["rows"]), ["edited", "seen"]);
    assert_eq!(found["first_group"], 201);

    let add = |group: u32, address: &str| {
        let row = json!({"group": group, "address": address}).to_string();
        ask(&host, ACME, "POST", "/v1/addresses", (JSON, row.as_bytes())).0
    };
    assert_eq!((add(200, "10.0.0.2"), add(300, "10.0.0.2")), (403, 403));
    for wide in ["10.0.0.0/23", "2001:db8::/47", "::ffff:10.0.0.0/119"] {
        assert_eq!(add(201, wide), 422, "{wide}");
    }
    assert_eq!((add(201, "10.0.0.2"), add(201, "10.0.0.3")), (201, 422));
    let remove = |group: u32| {
        let path = format!("/v1/addresses?group={group}&address=10.0.0.1");
        ask(&host, ACME, "DELETE", &path, none).0
    };
    assert_eq!((remove(300), remove(200), remove(201)), (403, 403, 200));
    let import = |query: &str, rows: &str| {
        let path = format!("/v1/addresses/import{query}");
        ask(&host, ACME, "POST", &path, (CSV, rows.as_bytes())).0
    };
    assert_eq!(import("", "grp,ip_addr\n201,10.0.0.4\n300,10.0.0.4\n"), 403);
    assert_eq!(import("?replace=true", "grp,ip_addr\n201,10.0.0.4\n"), 403);
    assert_eq!(import("", "grp,ip_addr,mask\n201,10.0.0.0,8\n"), 422);
    assert_eq!(import("", "grp,ip_addr\n201,10.0.0.4\n"), 200);
    assert_eq!(import("?dry_run=true", "grp,ip_addr\n201,10.0.0.5\n"), 422);
    let (_, own) = get("/v1/tenants/self");
    assert_eq!(own["limits"]["edit_groups"], json!([201]));
    let (_, audit) = get("/v1/audit");
    assert!(
        audit["entries"]
            .as_array()
            .is_some_and(|all| all.len() > 5 && all.iter().all(|one| one["tenant"] == "acme")),
        "{audit}"
    );
}

#[test]
fn rows_in_a_file_are_listed_and_not_changed() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("address.list");
    std::fs::write(&file, "200 10.0.0.1\n").expect("the file can be written");
    let host = Builder::new()
        .set("database", &format!("address-file = {file:?}"))
        .start();
    let token = host.token().expect("it has a token");
    let (_, listed) = ask(&host, &token, "GET", "/v1/addresses", (None, b""));
    assert_eq!(
        (&listed["is_writable"], &listed["total"]),
        (&json!(false), &json!(1)),
        "{listed}"
    );
    let row = (JSON, &b"{\"group\": 200, \"address\": \"10.9.0.1\"}"[..]);
    let (status, refused) = ask(&host, &token, "POST", "/v1/addresses", row);
    assert_eq!(status, 409);
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("edit the file"), "{refused}");
}

#[test]
fn an_alert_is_seen_and_acknowledged() {
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.acme", "breaker-failures = 2")
        .start();
    let trap = guest("trap");
    let pushed = host.push("acme", "arrival=activate", &trap);
    assert_eq!(pushed.0, 201, "{}", pushed.1);
    let none = (None, &b""[..]);
    let alert = wait::until("the breaker trips", || {
        let mut caller = host.udp(10);
        let request = caller.request("MESSAGE", "sip:bob@acme.example");
        caller.ask(&request);
        let (_, alerts) = ask(&host, ACME, "GET", "/v1/alerts", none);
        alerts[0]["id"].is_string().then(|| alerts[0].clone())
    });
    assert_eq!(
        (&alert["kind"], &alert["seat"], &alert["acknowledged_by"]),
        (
            &json!("policy-out-of-service"),
            &json!("acme"),
            &Value::Null
        )
    );
    let id = alert["id"].as_str().unwrap_or_default();
    let path = format!("/v1/alerts/{id}/acknowledge?author=ann");
    let (status, seen) = ask(&host, ACME, "POST", &path, none);
    assert_eq!(
        (status, &seen["acknowledged_by"]),
        (200, &json!("acme: ann")),
        "{seen}"
    );

    // The command line shows the same. A tenant sees its own alerts, and nothing else of the host.
    let id = alert["id"].as_str().expect("it has an id");
    let listed = host.run("alert list");
    assert!(
        listed.contains(id) && listed.contains("acme: ann"),
        "{listed}"
    );
    let own = host.command_as(ACME, "alert list --json");
    let own: Value = serde_json::from_slice(&own.stdout).expect("the command prints JSON");
    assert_eq!(own[0]["id"], alert["id"]);
    // The first one to acknowledge it stays.
    let seen = host.run(&format!("alert ack {id} --author bob"));
    assert_eq!(seen, format!("{id}: seen by acme: ann\n"));
    let status = host.run("status");
    assert!(
        status.starts_with("ready:        yes\nalert:        acme: "),
        "{status}"
    );
    assert!(status.contains("\nfailures:     "), "{status}");
    let json: Value = serde_json::from_str(&host.run("status --json")).expect("JSON");
    assert_eq!(json["ready"], true);
    let events = host.run("events --past --names control_action --count 1");
    assert!(events.contains(" event=control_action "), "{events}");
    let refused = |output: std::process::Output| {
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let gone = refused(host.command("alert ack 00"));
    assert!(gone.contains("there is no alert 00"), "{gone}");
    let foreign = refused(host.command_as(ACME, "status"));
    assert!(
        foreign.starts_with("error: a tenant's token gives access to ") && !foreign.contains('{'),
        "{foreign}"
    );
}
