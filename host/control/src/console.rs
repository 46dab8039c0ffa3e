//! The console: a page for the operator and for tenants, embedded in the program.
//!
//! The files contain no data of the host. A browser gets them without a token, because it sends none when it opens a page; the page asks the
//! user for a token and sends it with each of its own requests. There is no cookie, so that no other page can act for the user.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What a browser may load and run in the page: only the files of the console. No script, style or handler in the document itself, and
/// no text as HTML (Trusted Types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The directory of all files except the page.
const FOLDER: &str = "/console/";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($name:literal, $media:expr) => {
        File {
            name: $name,
            media: $media,
            bytes: include_bytes!(concat!("../console/", $name)),
        }
    };
}

/// All files; the first is the page.
static FILES: [File; 20] = [
    file!("index.html", HTML),
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("app.js", SCRIPT),
    file!("addresses.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("audit.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("edge.js", SCRIPT),
    file!("fleet.js", SCRIPT),
    file!("chart.js", SCRIPT),
    file!("overview.js", SCRIPT),
    file!("policies.js", SCRIPT),
    file!("rollouts.js", SCRIPT),
    file!("live.js", SCRIPT),
    file!("settings.js", SCRIPT),
    file!("tables.js", SCRIPT),
    file!("tenants.js", SCRIPT),
    file!("trusted.js", SCRIPT),
    file!("try.js", SCRIPT),
];

/// The validator of all files: they change together, with the program.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    FILES.each_ref().map(|file| file.bytes).hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
});

/// An embedded file.
struct File {
    name: &'static str,
    media: &'static str,
    bytes: &'static [u8],
}

/// Answers requests for the console, and passes on all others.
pub(super) async fn serve(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let file = is_read.then(|| find(request.uri().path(), request.headers()));
    match file.flatten() {
        Some(file) => answer(file, request.headers()),
        None => next.run(request).await,
    }
}

/// Returns the file at a path. `/` is the page for browsers only: other clients get the index as text.
fn find(path: &str, headers: &HeaderMap) -> Option<&'static File> {
    if path == "/" {
        return accepts_html(headers).then_some(&FILES[0]);
    }
    let name = path.strip_prefix(FOLDER)?;
    FILES[1..].iter().find(|file| file.name == name)
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut ranges = accepted.filter_map(|value| value.to_str().ok());
    ranges.any(|ranges| ranges.split(',').any(is_html))
}

fn is_html(range: &str) -> bool {
    let essence = range.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/html")
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    let mut known = headers.get_all(header::IF_NONE_MATCH).iter();
    let is_known = known.any(|tags| {
        let tags = tags.to_str().unwrap_or_default().split(',');
        let mut tags = tags.map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|tag| tag == TAG.as_str() || tag == "*")
    });
    let head = [
        (header::CONTENT_TYPE, file.media),
        // The browser asks each time whether its copy is still right: an upgrade takes effect at the next load.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, TAG.as_str()),
        (header::VARY, "Accept"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, head).into_response(),
        false => (head, Bytes::from_static(file.bytes)).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use axum::http::HeaderValue;

    use super::*;

    /// Most bytes of all files together, uncompressed.
    const MOST: usize = 150 << 10;

    fn accepting(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn browsers_get_the_page_and_other_clients_the_index() {
        let browser =
            accepting("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8");
        let name = |path, headers: &HeaderMap| find(path, headers).map(|file| file.name);
        assert_eq!(name("/", &browser), Some("index.html"));
        assert_eq!(name("/", &accepting("*/*")), None, "curl");
        assert_eq!(name("/", &HeaderMap::new()), None);
        assert_eq!(name("/console/app.js", &accepting("*/*")), Some("app.js"));
        for other in [
            "/console/",
            "/console/index.html",
            "/console/../lib.rs",
            "/metrics",
        ] {
            assert_eq!(name(other, &browser), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_the_browser_has_is_not_sent_again() {
        let tagged = |tags: &str| {
            let tags = HeaderValue::from_str(tags).unwrap();
            let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, tags)]);
            answer(&FILES[0], &known).status()
        };
        let weak = format!("\"other\", W/{}", *TAG);
        for known in [TAG.as_str(), &weak, "*"] {
            assert_eq!(tagged(known), StatusCode::NOT_MODIFIED, "{known}");
        }
        assert_eq!(tagged("\"other\""), StatusCode::OK);
    }

    #[test]
    fn each_file_of_the_folder_is_embedded_and_all_are_small() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/console");
        let on_disk: BTreeSet<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let embedded: BTreeSet<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(embedded, on_disk);
        let bytes: usize = FILES.iter().map(|file| file.bytes.len()).sum();
        assert!(bytes <= MOST, "{bytes}");
    }

    /// The policy of the page forbids all of these; a browser would ignore them.
    #[test]
    fn the_document_has_no_inline_script_style_or_handler() {
        let page = std::str::from_utf8(FILES[0].bytes).unwrap();
        for script in page.split("<script").skip(1) {
            assert!(script.contains("></script>"), "{script}");
        }
        for forbidden in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for file in FILES.iter().filter(|file| file.media == SCRIPT) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.cookie",
                "localStorage",
                "eval(",
            ] {
                assert!(!text.contains(forbidden), "{}: {forbidden}", file.name);
            }
        }
    }
}
