//! The API as a generic REST provider of Terraform uses it: create, read, update, delete and import of resources that have stable ids.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::postgres::Postgres;
use portcullis_testkit::wait;
use serde_json::{Value, json};

/// A request: status, tag and content of the response.
fn ask(
    host: &Host,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: Option<&Value>,
) -> (u16, Option<String>, Value) {
    let mut fields = fields.to_vec();
    if body.is_some() {
        fields.push(("Content-Type", "application/json"));
    }
    let sent = body.map(Value::to_string).unwrap_or_default();
    let answer = host.send(method, path, &fields, sent.as_bytes());
    let tag = answer.headers().get("etag");
    let tag = tag.map(|tag| tag.to_str().expect("it is ASCII").to_owned());
    let content = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), tag, content)
}

/// What Terraform compares after a read: the members that the user has written.
#[track_caller]
fn assert_no_drift(written: &Value, read: &Value) {
    for (name, value) in written.as_object().expect("an object") {
        assert_eq!(&read[name], value, "{name} of {read}");
    }
}

/// The life of a row of a table.
fn row_lives(host: &Host, table: &str, first: &Value, second: &Value) {
    // Create. A repeated request makes no second row.
    let key = format!("create-{}", table.replace('/', "-"));
    let once = [("Idempotency-Key", key.as_str())];
    let (status, _, created) = ask(host, "POST", table, &once, Some(first));
    assert_eq!(status, 201, "{created}");
    assert_no_drift(first, &created);
    let id = created["id"].as_i64().expect("the row has an id");
    assert!(id > 0, "{created}");
    let (_, _, repeated) = ask(host, "POST", table, &once, Some(first));
    assert_eq!(repeated, created);
    let path = format!("{table}/{id}");

    // Read.
    let (status, before, read) = ask(host, "GET", &path, &[], None);
    assert_eq!((status, &read["id"]), (200, &json!(id)));
    assert_no_drift(first, &read);
    let before = before.expect("a row has a tag");

    // Import: a client that has only the id writes what it has read, and changes nothing.
    let mut imported = read.clone();
    imported.as_object_mut().expect("an object").remove("id");
    let (status, _, written) = ask(host, "PUT", &path, &[], Some(&imported));
    assert_eq!(status, 200, "{written}");
    assert_eq!(written["id"], json!(id));
    assert_no_drift(&imported, &written);
    let (_, after, same) = ask(host, "GET", &path, &[], None);
    assert_eq!((after.as_ref(), &same), (Some(&before), &read));

    // Update, twice.
    for _ in 0..2 {
        let (status, _, updated) = ask(host, "PUT", &path, &[], Some(second));
        assert_eq!(status, 200, "{updated}");
        let (_, _, read) = ask(host, "GET", &path, &[], None);
        assert_no_drift(second, &read);
    }
    let stale = [("If-Match", before.as_str())];
    let (status, _, _) = ask(host, "PUT", &path, &stale, Some(first));
    assert_eq!(status, 412);
    let (status, _, _) = ask(host, "DELETE", &path, &stale, None);
    assert_eq!(status, 412);

    // The list has the row under the same id.
    let listing = if table.starts_with("/v1/dispatcher") {
        "/v1/dispatcher/rows"
    } else {
        table
    };
    let (_, _, list) = ask(host, "GET", listing, &[], None);
    let rows = list.get("rows").unwrap_or(&list).as_array();
    let rows = rows.expect("a list of rows");
    let listed = rows.iter().filter(|row| row["id"] == json!(id));
    assert_eq!(listed.count(), 1, "{list}");

    // Delete.
    let (status, _, _) = ask(host, "DELETE", &path, &[], None);
    assert_eq!(status, 200);
    for method in ["GET", "DELETE"] {
        let (status, _, _) = ask(host, method, &path, &[], None);
        assert_eq!(status, 404, "{method}");
    }
    let (status, _, _) = ask(host, "PUT", &path, &[], Some(first));
    assert_eq!(status, 404, "there is no such row any more");

    // It can be created again.
    let (_, _, again) = ask(host, "POST", table, &[], Some(first));
    let next = again["id"].as_i64().expect("the row has an id");
    let (_, _, read) = ask(host, "GET", &format!("{table}/{next}"), &[], None);
    assert_no_drift(first, &read);
}

fn tenant_lives(host: &Host) {
    let path = "/v1/tenants/acme";
    let section = |code: u16| {
        let text = format!("uri-domains = [\"acme.example\"]\ndefault-code = {code}\n");
        json!({"config": text})
    };
    let (status, _, _) = ask(host, "GET", path, &[], None);
    assert_eq!(status, 404);
    let absent = [("If-None-Match", "*")];
    let (status, _, said) = ask(host, "PUT", path, &absent, Some(&section(480)));
    assert_eq!(status, 200, "{said}");
    let (status, _, _) = ask(host, "PUT", path, &absent, Some(&section(480)));
    assert_eq!(status, 412, "it exists");
    let (status, before, read) = ask(host, "GET", path, &[], None);
    assert_eq!(status, 200);
    assert_no_drift(&section(480), &read);

    // Import writes back all that was read.
    let (status, _, _) = ask(host, "PUT", path, &[], Some(&read));
    assert_eq!(status, 200);
    let before = before.expect("a tenant has a tag");
    for _ in 0..2 {
        let (status, _, _) = ask(host, "PUT", path, &[], Some(&section(481)));
        assert_eq!(status, 200);
        let (_, _, read) = ask(host, "GET", path, &[], None);
        assert_no_drift(&section(481), &read);
    }
    let stale = [("If-Match", before.as_str())];
    let (status, _, _) = ask(host, "PUT", path, &stale, Some(&section(480)));
    assert_eq!(status, 412);
    let (_, _, list) = ask(host, "GET", "/v1/stored-tenants", &[], None);
    assert_eq!(list["tenants"][0]["name"], "acme");
    assert_no_drift(&section(481), &list["tenants"][0]);

    let (status, _, _) = ask(host, "DELETE", path, &[], None);
    assert_eq!(status, 200);
    for method in ["GET", "DELETE"] {
        let (status, _, _) = ask(host, method, path, &[], None);
        assert_eq!(status, 404, "{method}");
    }
    let (_, _, list) = ask(host, "GET", "/v1/stored-tenants", &[], None);
    assert_eq!(list, json!({"tenants": [], "next": null}));
}

/// A policy that is put twice is one generation.
fn policy_lives(host: &Host) {
    let section = json!({"config": "uri-domains = [\"acme.example\"]\n"});
    let (status, _, _) = ask(host, "PUT", "/v1/tenants/acme", &[], Some(&section));
    assert_eq!(status, 200);
    let path = "/v1/policies/acme";
    let put = |fields: &[(&str, &str)], code: u16| {
        let fields = [fields, &[("Content-Type", "application/wasm")]].concat();
        let answer = host.send("PUT", path, &fields, &rejecting(code, "no"));
        let seat: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        (answer.status().as_u16(), seat)
    };
    let (status, first) = put(&[], 486);
    assert_eq!(status, 200, "{first}");
    let (_, before, read) = ask(host, "GET", path, &[], None);
    assert_eq!(
        (&read["digest"], &read["generation"]),
        (&first["digest"], &first["generation"])
    );
    let (_, again) = put(&[], 486);
    assert_eq!(again["generation"], first["generation"]);
    let before = before.expect("a seat has a tag");
    let (_, after, _) = ask(host, "GET", path, &[], None);
    assert_eq!(after.as_ref(), Some(&before));

    let (_, second) = put(&[], 480);
    assert_ne!(second["digest"], first["digest"]);
    let (_, _, read) = ask(host, "GET", path, &[], None);
    assert_eq!(read["digest"], second["digest"]);
    let (status, _) = put(&[("If-Match", before.as_str())], 486);
    assert_eq!(status, 412);
    let (_, _, all) = ask(host, "GET", "/v1/policies/acme/generations", &[], None);
    assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    let nobody = [("Content-Type", "application/wasm")];
    let answer = host.send("PUT", "/v1/policies/nobody", &nobody, &rejecting(486, "no"));
    assert_eq!(answer.status().as_u16(), 404);

    // The seat is gone with its tenant.
    let (status, _, _) = ask(host, "DELETE", "/v1/tenants/acme", &[], None);
    assert_eq!(status, 200);
    let (status, _, _) = ask(host, "GET", path, &[], None);
    assert_eq!(status, 404);
}

fn resources_live(builder: Builder) {
    let host = builder.start();
    // Only the test's MariaDB and the host's own SQLite have these tables from the start.
    host.run("db migrate");
    wait::until("the host sees its tables", || {
        host.command("tenant list").status.success().then_some(())
    });
    row_lives(
        &host,
        "/v1/addresses",
        &json!({"group": 200, "address": "192.0.2.0", "mask": 24, "port": 0, "tag": "office"}),
        &json!({"group": 201, "address": "2001:db8::", "mask": 32, "port": 5060, "tag": null}),
    );
    row_lives(
        &host,
        "/v1/trusted",
        &json!({"source": "192.0.2.10", "proto": "any", "tag": "trunk", "priority": 0}),
        &json!({"source": "192.0.2.10", "proto": "udp", "from_pattern": "^sip:.*@acme", "ruri_pattern": null, "tag": null, "priority": 5}),
    );
    row_lives(
        &host,
        "/v1/dispatcher/rows",
        &json!({"set": 1, "uri": "sip:192.0.2.20:5060", "flags": 0, "priority": 0, "attrs": "weight=50", "description": "North"}),
        &json!({"set": 2, "uri": "sip:192.0.2.21:5060", "flags": 8, "priority": -1, "attrs": "", "description": ""}),
    );
    tenant_lives(&host);
    policy_lives(&host);
}

#[test]
fn resources_live_in_sqlite() {
    resources_live(Builder::new());
}

#[test]
fn peers_resources_live_in_mariadb() {
    let database = MariaDb::start();
    resources_live(Builder::new().database(&database.url()));
}

#[test]
fn peers_resources_live_in_postgresql() {
    let database = Postgres::start();
    resources_live(Builder::new().database(&database.url()));
}
