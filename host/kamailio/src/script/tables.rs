//! The tables of Kamailio's `htable` that nothing fills, because what would fill them has no counterpart: `$sht(ipban=>$si) = 1` where
//! `pike_check_req()` fails. What a script reads of them is `$null`.

use std::collections::BTreeSet;

use super::syntax::{Action, Call, Expression, Route, Statement, Term};
use crate::lexer::Kind;
use crate::preprocessor::Token;

/// The table of `$sht(TABLE=>key)`.
pub(super) fn table_of(variable: &str) -> Option<&str> {
    let (table, _) = variable.strip_prefix("$sht(")?.split_once("=>")?;
    Some(table.trim())
}

/// The tables of the configuration, without those that a route, a database or another server may fill, or that have a value for missing keys.
pub(super) fn empty(routes: &[Route], tokens: &[Token]) -> BTreeSet<String> {
    let mut tables = BTreeSet::new();
    for token in tokens {
        // `modparam("htable", "htable", "ipban=>size=8;autoexpire=300;")`
        if let Kind::Text(text) = &token.kind
            && let Some((table, how)) = text.split_once("=>")
            && how.contains("size=")
            && !["dbtable", "initval", "dmqreplicate"]
                .iter()
                .any(|option| how.contains(option))
        {
            tables.insert(table.trim().to_owned());
        }
    }
    for route in routes {
        fill(&route.body, &mut tables);
    }
    tables
}

/// Removes the tables that these statements may fill.
fn fill(statements: &[Statement], tables: &mut BTreeSet<String>) {
    for statement in statements {
        match &statement.action {
            Action::If {
                condition,
                then,
                otherwise,
            } => {
                fill_by(condition, tables);
                if !is_flood(condition) {
                    fill(then, tables);
                }
                fill(otherwise, tables);
            }
            Action::Block(inner) => fill(inner, tables),
            Action::Assign { variable, value } => {
                if let Some(table) = table_of(variable) {
                    tables.remove(table);
                }
                fill_by(value, tables);
            }
            Action::Call(call) => fill_by_call(call, tables),
            // It may hold anything.
            Action::Other => tables.clear(),
            Action::Exit | Action::Return(_) => {}
        }
    }
}

fn fill_by(condition: &Expression, tables: &mut BTreeSet<String>) {
    match &condition.term {
        Term::Or(left, right) | Term::And(left, right) | Term::Compare(_, left, right) => {
            fill_by(left, tables);
            fill_by(right, tables);
        }
        Term::Not(inner) => fill_by(inner, tables),
        Term::Sum(parts) => parts.iter().for_each(|part| fill_by(part, tables)),
        Term::Call(call) => fill_by_call(call, tables),
        Term::Other => tables.clear(),
        // `$shtinc(a=>b)` writes when it is read.
        Term::Text(text) | Term::Variable(text)
            if text.contains("$shtinc(") || text.contains("$shtdec(") =>
        {
            tables.clear();
        }
        Term::Text(_) | Term::Variable(_) | Term::Word(_) | Term::Address(_) => {}
    }
}

/// `sht_lock`, `sht_reset` and their kin name a table in any form, and other functions may write their result into `$sht(…)`.
fn fill_by_call(call: &Call, tables: &mut BTreeSet<String>) {
    if call.name.starts_with("sht_") {
        tables.clear();
    }
    for argument in &call.arguments {
        fill_by(argument, tables);
        let (Term::Text(text) | Term::Variable(text)) = &argument.term else {
            continue;
        };
        for behind in text.split("$sht(").skip(1) {
            let table = behind.split("=>").next().unwrap_or_default();
            tables.remove(table.trim());
        }
    }
}

/// Whether this is true for a flood only: the guard drops floods before.
fn is_flood(condition: &Expression) -> bool {
    let Term::Not(inner) = &condition.term else {
        return false;
    };
    matches!(&inner.term, Term::Call(call) if call.name == "pike_check_req")
}
