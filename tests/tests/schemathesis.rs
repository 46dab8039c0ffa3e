//! The control port against its own OpenAPI document, driven by schemathesis: requests that the document allows and requests that it
//! forbids, made from the schemas, and the responses compared with what the document says.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testkit::host::Builder;

const OPERATOR: &str = "operator-0123456789abcdef";

/// The program of `tests/schemathesis/requirements.txt`, which `cargo xtask test` installs.
fn program() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/schemathesis");
    let program = target.join("bin/schemathesis");
    assert!(
        program.is_file(),
        "{} is missing: run `cargo xtask test`, or install tests/schemathesis/requirements.txt into a virtual environment there",
        program.display()
    );
    program
}

#[test]
fn peers_schemathesis_finds_no_difference_between_the_control_port_and_its_document() {
    let host = Builder::new()
        .set("control", &format!("token = \"{OPERATOR}\""))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    let run = Command::new(program())
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .args(["run", "--no-color", "--header"])
        .arg(format!("Authorization: Bearer {OPERATOR}"))
        .arg(format!("http://{}/v1/openapi.json", host.lease().addr(1, 8060)))
        // The hooks, and the files that schemathesis leaves.
        .env("PYTHONPATH", &settings)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path())
        .output()
        .expect("schemathesis can be started");
    let said = String::from_utf8_lossy(&run.stdout);
    let failed = String::from_utf8_lossy(&run.stderr);
    println!("{said}");
    assert!(run.status.success(), "{said}{failed}\n{}", host.log());
}
