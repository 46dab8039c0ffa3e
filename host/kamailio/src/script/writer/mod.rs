//! Statements of a script as Rust.
//!
//! A reply or a relay is the policy's decision, so it ends the function: `return Err(verdict)`. Kamailio goes on behind it; log lines that
//! follow are written before it, and anything else that Kamailio would do is a remark.

mod decisions;
mod effects;

use super::conditions::condition;
use super::context::Context;
use super::kinds::{
    advice, is_built_in, is_harmless, is_log, is_private, is_question, is_relay, is_reply,
    may_be_code, relaying,
};
use super::routes::Routes;
use super::syntax::{Action, Call, Expression, Statement, Term};
use super::values::formatted;

/// What Kamailio does behind a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// The script ends, without anything that a peer notices.
    Ends,
    /// Something that a peer may notice.
    Acts,
}

/// What a call decides.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// The Rust expression of a verdict.
    Verdict(String),
    /// A decision without counterpart.
    Unknown,
    /// A response that does not end the transaction.
    Provisional,
    /// It is no decision.
    None,
}

/// The lines of a function's body.
#[derive(Debug)]
pub(super) struct Writer<'c> {
    routes: &'c Routes,
    context: &'c mut Context,
    lines: String,
    depth: usize,
    /// Header fields of the replies: `append_to_reply`.
    reply_headers: String,
    /// Whether a failure route executes the function.
    is_after_failure: bool,
    /// Whether there is a target here that has not failed. In a failure route, `t_relay` needs a new one.
    has_target: bool,
}

impl<'c> Writer<'c> {
    /// Writes the body of a route; `rest` is what follows its calls, and `is_after_failure` says whether a failure route executes it.
    pub(super) fn body(
        statements: &[Statement],
        rest: Rest,
        is_after_failure: bool,
        routes: &'c Routes,
        context: &'c mut Context,
    ) -> String {
        let mut writer = Self {
            routes,
            context,
            lines: String::new(),
            depth: 1,
            reply_headers: String::new(),
            is_after_failure,
            has_target: !is_after_failure,
        };
        writer.depth += usize::from(writer.context.is_stateful());
        if !writer.block(statements, rest) {
            writer.line("Ok(true)");
        }
        writer.lines
    }

    /// Writes statements. Returns true if the last of them always ends the function.
    fn block(&mut self, statements: &[Statement], rest: Rest) -> bool {
        for (at, statement) in statements.iter().enumerate() {
            let behind = &statements[at + 1..];
            if self.statement(statement, behind, rest_of(behind, rest)) {
                return true;
            }
        }
        false
    }

    fn statement(&mut self, statement: &Statement, behind: &[Statement], rest: Rest) -> bool {
        match &statement.action {
            Action::If {
                condition,
                then,
                otherwise,
            } => self.branches(statement, condition, [then, otherwise], behind, rest),
            Action::Block(inner) => self.block(inner, rest),
            Action::Exit => {
                self.context.translated += 1;
                self.line("return Err(drop_request());");
                true
            }
            // 0 ends the script.
            Action::Return(0) => {
                self.context.translated += 1;
                self.line("return Err(drop_request());");
                true
            }
            Action::Return(number) => {
                self.context.translated += 1;
                self.line(&format!("return Ok({});", *number > 0));
                true
            }
            Action::Call(call) => self.call(call, statement, behind, rest),
            Action::Assign { variable, value } => {
                self.assign(variable, value, statement);
                false
            }
            // It may hold decisions, or be one: `return $var(result);`.
            Action::Other => {
                self.close(statement);
                false
            }
        }
    }

    fn branches(
        &mut self,
        statement: &Statement,
        tested: &Expression,
        [then, otherwise]: [&[Statement]; 2],
        behind: &[Statement],
        rest: Rest,
    ) -> bool {
        let Some(call) = relaying(tested) else {
            if self.is_idle(tested, [then, otherwise]) {
                self.leave(statement);
                return false;
            }
            return self.chain("if", tested, [then, otherwise], rest);
        };
        let ends = self.call(call, statement, behind, rest);
        if ends || self.has_target {
            // What follows a failure of the relay is up to the host.
            return ends;
        }
        // Without a new target, the relay fails.
        if matches!(tested.term, Term::Not(_)) {
            return self.block(then, rest);
        }
        self.block(otherwise, rest)
    }

    /// Whether a condition without counterpart protects nothing that a policy does: then nothing depends on its result.
    fn is_idle(&mut self, tested: &Expression, branches: [&[Statement]; 2]) -> bool {
        let is_inert = |statements| is_inert(statements, self.context);
        if !only_asks(tested) || !branches.into_iter().all(is_inert) {
            return false;
        }
        let before = self.context.mark();
        let code = condition(tested, self.routes, self.context);
        self.context.rewind(before);
        code.contains("untranslated(")
    }

    /// `if … else if … else …`; `begin` is what precedes the condition.
    fn chain(
        &mut self,
        begin: &str,
        tested: &Expression,
        [then, otherwise]: [&[Statement]; 2],
        rest: Rest,
    ) -> bool {
        let (before, helpers) = (self.lines.len(), self.context.helpers.clone());
        let code = condition(tested, self.routes, self.context);
        self.context.translated += 1;
        // What the host has checked before.
        if begin == "if" && matches!(&*code, "true" | "false") {
            let taken = if code == "true" { then } else { otherwise };
            return self.block(taken, rest);
        }
        self.line(&format!("{begin} {code} {{"));
        let begun = self.lines.len();
        let then_ends = self.inner(then, rest);
        if otherwise.is_empty() {
            let is_empty = begin == "if" && self.lines.len() == begun;
            match is_empty && only_asks(tested) && !code.contains("untranslated(") {
                // Nothing depends on it: the host does what it protects.
                true => {
                    self.lines.truncate(before);
                    self.context.helpers = helpers;
                }
                false => self.line("}"),
            }
            return false;
        }
        if let [next] = otherwise
            && let Action::If {
                condition,
                then,
                otherwise,
            } = &next.action
            && relaying(condition).is_none()
        {
            return self.chain("} else if", condition, [then, otherwise], rest) && then_ends;
        }
        self.line("} else {");
        let otherwise_ends = self.inner(otherwise, rest);
        self.line("}");
        then_ends && otherwise_ends
    }

    /// A block that may not be executed: header fields of a reply that it adds are for replies within it.
    fn inner(&mut self, statements: &[Statement], rest: Rest) -> bool {
        let headers = self.reply_headers.clone();
        let has_target = self.has_target;
        self.depth += 1;
        let ends = self.block(statements, rest);
        self.depth -= 1;
        self.reply_headers = headers;
        self.has_target = has_target;
        ends
    }

    fn call(
        &mut self,
        call: &Call,
        statement: &Statement,
        behind: &[Statement],
        rest: Rest,
    ) -> bool {
        if is_built_in(&call.name) {
            return false;
        }
        let decision = match is_relay(&call.name) {
            true => self
                .relay(call)
                .map_or(Decision::Unknown, Decision::Verdict),
            false if is_reply(&call.name) => self.reply(call, statement),
            false => Decision::None,
        };
        match decision {
            Decision::Verdict(verdict) => {
                self.context.translated += 1;
                if is_relay(&call.name) && !self.has_target {
                    self.decide_with_target(&verdict, statement, behind, rest);
                    return false;
                }
                return self.decide(&verdict, statement, behind, rest);
            }
            Decision::Unknown => {
                self.close(statement);
                return false;
            }
            Decision::Provisional => return false,
            Decision::None => {}
        }
        if self.effect(call, &statement.place) {
            self.context.translated += 1;
            return false;
        }
        // Any other function may decide, or change where the request goes.
        match is_harmless(&call.name) {
            true => self.leave(statement),
            false => self.close(statement),
        }
        false
    }

    /// The Rust expression of a text with variables, and those without counterpart, whose names are in the text.
    fn text(&mut self, text: &str) -> (String, Vec<String>) {
        let (format, arguments, unknown) = formatted(text, self.context);
        let code = match arguments.is_empty() {
            true => format!("{text:?}"),
            false => format!("format!({format:?}{arguments})"),
        };
        (code, unknown)
    }

    /// Writes a statement without counterpart as a comment.
    fn leave(&mut self, statement: &Statement) {
        self.context.leave(
            &statement.place,
            &statement.text,
            "no counterpart: a comment in the policy",
        );
        let comment = format!(
            "// {}: not translated: {}",
            statement.place.short(),
            statement.text
        );
        self.line(&comment);
    }

    /// Ends the function where a decision cannot be translated.
    fn close(&mut self, statement: &Statement) {
        let mend = advice(&statement.text).unwrap_or("no counterpart");
        let mend = format!("{mend}: the policy answers 500 here");
        self.context.close(&statement.place, &statement.text, &mend);
        let line = format!(
            "untranslated({}, {:?})?;",
            statement.place.line, statement.text
        );
        self.line(&line);
    }

    fn line(&mut self, text: &str) {
        self.lines.push_str(&"    ".repeat(self.depth));
        self.lines.push_str(text);
        self.lines.push('\n');
    }
}

/// Whether a condition changes nothing.
fn only_asks(expression: &Expression) -> bool {
    match &expression.term {
        Term::Or(left, right) | Term::And(left, right) | Term::Compare(_, left, right) => {
            only_asks(left) && only_asks(right)
        }
        Term::Not(inner) => only_asks(inner),
        Term::Sum(parts) => parts.iter().all(only_asks),
        Term::Call(call) => is_question(&call.name),
        Term::Text(_) | Term::Variable(_) | Term::Word(_) | Term::Address(_) => true,
        Term::Other => false,
    }
}

/// Whether nothing of these statements becomes code of a policy, because nothing depends on them there.
fn is_inert(statements: &[Statement], context: &Context) -> bool {
    statements.iter().all(|statement| match &statement.action {
        Action::Call(call) => {
            let has_counterpart = context.flag(call).is_some() || may_be_code(&call.name);
            is_built_in(&call.name) || is_harmless(&call.name) && !has_counterpart
        }
        Action::Assign { variable, .. } => {
            is_private(variable) && !context.variables.contains_key(variable)
        }
        Action::Block(inner) => is_inert(inner, context),
        Action::If {
            condition,
            then,
            otherwise,
        } => only_asks(condition) && is_inert(then, context) && is_inert(otherwise, context),
        Action::Exit | Action::Return(_) | Action::Other => false,
    })
}

/// What Kamailio does in these statements and behind them.
pub(super) fn rest_of(statements: &[Statement], rest: Rest) -> Rest {
    for statement in statements {
        match &statement.action {
            Action::Exit => return Rest::Ends,
            Action::Return(_) => return rest,
            Action::Call(call) if is_log(&call.name) || is_built_in(&call.name) => {}
            Action::Call(_)
            | Action::If { .. }
            | Action::Block(_)
            | Action::Assign { .. }
            | Action::Other => {
                return Rest::Acts;
            }
        }
    }
    rest
}
