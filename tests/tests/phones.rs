//! JsSIP and SIP.js in a real browser, driven by the scripts in `tests/phones`: they register at Kamailio through the host, call a phone over UDP,
//! are called, and load their pages again in the middle of a call.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{Kamailio, REGISTRAR};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::policy;
use serde_json::json;

const CORE: u8 = 3;

/// Where the page of the browser is loaded from: the only origin that the host accepts.
fn page(lease: &Lease) -> SocketAddr {
    lease.addr(11, 8090)
}

/// Another origin.
fn stranger(lease: &Lease) -> SocketAddr {
    lease.addr(12, 8090)
}

/// The packages of `tests/phones/package-lock.json`, which `cargo xtask test` installs.
fn modules() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/phones");
    assert!(
        target.join("node_modules").is_dir(),
        "{} is missing: run `cargo xtask test`, or npm ci in a copy of tests/phones",
        target.display()
    );
    target.join("package.json")
}

/// Runs a script with a host that listens for WebSocket there.
fn run(script: &str, host: &Host, ws: &str) {
    let given = json!({
        "ws": ws,
        "sip": host.sip().to_string(),
        "phone": host.lease().ip(10).to_string(),
        "page": page(host.lease()).to_string(),
        "stranger": stranger(host.lease()).to_string(),
        "modules": modules(),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("phones")
        .join(script);
    let run = Command::new("node")
        .arg(script)
        .arg(given.to_string())
        .env("HOME", host.folder())
        .output()
        .expect("node is installed: apt-get install nodejs");
    let said = String::from_utf8_lossy(&run.stdout);
    let failed = String::from_utf8_lossy(&run.stderr);
    println!("{said}");
    assert!(run.status.success(), "{said}{failed}\n{}", host.log());
}

/// A host with a registrar behind it, whose peers are clients. It takes WebSocket connections of the page only.
fn start(change: impl FnOnce(Builder) -> Builder) -> (Host, Kamailio) {
    let builder = Builder::new().policy(policy("observe"));
    let sip = builder.lease().addr(1, 5060);
    let core = builder.lease().addr(CORE, 5080);
    let kamailio = Kamailio::start(REGISTRAR, &[("ADDR", core.to_string())], &[]);
    let origins = format!("origins = [\"http://{}\"]", page(builder.lease()));
    let builder = builder
        .set("websocket", &origins)
        .set("nat", &format!("clients = [\"udp:{sip}\"]"))
        .set("relay", &format!("next-hop = \"sip:{core}\""));
    (change(builder).start(), kamailio)
}

#[test]
fn peers_a_browser_registers_calls_is_called_and_loads_its_page_again() {
    let (host, _kamailio) = start(|builder| {
        let ws = builder.lease().addr(1, 8088);
        builder.listen(&format!("ws:{ws}"))
    });
    let ws = host.lease().addr(1, 8088);
    run("run.mjs", &host, &format!("ws://{ws}/"));
    let refused = host.metric("portcullis_websockets_refused_total", &[]);
    assert_eq!(refused, 1.0, "the page of another origin");
    assert_eq!(host.complaints(), [""; 0]);
}

#[test]
fn peers_a_browser_over_tls_registers_calls_is_called_and_loads_its_page_again() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    authority(folder.path(), "ca");
    certificate(folder.path(), "edge", "DNS:edge.example");
    let file = |end: &str| folder.path().join(format!("edge.{end}"));
    let (host, _kamailio) = start(|builder| {
        let wss = builder.lease().addr(1, 8089);
        builder
            .listen(&format!("wss:{wss}"))
            .set("tls.edge", &format!("certificate = {:?}", file("pem")))
            .set("tls.edge", &format!("key = {:?}", file("key")))
    });
    let wss = host.lease().addr(1, 8089);
    run("sipjs.mjs", &host, &format!("wss://{wss}/"));
    // The certificates of tests expire soon.
    let mut complaints = host.complaints();
    complaints.retain(|line| !line.contains("tls_certificate_expires"));
    assert_eq!(complaints, [""; 0]);
}
