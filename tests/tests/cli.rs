//! The command line, end to end.

#![forbid(unsafe_code)]

use std::process::{Command, Output};

use portcullis_testkit::host::Builder;
use portcullis_testkit::{binary, policy};

fn run(folder: &std::path::Path, words: &str) -> Output {
    Command::new(binary())
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .args(words.split_whitespace())
        .output()
        .expect("portcullis runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn check_reports_every_error_with_line_and_correction() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(
        folder.path().join("portcullis.toml"),
        "workers = 0\nlisten = [\"udp:nonsense.example\"]\ncolour = \"red\"\n\n[relay]\nnext-hop = \"http://example.com\"\n\n\
         [policy]\nfile = \"missing.wasm\"\ndeadline = \"soon\"\n",
    )
    .expect("a configuration can be written");
    let output = run(folder.path(), "check");
    assert!(!output.status.success());
    let said = text(&output);
    for word in [
        "workers",
        ":1",
        "nonsense",
        ":2",
        "colour",
        ":3",
        "http://example.com",
        ":6",
        "soon",
        ":10",
    ] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

#[test]
fn check_accepts_a_good_configuration() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(
        folder.path().join("portcullis.toml"),
        format!("[policy]\nfile = {:?}\n", policy("address-acl")),
    )
    .expect("a configuration can be written");
    let output = run(folder.path(), "check");
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn address_rows_are_added_shown_and_removed_in_kamctls_words() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let said = text(&run(
        folder.path(),
        "address add 250 10.8.203.139 32 5060 TestServer",
    ));
    assert!(
        said.contains("10.8.203.139") && said.contains("250"),
        "{said}"
    );
    assert!(
        run(
            folder.path(),
            "address add 200 192.168.1.0 24 5060 OfficeSubnet"
        )
        .status
        .success()
    );
    let said = text(&run(folder.path(), "address show"));
    for word in [
        "10.8.203.139",
        "TestServer",
        "192.168.1.0",
        "24",
        "OfficeSubnet",
    ] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    assert!(
        run(folder.path(), "address rm 250 10.8.203.139")
            .status
            .success()
    );
    let said = text(&run(folder.path(), "address show"));
    assert!(!said.contains("10.8.203.139"), "{said}");
}

#[test]
fn address_add_refuses_what_the_host_would_skip() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    for (words, names) in [
        ("0 10.0.0.1", "0"),
        ("200 10.0.0.1 33", "33"),
        ("200 10.0.0.1 32 70000", "70000"),
        ("200 300.1.1.1", "300.1.1.1"),
        ("200 10.0.0.0/24 16", "10.0.0.0/24"),
    ] {
        let output = run(folder.path(), &format!("address add {words}"));
        assert!(!output.status.success(), "{words}: {}", text(&output));
        assert!(text(&output).contains(names), "{words}: {}", text(&output));
    }
}

#[test]
fn inspect_shows_what_a_policy_is() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let output = run(
        folder.path(),
        &format!("policy inspect {}", policy("address-acl").display()),
    );
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for word in ["sha256", "portcullis:policy/permissions", "decide"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

#[test]
fn probe_shows_the_answer() {
    let host = Builder::new().start();
    let source = host.lease().ip(10);
    let said = host.command(&format!(
        "probe sip:{} --from {source} --method MESSAGE --user bob",
        host.sip()
    ));
    let said = text(&said);
    assert!(said.contains("401 Address not authorised"), "{said}");
}

#[test]
fn a_host_that_is_not_running_is_reported() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let control = portcullis_testkit::lease::Lease::new().addr(1, 8060);
    std::fs::write(
        folder.path().join("portcullis.toml"),
        format!("[control]\nlisten = \"{control}\"\n"),
    )
    .expect("a configuration can be written");
    for words in [
        "address reload",
        "address dump",
        "policy status",
        "policy reload",
    ] {
        let output = run(folder.path(), words);
        assert!(!output.status.success());
        assert!(
            text(&output).contains(&control.to_string()),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn a_port_in_use_is_reported() {
    let host = Builder::new().start();
    let mut second = Builder::new()
        .listen(&format!("tcp:{}", host.lease().addr(1, 8060)))
        .launch();
    assert!(!second.wait_until_ended().success());
    let log = second.log();
    assert!(
        log.contains(&host.lease().addr(1, 8060).to_string()),
        "{log}"
    );
}

#[test]
fn sigterm_ends_the_host() {
    let mut host = Builder::new().start();
    host.signal("TERM");
    assert!(host.wait_until_ended().success());
}

#[test]
fn every_command_has_help() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    for words in [
        "",
        "serve",
        "check",
        "address",
        "address add",
        "address show",
        "address rm",
        "address dump",
        "address reload",
        "policy",
        "policy reload",
        "policy status",
        "policy inspect",
        "import",
    ] {
        let output = run(folder.path(), &format!("{words} --help"));
        assert!(output.status.success(), "{words}");
        assert!(text(&output).contains("Usage: portcullis"), "{words}");
    }
}
