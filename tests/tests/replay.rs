//! Decisions recorded by a running host, and replayed with another policy.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::sip::Caller;
use portcullis_testkit::{policy, wait};
use serde_json::{Value, json};

const OFFICE: u8 = 10;
const STRANGER: u8 = 30;
const URI: &str = "sip:bob@example.com";

fn ask(caller: &mut Caller) -> String {
    let request = caller.request("MESSAGE", URI).body("hello");
    caller.ask(&request).start_line().to_owned()
}

/// A host with records, which has relayed a request of the office and rejected one of an unknown source.
fn recorded() -> (Host, PathBuf) {
    let builder = Builder::new();
    let office = builder.lease().ip(OFFICE);
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let folder = tempfile::tempdir().expect("a temporary directory").keep();
    let file = folder.join("records.jsonl");
    let host = builder
        .policy(policy("address-acl"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .set("records", &format!("file = {file:?}"))
        .set("records", "id-header = \"X-Decision\"")
        .row(&format!("200 {office} 32 0 Office"))
        .start();
    assert_eq!(ask(&mut host.udp(OFFICE)), "SIP/2.0 200 OK");
    assert_eq!(ask(&mut host.tcp(OFFICE)), "SIP/2.0 200 OK");
    let mut stranger = host.udp(STRANGER);
    let request = stranger.request("MESSAGE", URI);
    let refused = stranger.ask(&request);
    assert_eq!(refused.code(), 401);
    let id = refused.header("X-Decision").expect("the id is shown");
    wait::until("all is written down", || {
        (host.rpc("portcullis.status", json!([]))["result"]["records"]["written"] == 3)
            .then_some(())
    });
    let text = fs::read_to_string(&file).expect("the records are there");
    let last: Value = serde_json::from_str(text.lines().last().expect("three")).expect("JSON");
    assert_eq!(last["id"], id);
    assert_eq!(last["outcome"], "reject 401 Address not authorised");
    assert_eq!(last["policies"][0]["seat"], "default");
    assert_eq!(last["policies"][0]["asked"][0]["answer"], json!(false));
    assert!(!text.contains("hello"), "bodies are left out");
    assert_eq!(host.metric("portcullis_records_written_total", &[]), 3.0);
    // The log line of a policy names the decision.
    let first: Value = serde_json::from_str(text.lines().next().expect("three")).expect("JSON");
    host.wait_for_log(first["id"].as_str().expect("a text"));
    (host, file)
}

fn replay(host: &Host, words: &str) -> (bool, String) {
    let output = host.command(&format!("replay {words}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(!said.is_empty(), "{words}: {wrong}");
    (output.status.success(), said)
}

#[test]
fn what_a_policy_decides_after_failures_is_recorded_and_replayed() {
    let builder = Builder::new();
    let nobody = |number, port| builder.lease().addr(number, port);
    let hops = [nobody(3, 5081), nobody(3, 5082), nobody(3, 5083)];
    let folder = tempfile::tempdir().expect("a temporary directory").keep();
    let file = folder.join("records.jsonl");
    let settings =
        "next-hops = [\"a\", \"b\"]\nlast-resort = \"c\"\nseconds = 0.2\nfailed-code = 480";
    let mut builder = builder
        .policy(policy("failover"))
        .set("policy.settings", settings)
        .set("records", &format!("file = {file:?}"));
    for (name, addr) in ["a", "b", "c"].iter().zip(hops) {
        builder = builder.set("relay.next-hops", &format!("{name} = \"sip:{addr}\""));
    }
    let host = builder.start();
    assert_eq!(
        ask(&mut host.udp(OFFICE)),
        "SIP/2.0 480 Temporarily Unavailable"
    );
    // The decision, the call after `a` and `b` have failed, and the one after `c` has.
    wait::until("all is written down", || {
        (host.rpc("portcullis.status", json!([]))["result"]["records"]["written"] == 3)
            .then_some(())
    });
    let text = fs::read_to_string(&file).expect("the records are there");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let outcomes = lines
        .iter()
        .map(|line| (&line["kind"], &line["call"], &line["outcome"]));
    let expected = [
        (&Value::Null, &Value::Null, &json!("relay")),
        (&json!("failure"), &json!(1), &json!("again")),
        (&json!("failure"), &json!(2), &json!("answer 480")),
    ];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    assert!(lines.iter().all(|line| line["id"] == lines[0]["id"]));

    let words = |name| format!("{} --policy {}", file.display(), policy(name).display());
    let (is_same, said) = replay(&host, &words("failover"));
    assert!(
        is_same && said.starts_with("3 decisions: 3 the same, 0 different\n"),
        "{said}"
    );
    // A policy that is not asked after failures leaves them as they are.
    let (_, said) = replay(&host, &words("observe"));
    assert!(
        said.contains("/1 at ") && said.contains("recorded:      again, add "),
        "{said}"
    );
}

#[test]
fn a_record_is_replayed_with_its_recorded_answers() {
    let (host, file) = recorded();
    let file = file.display();
    let same = policy("address-acl");
    let (is_same, said) = replay(&host, &format!("{file} --policy {}", same.display()));
    assert!(is_same, "{said}");
    assert!(
        said.starts_with("3 decisions: 3 the same, 0 different\n"),
        "{said}"
    );
    // The same input has the same output.
    assert_eq!(
        replay(&host, &format!("{file} --policy {}", same.display())).1,
        said
    );

    fs::write(host.folder().join("busy.wasm"), rejecting(486, "Busy")).expect("written");
    let (is_same, said) = replay(&host, &format!("{file} --policy busy.wasm"));
    assert!(!is_same);
    for line in [
        "3 decisions: 0 the same, 3 different\n",
        "recorded:   relay\n",
        "recorded:   reject 401 Address not authorised\n",
        "busy.wasm:  reject 486 Busy  (fuel ",
        "  | MESSAGE sip:bob@example.com SIP/2.0\n",
        "       3  reject 486 Busy\n",
    ] {
        assert!(said.contains(line), "{line:?} is not in: {said}");
    }

    // Expected differences do not fail the replay.
    let text = fs::read_to_string(file.to_string()).expect("the records are there");
    let ids = text.lines().map(|line| {
        let record: Value = serde_json::from_str(line).expect("JSON");
        format!("{} # meant\n", record["id"].as_str().expect("a text"))
    });
    fs::write(host.folder().join("meant.txt"), ids.collect::<String>()).expect("written");
    let (is_well, said) = replay(
        &host,
        &format!("{file} --policy busy.wasm --expected meant.txt"),
    );
    assert!(
        is_well && said.contains("0 different, 3 different as expected"),
        "{said}"
    );

    // A policy with other queries is reported, and can be given tables.
    let guard = policy("trusted-peers");
    let (_, said) = replay(&host, &format!("{file} --policy {}", guard.display()));
    assert!(
        said.contains("not recorded: trusted.allow-trusted() was answered 0"),
        "{said}"
    );
    let words = format!("{file} --policy {} --tables --json", same.display());
    let (is_same, said) = replay(&host, &words);
    assert!(is_same, "{said}");
    let line: Value = serde_json::from_str(said.lines().next().expect("one")).expect("JSON");
    assert_eq!(line["new"]["decided"], json!({"relay": null}));
    assert_eq!(line["same"], true);
}

#[test]
fn peers_a_capture_is_replayed() {
    let builder = Builder::new();
    let office = builder.lease().ip(OFFICE);
    let host = builder
        .policy(policy("address-acl"))
        .row(&format!("200 {office} 32 0 Office"))
        .start();
    let file = host.folder().join("traffic.pcap");
    let port = host.sip().port();
    let mut capture = std::process::Command::new("tcpdump")
        .args(["-i", "lo", "-U", "--immediate-mode", "-w"])
        .arg(&file)
        .arg(format!("host {} and port {port}", host.sip().ip()))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("tcpdump is installed");
    // tcpdump captures nothing before it prints this line.
    let mut said = std::io::BufReader::new(capture.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        let length = std::io::BufRead::read_line(&mut said, &mut line).expect("it speaks");
        assert!(length > 0, "tcpdump has ended");
    }
    ask(&mut host.udp(OFFICE));
    ask(&mut host.tcp(STRANGER));
    let words = format!(
        "traffic.pcap --to {} --policy {} --json",
        host.sip(),
        policy("address-acl").display()
    );
    let lines = wait::until("both requests are in the file", || {
        let output = host.command(&format!("replay {words} --tables"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // On a slow machine, the first request is there more than once: over UDP it is sent again.
        (said.lines().count() >= 2 && said.contains("reject")).then_some(said)
    });
    capture.kill().expect("it runs");
    capture.wait().expect("it ends");
    let decided: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["new"]["decided"].clone())
        .collect();
    let (last, others) = decided.split_last().expect("two at least");
    let relay = json!({"relay": null});
    assert!(others.iter().all(|decided| *decided == relay), "{lines}");
    assert_eq!(last["reject"]["code"], 401, "{lines}");
}

#[test]
fn compressed_and_empty_captures_are_errors() {
    let host = Builder::new().start();
    let policy = policy("address-acl");
    let policy = policy.display();
    let play = |bytes: &[u8]| {
        let file = host.folder().join("a.pcap");
        fs::write(&file, bytes).expect("a capture can be written");
        let output = host.command(&format!("replay a.pcap --policy {policy}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for (first, form, command) in [
        (&b"\x1f\x8b\x08\x00"[..], "gzip", "gunzip --keep a.pcap"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd", "unzstd a.pcap"),
        (b"\xfd7zXZ\x00", "xz", "unxz --keep a.pcap"),
        (b"BZh91AY", "bzip2", "bunzip2 --keep a.pcap"),
    ] {
        let (code, said) = play(first);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(form) && said.contains(command), "{said}");
    }
    // A capture without any packet.
    let mut empty = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    empty.extend([0; 8]);
    empty.extend([0xff, 0xff, 0, 0, 1, 0, 0, 0]);
    let (code, said) = play(&empty);
    assert_eq!(code, Some(2), "{said}");
}
