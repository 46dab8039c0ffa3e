//! Authorisation over HTTP, and what is disclosed without it.

use super::rejecting;
use axum::body::Body;
use axum::http::Request;

use super::{control, control_with, get, result, send};

#[tokio::test]
async fn a_host_is_ready_when_table_and_policy_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(&folder);
    assert_eq!(get(&control, "/healthz").await, (200, "ok\n".into()));
    let (status, body) = get(&control, "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(
        body,
        "address table: not loaded yet\npolicy: not loaded yet\n"
    );

    result(&control, "address.reload").await;
    control.registry.default_files().load().unwrap_err();
    let (_, body) = get(&control, "/readyz").await;
    assert!(
        body.starts_with("policy: cannot read") && body.contains("policy.wasm"),
        "{body}"
    );

    std::fs::write(folder.path().join("policy.wasm"), rejecting(480)).unwrap();
    assert_eq!(result(&control, "policy.reload").await["generation"], 1);
    assert_eq!(get(&control, "/readyz").await, (200, "ready\n".into()));
    assert_eq!(result(&control, "portcullis.status").await["ready"], true);
}

#[tokio::test]
async fn a_configured_token_is_required() {
    for written in [
        "0123456789abcdef",
        "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f",
    ] {
        only_with_the_token(written).await;
    }
}

/// The token is 0123456789abcdef, or is known by what is written.
async fn only_with_the_token(written: &str) {
    let folder = tempfile::tempdir().unwrap();
    let control = control_with(&folder, &format!("token = \"{written}\""));
    let ask = async |path: &str, header: Option<&str>| {
        let mut request = Request::get(path);
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        send(&control, request.body(Body::empty()).unwrap()).await
    };
    for header in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer 0123456789abcde"),
        Some("Bearer 0123456789abcdef0"),
        Some("Basic 0123456789abcdef"),
    ] {
        for path in ["/", "/metrics", "/nowhere", "/RPC"] {
            assert_eq!(ask(path, header).await.0, 401, "{path} {header:?}");
        }
        assert_eq!(ask("/healthz", header).await.0, 200);
        assert_eq!(ask("/readyz", header).await, (503, "not ready\n".into()));
    }
    let right = Some("bearer 0123456789abcdef");
    assert_eq!(ask("/metrics", right).await.0, 200);
    assert_eq!(ask("/nowhere", right).await.0, 404);
    assert!(ask("/readyz", right).await.1.starts_with("address table: "));
}
