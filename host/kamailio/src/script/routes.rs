//! The routes of a script, and the function of each in the policy.

use std::collections::{BTreeMap, BTreeSet};

use super::syntax::{Action, Call, Expression, Route, Statement, Term};

/// The routes by name.
#[derive(Debug, Default)]
pub(super) struct Routes {
    functions: BTreeMap<String, String>,
    /// Those of `failure_route[NAME]`.
    after_failures: BTreeMap<String, String>,
}

impl Routes {
    /// Gives each `route[NAME]` and each `failure_route[NAME]` a function with a name of its own.
    pub(super) fn of(routes: &[Route]) -> Self {
        Self {
            functions: functions(routes, "route", "route"),
            after_failures: functions(routes, FAILURE_ROUTE, "failure"),
        }
    }

    /// The name of a route's function; `None` if there is no such route.
    pub(super) fn function(&self, route: &str) -> Option<&str> {
        self.functions.get(route).map(String::as_str)
    }

    /// The name of a failure route's function; `None` if there is no such route.
    pub(super) fn after_failure(&self, route: &str) -> Option<&str> {
        self.after_failures.get(route).map(String::as_str)
    }
}

/// The kind of the routes that `t_on_failure` names.
pub(super) const FAILURE_ROUTE: &str = "failure_route";

/// The functions of the routes of one kind.
fn functions(routes: &[Route], kind: &str, prefix: &str) -> BTreeMap<String, String> {
    let mut functions = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for route in routes.iter().filter(|route| route.kind == kind) {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        let name: String = route
            .name
            .chars()
            .map(|c| if is_word(c) { c } else { '_' })
            .collect();
        let mut function = format!("{prefix}_{}", name.to_ascii_lowercase());
        while !taken.insert(function.clone()) {
            function.push('_');
        }
        functions.entry(route.name.clone()).or_insert(function);
    }
    functions
}

/// The routes that a script reaches.
#[derive(Debug, Default)]
pub(super) struct Reached<'r> {
    /// Those that the main route or a failure route calls, directly or by others.
    pub(super) routes: BTreeSet<&'r str>,
    /// Those that `t_on_failure` names.
    pub(super) failure_routes: BTreeSet<&'r str>,
    /// Those of `routes` that a failure route calls, directly or by others.
    pub(super) after_failure: BTreeSet<&'r str>,
}

impl<'r> Reached<'r> {
    /// Those that `main` reaches.
    pub(super) fn by(main: &'r Route, routes: &'r [Route]) -> Self {
        let mut reached = Self::default();
        let mut waiting = vec![(main, false)];
        while let Some((route, is_after_failure)) = waiting.pop() {
            let mut called = Vec::new();
            let mut named = Vec::new();
            for_each_call(&route.body, &mut |call| {
                called.extend(target(call));
                named.extend(failure_route(call));
            });
            for name in called {
                let mut is_new = reached.routes.insert(name);
                if is_after_failure {
                    is_new |= reached.after_failure.insert(name);
                }
                if is_new {
                    let route = find(routes, "route", name);
                    waiting.extend(route.map(|route| (route, is_after_failure)));
                }
            }
            for name in named {
                if reached.failure_routes.insert(name) {
                    let route = find(routes, FAILURE_ROUTE, name);
                    waiting.extend(route.map(|route| (route, true)));
                }
            }
        }
        reached
    }

    /// Whether a failure route executes this route.
    pub(super) fn is_after_failure(&self, route: &Route) -> bool {
        match &*route.kind {
            FAILURE_ROUTE => true,
            "route" => self.after_failure.contains(&*route.name),
            _ => false,
        }
    }

    /// Whether the script reaches this route.
    pub(super) fn has(&self, route: &Route) -> bool {
        match &*route.kind {
            FAILURE_ROUTE => self.failure_routes.contains(&*route.name),
            "route" => self.routes.contains(&*route.name),
            _ => false,
        }
    }
}

fn find<'r>(routes: &'r [Route], kind: &str, name: &str) -> Option<&'r Route> {
    let is_it = |route: &&Route| route.kind == kind && route.name == name;
    routes.iter().find(is_it)
}

/// The routes that branch, reply and event routes among `others` call, directly or by others.
pub(super) fn called_by<'r>(others: &[&'r Route], routes: &'r [Route]) -> Vec<&'r Route> {
    let (mut names, mut found) = (BTreeSet::new(), Vec::new());
    let begin = others.iter().filter(|route| route.kind != "route");
    let mut waiting: Vec<_> = begin.copied().collect();
    while let Some(route) = waiting.pop() {
        let mut called = Vec::new();
        for_each_call(&route.body, &mut |call| called.extend(target(call)));
        for name in called {
            if names.insert(name)
                && let Some(route) = find(routes, "route", name)
            {
                found.push(route);
                waiting.push(route);
            }
        }
    }
    found
}

/// The route that this call calls.
pub(super) fn target(call: &Call) -> Option<&str> {
    match (&*call.name, &call.arguments[..]) {
        ("route", [name]) => name.literal(),
        _ => None,
    }
}

/// The failure route that this call names.
fn failure_route(call: &Call) -> Option<&str> {
    match (&*call.name, &call.arguments[..]) {
        ("t_on_failure", [name]) => name.literal(),
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

/// Calls `visit` for each variable that these statements set.
pub(super) fn for_each_variable<'s>(statements: &'s [Statement], visit: &mut dyn FnMut(&'s str)) {
    for statement in statements {
        match &statement.action {
            Action::If {
                then, otherwise, ..
            } => {
                for_each_variable(then, visit);
                for_each_variable(otherwise, visit);
            }
            Action::Block(inner) => for_each_variable(inner, visit),
            Action::Assign { variable, .. } => visit(variable),
            Action::Call(_) | Action::Exit | Action::Return(_) | Action::Other => {}
        }
    }
}

/// Calls `visit` for each expression in these statements: conditions, values and arguments, and what they are made of.
pub(super) fn for_each_expression<'s>(
    statements: &'s [Statement],
    visit: &mut dyn FnMut(&'s Expression),
) {
    for statement in statements {
        match &statement.action {
            Action::If {
                condition,
                then,
                otherwise,
            } => {
                expressions_of(condition, visit);
                for_each_expression(then, visit);
                for_each_expression(otherwise, visit);
            }
            Action::Block(inner) => for_each_expression(inner, visit),
            Action::Call(call) => {
                for argument in &call.arguments {
                    expressions_of(argument, visit);
                }
            }
            Action::Assign { value, .. } => expressions_of(value, visit),
            Action::Exit | Action::Return(_) | Action::Other => {}
        }
    }
}

fn expressions_of<'s>(expression: &'s Expression, visit: &mut dyn FnMut(&'s Expression)) {
    visit(expression);
    match &expression.term {
        Term::Or(left, right) | Term::And(left, right) | Term::Compare(_, left, right) => {
            expressions_of(left, visit);
            expressions_of(right, visit);
        }
        Term::Not(inner) => expressions_of(inner, visit),
        Term::Call(call) => {
            for argument in &call.arguments {
                expressions_of(argument, visit);
            }
        }
        Term::Sum(parts) => {
            for part in parts {
                expressions_of(part, visit);
            }
        }
        Term::Text(_) | Term::Variable(_) | Term::Word(_) | Term::Address(_) | Term::Other => {}
    }
}

/// Whether the parser has understood each of these statements.
pub(super) fn is_understood(statements: &[Statement]) -> bool {
    statements.iter().all(|statement| match &statement.action {
        Action::If {
            then, otherwise, ..
        } => is_understood(then) && is_understood(otherwise),
        Action::Block(inner) => is_understood(inner),
        Action::Call(_) | Action::Assign { .. } | Action::Exit | Action::Return(_) => true,
        Action::Other => false,
    })
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
