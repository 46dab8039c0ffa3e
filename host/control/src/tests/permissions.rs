//! The trusted peers and the rules in Kamailio's commands.

use portcullis_address::NewTrusted;
use serde_json::json;

use super::{control, get, post, result};

#[tokio::test]
async fn peers_and_rules_are_shown_and_tested_as_kamailio_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file("calls.allow", "\"^sip:alice@\" : \"^sip:\\+49\"\n");
    file("calls.deny", "ALL : ALL\n");
    let control = control(&folder);
    let row = NewTrusted {
        source: "192.0.2.7".into(),
        proto: "udp".into(),
        from: Some("^sip:.*@example".into()),
        ruri: None,
        tag: Some("peer".into()),
        priority: 5,
    };
    let book = &control.shared.addresses;
    book.database().create_tables().await.unwrap();
    book.database().add_trusted(&row).await.unwrap();
    assert_eq!(
        result(&control, "permissions.trustedReload").await,
        "Reload OK"
    );
    let peers = result(&control, "permissions.trustedDump").await;
    assert_eq!(
        peers[0]["item"],
        json!({"ip": "192.0.2.7", "proto": 1, "pattern": "^sip:.*@example", "ruri_pattern": "NULL", "tag": "peer", "priority": 5})
    );

    book.reload_rules().await.unwrap();
    for (method, contact, answer) in [
        ("permissions.testUri", "sip:+4930123", "Allowed"),
        ("permissions.allowUri", "sip:+3312345", "Denied"),
    ] {
        let params = json!(["calls", "sip:alice@example.com", contact]);
        let call = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        assert_eq!(
            post(&control, call.to_string()).await.1["result"],
            answer,
            "{contact}"
        );
    }
    let call =
        json!({"jsonrpc": "2.0", "method": "permissions.testUri", "params": ["calls"], "id": 1});
    assert_eq!(
        post(&control, call.to_string()).await.1["error"]["message"],
        "Not enough parameters (basename, URI and contact)"
    );
}

#[tokio::test]
async fn our_reloads_report_their_findings() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    let book = &control.shared.addresses;
    book.database().create_tables().await.unwrap();
    let told = result(&control, "trusted.reload").await;
    assert_eq!(
        (&told["status"], &told["rows"], &told["table_is_absent"]),
        (&json!("Reload OK"), &json!(0), &json!(false))
    );

    std::fs::write(folder.path().join("calls.deny"), "ALL : ALL\nALL\n").unwrap();
    let told = result(&control, "rules.reload").await;
    assert_eq!((&told["files"], &told["skipped"]), (&json!(1), &json!(1)));
    assert_eq!(told["sets"], json!(["calls: 0 allow, 1 deny"]));
    let error = told["errors"][0].as_str().unwrap();
    assert!(error.contains("calls.deny line 2"), "{error}");

    let (_, page) = get(&control, "/metrics").await;
    for line in [
        "portcullis_trusted_reloads_total{result=\"ok\"} 1",
        "portcullis_trusted_generation 1",
        "portcullis_rules_reloads_total{result=\"ok\"} 1",
        "portcullis_rules_lines 1",
        "portcullis_rules_skipped_lines 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }

    // A missing directory is an error, and changes nothing.
    std::fs::remove_dir_all(folder.path()).unwrap();
    let call = json!({"jsonrpc": "2.0", "method": "rules.reload", "id": 1});
    let (_, answer) = post(&control, call.to_string()).await;
    assert_eq!(answer["error"]["message"], "Reload failed.");
    assert_eq!(book.current().rules.rules.len(), 1);
}
