//! Cases and single requests through the command line, without a running host.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis_testkit::documents::Page;
use portcullis_testkit::{binary, policy, root};
use serde_json::Value;

const INVITE: &str = "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\nFrom: <sip:ann@example.org>;tag=1\n\
    To: <sip:bob@example.com>\nCall-ID: one@192.0.2.7\nCSeq: 1 INVITE\nMax-Forwards: 70\n";

fn portcullis(folder: &Path, words: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .current_dir(folder)
        .arg("policy")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portcullis runs");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin
        .write_all(input.as_bytes())
        .expect("the input is read");
    drop(stdin);
    child.wait_with_output().expect("portcullis ends")
}

fn said(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(error)
    )
}

fn file(name: &str) -> String {
    policy(name).display().to_string()
}

#[test]
fn bundled_policies_pass_their_cases() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for name in [
        "address-acl",
        "business-hours",
        "call-routing",
        "failover",
        "fork",
        "observe",
        "rate-guard",
        "register-guard",
        "trusted-peers",
    ] {
        let cases = root().join(format!("policies/{name}/cases.toml"));
        let cases = cases.display().to_string();
        let output = portcullis(
            folder.path(),
            &["test", &cases, "--policy", &file(name)],
            "",
        );
        let said = said(&output);
        assert!(output.status.success(), "{name}: {said}");
        assert!(said.contains(" passed\nverdicts: "), "{name}: {said}");
        // The SDK imports all functions of `forwarding` if a policy needs one.
        let never = said.lines().find(|line| line.starts_with("never asked: "));
        let expected = match name {
            "failover" => Some("never asked: forwarding.retry-on, forwarding.share"),
            "fork" => Some("never asked: forwarding.memo, forwarding.share"),
            _ => None,
        };
        assert_eq!(never, expected, "{name}");
    }
}

#[test]
fn a_case_that_fails_says_why() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let cases = "[tables]\naddress = [\"250 192.0.2.7\"]\n\n[[case]]\nname = \"the <office>\"\nsource = \"192.0.2.7\"\n\
                 expect = { verdict = \"reject\", status = 403 }\n";
    std::fs::write(folder.path().join("cases.toml"), cases).expect("a file");
    let output = portcullis(
        folder.path(),
        &[
            "test",
            "--policy",
            &file("address-acl"),
            "--junit",
            "report.xml",
        ],
        "",
    );
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    for part in [
        "FAIL  the <office> (cases.toml:4)",
        "verdict  reject    relay",
        "status   403       nothing",
        "asked: permissions.allow-source-address(250) = true: row: group 250, any port",
        "log: info: Coming from address group 250",
        "1 case, 1 failed",
        "in no case: reject, drop, pass",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let report = std::fs::read_to_string(folder.path().join("report.xml")).expect("a report");
    assert!(report.contains("name=\"the &lt;office&gt;\""), "{report}");

    let wrong = format!("{cases}expcet = 1\n");
    std::fs::write(folder.path().join("cases.toml"), wrong).expect("a file");
    let output = portcullis(folder.path(), &["test"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("cases.toml:8: unknown field `expcet`"),
        "{said}"
    );
}

#[test]
fn one_request_is_decided_and_explained() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(
        folder.path().join("addresses"),
        "200 192.0.2.0 24 0 Office\n",
    )
    .expect("a file");
    let acl = file("address-acl");
    let run = |words: &[&str], input: &str| {
        let mut all = vec!["run", &acl, "--message", "-", "--from", "192.0.2.7"];
        all.extend_from_slice(words);
        portcullis(folder.path(), &all, input)
    };
    let text = said(&run(&["--address-file", "addresses"], INVITE));
    for part in [
        "request:   INVITE sip:bob@example.com from 192.0.2.7:5060 over UDP",
        "tables:    1 row (0 hosts, 1 subnet, 0 names) from addresses",
        "asked:     permissions.allow-source-address(200) = true: row: group 200, any port, tag \"Office\"",
        "log:       info: Coming from address group 200",
        "verdict:   relay\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = said(&run(&[], INVITE));
    assert!(text.contains("tables:    none"), "{text}");
    assert!(
        text.contains("verdict:   reject 401 Address not authorised"),
        "{text}"
    );

    let output = run(&["--json"], INVITE);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["outcome"]["status"], 401);
    assert_eq!(json["asked"][0]["reason"], "no row has 192.0.2.7");

    // A message that a host would answer itself, and one that is none.
    let text = said(&run(
        &[],
        &INVITE.replace(
            "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1",
            "Via: nonsense",
        ),
    ));
    assert!(
        text.contains("no policy is called: the host answers 400"),
        "{text}"
    );
    let output = run(&[], "INVITE sip:bob@example.com SIP/2.0\nno colon\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("standard input: line 2: "),
        "{}",
        said(&output)
    );
}

#[test]
fn a_tenant_has_its_own_groups_and_settings() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("addresses"), "200 192.0.2.7\n").expect("a file");
    let config = "[database]\naddress-file = \"addresses\"\n[tenants.acme]\nuri-domains = [\"example.com\"]\ngroups = [250]\n\
                  [tenants.acme.settings]\nx = 1\n";
    std::fs::write(folder.path().join("portcullis.toml"), config).expect("a file");
    let acl = file("address-acl");
    let run = |seat: &str| {
        let words = [
            "run",
            &acl,
            "--message",
            "-",
            "--from",
            "192.0.2.7",
            "--seat",
            seat,
        ];
        said(&portcullis(folder.path(), &words, INVITE))
    };
    assert!(run("default").contains("verdict:   relay\n"));
    let acme = run("acme");
    assert!(
        acme.contains("seat:      acme of portcullis.toml"),
        "{acme}"
    );
    assert!(acme.contains("verdict:   reject 401"), "{acme}");
    assert!(run("nobody").contains("the configuration has no seat nobody; there are default"));
}

#[test]
fn the_cost_of_calls_is_measured() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let cases = root().join("policies/failover/cases.toml");
    let words = [
        "bench",
        &file("failover"),
        "--seconds",
        "1",
        "--json",
        "--cases",
        &cases.display().to_string(),
    ];
    let output = portcullis(folder.path(), &words, "");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(json["calls"].as_u64() > Some(0), "{json}");
    assert!(json["fuel"]["least"].as_u64() > Some(0), "{json}");
    assert_eq!(json["no_reset_because"], Value::Null);
    assert_eq!(json["reuse"], "false");
    let text = said(&portcullis(
        folder.path(),
        &["bench", &file("address-acl"), "--seconds", "1"],
        "",
    ));
    for label in [
        "file:",
        "calls:",
        "one call:",
        "new instance:",
        "instances:",
        "fuel:",
        "memory:",
        "written:",
        "page faults:",
    ] {
        assert!(text.contains(label), "{label} {text}");
    }
    // As the seat would keep its instances.
    let config = folder.path().join("portcullis.toml");
    std::fs::write(config, "[policy]\nreuse = \"10 calls\"\n").expect("a file");
    let words = ["bench", &file("address-acl"), "--seconds", "1"];
    let text = said(&portcullis(folder.path(), &words, ""));
    assert!(text.contains("a new one after 10 calls"), "{text}");
}

#[test]
fn a_profile_is_the_fuel_of_the_calls_by_function() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let policy = file("address-acl");
    std::fs::write(folder.path().join("invite.sip"), INVITE).expect("a file");
    let words = ["profile", &policy, "--message", "invite.sip", "--json"];
    let json: Value =
        serde_json::from_slice(&portcullis(folder.path(), &words, "").stdout).expect("JSON");
    let run = [
        "run",
        &policy,
        "--message",
        "invite.sip",
        "--from",
        "192.0.2.1",
        "--json",
    ];
    let call: Value =
        serde_json::from_slice(&portcullis(folder.path(), &run, "").stdout).expect("JSON");
    assert!(json["fuel"].as_u64() > Some(0), "{json}");
    assert_eq!(json["fuel"], call["fuel"], "{json} {call}");

    let words = [
        "profile",
        &policy,
        "--message",
        "invite.sip",
        "--message",
        "invite.sip",
        "--top",
        "2",
        "--folded",
        "stacks",
    ];
    let output = portcullis(folder.path(), &words, "");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let twice = json["fuel"].as_u64().expect("a number") * 2;
    assert!(
        text.starts_with(&format!("2 calls, fuel {twice}: ")),
        "{text}"
    );
    assert!(text.contains("decide"), "{text}");
    assert!(text.contains(" (--top N)\nstacks: stacks\n"), "{text}");
    let stacks = std::fs::read_to_string(folder.path().join("stacks")).expect("the stacks");
    let fuel = stacks.lines().map(|line| {
        let (stack, fuel) = line.rsplit_once(' ').expect("a stack and its fuel");
        assert!(stack.starts_with("decide"), "{line}");
        fuel.parse::<u64>().expect("a number")
    });
    assert_eq!(fuel.sum::<u64>(), twice, "{stacks}");

    let absent = ["profile", &policy, "--message", "absent.sip"];
    let refused = said(&portcullis(folder.path(), &absent, ""));
    assert!(refused.contains("cannot read absent.sip"), "{refused}");
}

/// The page says which policies they are for, and leaves the settings of the second to the reader.
#[test]
fn the_cases_of_the_page_pass() {
    const SETTINGS: &str =
        "[settings]\nnext-hops = [\"carrier-a\", \"carrier-b\"]\nlast-resort = \"carrier-c\"\n";
    let folder = tempfile::tempdir().expect("a temporary directory");
    let blocks = Page::named("docs/cases.md").blocks();
    let blocks: Vec<_> = blocks.iter().filter(|block| block.is_run("toml")).collect();
    assert_eq!(blocks.len(), 2);
    let policies = [("address-acl", ""), ("failover", SETTINGS)];
    for (block, (policy, settings)) in blocks.iter().zip(policies) {
        std::fs::write(
            folder.path().join("cases.toml"),
            format!("{settings}{}", block.text),
        )
        .expect("it can be written");
        let output = portcullis(
            folder.path(),
            &["test", "cases.toml", "--policy", &file(policy)],
            "",
        );
        let said = said(&output);
        assert!(output.status.success(), "{}: {said}", block.place());
    }
}
