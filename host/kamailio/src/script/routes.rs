//! The routes of a script, and the function of each in the policy.

use std::collections::{BTreeMap, BTreeSet};

use super::syntax::{Action, Call, Expression, Route, Statement, Term};

/// The routes by name.
#[derive(Debug, Default)]
pub(super) struct Routes {
    functions: BTreeMap<String, String>,
}

impl Routes {
    /// Gives each `route[NAME]` a function with a name of its own.
    pub(super) fn of(routes: &[Route]) -> Self {
        let mut functions = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for route in routes.iter().filter(|route| route.kind == "route") {
            let is_word = |c: char| c.is_ascii_alphanumeric();
            let name: String = route
                .name
                .chars()
                .map(|c| if is_word(c) { c } else { '_' })
                .collect();
            let mut function = format!("route_{}", name.to_ascii_lowercase());
            while !taken.insert(function.clone()) {
                function.push('_');
            }
            functions.entry(route.name.clone()).or_insert(function);
        }
        Self { functions }
    }

    /// The name of a route's function; `None` if there is no such route.
    pub(super) fn function(&self, route: &str) -> Option<&str> {
        self.functions.get(route).map(String::as_str)
    }
}

/// The names of the routes that these statements call, directly or by others.
pub(super) fn reachable<'r>(main: &'r Route, routes: &'r [Route]) -> BTreeSet<&'r str> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![main];
    while let Some(route) = waiting.pop() {
        let mut called = Vec::new();
        for_each_call(&route.body, &mut |call| called.extend(target(call)));
        for name in called {
            if reached.insert(name) {
                waiting.extend(
                    routes
                        .iter()
                        .find(|route| route.kind == "route" && route.name == name),
                );
            }
        }
    }
    reached
}

/// The route that this call calls.
pub(super) fn target(call: &Call) -> Option<&str> {
    match (&*call.name, &call.arguments[..]) {
        ("route", [name]) => name.literal(),
        _ => None,
    }
}

/// Calls `visit` for each call in these statements and their conditions.
pub(super) fn for_each_call<'s>(statements: &'s [Statement], visit: &mut dyn FnMut(&'s Call)) {
    for statement in statements {
        match &statement.action {
            Action::If {
                condition,
                then,
                otherwise,
            } => {
                calls_of(condition, visit);
                for_each_call(then, visit);
                for_each_call(otherwise, visit);
            }
            Action::Block(inner) => for_each_call(inner, visit),
            Action::Call(call) => visit(call),
            Action::Assign { value, .. } => calls_of(value, visit),
            Action::Exit | Action::Return(_) | Action::Other => {}
        }
    }
}

fn calls_of<'s>(expression: &'s Expression, visit: &mut dyn FnMut(&'s Call)) {
    match &expression.term {
        Term::Or(left, right) | Term::And(left, right) | Term::Compare(_, left, right) => {
            calls_of(left, visit);
            calls_of(right, visit);
        }
        Term::Not(inner) => calls_of(inner, visit),
        Term::Call(call) => visit(call),
        Term::Sum(_)
        | Term::Text(_)
        | Term::Variable(_)
        | Term::Word(_)
        | Term::Address(_)
        | Term::Other => {}
    }
}
