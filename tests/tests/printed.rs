//! Snapshots of the output of the command line, in `tests/tests/snapshots`. After an intended change, `INSTA_UPDATE=always cargo nextest
//! run -p portcullis-tests --test printed` updates them; review the difference.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_testkit::{binary, policy};
use tempfile::TempDir;

/// A configuration with one error of each kind that `check` finds while it parses.
const FAULTY: &str = r#"workers = 0
listen = ["udp:nonsense.example"]
colour = "red"

[relay]
next-hop = "http://example.com"

[policy]
file = "missing.wasm"
deadline = "soon"

[tenants.acme]
uri-domain = ["acme.example"]
"#;

/// A Kamailio configuration with values that the import translates, omits, and cannot parse.
const KAMAILIO: &str = r#"#!define WITH_MYSQL
listen=udp:10.0.0.1:5060
loadmodule "permissions.so"
loadmodule "pike.so"
modparam("permissions", "db_url", "mysql://kamailio:kamailiorw@localhost/kamailio")
modparam("permissions", "address_table", "address")
modparam("pike", "sampling_time_unit", 2)
request_route {
    if (!allow_source_address("200")) {
        sl_send_reply("401", "Address not authorised");
        exit;
    }
    forward();
}
"#;

/// Runs one command in this directory; returns its output and its exit status.
fn printed(folder: &Path, words: &str) -> String {
    let output = Command::new(binary())
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .env("COLUMNS", "120")
        .args(words.split_whitespace())
        .output()
        .expect("portcullis runs");
    let code = output.status.code().expect("no signal ends it");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let mut text = format!("$ portcullis {words}\n{out}");
    if !err.is_empty() {
        text.push_str(&format!("--- stderr\n{err}"));
    }
    text.push_str(&format!("--- exit {code}\n"));
    text
}

/// Compares with the snapshot of this name. Values that depend on the machine or the build are removed: the directory, digests, sizes and
/// times, the compiler's version, and what `check` reports about the user and the kernel.
fn compare(name: &str, folder: &Path, text: &str) {
    let text = text.replace(&folder.display().to_string(), "FOLDER");
    insta::with_settings!({
        filters => vec![
            (r"sha256:[0-9a-f]+", "sha256:DIGEST"),
            (r"[0-9]+( bytes|B,)", "N$1"),
            (r"[0-9]+ ms", "N ms"),
            (r"rustc .*", "rustc VERSION"),
            (r"(?m)^(user|compiler) +.*\n", ""),
            (r"portcullis [0-9]+\.[0-9]+\.[0-9]+", "portcullis VERSION"),
        ],
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, text);
    });
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a file can be written");
}

/// The names under `Commands:` in a help text.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
}

#[test]
fn the_help_of_every_command() {
    let folder = folder();
    let mut paths = vec![String::new()];
    let mut all = String::new();
    while let Some(path) = paths.pop() {
        let help = printed(folder.path(), format!("{path} --help").trim());
        let below: Vec<_> = commands(&help)
            .map(|name| format!("{path} {name}").trim().to_owned())
            .collect();
        paths.extend(below.into_iter().rev());
        all.push_str(&help);
        all.push('\n');
    }
    compare("help", folder.path(), &all);
}

#[test]
fn what_is_wrong_with_a_configuration() {
    let folder = folder();
    write(folder.path(), "portcullis.toml", FAULTY);
    let text = printed(folder.path(), "check");
    compare("check_faulty", folder.path(), &text);
}

#[test]
fn rows_of_the_address_table() {
    let folder = folder();
    let text: String = [
        "address add 250 10.8.203.139 32 5060 TestServer",
        "address add 200 192.168.1.0 24 5060 OfficeSubnet",
        "address add 200 192.168.1.0 24 5060 OfficeSubnet",
        "address add 200 10.0.0.1 40",
        "address show",
        "address rm 200 192.168.1.0/24",
        "address rm 200 192.168.1.0/24",
        "address show",
    ]
    .iter()
    .map(|words| printed(folder.path(), words) + "\n")
    .collect();
    compare("address", folder.path(), &text);
}

#[test]
fn files_that_are_no_policies() {
    let folder = folder();
    write(folder.path(), "empty.wasm", "");
    write(folder.path(), "text.wasm", "#!/bin/sh\n");
    fs::copy(policy("address-acl"), folder.path().join("acl.wasm")).expect("a file can be copied");
    let text: String = [
        "policy check empty.wasm",
        "policy check text.wasm",
        "policy check absent.wasm",
        "policy check acl.wasm",
        "policy inspect acl.wasm",
    ]
    .iter()
    .map(|words| printed(folder.path(), words) + "\n")
    .collect();
    compare("policy", folder.path(), &text);
}

#[test]
fn an_import_of_kamailios_configuration() {
    let folder = folder();
    write(folder.path(), "kamailio.cfg", KAMAILIO);
    let text = printed(folder.path(), "import kamailio.cfg");
    compare("import", folder.path(), &text);
}
