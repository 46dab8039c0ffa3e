//! Which operations have tags (RFC 9110 §8.8.3).

use axum::http::Method;

/// What the tag of a path is the tag of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tagged {
    /// The state of a seat.
    Seat(String),
    /// The settings of a seat.
    Settings(String),
    /// A stored tenant.
    Tenant(String),
    /// The reply.
    Content,
}

/// What follows `addresses` and `trusted` in a path and is no row.
const WORDS: [&str; 3] = ["match", "import", "changes"];

impl Tagged {
    /// Returns what the tag of this operation is the tag of; `None` if it has none.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let parts: Vec<_> = path.strip_prefix("/v1/")?.split('/').collect();
        match (method.as_str(), &parts[..]) {
            ("GET" | "POST" | "PUT", ["policies", seat])
            | ("GET", ["policies", seat, "generations"])
            | (
                "POST",
                [
                    "policies",
                    seat,
                    "activate" | "rollback" | "shadow" | "canary",
                ],
            )
            | ("PUT", ["policies", seat, "mode"])
            | ("DELETE", ["policies", seat, "candidate"]) => Some(Self::Seat(decoded(seat)?)),
            ("GET" | "PUT" | "DELETE", ["tenants", name]) if *name != "self" => {
                Some(Self::Tenant(decoded(name)?))
            }
            ("GET" | "PUT", ["policies", seat, "settings"]) => Some(Self::Settings(decoded(seat)?)),
            (
                "GET",
                ["addresses" | "trusted"] | ["dispatcher", "rows"] | ["dispatcher", "rows", _],
            ) => Some(Self::Content),
            ("GET", ["addresses" | "trusted", row]) if !WORDS.contains(row) => Some(Self::Content),
            _ => None,
        }
    }

    /// Whether this operation changes rows, whose tag is that of a list and not of a row. A condition would be ignored.
    pub(crate) fn is_of_rows(method: &Method, path: &str) -> bool {
        matches!(
            (method.as_str(), path.strip_prefix("/v1/")),
            (
                "POST" | "DELETE",
                Some("addresses" | "trusted" | "dispatcher/rows")
            ) | ("POST", Some("addresses/import" | "addresses/changes"))
        )
    }

    /// Whether this operation changes one row. Its command checks the condition.
    pub(crate) fn is_of_row(method: &Method, path: &str) -> bool {
        let rest = path.strip_prefix("/v1/");
        let parts: Option<Vec<_>> = rest.map(|rest| rest.split('/').collect());
        matches!(
            (method.as_str(), parts.as_deref()),
            (
                "PUT" | "DELETE",
                Some(["addresses" | "trusted", _] | ["dispatcher", "rows", _])
            )
        )
    }

    /// Whether the body of this operation is read before its condition is checked, by its handler: a client that sends slowly keeps nobody
    /// waiting.
    pub(crate) fn has_body(method: &Method, path: &str) -> bool {
        let parts: Option<Vec<_>> = path
            .strip_prefix("/v1/")
            .map(|rest| rest.split('/').collect());
        matches!(
            (method.as_str(), parts.as_deref()),
            ("POST" | "PUT", Some(["policies", _]))
                | ("PUT", Some(["policies", _, "settings"] | ["tenants", _]))
        )
    }

    /// Returns the name of the tenant that this belongs to, or of the operator's seat.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Seat(name) | Self::Settings(name) | Self::Tenant(name) => Some(name),
            Self::Content => None,
        }
    }
}

/// A segment of a path as the router decodes it (RFC 3986 §2.1); `None` if it is not UTF-8, which the router refuses.
fn decoded(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.split_at_checked(2).filter(|_| byte == b'%');
        let octet =
            pair.and_then(|(digits, after)| Some((*hex::decode(digits).ok()?.first()?, after)));
        let (byte, after) = octet.unwrap_or((byte, after));
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_belong_to_seats_tenants_and_replies() {
        let of = Tagged::of;
        let seat = || Some(Tagged::Seat("acme".into()));
        for (method, path, expected) in [
            (Method::GET, "/v1/policies/acme", seat()),
            (Method::GET, "/v1/policies/acme/generations", seat()),
            (Method::GET, "/v1/policies/%61cm%65", seat()),
            (Method::GET, "/v1/policies/%ff", None),
            (
                Method::PUT,
                "/v1/tenants/a%2Fb%",
                Some(Tagged::Tenant("a/b%".into())),
            ),
            (Method::GET, "/v1/policies/acme/generations/3", None),
            (Method::GET, "/v1/policies/acme/decisions", None),
            (Method::GET, "/v1/policies/acme/candidate", None),
            (Method::POST, "/v1/policies/acme", seat()),
            (Method::POST, "/v1/policies/acme/activate", seat()),
            (Method::POST, "/v1/policies/acme/try", None),
            (Method::DELETE, "/v1/policies/acme/candidate", seat()),
            (
                Method::PUT,
                "/v1/tenants/acme",
                Some(Tagged::Tenant("acme".into())),
            ),
            (
                Method::PUT,
                "/v1/policies/acme/settings",
                Some(Tagged::Settings("acme".into())),
            ),
            (Method::GET, "/v1/tenants/self", None),
            (Method::GET, "/v1/tenants", None),
            (Method::GET, "/v1/addresses", Some(Tagged::Content)),
            (Method::GET, "/v1/addresses/7", Some(Tagged::Content)),
            (Method::GET, "/v1/addresses/match", None),
            (Method::GET, "/v1/dispatcher", None),
            (Method::GET, "/v1/dispatcher/rows", Some(Tagged::Content)),
            (Method::GET, "/v1/dispatcher/rows/7", Some(Tagged::Content)),
            (Method::PUT, "/v1/dispatcher/rows/7", None),
            (Method::DELETE, "/v1/addresses/7", None),
            (Method::POST, "/v1/addresses", None),
            (Method::GET, "/metrics", None),
            (Method::PUT, "/v1/policies/acme", seat()),
            (Method::POST, "/v1/policies/acme/mode", None),
            (Method::TRACE, "/v1/policies/acme", None),
        ] {
            assert_eq!(of(&method, path), expected, "{method} {path}");
            let reads = matches!(method, Method::GET | Method::DELETE);
            let has_body = Tagged::has_body(&method, path);
            assert!(!has_body || expected.is_some() && !reads, "{method} {path}");
        }
    }
}
