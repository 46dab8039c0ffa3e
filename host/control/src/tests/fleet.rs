//! The hosts on the same database: who sees them, and who may drain one.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use portcullis_fleet::directory::{Announcement, HostRow, Stage, WishKind};
use portcullis_testkit::wait::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{Arc, Control, control_of, send};
use crate::announcer;

const CONFIG: &str = r#"
[fleet]
name = "edge-1"
announce = true
interval = "200ms"
[control]
token = "operator-0123456789"
[control.tokens.ci]
token = "deploy-0123456789ab"
role = "ship"
[control.tokens.eye]
token = "reader-0123456789ab"
role = "read"
[tenants.acme]
source-groups = [1]
token = "acme-0123456789abcdef"
"#;

const OPERATOR: &str = "operator-0123456789";
const SHIP: &str = "deploy-0123456789ab";
const READ: &str = "reader-0123456789ab";
const ACME: &str = "acme-0123456789abcdef";

/// A host whose database has the tables.
async fn host(folder: &TempDir) -> Arc<Control> {
    let control = control_of(folder, CONFIG);
    let database = control.shared.addresses.database();
    database.create_tables().await.unwrap();
    control
}

async fn ask(control: &Arc<Control>, token: &str, method: &str, path: &str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("Authorization", format!("Bearer {token}"));
    let (status, text) = send(control, request.body(Body::empty()).unwrap()).await;
    (status, serde_json::from_str(&text).unwrap_or_default())
}

async fn announce(control: &Control, host: &str, state: &str) {
    let announcement = Announcement {
        host,
        instance: &format!("{host:0>32}"),
        address: "udp:192.0.2.2:5060",
        version: "0.1.0",
        state,
        is_changed: true,
    };
    let directory = control.fleet.directory();
    directory.announce(&announcement, true).await.unwrap();
}

async fn sql(control: &Control, statement: &str) {
    let connections = control.shared.addresses.database().connections();
    let mut link = connections.take(Duration::from_secs(5)).await.unwrap();
    assert_eq!(link.run(statement).await.unwrap(), 1);
    link.release().await;
}

async fn rows(control: &Control) -> Vec<HostRow> {
    control.fleet.directory().hosts().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_hosts_and_tenants_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let control = host(&folder).await;
    let seat = r#"{"seats":{"acme":{"active":N}},"load":{"requests":7},"alerts":{"set-down":2}}"#;
    announce(&control, "edge-2", &seat.replace('N', "3")).await;
    announce(&control, "edge-3", &seat.replace('N', "4")).await;
    for token in [OPERATOR, READ] {
        let (status, fleet) = ask(&control, token, "GET", "/v1/fleet").await;
        assert_eq!(status, 200, "{fleet}");
        assert_eq!(fleet["host"], "edge-1");
        assert_eq!(fleet["differing"], json!(["acme"]));
        let one = &fleet["hosts"][0];
        assert_eq!(
            (&one["host"], &one["stage"]),
            (&json!("edge-2"), &json!("serving"))
        );
        assert_eq!(one["seats"]["acme"]["active"], 3);
        assert_eq!(one["requests_per_second"], 7);
        assert_eq!(one["alerts"], json!({"set-down": 2}));
    }
    let config = &control.shared.config;
    let tenants = &config.tenants;
    control.registry.apply(config, tenants).await.unwrap();
    for (method, path) in [
        ("GET", "/v1/fleet"),
        ("POST", "/v1/fleet/edge-2/drain"),
        ("DELETE", "/v1/fleet/edge-2"),
    ] {
        assert_eq!(
            ask(&control, ACME, method, path).await.0,
            403,
            "{method} {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_drains_a_living_host_and_forgets_one_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let control = host(&folder).await;
    announce(&control, "edge-2", "{}").await;
    announce(&control, "edge-3", "{}").await;
    announce(&control, "edge-4", r#"{"stage":"ended"}"#).await;
    let twin = r#"{"twin":{"address":"udp:192.0.2.9:5060","since":0}}"#;
    announce(&control, "edge-5", twin).await;
    announce(&control, "edge-6", r#"{"refuses_drain":true}"#).await;
    sql(
        &control,
        "UPDATE `portcullis_host` SET `seen_at` = `seen_at` - 6000 WHERE `host` = 'edge-3'",
    )
    .await;
    let drain = async |token, host: &str| {
        ask(&control, token, "POST", &format!("/v1/fleet/{host}/drain")).await
    };
    for token in [READ, SHIP] {
        assert_eq!(drain(token, "edge-2").await.0, 403);
    }
    let (status, drained) = drain(OPERATOR, "edge-2").await;
    assert_eq!((status, &drained["host"]), (200, &json!("edge-2")));
    let wish = rows(&control).await[0].wish.clone().unwrap();
    assert_eq!((wish.kind, wish.by.as_str()), (WishKind::Drain, "operator"));
    for (host, status, text) in [
        ("edge-3", 409, "has not announced itself for"),
        ("edge-4", 409, "has ended"),
        ("edge-5", 409, "two processes have the name edge-5"),
        ("edge-6", 409, "`remote-drain` in its [fleet] is false"),
        (
            "edge-9",
            404,
            "known are edge-2, edge-3, edge-4, edge-5, edge-6",
        ),
    ] {
        let (told, refused) = drain(OPERATOR, host).await;
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(told == status && detail.contains(text), "{host}: {refused}");
    }
    let forget = async |host: &str| {
        ask(&control, OPERATOR, "DELETE", &format!("/v1/fleet/{host}"))
            .await
            .0
    };
    assert_eq!(forget("edge-2").await, 409);
    assert_eq!(forget("edge-3").await, 200);
    assert_eq!(forget("edge-4").await, 200);
    assert_eq!(forget("edge-4").await, 404);
    assert_eq!(rows(&control).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_announces_itself_hears_a_wish_and_says_that_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let control = host(&folder).await;
    control.shared.pings.set_serving(true);
    let (stop, stopping) = watch::channel(false);
    let announcing = tokio::spawn(announcer::run(Arc::clone(&control), stopping));
    let own = loop {
        if let [own] = &rows(&control).await[..] {
            break own.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(own.host, "edge-1");
    assert_eq!(own.address, "udp:127.0.0.1:5060");
    assert_eq!(own.stage(), Some(Stage::Serving));
    let directory = control.fleet.directory();
    let asked = directory.wish("edge-1", &own.instance, WishKind::Drain, "ann");
    assert!(asked.await.unwrap());
    let drain = control.drain_wish();
    tokio::time::timeout(Duration::from_secs(60), drain.notified())
        .await
        .unwrap();
    stop.send_replace(true);
    announcing.await.unwrap();
    let last = rows(&control).await.remove(0);
    assert_eq!(last.stage(), Some(Stage::Ended));
    assert_eq!(last.instance, own.instance);
    assert!(control.fleet.seen().announced >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_table_is_told_and_the_host_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let control = control_of(&folder, CONFIG);
    std::fs::write(folder.path().join("table.db"), b"").unwrap();
    let (status, refused) = ask(&control, OPERATOR, "GET", "/v1/fleet").await;
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(
        status == 503 && detail.contains("portcullis db migrate"),
        "{refused}"
    );
    let (_stop, stopping) = watch::channel(false);
    let announcing = tokio::spawn(announcer::run(Arc::clone(&control), stopping));
    eventually("the host has failed to announce itself", || {
        control.fleet.seen().error.is_some()
    })
    .await;
    assert!(!announcing.is_finished());
    announcing.abort();
}
