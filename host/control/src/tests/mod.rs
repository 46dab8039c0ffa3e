mod api;
mod console;
mod entry;
mod fleet;
mod permissions;
mod stored;
mod tokens;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use portcullis_address::{AddressBook, DatabaseUrl, NewRow, RuleFolder};
use portcullis_config::Config;
use portcullis_dataplane::drain::Drain;
use portcullis_dataplane::handover::Handovers;
use portcullis_dataplane::notices::Notices;
use portcullis_dataplane::orders::Orders;
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport::{Bound, Connections};
use portcullis_metrics::{Method, WorkerCounters};
use portcullis_rollout::Registry;
use portcullis_rpc::{Call, MOST_REQUEST, Param, binrpc};
use portcullis_sip::{Local, Proxy, ProxyConfig, Routes, Transport};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::http::{self, INDEX};
use super::{Control, Listening, answers, descriptors};

/// Returns the control state of a host whose table and policy are in `folder`. Nothing is loaded yet.
fn control(folder: &TempDir) -> Arc<Control> {
    control_with(folder, "")
}

/// The same with these lines in `[control]`.
fn control_with(folder: &TempDir, lines: &str) -> Arc<Control> {
    control_of(folder, &format!("[control]\n{lines}"))
}

/// The same with this configuration.
fn control_of(folder: &TempDir, text: &str) -> Arc<Control> {
    control_over(folder, text, |registry| registry)
}

/// The same with a registry that is made ready.
fn control_over(
    folder: &TempDir,
    text: &str,
    ready: impl FnOnce(Registry) -> Registry,
) -> Arc<Control> {
    let mut config = Config::parse(text).unwrap();
    config.database.url = DatabaseUrl::Sqlite(folder.path().join("table.db")).into();
    config.policy.seat.file = Some(folder.path().join("policy.wasm"));
    config.policy.seat.limits.instances = 1;
    let (_never, stop) = tokio::sync::watch::channel(false);
    let registry = Arc::new(ready(Registry::new(&config, 2, stop).unwrap()));
    let bound = Bound {
        zone: 0,
        transport: Transport::Udp,
        addr: "127.0.0.1:5060".parse().unwrap(),
    };
    let local = Local {
        transport: bound.transport,
        addr: bound.addr,
        advertised: None,
    };
    let proxy = Proxy::new(ProxyConfig {
        locals: vec![local],
        aliases: Vec::new(),
        key: [0; 16],
        earlier_keys: Vec::new(),
        dialog_minutes: 24 * 60,
        record_route: true,
        server_header: None,
        force_rport: Vec::new(),
        clients: portcullis_sip::Clients::default(),
    });
    let parts = descriptors::Parts::of(u64::MAX, 0, 2, &config);
    let bounds = parts.bounds(&config);
    let token = config.control.token.clone();
    let database = config.database.database();
    let options = config.database.book_options();
    let shared = Shared {
        config,
        listen: vec![bound],
        addresses: Arc::new(AddressBook::with_rules(
            database,
            RuleFolder::new(folder.path()),
            options,
        )),
        dispatcher: Arc::clone(registry.dispatcher()),
        tenants: Arc::clone(registry.current()),
        sandboxes: registry.sandboxes(),
        shadow: registry.shadow().clone(),
        share_key: portcullis_policy::ShareKey::random(),
        records: None,
        capture: None,
        proxy: Arc::new(proxy),
        routes: Arc::new(ArcSwap::from_pointee(Routes::default())),
        connections: Arc::new(Connections::new(bounds)),
        counters: vec![WorkerCounters::default(), WorkerCounters::default()],
        handovers: Handovers::new(2),
        peers: None,
        orders: Orders::new(2, true),
        notices: Notices::new(2),
        guard: None,
        unproved: portcullis_guard::Unproved::new(&Default::default(), std::time::Instant::now()),
        handshakes: None,
        drain: Drain::default(),
        failed_addresses: Default::default(),
        pings: Default::default(),
        flow_pings: None,
        next_hop_load: Default::default(),
        client_load: Default::default(),
        started: SystemTime::now(),
    };
    Arc::new(Control::new(
        Arc::new(shared),
        registry,
        Listening::default(),
        token,
        &parts,
        || 0,
        Vec::new(),
    ))
}

/// A policy that rejects every request with this code.
fn rejecting(code: u16) -> Vec<u8> {
    // The verdict is at address 0: discriminant 1 (reject), then the code; no reason and no header fields.
    let [low, high] = code.to_le_bytes();
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 0) "\01\00\00\00\{low:02x}\{high:02x}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32) i32.const 0))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    portcullis_policy::embed(&mut module).unwrap();
    module
}

async fn send(control: &Arc<Control>, request: Request<Body>) -> (u16, String) {
    let response = http::router(Arc::clone(control))
        .oneshot(request)
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(control: &Arc<Control>, path: &str) -> (u16, String) {
    send(control, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(control: &Arc<Control>, body: impl Into<Body>) -> (u16, Value) {
    let (status, text) = send(
        control,
        Request::post("/RPC")
            .header("Content-Type", "application/json")
            .body(body.into())
            .unwrap(),
    )
    .await;
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn result(control: &Arc<Control>, method: &str) -> Value {
    let call = json!({"jsonrpc": "2.0", "method": method, "id": "x"});
    let (status, answer) = post(control, call.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["id"], "x");
    answer["result"].clone()
}

async fn add(control: &Control, group: i64, ip_addr: &str, mask: i64) {
    let row = NewRow {
        group,
        ip_addr: ip_addr.into(),
        mask,
        port: 5060,
        tag: Some("Tag".into()),
    };
    control.shared.addresses.database().add(&row).await.unwrap();
}

#[tokio::test]
async fn kamailios_methods_answer_as_kamailio_does() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    add(&control, 250, "10.8.203.139", 32).await;
    add(&control, 200, "192.168.1.0", 24).await;
    assert_eq!(result(&control, "permissions.addressDump").await, json!([]));
    assert_eq!(
        result(&control, "permissions.addressReload").await,
        "Reload OK"
    );
    assert_eq!(
        result(&control, "permissions.subnetDump").await,
        json!([{"id": 0, "group": 200, "item": {"ip": "192.168.1.0", "mask": 24, "port": 5060, "tag": "Tag"}}])
    );
    let hosts = result(&control, "permissions.addressDump").await;
    assert_eq!(
        hosts[0]["item"],
        json!({"ip": "10.8.203.139", "port": 5060, "tag": "Tag"})
    );
    assert_eq!(result(&control, "permissions.domainDump").await, json!([]));
    assert!(
        result(&control, "core.version")
            .await
            .as_str()
            .unwrap()
            .starts_with("portcullis ")
    );
    assert!(result(&control, "core.uptime").await["uptime"].is_u64());
    let methods = result(&control, "system.listMethods").await;
    for method in methods.as_array().unwrap() {
        let call = json!({"jsonrpc": "2.0", "method": method, "id": 1});
        let (_, answer) = post(&control, call.to_string()).await;
        assert_ne!(answer["error"]["message"], "Method Not Found", "{method}");
    }
}

/// Returns the records of a BINRPC reply as text.
async fn binrpc(control: &Control, method: &str, params: Vec<Param>) -> String {
    let call = Call {
        method: method.into(),
        params,
    };
    let packet = answers::binrpc_within(control, 7, &call, binrpc::MOST_REPLY).await;
    let packet = binrpc::Packet::parse(&packet).unwrap().unwrap();
    assert_eq!(packet.cookie, 7);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let records = binrpc::Records::new(packet.body).map(|record| match record.unwrap() {
        binrpc::Record::Int(number) => number.to_string(),
        binrpc::Record::Text(bytes) => format!("{:?}", text(bytes)),
        binrpc::Record::Struct => "{".into(),
        binrpc::Record::StructEnd => "}".into(),
        binrpc::Record::Name(name) => format!("{}:", text(name)),
        other @ (binrpc::Record::Double(_)
        | binrpc::Record::List
        | binrpc::Record::ListEnd
        | binrpc::Record::Bytes(_)) => {
            panic!("{other:?}")
        }
    });
    records.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn dumps_have_kamailios_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    for (group, ip_addr, mask, port, tag) in [
        (200, "127.0.0.1", 32, 5060, Some("Test")),
        (250, "192.168.1.7", 24, 0, None),
        (1, "10.0.0.10", 32, 0, Some("")),
        (3, "sipdomain.com", 32, 5060, None),
        (4, "example.com", 32, 0, Some("x")),
    ] {
        let row = NewRow {
            group,
            ip_addr: ip_addr.into(),
            mask,
            port,
            tag: tag.map(Into::into),
        };
        control.shared.addresses.database().add(&row).await.unwrap();
    }
    result(&control, "permissions.addressReload").await;
    assert_eq!(
        result(&control, "permissions.addressDump").await,
        json!([
            {"table": 33, "group": 1, "item": {"ip": "10.0.0.10", "port": 0, "tag": "NULL"}},
            {"table": 98, "group": 200, "item": {"ip": "127.0.0.1", "port": 5060, "tag": "Test"}},
        ])
    );
    assert_eq!(
        result(&control, "permissions.subnetDump").await,
        json!([{"id": 0, "group": 250, "item": {"ip": "192.168.1.7", "mask": 24, "port": 0, "tag": ""}}])
    );
    assert_eq!(
        result(&control, "permissions.domainDump")
            .await
            .as_array()
            .unwrap()[0],
        json!({"table": 53, "group": 3, "item": {"domain_name": "sipdomain.com", "port": 5060, "tag": "NULL"}})
    );
    assert_eq!(
        binrpc(&control, "permissions.addressDump", vec![]).await,
        "{ table: 33 group: 1 item: { ip: \"10.0.0.10\" port: 0 tag: \"NULL\" } } \
         { table: 98 group: 200 item: { ip: \"127.0.0.1\" port: 5060 tag: \"Test\" } }"
    );
    let domains = binrpc(&control, "permissions.domainDump", vec![]).await;
    assert!(
        domains.starts_with("{ table: 53 group: 3 item: { domain_name: \"sipdomain.com\" "),
        "{domains}"
    );
    // One structure, in which the names come again.
    assert_eq!(domains.matches("table:").count(), 2);
    assert_eq!(domains.matches('{').count(), 3);
}

#[tokio::test]
async fn both_protocols_have_kamailios_error_messages() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    let five = || vec![Param::Int(5)];
    for (method, params, said) in [
        ("no.such", vec![], "500 \"command no.such not found\""),
        (
            "permissions.addressDump",
            five(),
            "400 \"permissions.addressDump takes no parameters, but got 1\"",
        ),
        (
            "core.echo",
            vec![Param::Double(1.5)],
            "400 \"error at parameter 1: expected string type but got float\"",
        ),
        ("ctl.who", vec![], "400 \"no open stream connection\""),
        ("system.methodHelp", vec![], "400 \"Method Name Expected\""),
        (
            "system.methodHelp",
            vec![Param::Text("no.such".into())],
            "400 \"command not found\"",
        ),
    ] {
        assert_eq!(binrpc(&control, method, params).await, said);
    }
    let echoed = vec![Param::Text("a".into()), Param::Int(-5)];
    assert_eq!(
        binrpc(&control, "core.echo", echoed.clone()).await,
        "\"a\" \"-5\""
    );
    assert_eq!(binrpc(&control, "jsonrpc.echo", echoed).await, "\"a\" -5");
    let ps = binrpc(&control, "core.ps", vec![]).await;
    assert!(
        ps.contains(&format!("{} \"main process\"", std::process::id())),
        "{ps}"
    );
}

#[tokio::test]
async fn every_command_is_listed_with_its_help() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    let listed = result(&control, "system.listMethods").await;
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert!(names.is_sorted());
    for name in names {
        let help = binrpc(
            &control,
            "system.methodHelp",
            vec![Param::Text(name.into())],
        )
        .await;
        assert!(help.len() > 10, "{name}: {help}");
        assert_ne!(
            binrpc(&control, name, vec![]).await,
            format!("500 \"command {name} not found\"")
        );
    }
}

#[tokio::test]
async fn our_reload_reports_counts_and_invalid_rows() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    add(&control, 200, "10.0.0.1", 32).await;
    add(&control, 200, "sip.example.com", 32).await;
    let answer = result(&control, "address.reload").await;
    assert_eq!(answer["status"], "Reload OK");
    assert_eq!(answer["rows"], "2 rows (1 host, 0 subnets, 1 name)");
    assert_eq!(
        (&answer["generation"], &answer["skipped"], &answer["warned"]),
        (&json!(1), &json!(0), &json!(1))
    );
    assert!(
        answer["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("row 2: ip_addr")
    );
}

#[tokio::test]
async fn faults_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    for (body, status, code, message) in [
        (
            r#"{"jsonrpc":"2.0","method":"no.such","id":1}"#,
            500,
            500,
            "Method Not Found",
        ),
        (
            r#"{"jsonrpc":"2.0","method":"policy.reload","id":1}"#,
            500,
            500,
            "Reload failed.",
        ),
        ("{", 400, -32700, "Parse error"),
        ("[]", 400, -32600, "Invalid Request"),
    ] {
        let (http, answer) = post(&control, body).await;
        assert_eq!(http, status, "{body}");
        assert_eq!(answer["error"]["code"], code, "{body}");
        assert_eq!(answer["error"]["message"], message, "{body}");
    }
    std::fs::write(
        folder.path().join("table.db"),
        "no database, however long this text may be",
    )
    .unwrap();
    let (_, answer) = post(
        &control,
        r#"{"jsonrpc":"2.0","method":"permissions.addressReload","id":1}"#,
    )
    .await;
    assert_eq!(answer["error"]["message"], "Reload failed.");
    assert!(
        answer["error"]["data"]
            .as_str()
            .unwrap()
            .contains("table.db"),
        "{answer}"
    );
    let status = result(&control, "portcullis.status").await;
    assert!(
        status["addresses"]["error"].is_string() && status["policy"]["error"].is_string(),
        "{status}"
    );
}

#[tokio::test]
async fn what_is_too_large_or_unknown_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    assert_eq!(post(&control, vec![b' '; MOST_REQUEST + 1]).await.0, 413);
    assert_eq!(get(&control, "/RPC").await.0, 405);
    let (status, body) = get(&control, "/nowhere").await;
    assert_eq!((status, body.as_str()), (404, INDEX));
    assert_eq!(get(&control, "/").await, (200, INDEX.into()));
}

#[tokio::test]
async fn metrics_add_up_all_workers() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    add(&control, 200, "10.0.0.1", 32).await;
    result(&control, "address.reload").await;
    for worker in &control.shared.counters {
        worker.udp.requests.inc(Method::Invite);
        worker.replies.inc(401);
        worker.verdicts.inc(portcullis_policy::VerdictKind::Reject);
        worker
            .policy_time
            .record(std::time::Duration::from_micros(3));
        worker.dropped.inc(portcullis_sip::DropReason::NotSip);
        worker.connections.accepted.add(2);
        worker.connections.closed.inc();
    }
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let request = Request::get("/metrics").header("Accept", accept);
    let (status, page) = send(&control, request.body(Body::empty()).unwrap()).await;
    assert_eq!(status, 200);
    for line in [
        "portcullis_requests_total{transport=\"udp\",method=\"INVITE\"} 2",
        "portcullis_requests_total{transport=\"tcp\",method=\"INVITE\"} 0",
        "portcullis_replies_total{code=\"401\"} 2",
        "portcullis_verdicts_total{verdict=\"reject\"} 2",
        "portcullis_policy_calls_total 2",
        "portcullis_policy_failures_total{kind=\"timeout\"} 0",
        "portcullis_policy_duration_seconds_count 2",
        "portcullis_policy_duration_seconds_bucket{le=\"0.000003\"} 2",
        "portcullis_policy_duration_seconds_bucket{le=\"0.000002\"} 0",
        "portcullis_policy_duration_seconds_bucket{le=\"+Inf\"} 2",
        "portcullis_dropped_total{reason=\"not_sip\"} 2",
        "portcullis_connections_open 2",
        "portcullis_address_rows{kind=\"host\"} 1",
        "portcullis_address_reloads_total{result=\"ok\"} 1",
        "portcullis_workers 2",
        "# EOF",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in:\n{page}"
        );
    }
    // Every metric has a description and occurs once.
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(
            page.lines()
                .filter(|other| other.rsplit_once(' ').map(|l| l.0)
                    == line.rsplit_once(' ').map(|l| l.0))
                .count(),
            1,
            "{line}"
        );
    }
}

/// Requests that a web page can make a browser send, to a host without a token.
#[tokio::test]
async fn requests_of_web_pages_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let control = control_with(&folder, "token-file = \"\"\n");
    let call = json!({"jsonrpc": "2.0", "method": "policy.mode", "params": ["default", "monitor"], "id": 1});
    let own = ("Host", "127.0.0.1:8060");
    for (path, headers, expected) in [
        ("/RPC", vec![own, ("Origin", "https://evil.example")], 403),
        ("/RPC", vec![own, ("Origin", "null")], 403),
        ("/RPC", vec![own, ("Sec-Fetch-Site", "cross-site")], 403),
        ("/RPC", vec![("Host", "evil.example:8060")], 403),
        ("/RPC", vec![own, ("Content-Type", "text/plain")], 415),
        ("/RPC", vec![own], 415),
        ("/v1/policies/default", vec![own], 415),
        (
            "/v1/policies/default/rollback",
            vec![own, ("Content-Type", "text/plain")],
            415,
        ),
        ("/healthz", vec![("Host", "evil.example:8060")], 403),
        ("/metrics", vec![own, ("Sec-Fetch-Site", "same-site")], 403),
    ] {
        let mut request = Request::post(path);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let (status, text) = send(&control, request.body(call.to_string().into()).unwrap()).await;
        assert_eq!(status, expected, "{path} {headers:?}: {text}");
    }
    let files = control.registry.files("default").unwrap();
    assert_eq!(files.slot().mode().as_str(), "enforce");
    let request = Request::post("/RPC")
        .header("Host", "localhost:8060")
        .header("Origin", "http://localhost:8060")
        .header("Sec-Fetch-Site", "same-origin")
        .header("Content-Type", "application/json");
    let (status, _) = send(&control, request.body(call.to_string().into()).unwrap()).await;
    assert_eq!((status, files.slot().mode().as_str()), (200, "monitor"));
}

/// Without a token in the configuration, all clients are on this machine, unless a tenant has a token.
#[tokio::test]
async fn metrics_need_no_token_while_all_clients_are_local() {
    let status = async |lines: &str| {
        let folder = tempfile::tempdir().unwrap();
        let control = control_of(&folder, lines);
        let config = &control.shared.config;
        let tenants = &config.tenants;
        control.registry.apply(config, tenants).await.unwrap();
        let metrics = get(&control, "/metrics").await.0;
        (metrics, get(&control, "/healthz").await.0)
    };
    let tenant = "[tenants.a]\nsource-groups = [1]\n";
    assert_eq!(status(tenant).await, (200, 200));
    let with_token = format!("{tenant}token = \"tenant-0123456789\"\n");
    let control = "[control]\ntoken = \"host-0123456789abc\"\n";
    assert_eq!(status(&format!("{control}{with_token}")).await, (401, 200));
    assert_eq!(status(&format!("{control}{tenant}")).await, (401, 200));
}
