//! The trusted peers and the rules in Kamailio's commands.

use portcullis_address::NewTrusted;
use serde_json::json;

use super::{control, post, result};

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
