//! The interface `rules`.

use std::fmt::Write as _;

use portcullis_address::{DEFAULT_RULES, Effort, RuleSet, Spent};
use portcullis_request::{Contact, PlainUri};
use serde_json::{Value, json};
use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, lifted_optional, timely_mut};
use crate::call::abi::module::{ModuleContext, open, optional, text};
use crate::call::state::Data;
use crate::contract::RULES;
use crate::tape::SideEffect;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let questions: [(&str, Question); 3] = [
        ("allow-routing", |call, basename| {
            call.allow_routing(basename)
        }),
        ("allow-register", |call, basename| {
            call.allow_register(basename, false)
        }),
        ("allow-register-include-port", |call, basename| {
            call.allow_register(basename, true)
        }),
    ];
    for (name, question) in questions {
        linker.func_wrap(
            RULES,
            name,
            move |mut caller: ModuleContext<'_>, is_named: u32, at: u32, length: u32| {
                let (memory, call) = open(&mut caller)?;
                let basename = optional(memory, [is_named, at, length], call.host_call_bytes())?;
                Ok(u32::from(question(call, basename)?))
            },
        )?;
    }
    linker.func_wrap(
        RULES,
        "allow-uri",
        |mut caller: ModuleContext<'_>,
         is_named: u32,
         at: u32,
         length: u32,
         uri_at: u32,
         uri_length: u32| {
            let (memory, call) = open(&mut caller)?;
            let limit = call.host_call_bytes();
            let basename = optional(memory, [is_named, at, length], limit)?;
            let uri = text(memory, uri_at, uri_length, limit)?;
            wasmtime::Result::Ok(u32::from(call.allow_uri(basename, uri)?))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut rules = linker.instance(RULES)?;
    rules.func_wrap(
        "allow-routing",
        |mut store: ComponentContext<'_>, (basename,): (Option<WasmStr>,)| {
            let basename = lifted_optional(&store, &basename)?;
            Ok((timely_mut(&mut store)?.allow_routing(basename.as_deref())?,))
        },
    )?;
    for (name, ports) in [
        ("allow-register", false),
        ("allow-register-include-port", true),
    ] {
        rules.func_wrap(
            name,
            move |mut store: ComponentContext<'_>, (basename,): (Option<WasmStr>,)| {
                let basename = lifted_optional(&store, &basename)?;
                Ok((timely_mut(&mut store)?.allow_register(basename.as_deref(), ports)?,))
            },
        )?;
    }
    rules.func_wrap(
        "allow-uri",
        |mut store: ComponentContext<'_>, (basename, uri): (Option<WasmStr>, WasmStr)| {
            let (basename, uri) = (lifted_optional(&store, &basename)?, lifted(&store, &uri)?);
            Ok((timely_mut(&mut store)?.allow_uri(basename.as_deref(), &uri)?,))
        },
    )
}

/// A query of rules by their basename.
type Question = fn(&mut Call, Option<&str>) -> wasmtime::Result<bool>;

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
    fn allow_routing(&mut self, basename: Option<&str>) -> wasmtime::Result<bool> {
        let arguments = || json!([basename]);
        self.ruled("rules.allow-routing", arguments, |call| {
            call.routes(basename)
        })
    }

    /// `rules.allow-register` or, with `ports`, `rules.allow-register-include-port`
    fn allow_register(&mut self, basename: Option<&str>, ports: bool) -> wasmtime::Result<bool> {
        let function = match ports {
            false => "rules.allow-register",
            true => "rules.allow-register-include-port",
        };
        let arguments = || json!([basename]);
        self.ruled(function, arguments, |call| call.registers(basename, ports))
    }

    /// `rules.allow-uri`
    fn allow_uri(&mut self, basename: Option<&str>, uri: &str) -> wasmtime::Result<bool> {
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
