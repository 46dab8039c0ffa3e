//! What is in the database: the audit, the settings of tenants, single rows.

use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use portcullis_store::Store;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::AbortHandle;
use tower::ServiceExt;

use super::{Arc, Control, DatabaseUrl, add, control_over, http};

const OPERATOR: &str = "operator-0123456789";
const ACME: &str = "acme-0123456789abcdef";
const FILED: &str = "filed-0123456789abcdef";

const CONFIG: &str = r#"
[control]
token = "operator-0123456789"
[control.tokens.ci]
token = "deploy-0123456789ab"
role = "ship"
[tenants.filed]
source-groups = [3]
token = "filed-0123456789abcdef"
"#;

/// A host on the database in this folder, whose tables exist.
async fn host(folder: &TempDir) -> Arc<Control> {
    let url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
    let file = folder.path().join("portcullis.toml");
    let control = control_over(folder, CONFIG, |registry| {
        let config = portcullis_config::Config::parse(CONFIG).unwrap();
        registry.with_store(Store::new(url)).with_file(file, config)
    });
    let database = control.shared.addresses.database();
    database.create_tables().await.unwrap();
    let config = Arc::new(control.shared.config.clone());
    control.registry.apply_all(&config).await.unwrap();
    control
}

/// The task that stores the audit of a host.
fn storing(control: &Arc<Control>) -> AbortHandle {
    let control = Arc::clone(control);
    let run = async move { control.audit.stored().unwrap().run().await };
    tokio::spawn(run).abort_handle()
}

struct Answer {
    status: u16,
    tag: Option<String>,
    body: Value,
}

async fn ask(
    control: &Arc<Control>,
    token: &str,
    line: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("Authorization", format!("Bearer {token}"));
    if !body.is_null() {
        request = request.header("Content-Type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() {
        Body::empty()
    } else {
        Body::from(body.to_string())
    };
    let request = request.body(body).unwrap();
    let response = http::router(Arc::clone(control));
    let response = response.oneshot(request).await.unwrap();
    let tag = response.headers().get(header::ETAG);
    let tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, tag, body }
}

async fn audit(control: &Arc<Control>, token: &str, query: &str) -> Value {
    let line = format!("GET /v1/audit{query}");
    let answer = ask(control, token, &line, &[], Value::Null).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer.body
}

/// Does something that the audit has: there is nothing to roll back.
async fn act(control: &Arc<Control>, token: &str, seat: &str) {
    let line = format!("POST /v1/policies/{seat}/rollback");
    let answer = ask(control, token, &line, &[], Value::Null).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
}

fn subjects(audit: &Value) -> Vec<(&str, &str)> {
    let entries = audit["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let seat = entry["seat"].as_str().unwrap_or_default();
            (entry["command"].as_str().unwrap(), seat)
        })
        .collect()
}

#[tokio::test]
async fn the_audit_has_the_actions_of_all_hosts_and_outlives_them() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (host(&folder).await, host(&folder).await);
    let tasks = [storing(&one), storing(&two)];
    act(&one, OPERATOR, "default").await;
    // A list has what was done before it, although a task stores it.
    let listed = audit(&one, OPERATOR, "").await;
    assert_eq!(listed["kept"], "database", "{listed}");
    act(&two, OPERATOR, "filed").await;
    act(&two, FILED, "filed").await;
    audit(&two, OPERATOR, "").await;
    tasks.iter().for_each(AbortHandle::abort);
    drop((one, two));

    let three = host(&folder).await;
    let _task = storing(&three);
    let all = audit(&three, OPERATOR, "").await;
    let expected = [
        ("policy.rollback", "filed"),
        ("policy.rollback", "filed"),
        ("policy.rollback", "default"),
    ];
    assert_eq!(subjects(&all), expected);
    assert_eq!(
        (&all["next"], &all["warning"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(all["entries"][0]["tenant"], "filed");
    assert!(all["entries"][0]["host"].is_string(), "{all}");
    // Pages, the newest first.
    let mut before = String::new();
    let mut pages = Vec::new();
    loop {
        let page = audit(&three, OPERATOR, &format!("?limit=2{before}")).await;
        pages.extend(page["entries"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(Value::from(pages), all["entries"]);
    // A tenant sees its own actions, and no host.
    let own = audit(&three, FILED, "").await;
    assert_eq!(subjects(&own), [("policy.rollback", "filed")]);
    assert_eq!(own["entries"][0]["host"], Value::Null);
    let line = "GET /v1/audit?host=a";
    let refused = ask(&three, FILED, line, &[], Value::Null).await;
    assert_eq!(refused.status, 403);
    for query in ["?seat=a%00b", "?host=none", "?command=policy.mode"] {
        assert_eq!(audit(&three, OPERATOR, query).await["entries"], json!([]));
    }
    for (query, status) in [
        ("?before=x", 400),
        ("?limit=0", 400),
        ("?before=own-1&after=1", 422),
    ] {
        let line = format!("GET /v1/audit{query}");
        let answer = ask(&three, OPERATOR, &line, &[], Value::Null).await;
        assert_eq!(answer.status, status, "{query}");
    }
}

#[tokio::test]
async fn without_its_table_the_audit_is_in_memory_and_is_stored_later() {
    let folder = tempfile::tempdir().unwrap();
    let control = host(&folder).await;
    let path = folder.path().join("table.db");
    sql(&path, "ALTER TABLE portcullis_audit RENAME TO away").await;
    let task = storing(&control);
    act(&control, OPERATOR, "default").await;
    let listed = audit(&control, OPERATOR, "").await;
    assert_eq!(listed["kept"], "memory", "{listed}");
    assert_eq!(subjects(&listed), [("policy.rollback", "default")]);
    let warning = listed["warning"].as_str().unwrap();
    assert!(warning.contains("portcullis db migrate"), "{warning}");
    let own = audit(&control, FILED, "").await;
    let warning = own["warning"].as_str().unwrap();
    assert!(!warning.contains("table.db"), "{warning}");
    // A page of the database is not one of the memory.
    let answer = ask(
        &control,
        OPERATOR,
        "GET /v1/audit?before=7",
        &[],
        Value::Null,
    )
    .await;
    assert_eq!(answer.status, 503, "{}", answer.body);

    sql(&path, "ALTER TABLE away RENAME TO portcullis_audit").await;
    task.abort();
    let _task = storing(&control);
    control
        .audit
        .stored()
        .unwrap()
        .settled_soon(std::time::Duration::from_secs(60))
        .await;
    let listed = audit(&control, OPERATOR, "").await;
    assert_eq!(
        (&listed["kept"], &listed["warning"]),
        (&json!("database"), &Value::Null)
    );
    assert_eq!(subjects(&listed), [("policy.rollback", "default")]);
}

#[tokio::test]
async fn settings_of_a_stored_tenant_change_and_the_rest_of_its_section_stays() {
    let folder = tempfile::tempdir().unwrap();
    let control = host(&folder).await;
    let _task = storing(&control);
    let section =
        "# Ours.\nsource-groups = [1]\ntoken = \"acme-0123456789abcdef\"\n[settings]\nlimit = 1\n";
    control
        .registry
        .put_tenant("acme", section, "ann")
        .await
        .unwrap();
    let settings = "/v1/policies/acme/settings";
    let get = format!("GET {settings}");
    let put = format!("PUT {settings}?author=bob");
    let shown = ask(&control, OPERATOR, &get, &[], Value::Null).await;
    assert_eq!(
        (&shown.body["settings"], &shown.body["origin"]),
        (&json!({"limit": 1}), &json!("stored_tenant"))
    );
    let tag = shown.tag.unwrap();
    let new = json!({"settings": {"limit": 5, "names": ["a", {"b": 0.5}], "deep": {"er": true}}});
    for (token, headers, body, status) in [
        (ACME, vec![], new.clone(), 403),
        ("deploy-0123456789ab", vec![], new.clone(), 403),
        (OPERATOR, vec![("If-Match", "\"other\"")], new.clone(), 412),
        (OPERATOR, vec![], json!({"settings": {"a": null}}), 422),
        (OPERATOR, vec![], json!({"settings": {"a": u64::MAX}}), 422),
        (OPERATOR, vec![], json!({"settings": []}), 400),
        (OPERATOR, vec![], json!({"limit": 5}), 400),
        (OPERATOR, vec![], Value::Null, 415),
        (
            OPERATOR,
            vec![("If-Match", &*tag), ("Idempotency-Key", "k1")],
            new.clone(),
            200,
        ),
        // The same request again is not executed, although the tag is another one by now.
        (
            OPERATOR,
            vec![("If-Match", &*tag), ("Idempotency-Key", "k1")],
            new.clone(),
            200,
        ),
        (OPERATOR, vec![("If-Match", &*tag)], new.clone(), 412),
    ] {
        let answer = ask(&control, token, &put, &headers, body.clone()).await;
        assert_eq!(answer.status, status, "{headers:?} {body}: {}", answer.body);
    }
    let shown = ask(&control, OPERATOR, &get, &[], Value::Null).await;
    assert_eq!(shown.body["settings"], new["settings"]);
    assert_ne!(shown.tag.as_deref(), Some(&*tag));
    let stored = control.registry.stored_tenant("acme").await.unwrap();
    assert!(
        stored
            .config
            .unwrap()
            .starts_with("# Ours.\nsource-groups = [1]\n")
    );
    assert_eq!(stored.changed_by, "bob");

    // With the operator's permission, the tenant changes them, too.
    let section = section.replace("[settings]", "edit-settings = true\n[settings]");
    control
        .registry
        .put_tenant("acme", &section, "ann")
        .await
        .unwrap();
    let answer = ask(&control, ACME, &put, &[], new.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let stored = control.registry.stored_tenant("acme").await.unwrap();
    assert_eq!(stored.changed_by, "acme: bob");
    let listed = audit(&control, OPERATOR, "?command=policy.putSettings&by=bob").await;
    assert_eq!(listed["entries"][0]["subject"], "settings");

    // Other seats are changed in the file.
    for (seat, section) in [
        ("filed", "[tenants.filed.settings]"),
        ("default", "[policy.settings]"),
    ] {
        let line = format!("PUT /v1/policies/{seat}/settings");
        let answer = ask(&control, OPERATOR, &line, &[], new.clone()).await;
        let detail = answer.body["detail"].as_str().unwrap();
        assert_eq!(answer.status, 409, "{detail}");
        assert!(
            detail.contains("portcullis.toml") && detail.contains(section),
            "{detail}"
        );
    }
    let answer = ask(&control, FILED, "PUT /v1/policies/filed/settings", &[], new).await;
    let detail = answer.body["detail"].as_str().unwrap();
    assert_eq!(answer.status, 409);
    assert!(!detail.contains("portcullis.toml"), "{detail}");
}

#[tokio::test]
async fn a_row_is_read_replaced_and_removed_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let control = host(&folder).await;
    add(&control, 200, "10.0.0.1", 32).await;
    let listed = ask(&control, OPERATOR, "GET /v1/addresses", &[], Value::Null).await;
    let id = listed.body["rows"][0]["id"].as_i64().unwrap();
    let path = format!("/v1/addresses/{id}");
    let line = |method: &str| format!("{method} {path}");
    let read = ask(&control, OPERATOR, &line("GET"), &[], Value::Null).await;
    let row = json!({"id": id, "group": 200, "address": "10.0.0.1", "mask": 32, "port": 5060, "tag": "Tag"});
    assert_eq!((read.status, &read.body), (200, &row));
    let tag = read.tag.unwrap();
    let known = ask(
        &control,
        OPERATOR,
        &line("GET"),
        &[("If-None-Match", &tag)],
        Value::Null,
    )
    .await;
    assert_eq!(known.status, 304);
    let new = json!({"group": 200, "address": "10.0.0.0/24", "tag": "New"});
    let bad = json!({"group": 200, "address": "10.0.0.300"});
    for (verb, headers, body, status) in [
        ("PUT", vec![("If-Match", "\"x\"")], new.clone(), 412),
        ("PUT", vec![("If-None-Match", "*")], new.clone(), 412),
        ("PUT", vec![("If-Match", &*tag)], bad, 422),
        ("PUT", vec![("If-Match", &*tag)], new.clone(), 200),
        ("PUT", vec![("If-Match", &*tag)], new.clone(), 412),
        ("DELETE", vec![("If-Match", &*tag)], Value::Null, 412),
        ("PUT", vec![], new, 200),
        ("DELETE", vec![("If-Match", "*")], Value::Null, 200),
        ("DELETE", vec![("If-Match", "*")], Value::Null, 412),
        ("DELETE", vec![], Value::Null, 404),
        ("GET", vec![], Value::Null, 404),
    ] {
        let answer = ask(&control, OPERATOR, &line(verb), &headers, body.clone()).await;
        assert_eq!(
            answer.status, status,
            "{verb} {headers:?} {body}: {}",
            answer.body
        );
    }
    // A tenant has no row of another group, and no way to learn of one.
    add(&control, 200, "10.0.0.2", 32).await;
    let listed = ask(&control, OPERATOR, "GET /v1/addresses", &[], Value::Null).await;
    let path = format!("/v1/addresses/{}", listed.body["rows"][0]["id"]);
    for verb in ["GET", "DELETE"] {
        let line = format!("{verb} {path}");
        assert_eq!(
            ask(&control, FILED, &line, &[], Value::Null).await.status,
            404
        );
    }
    let answer = ask(&control, OPERATOR, "GET /v1/addresses/x", &[], Value::Null).await;
    assert_eq!(answer.status, 400);
    let answer = ask(&control, OPERATOR, "GET /v1/trusted/7", &[], Value::Null).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
    let peer = json!({"source": "10.0.0.9", "proto": "udp"});
    let added = ask(&control, OPERATOR, "POST /v1/trusted", &[], peer).await;
    assert_eq!(added.status, 201, "{}", added.body);
    let read = ask(&control, OPERATOR, "GET /v1/trusted/1", &[], Value::Null).await;
    assert_eq!((read.status, &read.body["priority"]), (200, &json!(0)));
    let tag = read.tag.unwrap();
    let other = json!({"source": "10.0.0.9", "proto": "tcp", "priority": 3});
    let put = async |tag: &str| {
        let headers = [("If-Match", tag)];
        let answer = ask(
            &control,
            OPERATOR,
            "PUT /v1/trusted/1",
            &headers,
            other.clone(),
        )
        .await;
        answer.status
    };
    assert_eq!((put(&tag).await, put(&tag).await), (200, 412));
    let removed = ask(&control, OPERATOR, "DELETE /v1/trusted/1", &[], Value::Null).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
}

async fn sql(path: &Path, statement: &str) {
    let connections = portcullis_address::Database::new(DatabaseUrl::Sqlite(path.to_owned()));
    let mut link = connections
        .connections()
        .take(std::time::Duration::from_secs(10))
        .await
        .unwrap();
    link.run(statement).await.unwrap();
    link.release().await;
}
