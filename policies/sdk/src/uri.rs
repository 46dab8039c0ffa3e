//! Parts of a URI: what Kamailio's `$rU`, `$rd` and `$rp` are of the request URI.
//!
//! ```
//! use portcullis_sdk::uri;
//!
//! let called = "sip:+4930123:pin@pbx.example.com:5070;transport=tcp?Subject=x";
//! assert_eq!(uri::user(called), Some("+4930123"));
//! assert_eq!(uri::host(called), "pbx.example.com");
//! assert_eq!(uri::port(called), Some(5070));
//! assert_eq!(uri::with_user(called, "112"), "sip:112@pbx.example.com:5070;transport=tcp?Subject=x");
//! assert_eq!(uri::user("tel:+49-30-123;phone-context=x"), Some("+49-30-123"));
//! ```

/// The user of a `sip` or `sips` URI, without a password, as received; the number of a `tel` URI. `None` if there is none.
pub fn user(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("tel") {
        return rest.split(';').next().filter(|number| !number.is_empty());
    }
    let (user_info, _) = split(uri)?;
    let user = user_info?.split(':').next()?;
    (!user.is_empty()).then_some(user)
}

/// The host of a `sip` or `sips` URI, an IPv6 address with its brackets; empty for other URIs.
pub fn host(uri: &str) -> &str {
    let Some((_, behind)) = split(uri) else {
        return "";
    };
    let authority = authority(behind);
    &authority[..host_len(authority)]
}

/// The port of a `sip` or `sips` URI; `None` if it has none.
pub fn port(uri: &str) -> Option<u16> {
    let (_, behind) = split(uri)?;
    let authority = authority(behind);
    authority[host_len(authority)..]
        .strip_prefix(':')?
        .parse()
        .ok()
}

/// The same `sip` or `sips` URI with another user, and without a password. Other URIs are returned unchanged.
pub fn with_user(uri: &str, user: &str) -> String {
    let (Some((_, behind)), Some((scheme, _))) = (split(uri), uri.split_once(':')) else {
        return uri.to_owned();
    };
    [scheme, ":", user, "@", behind].concat()
}

/// The same `sip` or `sips` URI with another host; user, port and parameters stay. Other URIs are returned unchanged.
pub fn with_host(uri: &str, host: &str) -> String {
    let Some((_, behind)) = split(uri) else {
        return uri.to_owned();
    };
    let begin = &uri[..uri.len() - behind.len()];
    let rest = &behind[host_len(authority(behind))..];
    [begin, host, rest].concat()
}

/// User with password, and what follows `@`, of a `sip` or `sips` URI.
fn split(uri: &str) -> Option<(Option<&str>, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    // Neither host nor parameters may have an unescaped `@` (RFC 3261 §25.1); a user may have `;` and `?`.
    Some(match rest.split_once('@') {
        Some((user, behind)) => (Some(user), behind),
        None => (None, rest),
    })
}

/// Host and port.
fn authority(behind: &str) -> &str {
    let end = behind.find([';', '?', '>']).unwrap_or(behind.len());
    &behind[..end]
}

fn host_len(authority: &str) -> usize {
    match authority.find(']') {
        Some(bracket) if authority.starts_with('[') => bracket + 1,
        _ => authority.find(':').unwrap_or(authority.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_uris() {
        for (uri, expected) in [
            (
                "sip:bob@example.com",
                (Some("bob"), "example.com", None, "sip:x@example.com"),
            ),
            (
                "sip:example.com:5070",
                (None, "example.com", Some(5070), "sip:x@example.com:5070"),
            ),
            (
                "SIPS:a;b?c@[2001:db8::1]:5061;lr",
                (
                    Some("a;b?c"),
                    "[2001:db8::1]",
                    Some(5061),
                    "SIPS:x@[2001:db8::1]:5061;lr",
                ),
            ),
            ("sip:@h", (None, "h", None, "sip:x@h")),
            ("urn:service:sos", (None, "", None, "urn:service:sos")),
            ("tel:112", (Some("112"), "", None, "tel:112")),
            ("", (None, "", None, "")),
            ("sip:a@h:70000", (Some("a"), "h", None, "sip:x@h:70000")),
        ] {
            let (user, host, port, replaced) = expected;
            assert_eq!(super::user(uri), user, "{uri}");
            assert_eq!(super::host(uri), host, "{uri}");
            assert_eq!(super::port(uri), port, "{uri}");
            assert_eq!(with_user(uri, "x"), replaced, "{uri}");
        }
        assert_eq!(
            with_host("sip:a:b@h:5070;lr", "other"),
            "sip:a:b@other:5070;lr"
        );
        assert_eq!(with_host("sip:[::1]?x=y", "192.0.2.1"), "sip:192.0.2.1?x=y");
        assert_eq!(with_host("tel:112", "h"), "tel:112");
    }
}
