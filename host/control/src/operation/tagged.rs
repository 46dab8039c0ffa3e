//! Which operations have tags (RFC 9110 §8.8.3).

use axum::http::Method;

/// What the tag of a path is the tag of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tagged {
    /// The state of a seat.
    Seat(String),
    /// A stored tenant.
    Tenant(String),
    /// The reply.
    Content,
}

impl Tagged {
    /// Returns what the tag of this operation is the tag of; `None` if it has none.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let is_read = *method == Method::GET;
        let parts: Vec<_> = path.strip_prefix("/v1/")?.split('/').collect();
        match *parts {
            ["policies", seat] => Some(Self::Seat(seat.to_owned())),
            ["policies", seat, "generations"] if is_read => Some(Self::Seat(seat.to_owned())),
            [
                "policies",
                seat,
                "activate" | "rollback" | "mode" | "shadow" | "canary" | "candidate",
            ] if !is_read => Some(Self::Seat(seat.to_owned())),
            ["tenants", name] if name != "self" => Some(Self::Tenant(name.to_owned())),
            ["addresses" | "trusted"] if is_read => Some(Self::Content),
            _ => None,
        }
    }
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
            (Method::GET, "/v1/tenants/self", None),
            (Method::GET, "/v1/tenants", None),
            (Method::GET, "/v1/addresses", Some(Tagged::Content)),
            (Method::POST, "/v1/addresses", None),
            (Method::GET, "/metrics", None),
        ] {
            assert_eq!(of(&method, path), expected, "{method} {path}");
        }
    }
}
