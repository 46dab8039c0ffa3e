//! Translates the routing logic into the source of a policy: `portcullis import --policy`.
//!
//! The `parser` makes a tree (`syntax`) of the preprocessor's tokens. `writer` writes each route as a function, with `conditions`, `values`
//! and regular expressions (`pattern`). `source` writes the file, with the `state` of the script and its `variables`. What
//! has no counterpart is a comment, or ends the script with 500 where a decision depends on it.

mod after_failure;
mod conditions;
mod context;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod idioms;
mod kinds;
#[cfg(test)]
mod pages;
mod parser;
mod pattern;
mod routes;
mod settings;
mod source;
mod state;
mod syntax;
mod tables;
#[cfg(test)]
mod tests;
mod values;
mod variables;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;

use crate::finding::{self, Finding};
use crate::preprocessor::Token;

pub(super) use settings::Settings;

use context::{Context, Helper, Part};
use kinds::is_question;
use routes::{FAILURE_ROUTE, Reached, Routes, called_by, for_each_call, for_each_variable, target};
use source::Source;
use syntax::{Action, Route, Statement};
use writer::{Rest, Writer, rest_of};

/// The source of a policy, translated from a routing logic.
#[derive(Clone, Debug)]
pub struct Script {
    /// The content of `src/lib.rs`.
    pub source: String,
    /// Statements and conditions that are in the policy.
    pub translated: usize,
    /// Statements and conditions that are comments there, or end the script with 500.
    pub left: usize,
    /// Those of them that end the script with 500.
    pub closed: usize,
    /// What the author should know, in the order of the lines.
    pub findings: Vec<Finding>,
}

/// Translates the routes among these tokens.
pub(super) fn translate(file: &Path, tokens: &[Token], settings: &Settings) -> Script {
    let routes = parser::routes(tokens);
    let name = file.file_name().unwrap_or(file.as_os_str());
    let name = name.display().to_string();
    let Some(main) = routes.iter().find(|route| route.kind == "request_route") else {
        let mend = "nothing to translate: is this the main configuration file?";
        let finding = Finding::whole("no request_route", mend);
        return Script {
            source: Source::empty(&name).text(),
            translated: 0,
            left: 1,
            closed: 0,
            findings: vec![finding],
        };
    };
    let reached = Reached::by(main, &routes);
    let is_used = |route: &&Route| std::ptr::eq(*route, main) || reached.has(route);
    let (used, unused): (Vec<_>, Vec<_>) = routes.iter().partition(is_used);
    let names = Routes::of(&routes);
    let flags = state::flags(&used, &unused, &reached);
    let mut context = Context::new(state::parts(&used, &reached, &flags), flags);
    context.parameters = parser::parameters(tokens);
    context.empty_tables = tables::empty(&routes, tokens);
    variables::keep(&used, &unused, &reached, tokens, &mut context);
    if !reached.failure_routes.is_empty() {
        for route in called_by(&unused, &routes) {
            if is_used(&route) && sets_what_is_kept(route, &context) {
                let what = format!("{}[{}]", route.kind, route.name);
                let mend = "branch, reply or event routes call it, too: the flags and variables that it sets there are not seen in failure routes";
                context.remark(&route.place, &what, mend);
            }
        }
    }
    let followed = followed(&used);
    let functions: Vec<_> = used
        .iter()
        .map(|route| {
            let translation = Translation {
                is_main: std::ptr::eq(*route, main),
                is_followed: followed.contains(&*route.name),
                is_after_failure: reached.is_after_failure(route),
            };
            function(route, translation, &names, &mut context)
        })
        .collect();
    for route in unused {
        let what = format!("{}[{}]", route.kind, route.name);
        let mend = match &*route.kind {
            "route" => "not translated: request_route does not call it",
            FAILURE_ROUTE => "not translated: no t_on_failure names it",
            _ => "not translated: a policy decides about requests only",
        };
        context.leave(&route.place, &what, mend);
    }
    if let Some(route) = used.iter().find(|route| route.kind == FAILURE_ROUTE) {
        let what = format!("{}[{}]", route.kind, route.name);
        let mend = "becomes on_failure, which is not called after a code from 600 on: it goes to the sender";
        context.remark(&route.place, &what, mend);
    }
    let has_times = context.has(Part::Times) || settings.first.is_some();
    if context.has(Part::Set) && has_times {
        let mend = "the times of `fr_timer` and `t_set_fr` do not hold for destinations of a set: those of `no-answer` and `ring` in [relay] do";
        context.findings.push(Finding::whole("ds_select_dst", mend));
    }
    if context.helpers.contains(&Helper::Zone) {
        let mend = "Kamailio takes the time zone of its machine, the policy takes UTC: set `ZONE` in the policy, for example to \
                    \"Europe/Berlin\"";
        context.findings.push(Finding::whole("$time(…)", mend));
    }
    finding::sort(&mut context.findings);
    let after_failures: Vec<_> = used
        .iter()
        .filter(|route| route.kind == FAILURE_ROUTE)
        .filter_map(|route| names.after_failure(&route.name))
        .collect();
    let source = Source {
        name: &name,
        parts: &context.parts,
        variables: &context.variables,
        helpers: &context.helpers,
        functions: &functions,
        after_failures: &after_failures,
        settings,
    };
    Script {
        source: source.text(),
        translated: context.translated,
        left: context.left,
        closed: context.closed,
        findings: context.findings,
    }
}

/// Whether a route sets a flag or a variable that failure routes get.
fn sets_what_is_kept(route: &Route, context: &Context) -> bool {
    let mut is_set = false;
    for_each_call(&route.body, &mut |call| {
        is_set |= !is_question(&call.name) && context.flag(call).is_some();
    });
    for_each_variable(&route.body, &mut |name| {
        let variable = context.variables.get(name);
        is_set |= variable.is_some_and(|variable| variable.is_in_memo);
    });
    is_set
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

/// How a route is translated.
#[derive(Clone, Copy)]
struct Translation {
    is_main: bool,
    /// Whether something follows its calls that a peer may notice.
    is_followed: bool,
    /// Whether a failure route executes it.
    is_after_failure: bool,
}

fn function(
    route: &Route,
    translation: Translation,
    names: &Routes,
    context: &mut Context,
) -> String {
    let Translation {
        is_main,
        is_followed,
        is_after_failure,
    } = translation;
    let name = match &*route.kind {
        _ if is_main => "request_route",
        FAILURE_ROUTE => names.after_failure(&route.name).unwrap_or("failure"),
        _ => names.function(&route.name).unwrap_or("route"),
    };
    let is_route = !is_main && route.kind != FAILURE_ROUTE;
    let rest = match is_followed && is_route {
        true => Rest::Acts,
        false => Rest::Ends,
    };
    let (indent, argument) = match context.is_stateful() {
        true => ("    ", "&mut self"),
        false => ("", ""),
    };
    let title = match is_main {
        true => "request_route".to_owned(),
        false => format!("{}[{}]", route.kind, route.name),
    };
    let place = route.place.short();
    let body = Writer::body(&route.body, rest, is_after_failure, names, context);
    format!(
        "{indent}/// {place}: `{title}`\n{indent}fn {name}({argument}) -> Route {{\n{body}{indent}}}\n"
    )
}
