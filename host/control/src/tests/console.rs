//! The console's files over HTTP.

use axum::http::Response;

use super::*;

const TOKEN: &str = "token = \"host-0123456789abc\"";

async fn ask(path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let folder = tempfile::tempdir().unwrap();
    let control = control_with(&folder, TOKEN);
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    http::router(control).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_browser_gets_the_page_without_a_token_and_nothing_else() {
    let html = ("Accept", "text/html");
    for (path, expected) in [
        ("/", 200),
        ("/console/app.js", 200),
        ("/console/style.css", 200),
        ("/console/absent.js", 401),
        ("/console/", 401),
        ("/metrics", 401),
        ("/v1/openapi.json", 401),
    ] {
        assert_eq!(ask(path, &[html]).await.status(), expected, "{path}");
    }
    assert_eq!(ask("/", &[]).await.status(), 401, "the text index");
    for foreign in [
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        assert_eq!(ask("/", &[html, foreign]).await.status(), 403);
        assert_eq!(ask("/console/app.js", &[foreign]).await.status(), 403);
    }
}

#[tokio::test]
async fn the_page_may_load_its_own_files_only() {
    let page = ask("/", &[("Accept", "text/html")]).await;
    let header = |name| page.headers()[name].to_str().unwrap().to_owned();
    let policy = header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("cache-control"), "no-cache");
    assert!(page.headers().get("set-cookie").is_none());
    let tag = header("etag");
    let known = [("Accept", "text/html"), ("If-None-Match", tag.as_str())];
    assert_eq!(ask("/", &known).await.status(), 304);
}
