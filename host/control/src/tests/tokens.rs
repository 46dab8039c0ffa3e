//! Tokens: which are counted, and what the audit says of their actions.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use super::{Arc, Control, control_with, send};
use crate::http_server::Peer;

const OPERATOR: &str = "operator-0123456789";
const READER: &str = "reader-0123456789ab";

const CONTROL: &str = "token = \"operator-0123456789\"\n[control.tokens.board]\ntoken = \"reader-0123456789ab\"\nrole = \"read\"";

async fn ask(control: &Arc<Control>, token: &str, method: Method, path: &str) -> (u16, String) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("Authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    let peer: SocketAddr = "192.0.2.7:40000".parse().unwrap();
    request.extensions_mut().insert(Peer(peer));
    send(control, request).await
}

#[tokio::test]
async fn wrong_tokens_are_counted_everywhere_and_a_right_one_is_always_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let control = control_with(&folder, CONTROL);
    let get = async |token: &str, path: &str| ask(&control, token, Method::GET, path).await.0;
    for _ in 0..5 {
        // The host is not ready, and would tell the operator why.
        assert_eq!(get("wrong-0123456789ab", "/readyz").await, 503);
        assert_eq!(get("wrong-0123456789ab", "/v1/audit").await, 401);
    }
    for path in ["/readyz", "/v1/audit", "/metrics"] {
        assert_eq!(get("wrong-0123456789ab", path).await, 429, "{path}");
    }
    for token in [OPERATOR, READER] {
        assert_eq!(get(token, "/v1/audit").await, 200);
    }
    let (status, text) = ask(&control, OPERATOR, Method::GET, "/readyz").await;
    assert!(status == 503 && text.contains("address table"), "{text}");
}

#[tokio::test]
async fn the_audit_names_what_an_action_concerned() {
    let folder = tempfile::tempdir().unwrap();
    let control = control_with(&folder, CONTROL);
    control
        .shared
        .addresses
        .database()
        .create_tables()
        .await
        .unwrap();
    for (method, path, status) in [
        (
            Method::DELETE,
            "/v1/addresses?group=200&address=10.0.0.1",
            404,
        ),
        (
            Method::POST,
            "/v1/policies/default/activate?generation=7",
            404,
        ),
        (Method::GET, "/v1/policies/default/generations/7", 404),
    ] {
        assert_eq!(
            ask(&control, OPERATOR, method, path).await.0,
            status,
            "{path}"
        );
    }
    assert_eq!(
        ask(
            &control,
            READER,
            Method::DELETE,
            "/v1/addresses?group=200&address=10.0.0.1"
        )
        .await
        .0,
        403
    );
    let (_, audit) = ask(&control, READER, Method::GET, "/v1/audit").await;
    let mut audit: Value = serde_json::from_str(&audit).unwrap();
    let audit = audit["entries"].take();
    let told = |at: usize| {
        let action = &audit[at];
        [&action["command"], &action["seat"], &action["subject"]].map(Value::clone)
    };
    assert_eq!(
        told(0),
        [json!("address.remove"), Value::Null, json!("200 10.0.0.1")]
    );
    assert_eq!(audit[0]["token"], "board");
    assert_eq!(
        told(1),
        [
            json!("policy.pull"),
            json!("default"),
            json!("generation 7")
        ]
    );
    assert_eq!(
        told(2),
        [
            json!("policy.activate"),
            json!("default"),
            json!("generation 7")
        ]
    );
    assert_eq!(
        told(3),
        [json!("address.remove"), Value::Null, json!("200 10.0.0.1")]
    );
}
