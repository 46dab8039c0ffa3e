//! Translates the routing logic into the source of a policy: `portcullis import --policy`.
//!
//! The `parser` makes a tree (`syntax`) of the preprocessor's tokens. `statements` writes each route as a function, with `conditions`, `values`
//! and regular expressions (`pattern`). What has no counterpart is a comment, or ends the script with 500 where a decision depends on it.

mod conditions;
mod context;
mod parser;
mod pattern;
mod routes;
mod statements;
mod syntax;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::finding::{self, Finding};
use crate::preprocessor::Token;

use context::{Context, Helper};
use routes::{Routes, reachable, target};
use statements::{Rest, Writer, changes_target, rest_of};
use syntax::{Action, Route, Statement};

/// The source of a policy, translated from a routing logic.
#[derive(Clone, Debug)]
pub struct Script {
    /// The content of `src/lib.rs`.
    pub source: String,
    /// Statements and conditions that are in the policy.
    pub translated: usize,
    /// Statements and conditions that are comments there, or end the script with 500.
    pub left: usize,
    /// What the author should know, in the order of the lines.
    pub findings: Vec<Finding>,
}

/// A name or an address of the host, and its port: `alias` and `listen`.
type Own = (String, Option<u16>);

/// Translates the routes among these tokens. `own` are the names and addresses of the host.
pub(super) fn translate(file: &Path, tokens: &[Token], own: &[Own]) -> Script {
    let routes = parser::routes(tokens);
    let name = file.file_name().unwrap_or(file.as_os_str());
    let name = name.display().to_string();
    let Some(main) = routes.iter().find(|route| route.kind == "request_route") else {
        let mend = "nothing to translate: is this the main configuration file?";
        let finding = Finding::whole("no request_route", mend);
        return Script {
            source: source(&name, &Context::new(false), &[], own),
            translated: 0,
            left: 1,
            findings: vec![finding],
        };
    };
    let reached = reachable(main, &routes);
    let is_used = |route: &&Route| {
        std::ptr::eq(*route, main) || (route.kind == "route" && reached.contains(&*route.name))
    };
    let (used, unused): (Vec<_>, Vec<_>) = routes.iter().partition(is_used);
    let names = Routes::of(&routes);
    let mut context = Context::new(used.iter().any(|route| changes_target(&route.body)));
    let followed = followed(&used);
    let functions: Vec<_> = used
        .iter()
        .map(|route| function(route, main, &followed, &names, &mut context))
        .collect();
    for route in unused {
        let what = format!("{}[{}]", route.kind, route.name);
        let mend = match &*route.kind {
            "route" => "not translated: request_route does not call it",
            "failure_route" => "not translated: write on_failure, docs/policies.md",
            _ => "not translated: a policy decides about requests only",
        };
        context.leave(&route.place, &what, mend);
    }
    if context.helpers.contains(&Helper::Zone) {
        let mend = "Kamailio takes the time zone of its machine, the policy takes UTC: set `ZONE` in the policy, for example to \
                    \"Europe/Berlin\"";
        context.findings.push(Finding::whole("$time(…)", mend));
    }
    finding::sort(&mut context.findings);
    Script {
        source: source(&name, &context, &functions, own),
        translated: context.translated,
        left: context.left,
        findings: context.findings,
    }
}

/// The names of the routes behind whose calls something follows that a peer may notice.
fn followed<'r>(routes: &[&'r Route]) -> BTreeSet<&'r str> {
    let mut followed = BTreeSet::new();
    for route in routes {
        collect_followed(&route.body, Rest::Ends, &mut followed);
    }
    followed
}

fn collect_followed<'r>(statements: &'r [Statement], rest: Rest, followed: &mut BTreeSet<&'r str>) {
    for (at, statement) in statements.iter().enumerate() {
        let rest = rest_of(&statements[at + 1..], rest);
        match &statement.action {
            Action::Call(call) if rest == Rest::Acts => followed.extend(target(call)),
            Action::If {
                then, otherwise, ..
            } => {
                collect_followed(then, rest, followed);
                collect_followed(otherwise, rest, followed);
            }
            Action::Block(inner) => collect_followed(inner, rest, followed),
            Action::Call(_)
            | Action::Assign { .. }
            | Action::Exit
            | Action::Return(_)
            | Action::Other => {}
        }
    }
}

fn function(
    route: &Route,
    main: &Route,
    followed: &BTreeSet<&str>,
    names: &Routes,
    context: &mut Context,
) -> String {
    let is_main = std::ptr::eq(route, main);
    let name = match is_main {
        true => "request_route",
        false => names.function(&route.name).unwrap_or("route"),
    };
    let rest = match followed.contains(&*route.name) && !is_main {
        true => Rest::Acts,
        false => Rest::Ends,
    };
    let (indent, argument) = match context.is_stateful {
        true => ("    ", "&mut self"),
        false => ("", ""),
    };
    let title = match is_main {
        true => "request_route".to_owned(),
        false => format!("route[{}]", route.name),
    };
    let place = route.place.short();
    let body = Writer::body(&route.body, rest, names, context);
    format!(
        "{indent}/// {place}: `{title}`\n{indent}fn {name}({argument}) -> Route {{\n{body}{indent}}}\n"
    )
}

/// The whole file.
fn source(name: &str, context: &Context, functions: &[String], own: &[Own]) -> String {
    let mut text = format!(
        "//! The routing logic of {name}, translated by `portcullis import --policy`.\n\
         //!\n\
         //! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the\n\
         //! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.\n\n\
         #![forbid(unsafe_code)]\n\n\
         use portcullis_sdk::prelude::*;\n\n\
         policy!(decide);\n\n\
         /// The result of a route.\n\
         type Route = Result<bool, Verdict>;\n"
    );
    let call = match (functions.is_empty(), context.is_stateful) {
        (true, _) => "Ok(true)",
        (false, true) => "Script::default().request_route()",
        (false, false) => "request_route()",
    };
    let decide = format!(
        "\nfn decide() -> Verdict {{\n    let result: Route = {call};\n    // A script that ends without a reply or a relay is silent.\n    \
         result.err().unwrap_or_else(drop_request)\n}}\n"
    );
    text.push_str(&decide);
    if context.is_stateful {
        text.push_str(SCRIPT);
        text.push_str(&functions.join("\n"));
        text.push_str("}\n");
    } else {
        for function in functions {
            text.push('\n');
            text.push_str(function);
        }
    }
    for helper in &context.helpers {
        match helper {
            Helper::Untranslated => text.push_str(UNTRANSLATED),
            Helper::Matcher => text.push_str(pattern::MATCHER),
            Helper::Subnet => text.push_str(SUBNET),
            Helper::Myself => {
                write!(
                    text,
                    "\n/// What `alias` and `listen` name, with their ports.\nconst OWN: &[(&str, Option<u16>)] = &{own:?};\n"
                )
                .expect("a text takes everything");
                text.push_str(MYSELF);
            }
            Helper::Zone => text.push_str(ZONE),
            Helper::Now => text.push_str(NOW),
        }
    }
    text
}

const SCRIPT: &str = r#"
/// What the script has changed so far.
#[derive(Default)]
struct Script {
    request_uri: Option<String>,
    destination: Option<String>,
}

impl Script {
    /// `$ru`
    fn uri(&self) -> String {
        self.request_uri.clone().unwrap_or_else(request::uri)
    }

    /// `t_relay()`: to `$du` or, without it, to where the request URI leads.
    fn relay(&self) -> Verdict {
        match (&self.destination, &self.request_uri) {
            (Some(destination), _) => self.relay_by(destination),
            (None, Some(uri)) => self.relay_by(uri),
            (None, None) => relay(),
        }
    }

    /// To this URI, with the request URI of the script.
    fn relay_by(&self, place: &str) -> Verdict {
        let verdict = relay_to_uri(place);
        match &self.request_uri {
            Some(uri) => verdict.request_uri(uri),
            None => verdict,
        }
    }

"#;

const UNTRANSLATED: &str = r#"
/// Ends the script where it depends on something without counterpart. Replace each call.
fn untranslated(line: u32, what: &str) -> Route {
    log::error!("line {line} is not translated: {what}");
    Err(reject(500, "Policy incomplete"))
}
"#;

const SUBNET: &str = r#"
/// Whether an IPv4 address is in a subnet.
fn is_in(address: &str, network: u32, mask: u32) -> bool {
    let address = address.parse::<std::net::Ipv4Addr>();
    address.is_ok_and(|address| address.to_bits() & mask == network)
}
"#;

const MYSELF: &str = r#"
/// Whether a URI leads to this host. An alias without a port is for all ports.
fn is_myself(place: &str) -> bool {
    let host = uri::host(place);
    let port = uri::port(place).unwrap_or(5060);
    let is_socket = host == request::local_address() && port == request::local_port();
    let is_own = |(name, own): &(&str, Option<u16>)| {
        name.eq_ignore_ascii_case(host) && own.is_none_or(|own| own == port)
    };
    is_socket || OWN.iter().any(is_own)
}
"#;

const ZONE: &str = r#"
/// The zone of `$time(…)`: that of Kamailio's machine.
const ZONE: &str = "UTC";
"#;

const NOW: &str = r#"
fn now(zone: &str) -> clock::LocalTime {
    clock::local(zone).expect("a time zone")
}
"#;
