//! Who asks.

use std::fmt;

use portcullis_rpc::Fault;

/// Who asks for a command, and through which door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    authority: Authority,
    door: Door,
    /// What the caller calls itself, where the door has a place for it. It grants nothing.
    author: Option<String>,
}

/// On whose behalf a caller asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// Whoever has the host's token, or reaches a door that needs none.
    Operator,
    /// Whoever has the token of this tenant.
    Tenant(String),
}

/// The protocol that a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// JSON-RPC at `/RPC`, and `/v1`.
    Http,
    /// BINRPC over a stream or datagrams.
    Binrpc,
    /// JSON-RPC through the FIFO.
    Fifo,
    /// JSON-RPC in datagrams.
    Datagram,
}

impl Caller {
    /// The operator at this door.
    pub(crate) fn operator(door: Door) -> Self {
        Self {
            authority: Authority::Operator,
            door,
            author: None,
        }
    }

    /// A client of HTTP with the token of this tenant.
    pub(crate) fn tenant(name: &str) -> Self {
        Self {
            authority: Authority::Tenant(name.to_owned()),
            door: Door::Http,
            author: None,
        }
    }

    /// The same caller under the name that it gives itself.
    #[must_use]
    pub(crate) fn called(self, author: Option<String>) -> Self {
        Self { author, ..self }
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn door(&self) -> Door {
        self.door
    }

    pub(crate) fn is_operator(&self) -> bool {
        self.authority == Authority::Operator
    }

    /// Whether the caller may ask about this seat. What is about none is the operator's.
    ///
    /// # Errors
    /// 403 if it may not.
    pub(crate) fn may_ask_about(&self, seat: Option<&str>) -> Result<(), Fault> {
        match &self.authority {
            Authority::Operator => Ok(()),
            Authority::Tenant(tenant) if seat == Some(tenant) => Ok(()),
            Authority::Tenant(_) => Err(Fault::new(403, NOT_YOURS)),
        }
    }
}

/// The answer to a tenant who asks for what is not the tenant's.
pub(crate) const NOT_YOURS: &str =
    "a tenant's token reaches /v1/policies/ with the tenant's own name only";

/// The name under which a change is kept.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.authority, &self.author) {
            (Authority::Operator, None) => f.write_str("operator"),
            (Authority::Operator, Some(author)) => f.write_str(author),
            (Authority::Tenant(tenant), None) => f.write_str(tenant),
            // Whoever has a tenant's token speaks for the tenant, by whatever other name.
            (Authority::Tenant(tenant), Some(author)) => write!(f, "{tenant}: {author}"),
        }
    }
}

impl Door {
    /// Its name in the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Binrpc => "binrpc",
            Self::Fifo => "fifo",
            Self::Datagram => "datagram",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_caller_gives_itself_does_not_hide_the_tenant() {
        let operator = Caller::operator(Door::Http);
        assert_eq!(operator.to_string(), "operator");
        assert_eq!(operator.called(Some("ann".into())).to_string(), "ann");
        let tenant = Caller::tenant("acme");
        assert_eq!(tenant.to_string(), "acme");
        let tenant = tenant.called(Some("operator".into()));
        assert_eq!(tenant.to_string(), "acme: operator");
    }

    #[test]
    fn a_tenant_asks_about_its_own_seat_only() {
        let tenant = Caller::tenant("acme");
        assert_eq!(tenant.may_ask_about(Some("acme")), Ok(()));
        for other in [Some("acme2"), Some("default"), Some(""), None] {
            assert_eq!(tenant.may_ask_about(other).unwrap_err().code, 403);
            assert_eq!(Caller::operator(Door::Fifo).may_ask_about(other), Ok(()));
        }
    }
}
