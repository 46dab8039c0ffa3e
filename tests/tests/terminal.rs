//! Text from files, rows, peers and policies reaches terminals and logs only in escaped form.

#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, Output};

use portcullis_testkit::guests::{module, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{binary, policy, wait};
use serde_json::json;

/// Escape sequences of C0 and C1, BEL, DEL, a new line that imitates one of ours, and bidirectional formatting characters.
const HOSTILE: &str =
    "x\u{1b}[31m\u{1b}]0;title\u{7}\u{9b}2J\u{7f}\r\nforged line\u{202e}\u{2066}\u{200f}\u{2028}y";

fn run(host: &Host, words: &[&str]) -> Output {
    Command::new(binary())
        .current_dir(host.folder())
        .env("NO_COLOR", "1")
        .args(words)
        .output()
        .expect("portcullis runs")
}

fn is_active(c: char) -> bool {
    c != '\n' && c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn assert_harmless(what: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|_| panic!("{what} prints no UTF-8"));
    let active = text.chars().find(|c| is_active(*c) && *c != '\t');
    assert_eq!(active, None, "{what}: {text:?}");
    let forged = text.lines().find(|line| line.starts_with("forged"));
    assert_eq!(forged, None, "{what}: {text:?}");
}

/// Runs a command, checks that its output is harmless, and returns whether it contains the hostile text at all.
fn shows(host: &Host, words: &[&str]) -> bool {
    let output = run(host, words);
    assert_harmless(&format!("{words:?}"), &output.stdout);
    assert_harmless(&format!("{words:?}"), &output.stderr);
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).contains("forged line")
}

/// Escapes bytes for the text form of WebAssembly.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}

#[test]
fn text_from_files_is_escaped() {
    let host = Builder::new().start();
    let text = format!(
        "(module (import \"{0}\" \"{0}\" (func)) (memory (export \"memory\") 1) (func (export \"decide\") (result i32) i32.const 0))",
        escaped(HOSTILE)
    );
    let bytes = wat::parse_str(text).expect("the guest is valid");
    let file = host.folder().join("hostile.wasm");
    fs::write(&file, &bytes).expect("a file can be written");
    let file = file.display().to_string();
    for words in [
        &["policy", "check", &file][..],
        &["policy", "inspect", &file],
    ] {
        assert!(shows(&host, words), "{words:?} shows the import");
    }
    shows(&host, &["policy", "push", "default", &file]);
    // The same file as the policy of the host: the log and the status name the import.
    host.replace_policy(&bytes);
    assert!(shows(&host, &["policy", "reload"]));
    assert!(shows(&host, &["policy", "status"]));
    host.wait_for_log("forged line");
    assert_harmless("the log", host.log().as_bytes());

    // A configuration, an address file, Kamailio's configuration, records.
    let config = host.folder().join("hostile.toml");
    let level: String = HOSTILE
        .chars()
        .map(|c| format!("\\u{:04X}", u32::from(c)))
        .collect();
    fs::write(&config, format!("[log]\nlevel = \"{level}\"\n")).expect("a file can be written");
    let config = config.display().to_string();
    assert!(shows(&host, &["--config", &config, "check"]));
    shows(&host, &["--config", &config, "address", "show"]);
    let rows = host.folder().join("rows.csv");
    fs::write(&rows, format!("group,address\n200,\"{HOSTILE}\"\n")).expect("a file can be written");
    shows(&host, &["address", "import", &rows.display().to_string()]);
    let cfg = host.folder().join("kamailio.cfg");
    fs::write(
        &cfg,
        format!("loadmodule \"{HOSTILE}.so\"\nlisten=udp:{HOSTILE}\n"),
    )
    .expect("a file can be written");
    let output = run(&host, &["import", &cfg.display().to_string()]);
    assert_harmless("import", &output.stderr);
    let records = host.folder().join("records.jsonl");
    fs::write(&records, format!("{{\"id\": \"{HOSTILE}\"}}\n")).expect("a file can be written");
    let good = policy("address-acl").display().to_string();
    shows(
        &host,
        &["replay", &records.display().to_string(), "--policy", &good],
    );
}

#[test]
fn text_from_rows_and_names_is_escaped() {
    let host = Builder::new().start();
    shows(
        &host,
        &["address", "add", "200", "10.0.0.7", "32", "0", HOSTILE],
    );
    shows(&host, &["address", "add", "200", HOSTILE]);
    shows(&host, &["address", "show"]);
    shows(&host, &["address", "reload"]);
    shows(&host, &["address", "dump"]);
    shows(&host, &["address", "rm", "200", HOSTILE]);
    shows(&host, &["trusted", "add", HOSTILE]);
    shows(&host, &["trusted", "add", "10.0.0.7", "--from", HOSTILE]);
    shows(&host, &["trusted", "show"]);
    shows(&host, &["trusted", "reload"]);
    shows(&host, &["trusted", "dump"]);
    shows(&host, &["trusted", "rm", HOSTILE]);
    shows(&host, &["rules", "test", HOSTILE, HOSTILE, HOSTILE]);
    shows(&host, &["tenant", "show", HOSTILE]);
    shows(&host, &["policy", "list", HOSTILE]);
    shows(&host, &["policy", "activate", HOSTILE, "1"]);
    shows(&host, &["check"]);
}

#[test]
fn the_author_of_a_push_is_escaped() {
    let host = Builder::new().start();
    run(&host, &["db", "migrate"]);
    let file = host.folder().join("pushed.wasm");
    fs::write(&file, rejecting(486, "pushed")).expect("a file can be written");
    let file = file.display().to_string();
    let words = [
        "policy",
        "push",
        "default",
        &file,
        "--activate",
        "--author",
        HOSTILE,
        "--note",
        HOSTILE,
    ];
    shows(&host, &words);
    shows(&host, &["policy", "list"]);
    shows(&host, &["policy", "status"]);
    assert_harmless("the log", host.log().as_bytes());

    let tenant = host.folder().join("tenant.toml");
    fs::write(
        &tenant,
        format!(
            "# {}\nuri-domains = [\"acme.example.com\"]\n",
            "\u{202e}\u{2066}"
        ),
    )
    .expect("a file can be written");
    let put = Command::new(binary())
        .current_dir(host.folder())
        .env("USER", HOSTILE)
        .args(["tenant", "put", "acme", &tenant.display().to_string()])
        .output()
        .expect("portcullis runs");
    assert_harmless("tenant put", &put.stdout);
    assert_harmless("tenant put", &put.stderr);
    shows(&host, &["tenant", "show", "acme"]);
    shows(&host, &["tenant", "list"]);
}

#[test]
fn peers_and_policies_write_text_into_logs() {
    for format in ["human", "json"] {
        // The policy logs a text that looks like fields of the line, after an escape sequence.
        let said = format!("{HOSTILE} tenant=\"other\" policy=\"other\"");
        let logs = module(&format!(
            r#"(module
                (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
                (memory (export "memory") 1)
                (data (i32.const 16) "\01\00\00\00\91\01\00\00\40\00\00\00\02\00\00\00")
                (data (i32.const 64) "No")
                (data (i32.const 128) "{}")
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export "decide") (result i32)
                  (call $log (i32.const 0) (i32.const 128) (i32.const {}))
                  i32.const 16))"#,
            escaped(&said),
            said.len()
        ));
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let file = folder.path().join("logs.wasm");
        fs::write(&file, logs).expect("a policy can be written");
        let host = Builder::new()
            .policy(file)
            .set("log", &format!("format = \"{format}\""))
            .set("log", "level = \"debug\"")
            .start();
        let mut caller = host.udp(10);
        let mut request = caller.request("INVITE", "sip:bob@example.com");
        request.call_id = "id\u{202e}\u{9b}2J".into();
        caller.send(&request.bytes());
        host.wait_for_log("policy_log");
        host.wait_for_log("request_rejected");
        let log = host.log();
        assert_harmless("the log", log.as_bytes());
        let line = log
            .lines()
            .find(|line| line.contains("policy_log"))
            .expect("the line of the policy");
        if format == "human" {
            // Occurs only within the quotes of `text`, where quotes are escaped.
            assert!(!line.contains(" tenant=\"other\""), "{line}");
            assert!(line.contains("tenant=\\\"other\\\""), "{line}");
        } else {
            let read: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            assert_eq!(read["tenant"], json!(null), "{line}");
            assert!(
                read["text"]
                    .as_str()
                    .is_some_and(|text| text.contains("tenant=\"other\"")),
                "{line}"
            );
        }
        let status = wait::until("the status", || Some(run(&host, &["policy", "status"])));
        assert_harmless("policy status", &status.stdout);
    }
}
