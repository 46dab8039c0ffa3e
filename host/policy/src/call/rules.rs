//! Answers of the interface `rules`.

use std::fmt::Write as _;

use portcullis_address::{DEFAULT_RULES, Effort, RuleSet, Spent};
use portcullis_request::{Contact, PlainUri};
use serde_json::{Value, json};

use crate::tape::SideEffect;

use super::Call;

/// Maximum number of Contact values that `allow-register` checks. A request with more is denied: no telephone registers that many, and each
/// value is compared with every line of the rules.
const MOST_CONTACTS: usize = 64;

/// The rules of a query.
enum Asked<'r> {
    /// The rules are outside the scope of the policy.
    Refused,
    /// There are no such rules, or they are empty: everything is allowed.
    Nothing,
    /// The rules to evaluate.
    Rules(&'r RuleSet),
}

impl Call {
    /// `rules.allow-routing`
    pub(crate) fn allow_routing(&mut self, basename: Option<&str>) -> wasmtime::Result<bool> {
        let arguments = || json!([basename]);
        self.ruled("rules.allow-routing", arguments, |call| {
            call.routes(basename)
        })
    }

    /// `rules.allow-register` or, with `ports`, `rules.allow-register-include-port`
    pub(crate) fn allow_register(
        &mut self,
        basename: Option<&str>,
        ports: bool,
    ) -> wasmtime::Result<bool> {
        let function = match ports {
            false => "rules.allow-register",
            true => "rules.allow-register-include-port",
        };
        let arguments = || json!([basename]);
        self.ruled(function, arguments, |call| call.registers(basename, ports))
    }

    /// `rules.allow-uri`
    pub(crate) fn allow_uri(
        &mut self,
        basename: Option<&str>,
        uri: &str,
    ) -> wasmtime::Result<bool> {
        let arguments = || json!([basename, uri]);
        self.ruled("rules.allow-uri", arguments, |call| {
            call.goes_with(basename, uri)
        })
    }

    /// Answers a query of rules. The call ends if the deadline passes meanwhile.
    fn ruled(
        &mut self,
        function: &'static str,
        arguments: impl FnOnce() -> Value,
        live: impl FnOnce(&Self) -> Result<bool, Spent>,
    ) -> wasmtime::Result<bool> {
        let allowed = self.answered(function, SideEffect::None, arguments, |call| {
            live(call).unwrap_or_default()
        });
        self.in_time()?;
        Ok(allowed)
    }

    fn routes(&self, basename: Option<&str>) -> Result<bool, Spent> {
        let rules = match self.rules(basename) {
            Asked::Refused => return Ok(false),
            Asked::Nothing => return Ok(true),
            Asked::Rules(rules) => rules,
        };
        let goes_on = || self.end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        let request = self.request();
        let right = request.plain_uri().map(|uri| written(&uri, true, false));
        rules.allows(&request.from_uri(), right.as_deref(), effort)
    }

    fn registers(&self, basename: Option<&str>, ports: bool) -> Result<bool, Spent> {
        let rules = match self.rules(basename) {
            Asked::Refused => return Ok(false),
            Asked::Nothing => return Ok(true),
            Asked::Rules(rules) => rules,
        };
        let goes_on = || self.end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        let request = self.request();
        let to = request.to_uri();
        let (mut allowed, mut count, mut is_star) = (Ok(true), 0, false);
        request.contacts(|contact| {
            is_star |= count == 0 && contact == Contact::Star;
            count += 1;
            if allowed != Ok(true) {
                return;
            }
            if count > MOST_CONTACTS {
                allowed = Ok(false);
                return;
            }
            let right = match &contact {
                Contact::Uri(uri) => Some(written(uri, false, ports)),
                Contact::Star | Contact::Unreadable => None,
            };
            allowed = rules.allows(&to, right.as_deref(), effort);
        });
        Ok(allowed? || is_star)
    }

    fn goes_with(&self, basename: Option<&str>, uri: &str) -> Result<bool, Spent> {
        let goes_on = || self.end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        match self.rules(basename) {
            Asked::Refused => Ok(false),
            Asked::Nothing => Ok(true),
            Asked::Rules(rules) => rules.allows(&self.request().from_uri(), Some(uri), effort),
        }
    }

    fn rules(&self, basename: Option<&str>) -> Asked<'_> {
        let basename = basename.unwrap_or(DEFAULT_RULES);
        if !self.scope().admits_rules(basename) {
            return Asked::Refused;
        }
        let rules = self.snapshot().rules.rules.set(basename);
        match rules.filter(|rules| !rules.is_empty()) {
            Some(rules) => Asked::Rules(rules),
            None => Asked::Nothing,
        }
    }
}

/// `sip:USER@HOST`, as Kamailio writes URIs for its rules. The Request-URI has an `@` even without a user (`always_at`).
fn written(uri: &PlainUri<'_>, always_at: bool, port: bool) -> String {
    let PlainUri { user, host, .. } = uri;
    let mut text = match user.is_empty() && !always_at {
        true => format!("sip:{host}"),
        false => format!("sip:{user}@{host}"),
    };
    if let (true, Some(port)) = (port, uri.port) {
        let _infallible = write!(text, ":{port}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_written_as_kamailio_writes_them() {
        let uri = |user: &'static str, port| PlainUri {
            user: user.into(),
            host: "example.com".into(),
            port,
        };
        for (user, port, always_at, with_port, expected) in [
            ("alice", Some(5070), true, false, "sip:alice@example.com"),
            (
                "alice",
                Some(5070),
                false,
                true,
                "sip:alice@example.com:5070",
            ),
            ("alice", None, false, true, "sip:alice@example.com"),
            ("", None, true, false, "sip:@example.com"),
            ("", Some(5070), false, true, "sip:example.com:5070"),
        ] {
            assert_eq!(written(&uri(user, port), always_at, with_port), expected);
        }
    }
}
