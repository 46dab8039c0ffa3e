//! Callers of commands.

use std::fmt;

use portcullis_config::TokenRole;
use portcullis_rpc::Fault;

/// The caller of a command, and the control interface that it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    authority: Authority,
    door: Door,
    /// The name that the caller gives itself, if the interface has a place for it. It grants nothing.
    author: Option<String>,
    /// The name of the token, if the configuration gives it one.
    token: Option<String>,
    /// What the token permits.
    role: TokenRole,
}

/// On whose behalf a command is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// A caller with the host's token, or on an interface that needs none.
    Operator,
    /// A caller with the token of this tenant.
    Tenant(String),
}

/// The control interface.
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
    /// None: the host itself.
    Host,
}

impl Caller {
    /// Returns the operator as a caller on this interface.
    pub(crate) fn operator(door: Door) -> Self {
        Self {
            authority: Authority::Operator,
            door,
            author: None,
            token: None,
            role: TokenRole::Operate,
        }
    }

    /// Returns the host itself, under the name of a task.
    pub(crate) fn host(task: &str) -> Self {
        Self::operator(Door::Host).called(Some(task.to_owned()))
    }

    /// Returns an HTTP client with the token of this tenant.
    pub(crate) fn tenant(name: &str) -> Self {
        Self {
            authority: Authority::Tenant(name.to_owned()),
            door: Door::Http,
            author: None,
            token: None,
            role: TokenRole::Operate,
        }
    }

    /// Returns an HTTP client with the token of this name.
    pub(crate) fn named(token: &str, role: TokenRole) -> Self {
        Self {
            token: Some(token.to_owned()),
            role,
            ..Self::operator(Door::Http)
        }
    }

    /// Sets the name that the caller gives itself.
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

    /// Returns the name of the token, if the configuration gives it one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Returns whose token was used, whatever name the caller gives itself.
    pub(crate) fn identity(&self) -> String {
        match &self.authority {
            Authority::Tenant(tenant) => format!("tenant {tenant}"),
            Authority::Operator => format!("token {}", self.token().unwrap_or_default()),
        }
    }

    /// Checks that the role of the token is enough.
    ///
    /// # Errors
    /// 403 if it is not.
    pub(crate) fn may(&self, needed: TokenRole) -> Result<(), Fault> {
        if self.role >= needed {
            return Ok(());
        }
        let token = self.token().unwrap_or_default();
        let text = format!(
            "the token {token} has the role {}, and this needs the role {needed}: see [control.tokens.{token}]",
            self.role
        );
        Err(Fault::new(403, text))
    }

    pub(crate) fn is_operator(&self) -> bool {
        self.authority == Authority::Operator
    }

    /// Checks that the caller may access this seat. Commands that concern no seat are the operator's.
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

/// Error for a tenant that tries to access what is not its own.
pub(crate) const NOT_YOURS: &str = "a tenant's token gives access to /v1/policies/NAME with the tenant's own name, /v1/tenants/self, /v1/addresses, /v1/stats, /v1/alerts and /v1/audit only";

/// The author of a change, as it is stored.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A caller with a tenant's token acts for the tenant, whatever it calls itself. The same applies to a named token.
        let known = match &self.authority {
            Authority::Operator => self.token(),
            Authority::Tenant(tenant) => Some(tenant.as_str()),
        };
        match (known, &self.author) {
            (None, None) => f.write_str("operator"),
            (None, Some(author)) => f.write_str(author),
            (Some(known), None) => f.write_str(known),
            (Some(known), Some(author)) => write!(f, "{known}: {author}"),
        }
    }
}

impl Door {
    /// Returns the name for the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Binrpc => "binrpc",
            Self::Fifo => "fifo",
            Self::Datagram => "datagram",
            Self::Host => "host",
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
    fn a_role_permits_itself_and_less() {
        let deployer = Caller::named("ci", TokenRole::Ship);
        assert_eq!(deployer.to_string(), "ci");
        assert_eq!(
            (deployer.may(TokenRole::Read), deployer.may(TokenRole::Ship)),
            (Ok(()), Ok(()))
        );
        let refused = deployer.may(TokenRole::Operate).unwrap_err();
        assert_eq!(refused.code, 403);
        assert!(refused.message.contains("the token ci has the role ship"));
        assert_eq!(deployer.called(Some("ann".into())).to_string(), "ci: ann");
        assert_eq!(Caller::tenant("acme").may(TokenRole::Operate), Ok(()));
    }

    #[test]
    fn a_tenant_has_access_to_its_own_seat_only() {
        let tenant = Caller::tenant("acme");
        assert_eq!(tenant.may_ask_about(Some("acme")), Ok(()));
        for other in [Some("acme2"), Some("default"), Some(""), None] {
            assert_eq!(tenant.may_ask_about(other).unwrap_err().code, 403);
            assert_eq!(Caller::operator(Door::Fifo).may_ask_about(other), Ok(()));
        }
    }
}
