//! JsSIP in a real browser, driven by `tests/phones/run.mjs`: it registers at Kamailio through the host, calls a phone over UDP and is called.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testkit::host::Builder;
use portcullis_testkit::kamailio::{Kamailio, REGISTRAR};
use portcullis_testkit::policy;
use serde_json::json;

const CORE: u8 = 3;

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

#[test]
fn peers_a_browser_registers_calls_is_called_and_loads_its_page_again() {
    let builder = Builder::new().policy(policy("observe"));
    let (sip, ws) = (builder.lease().addr(1, 5060), builder.lease().addr(1, 8088));
    let core = builder.lease().addr(CORE, 5080);
    let _kamailio = Kamailio::start(REGISTRAR, &[("ADDR", core.to_string())], &[]);
    let host = builder
        .listen(&format!("ws:{ws}"))
        .set("nat", &format!("clients = [\"udp:{sip}\"]"))
        .set("relay", &format!("next-hop = \"sip:{core}\""))
        .start();
    let given = json!({
        "ws": format!("ws://{ws}/"),
        "sip": sip.to_string(),
        "phone": host.lease().ip(10).to_string(),
        "modules": modules(),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("phones/run.mjs");
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
    assert_eq!(host.complaints(), [""; 0]);
}
