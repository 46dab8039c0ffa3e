//! `/v1`: authorisation, and the responses.

use super::rejecting;
use axum::body::Body;
use axum::http::Request;
use portcullis_testkit::wait::eventually;
use serde_json::{Value, json};

use super::{Arc, Control, control_of, send};

const TENANTS: &str = r#"
[control]
token = "operator-0123456789"
[tenants.acme]
source-groups = [1]
token = "acme-0123456789abcdef"
[tenants.other]
source-groups = [2]
token = "other-0123456789abcdef"
[tenants.filed]
source-groups = [3]
file = "filed.wasm"
"#;

const OPERATOR: &str = "operator-0123456789";
const ACME: &str = "acme-0123456789abcdef";

async fn ask(
    control: &Arc<Control>,
    token: &str,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Authorization", format!("Bearer {token}"))
        .header("Content-Type", content_type(path))
        .body(Body::from(body))
        .unwrap();
    let (status, text) = send(control, request).await;
    let parsed = serde_json::from_str(&text);
    (status, parsed.unwrap_or_else(|_| Value::String(text)))
}

/// Returns the media type for this path.
fn content_type(path: &str) -> &'static str {
    match path {
        "/RPC" => "application/json",
        path if path.starts_with("/v1/tenants") => "application/toml",
        _ => "application/wasm",
    }
}

async fn host() -> (tempfile::TempDir, Arc<Control>) {
    let folder = tempfile::tempdir().unwrap();
    let control = control_of(&folder, TENANTS);
    let config = &control.shared.config;
    control
        .registry
        .apply(config, &config.tenants)
        .await
        .unwrap();
    (folder, control)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_pushed_activated_rolled_back_and_pulled() {
    let (_folder, control) = host().await;
    let push = async |code, query: &str| {
        let path = format!("/v1/policies/acme?{query}");
        ask(&control, ACME, "POST", &path, rejecting(code)).await
    };
    let (status, first) = push(480, "arrival=activate&name=one.wasm&note=the%20first").await;
    assert_eq!(
        (status, &first["generation"], &first["arrival"]),
        (201, &json!(1), &json!("active"))
    );
    assert_eq!(first["live_on_all_workers"], true);
    let (_, second) = push(486, "author=ann").await;
    assert_eq!(
        (&second["generation"], &second["arrival"]),
        (&json!(2), &json!("kept"))
    );

    let post = async |path: &str| ask(&control, ACME, "POST", path, Vec::new()).await;
    let (status, changed) = post("/v1/policies/acme/activate?generation=2").await;
    assert_eq!((status, &changed["generation"]), (200, &json!(2)));
    let (_, listed) = ask(
        &control,
        ACME,
        "GET",
        "/v1/policies/acme/generations",
        Vec::new(),
    )
    .await;
    let seen = |at: usize, key: &str| listed[at][key].clone();
    assert_eq!([seen(0, "role"), seen(1, "role")], ["previous", "active"]);
    assert_eq!([seen(0, "note"), seen(0, "author")], ["the first", "acme"]);
    assert_eq!(seen(1, "author"), "acme: ann");

    let (_, back) = post("/v1/policies/acme/rollback").await;
    assert_eq!(back["generation"], 1);
    let (_, refused) = post("/v1/policies/acme/rollback?generation=7").await;
    assert_eq!(refused["error"], "there is no generation 7; there are 1, 2");

    let request = Request::get("/v1/policies/acme/generations/active")
        .header("Authorization", format!("Bearer {ACME}"));
    let response = crate::http::router(Arc::clone(&control));
    let response = tower::ServiceExt::oneshot(response, request.body(Body::empty()).unwrap());
    let pulled = axum::body::to_bytes(response.await.unwrap().into_body(), usize::MAX).await;
    assert_eq!(pulled.unwrap().to_vec(), rejecting(480));
}

/// A condition on a tenant is no failed one if the host cannot know whether the tenant exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_without_a_database_is_answered_503() {
    let (_folder, control) = host().await;
    let put = async |name, value| {
        let request = Request::put("/v1/tenants/new")
            .header("Authorization", format!("Bearer {OPERATOR}"))
            .header("Content-Type", "application/toml")
            .header(name, value);
        send(&control, request.body(Body::empty()).unwrap()).await
    };
    for name in ["If-Match", "If-None-Match"] {
        let (status, text) = put(name, "*").await;
        assert!(
            status == 503 && text.contains("no database for tenants"),
            "{name}: {status} {text}"
        );
    }
}

/// A rollback does not read its body, and is repeated with the same key.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_body_is_not_read_is_executed_once() {
    let (_folder, control) = host().await;
    for code in [480, 486, 488] {
        let path = "/v1/policies/acme?arrival=activate";
        ask(&control, ACME, "POST", path, rejecting(code)).await;
    }
    let number = || control.registry.files("acme").unwrap().slot().number();
    assert_eq!(number(), 3);
    let roll_back = async |path: &str, body: &'static str| {
        let request = Request::post(format!("/v1/policies/acme/rollback{path}"))
            .header("Authorization", format!("Bearer {ACME}"))
            .header("Content-Type", "application/wasm")
            .header("Idempotency-Key", "one");
        send(&control, request.body(Body::from(body)).unwrap()).await
    };
    let first = roll_back("", "{}").await;
    assert_eq!((first.0, number()), (200, 2), "{}", first.1);
    assert_eq!((roll_back("", "{}").await, number()), (first, 2));
    assert_eq!(roll_back("", "{ }").await.0, 422);
    assert_eq!(roll_back("?generation=1", "{}").await.0, 422);
    assert_eq!(number(), 2);

    // What does not exist has no first request: the router refuses it, although another request has had the key.
    for (method, path, status) in [
        ("PUT", "/v1/policies/acme/rollback", 405),
        ("POST", "/v1/policies/acme/generations", 405),
        ("POST", "/v1/addresses/match", 405),
        ("POST", "/v1/policies/acme/undo", 404),
    ] {
        for key in ["one", "two words"] {
            let request = Request::builder().method(method).uri(path);
            let request = request
                .header("Authorization", format!("Bearer {OPERATOR}"))
                .header("Idempotency-Key", key);
            let (told, text) = send(&control, request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(told, status, "{method} {path}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_tried_and_invalid_requests_are_refused() {
    let (_folder, control) = host().await;
    let acme = async |method: &str, path: &str, body: Vec<u8>| {
        let path = format!("/v1/policies/acme{path}");
        ask(&control, ACME, method, &path, body).await
    };
    let (status, refused) = acme("POST", "?arrival=shadow", rejecting(480)).await;
    assert_eq!(status, 404, "{refused}");
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("activate the first one"),
        "{refused}"
    );
    acme("POST", "?arrival=activate", rejecting(480)).await;
    let (status, tried) = acme("POST", "?arrival=canary&share=12.5%25", rejecting(486)).await;
    assert_eq!((status, &tried["arrival"]), (201, &json!("canary")));
    let (_, seat) = acme("GET", "", Vec::new()).await;
    assert_eq!(seat["candidate"], "2 (canary 12.50%)");
    assert_eq!(acme("DELETE", "/candidate", Vec::new()).await.0, 200);
    assert_eq!(acme("DELETE", "/candidate", Vec::new()).await.0, 404);
    assert_eq!(acme("PUT", "/mode?mode=monitor", Vec::new()).await.0, 200);
    assert_eq!(acme("GET", "", Vec::new()).await.1["mode"], "monitor");

    for (method, path, body, code, word) in [
        ("POST", "", b"no policy".to_vec(), 422, "not WebAssembly"),
        ("POST", "", Vec::new(), 422, "empty"),
        (
            "POST",
            "?arrival=now",
            rejecting(480),
            400,
            "keep, activate",
        ),
        (
            "POST",
            "?arrival=canary",
            rejecting(480),
            400,
            "needs a share",
        ),
        (
            "POST",
            "/activate",
            Vec::new(),
            400,
            "is not the number of a generation",
        ),
        (
            "POST",
            "/activate?generation=99",
            Vec::new(),
            404,
            "there are 1, 2",
        ),
        (
            "POST",
            "/canary?generation=1&share=200%25",
            Vec::new(),
            400,
            "not a share",
        ),
        ("PUT", "/mode?mode=off", Vec::new(), 400, "not a mode"),
        ("GET", "/candidate", Vec::new(), 404, "no shadow trial"),
        (
            "GET",
            "/generations/x",
            Vec::new(),
            400,
            "neither the number of a generation",
        ),
    ] {
        let (status, answer) = acme(method, path, body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(
            status == code && error.contains(word),
            "{method} {path}: {status} {answer}"
        );
    }
    assert_eq!(
        control.registry.files("acme").unwrap().slot().number(),
        1,
        "the good one serves on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_token_gives_access_to_its_own_seat_only() {
    let (_folder, control) = host().await;
    let other = "/v1/policies/other";
    ask(
        &control,
        OPERATOR,
        "POST",
        &format!("{other}?arrival=activate"),
        rejecting(480),
    )
    .await;
    for (method, path) in [
        ("GET", other.to_owned()),
        ("POST", other.to_owned()),
        ("GET", format!("{other}/generations/active")),
        ("POST", format!("{other}/rollback")),
        ("GET", "/v1/policies/default".to_owned()),
        ("POST", "/v1/policies/before".to_owned()),
        ("GET", "/v1/policies/acme2".to_owned()),
        ("GET", "/v1/policies/acme/../other".to_owned()),
        ("GET", "/v1/policies/acme%2F..%2Fother".to_owned()),
        ("GET", "/v1/tenants".to_owned()),
        ("GET", "/metrics".to_owned()),
        ("GET", "/".to_owned()),
        ("POST", "/RPC".to_owned()),
    ] {
        let (status, answer) = ask(&control, ACME, method, &path, rejecting(486)).await;
        assert!(
            matches!(status, 403 | 404),
            "{method} {path}: {status} {answer}"
        );
    }
    assert_eq!(control.registry.files("other").unwrap().slot().number(), 1);
    assert_eq!(
        ask(&control, ACME, "GET", "/v1/policies/acme", Vec::new())
            .await
            .0,
        200
    );
    assert_eq!(
        ask(
            &control,
            "nobody-0123456789abc",
            "GET",
            "/v1/policies/acme",
            Vec::new()
        )
        .await
        .0,
        401
    );
    assert_eq!(
        ask(&control, OPERATOR, "GET", "/v1/tenants", Vec::new())
            .await
            .0,
        200
    );
    let (status, answer) = ask(&control, OPERATOR, "GET", "/v1/policies/nobody", Vec::new()).await;
    let known = "there is no seat `nobody`; there are default, acme, filed, other";
    assert_eq!((status, &answer["error"]), (404, &json!(known)));
    // A seat that follows a file does not accept pushes.
    let (status, answer) = ask(
        &control,
        OPERATOR,
        "POST",
        "/v1/policies/filed",
        rejecting(480),
    )
    .await;
    assert_eq!(status, 409, "{answer}");
}

/// Until the body of a push has come, no other change of the seat waits for it.
#[tokio::test]
async fn a_conditional_push_whose_body_does_not_come_keeps_nobody_waiting() {
    let (_folder, control) = host().await;
    let request = |path: &str, body: Body| {
        Request::post(path)
            .header("Authorization", format!("Bearer {OPERATOR}"))
            .header("Content-Type", "application/wasm")
            .header("If-Match", "*")
            .body(body)
            .unwrap()
    };
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let slow = request("/v1/policies/acme", Body::from_stream(never));
    let pushing = {
        let control = Arc::clone(&control);
        tokio::spawn(async move { send(&control, slow).await })
    };
    let deployments = control.registry.deployments();
    eventually("the push has its place", || {
        deployments.reserve("acme", false).is_err()
    })
    .await;
    let other = request("/v1/policies/acme/activate?generation=7", Body::empty());
    assert_eq!(send(&control, other).await.0, 404);
    assert!(!pushing.is_finished());
    pushing.abort();
}
