//! The variables of a script (`$var(x)`, `$vn(x)`, `$avp(x)`) that its policy keeps as fields.
//!
//! A variable is kept if the policy knows each of its values: every assignment has a counterpart, all of them are texts or, for `$var`, all are
//! numbers, and no other function may set it. A failure route gets each `$avp` that it mentions. A `$var` that it mentions is not kept: Kamailio's
//! process may have used it for other requests in between.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Context, Part, Variable};
use super::kinds::reads_arguments;
use super::routes::{Reached, for_each_call, for_each_expression, is_understood};
use super::syntax::{Action, Call, Expression, Route, Statement, Term};
use super::values::{Value, value};
use crate::lexer::Kind;
use crate::preprocessor::Token;

/// Most variables of a script that are kept.
const MOST: usize = 200;

/// Finds the variables of these routes. `others` are routes that no policy has. `tokens` are those of the whole configuration, whose parameters may
/// name variables, too.
pub(super) fn keep(
    routes: &[&Route],
    others: &[&Route],
    reached: &Reached<'_>,
    tokens: &[Token],
    context: &mut Context,
) {
    let mut assigned: BTreeMap<String, Vec<&Expression>> = BTreeMap::new();
    let mut mentioned = Mentioned::default();
    for route in routes {
        let is_after_failure = reached.is_after_failure(route);
        for_each_assignment(&route.body, &mut |name, value| {
            if !is_variable(name) {
                return mentioned.set(name);
            }
            assigned.entry(name.to_owned()).or_default().push(value);
            if is_after_failure {
                mentioned.after_failure.insert(name.to_owned());
            }
        });
        for_each_expression(&route.body, &mut |expression| {
            for name in names_in(expression) {
                if is_after_failure {
                    mentioned.after_failure.insert(name.clone());
                }
                mentioned.read.insert(name);
            }
        });
        for_each_call(&route.body, &mut |call| {
            if !reads_arguments(&call.name) {
                mentioned.give(call);
            }
        });
    }
    for route in others {
        for_each_assignment(&route.body, &mut |name, _| mentioned.set(name));
        for_each_call(&route.body, &mut |call| mentioned.give(call));
    }
    // `modparam("permissions", "peer_tag_avp", "$avp(i:707)")`
    for window in tokens.windows(7) {
        if let (Kind::Word(word), Kind::Text(text)) = (&window[0].kind, &window[6].kind)
            && word.starts_with("modparam")
        {
            mentioned.elsewhere.extend(names(text));
        }
    }
    let is_all_known = others.iter().all(|route| is_understood(&route.body));
    let Mentioned {
        read,
        elsewhere,
        after_failure,
        is_any_avp_set,
    } = mentioned;
    let written: BTreeSet<_> = assigned.keys().cloned().collect();
    assigned.retain(|name, _| {
        let is_avp = name.starts_with("$avp(");
        let is_lost = match is_avp {
            true => is_any_avp_set || !is_all_known && after_failure.contains(name),
            false => after_failure.contains(name),
        };
        // With two spellings, there would be two fields for one variable.
        let has_twin = twin(name).is_some_and(|twin| {
            read.contains(&twin) || written.contains(&twin) || elsewhere.contains(&twin)
        });
        read.contains(name) && !elsewhere.contains(name) && !has_twin && !is_lost
    });
    if assigned.len() > MOST {
        return;
    }
    context.variables = with_types(&assigned, &after_failure, context);
    if !context.variables.is_empty() {
        context.parts.insert(Part::Variables);
    }
}

/// The names of variables in expressions.
#[derive(Default)]
struct Mentioned {
    read: BTreeSet<String>,
    /// Where something else may set the variable.
    elsewhere: BTreeSet<String>,
    /// What a failure route reads or sets.
    after_failure: BTreeSet<String>,
    /// Whether something sets an `$avp` whose name is not known.
    is_any_avp_set: bool,
}

impl Mentioned {
    /// Notes that something sets this variable, or a value of it: `$(avp(x)[0])`.
    fn set(&mut self, variable: &str) {
        self.elsewhere.extend(names(variable));
        self.is_any_avp_set |= variable.starts_with("$avp($");
    }

    /// Notes a call that may set the variables that it names, or all of a user: `avp_db_load`.
    fn give(&mut self, call: &Call) {
        self.elsewhere
            .extend(call.arguments.iter().flat_map(names_in));
        self.is_any_avp_set |= call.name.starts_with("avp_db_");
    }
}

/// The other spelling of an `$avp`: `$avp(x)` for `$avp(s:x)`, and the reverse.
fn twin(name: &str) -> Option<String> {
    let inner = name.strip_prefix("$avp(")?;
    Some(match inner.strip_prefix("s:") {
        Some(short) => format!("$avp({short}"),
        None => format!("$avp(s:{inner}"),
    })
}

/// The variables that an expression names, without those of its parts.
fn names_in(expression: &Expression) -> Vec<String> {
    match &expression.term {
        Term::Variable(text) | Term::Text(text) => names(text).collect(),
        Term::Or(..)
        | Term::And(..)
        | Term::Not(_)
        | Term::Compare(..)
        | Term::Sum(_)
        | Term::Call(_)
        | Term::Word(_)
        | Term::Address(_)
        | Term::Other => Vec::new(),
    }
}

/// The variables that a text names: `$var(x)` and `$(var(x){s.len})` name the same.
fn names(text: &str) -> impl Iterator<Item = String> + '_ {
    let classes = ["var(", "vn(", "avp("];
    let places = text.match_indices(['v', 'a']);
    places.filter_map(move |(at, _)| {
        let is_first = text[..at].ends_with('$') || text[..at].ends_with("$(");
        let rest = &text[at..];
        if !is_first || !classes.iter().any(|class| rest.starts_with(class)) {
            return None;
        }
        let end = rest.find(')')?;
        Some(format!("${}", &rest[..=end]))
    })
}

/// Whether this is the name of a variable as a whole.
fn is_variable(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "_:.-".contains(c);
    let inner = |class: &str| name.strip_prefix(class)?.strip_suffix(')');
    let inner = inner("$var(")
        .or_else(|| inner("$vn("))
        .or_else(|| inner("$avp("));
    inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(is_letter))
}

/// The variables whose values are all known, and of one type.
fn with_types(
    assigned: &BTreeMap<String, Vec<&Expression>>,
    after_failure: &BTreeSet<String>,
    context: &Context,
) -> BTreeMap<String, Variable> {
    let mut trial = context.clone();
    let mut taken = BTreeSet::new();
    // A value may be that of another variable, whose type is known after a few rounds.
    loop {
        let mut is_new = false;
        for (name, values) in assigned {
            if trial.variables.contains_key(name) {
                continue;
            }
            let types = values.iter().map(|one| value(one, &mut trial));
            let Some(first) = types.flatten().next() else {
                continue;
            };
            let is_number = matches!(first, Value::Number(_));
            let variable = Variable {
                field: field_of(name, &mut taken),
                is_number,
                is_in_memo: after_failure.contains(name),
                may_be_empty: false,
            };
            trial.variables.insert(name.clone(), variable);
            is_new = true;
        }
        if !is_new {
            break;
        }
    }
    // Without one that is not kept, others have no value.
    loop {
        let mut wrong = Vec::new();
        for (name, values) in assigned {
            let Some(is_number) = trial.variables.get(name).map(|one| one.is_number) else {
                continue;
            };
            // One that has never been set is 0 for `$var` only.
            let may_be_number = name.starts_with("$var(");
            let is_known = values.iter().all(|one| {
                let found = value(one, &mut trial);
                let is_null = matches!(&one.term, Term::Variable(name) if name == "$null");
                let is_of_type =
                    found.is_some_and(|found| matches!(found, Value::Number(_)) == is_number);
                is_of_type && !is_null && (may_be_number || !is_number)
            });
            if !is_known {
                wrong.push(name.clone());
            }
        }
        if wrong.is_empty() {
            return with_empty(assigned, trial.variables);
        }
        for name in wrong {
            trial.variables.remove(&name);
        }
    }
}

/// Notes which variables may be empty texts: Kamailio tells them from those that have never been set.
fn with_empty(
    assigned: &BTreeMap<String, Vec<&Expression>>,
    mut variables: BTreeMap<String, Variable>,
) -> BTreeMap<String, Variable> {
    loop {
        let is_new = |name: &&String| {
            let is_noted = variables.get(*name).is_none_or(|one| one.may_be_empty);
            !is_noted
                && assigned[*name]
                    .iter()
                    .any(|one| may_be_empty(one, &variables))
        };
        let Some(name) = assigned.keys().find(is_new) else {
            return variables;
        };
        if let Some(variable) = variables.get_mut(name) {
            variable.may_be_empty = true;
        }
    }
}

fn may_be_empty(expression: &Expression, variables: &BTreeMap<String, Variable>) -> bool {
    match &expression.term {
        Term::Text(text) => text.is_empty(),
        // A sum is a text, whatever its parts are.
        Term::Sum(parts) => !parts
            .iter()
            .any(|part| matches!(&part.term, Term::Text(text) if !text.is_empty())),
        Term::Variable(name) => variables.get(name).is_some_and(|one| one.may_be_empty),
        Term::Or(..)
        | Term::And(..)
        | Term::Not(_)
        | Term::Compare(..)
        | Term::Call(_)
        | Term::Word(_)
        | Term::Address(_)
        | Term::Other => false,
    }
}

/// `var_x` for `$var(x)`; a name of its own for each variable.
fn field_of(name: &str, taken: &mut BTreeSet<String>) -> String {
    let name = name.trim_start_matches('$').trim_end_matches(')');
    let mut field: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect();
    while !taken.insert(field.clone()) {
        field.push('_');
    }
    field
}

/// Calls `visit` for each assignment in these statements.
fn for_each_assignment<'s>(
    statements: &'s [Statement],
    visit: &mut dyn FnMut(&'s str, &'s Expression),
) {
    for statement in statements {
        match &statement.action {
            Action::If {
                then, otherwise, ..
            } => {
                for_each_assignment(then, visit);
                for_each_assignment(otherwise, visit);
            }
            Action::Block(inner) => for_each_assignment(inner, visit),
            Action::Assign { variable, value } => visit(variable, value),
            Action::Call(_) | Action::Exit | Action::Return(_) | Action::Other => {}
        }
    }
}
