//! Refuses requests that a web page could make a browser on this machine send, before anything else is checked.
//!
//! A page of another origin can send "simple" requests without permission, with any text as the body. A page whose name was bound to a
//! loopback address (DNS rebinding) can also read the responses. Browsers report where a request comes from: in Origin, in Sec-Fetch-Site
//! (Fetch Metadata), and in Host, which contains the name of the page.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use portcullis_text::is_loopback;

/// Where a request comes from, as reported by a browser.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Media types of JSON-RPC requests.
const JSON: &[&str] = &[
    "application/json",
    "application/json-rpc",
    "application/jsonrequest",
];

/// Media type of a policy.
const WASM: &[&str] = &["application/wasm"];

/// Media types of files with rows.
const ROWS: &[&str] = &["text/csv", "application/x-ndjson"];

/// Media types that a page can send to another origin without permission (the CORS-safelisted types of the Fetch standard).
const SIMPLE: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
];

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign(pub(super) String);

/// Checks that a request does not come from a web page. With `is_local`, only loopback names are accepted in Host.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, is_local: bool) -> Result<(), Foreign> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(text);
    if hosts.next().is_some() {
        return Err(Foreign("more than one Host".to_owned()));
    }
    let named = [host, uri.authority().map(Authority::as_str)];
    for named in named.into_iter().flatten().filter(|_| is_local) {
        if !is_local_name(named) {
            return Err(Foreign(format!(
                "Host: {}: only the names 127.0.0.1, [::1] and localhost are accepted, unless `token` is set in [control]",
                named.escape_default()
            )));
        }
    }
    if let Some(origin) = headers.get(header::ORIGIN).map(text) {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let is_own = authority
            .is_some_and(|authority| host.is_some_and(|host| host.eq_ignore_ascii_case(authority)));
        if !is_own {
            let origin = origin.escape_default();
            return Err(Foreign(format!(
                "Origin: {origin}: a page of another origin"
            )));
        }
    }
    match headers.get(SEC_FETCH_SITE).map(text) {
        None | Some("none" | "same-origin") => Ok(()),
        Some(site) => {
            let site = site.escape_default();
            Err(Foreign(format!(
                "Sec-Fetch-Site: {site}: a page of another origin"
            )))
        }
    }
}

/// Checks the media type of a body before it is read. Returns an error that names the required type.
pub(super) fn wrong_type(method: &Method, path: &str, headers: &HeaderMap) -> Option<String> {
    if !matches!(*method, Method::POST | Method::PUT | Method::DELETE) {
        return None;
    }
    let given = headers.get(header::CONTENT_TYPE).map(text);
    let essence = given.map(|given| given.split(';').next().unwrap_or_default().trim());
    let is = |wanted: &&str| essence.is_some_and(|essence| essence.eq_ignore_ascii_case(wanted));
    let is_json = matches!(
        path,
        "/v1/addresses"
            | "/v1/addresses/changes"
            | "/v1/trusted"
            | "/v1/dispatcher/rows"
            | "/v1/stored-tenants/check"
            | "/v1/stored-tenants/changes"
    );
    let wanted = match path.strip_prefix("/v1/policies/") {
        Some(rest) if *method == Method::POST && rest.ends_with("/try") => Some(&JSON[..1]),
        Some(rest) if *method == Method::PUT && rest.ends_with("/settings") => Some(&JSON[..1]),
        None if is_json && *method == Method::POST => Some(&JSON[..1]),
        None if is_row(path) && *method == Method::PUT => Some(&JSON[..1]),
        None if path == "/v1/addresses/import" && *method == Method::POST => Some(ROWS),
        Some(rest)
            if *method == Method::POST && (!rest.contains('/') || rest.ends_with("/inspect")) =>
        {
            Some(WASM)
        }
        Some(rest) if *method == Method::PUT && !rest.contains('/') => Some(WASM),
        None if path == "/RPC" => Some(JSON),
        _ => None,
    };
    match wanted {
        Some(wanted) if wanted.iter().any(is) => None,
        Some(wanted) => Some(format!("send \"Content-Type: {}\"", wanted[0])),
        None if SIMPLE.iter().any(is) => Some(
            "this media type is not accepted here; a tenant is \"Content-Type: application/toml\""
                .to_owned(),
        ),
        None => None,
    }
}

/// Whether this is the path of a row of a table.
fn is_row(path: &str) -> bool {
    ["/v1/addresses/", "/v1/trusted/", "/v1/dispatcher/rows/"]
        .iter()
        .filter_map(|table| path.strip_prefix(table))
        .any(|row| !matches!(row, "match" | "import" | "changes"))
}

fn text(value: &HeaderValue) -> &str {
    // A value that is not ASCII is none of the known names.
    value.to_str().unwrap_or("?")
}

fn is_local_name(host: &str) -> bool {
    let authority = host.parse::<Authority>();
    authority.is_ok_and(|authority| is_loopback(authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let all = all.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        });
        all.collect()
    }

    fn may(all: &[(&'static str, &str)], is_local: bool) -> bool {
        check(&Uri::from_static("/"), &headers(all), is_local).is_ok()
    }

    #[test]
    fn a_host_without_a_token_accepts_loopback_names_only() {
        for host in [
            "127.0.0.1:8060",
            "127.9.9.9",
            "[::1]:8060",
            "localhost",
            "LOCALHOST:1",
        ] {
            assert!(may(&[("host", host)], true), "{host}");
        }
        for host in [
            "evil.example:8060",
            "192.0.2.1",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a b",
            "[::2]",
        ] {
            assert!(!may(&[("host", host)], true), "{host}");
        }
        assert!(may(&[("host", "edge.example.com")], false));
        assert!(
            may(&[], true),
            "HTTP/1.0 clients without Host are not browsers"
        );
        let absolute = Uri::from_static("http://evil.example/metrics");
        assert!(check(&absolute, &headers(&[("host", "127.0.0.1")]), true).is_err());
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let own = ("host", "127.0.0.1:8060");
        for (name, value, is_taken) in [
            ("origin", "http://127.0.0.1:8060", true),
            ("origin", "http://127.0.0.1:8061", false),
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
        ] {
            assert_eq!(
                may(&[own, (name, value)], true),
                is_taken,
                "{name}: {value}"
            );
            assert_eq!(
                may(&[own, (name, value)], false),
                is_taken,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn accepted_media_types_require_permission_from_a_page() {
        let wrong = |method: Method, path: &str, given: &str| {
            let given = (!given.is_empty()).then_some(("content-type", given));
            wrong_type(&method, path, &headers(given.as_slice())).is_some()
        };
        for (method, path, given, is_wrong) in [
            (Method::POST, "/RPC", "application/json", false),
            (
                Method::POST,
                "/RPC",
                "application/json; charset=utf-8",
                false,
            ),
            (Method::POST, "/RPC", "application/json-rpc", false),
            (Method::POST, "/RPC", "text/plain", true),
            (Method::POST, "/RPC", "", true),
            (Method::POST, "/v1/policies/acme", "application/wasm", false),
            (Method::POST, "/v1/policies/acme", "text/plain", true),
            (Method::POST, "/v1/policies/acme", "", true),
            (Method::POST, "/v1/policies/acme/rollback", "", false),
            (
                Method::POST,
                "/v1/policies/acme/rollback",
                "application/x-www-form-urlencoded",
                true,
            ),
            (
                Method::POST,
                "/v1/policies/acme/rollback",
                "multipart/form-data; boundary=x",
                true,
            ),
            (
                Method::POST,
                "/v1/policies/acme/try",
                "application/json",
                false,
            ),
            (
                Method::POST,
                "/v1/policies/acme/try",
                "application/wasm",
                true,
            ),
            (Method::PUT, "/v1/policies/acme", "application/json", true),
            (Method::PUT, "/v1/policies/acme", "application/wasm", false),
            (Method::POST, "/v1/addresses", "application/json", false),
            (Method::POST, "/v1/addresses", "text/plain", true),
            (Method::POST, "/v1/addresses", "", true),
            (Method::POST, "/v1/dispatcher/rows", "", true),
            (Method::PUT, "/v1/dispatcher/rows/7", "text/plain", true),
            (
                Method::PUT,
                "/v1/dispatcher/rows/7",
                "application/json",
                false,
            ),
            (Method::POST, "/v1/addresses/import", "text/csv", false),
            (Method::POST, "/v1/addresses/import", "", true),
            (Method::POST, "/v1/addresses/changes", "", true),
            (Method::POST, "/v1/stored-tenants/check", "text/plain", true),
            (
                Method::POST,
                "/v1/stored-tenants/check",
                "application/json",
                false,
            ),
            (Method::POST, "/v1/stored-tenants/changes", "", true),
            (Method::PUT, "/v1/addresses/7", "", true),
            // The router refuses the method.
            (Method::PUT, "/v1/addresses/import", "", false),
            (Method::PUT, "/v1/trusted/match", "", false),
            (Method::DELETE, "/v1/addresses", "", false),
            (Method::PUT, "/v1/tenants/acme", "", false),
            (Method::PUT, "/v1/tenants/acme", "application/toml", false),
            (Method::PUT, "/v1/tenants/acme", "Text/Plain", true),
            (Method::GET, "/metrics", "text/plain", false),
        ] {
            assert_eq!(wrong(method, path, given), is_wrong, "{path} {given}");
        }
    }
}
