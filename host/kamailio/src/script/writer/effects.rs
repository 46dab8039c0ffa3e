//! Calls and assignments that decide nothing.

use crate::finding::Place;

use super::super::conditions::destination;
use super::super::context::{Helper, Part};
use super::super::kinds::{is_log, is_private, is_removable, rewritten_by};
use super::super::syntax::{Call, Expression, Statement, Term};
use super::super::values::{Value, braced, formatted, is_header, value};
use super::Writer;

impl Writer<'_> {
    /// Writes a call that decides nothing. Returns false without a line if there is no counterpart.
    pub(super) fn effect(&mut self, call: &Call, place: &Place) -> bool {
        let literal = |at: usize| call.arguments.get(at).and_then(Expression::literal);
        match (&*call.name, &call.arguments[..]) {
            (name, arguments) if is_log(name) => self.log(name, arguments, place),
            ("route", [_]) => {
                let Some(function) = literal(0).and_then(|name| self.routes.function(name)) else {
                    return false;
                };
                let line = format!("{}{function}()?;", self.context.receiver());
                self.line(&line);
                true
            }
            ("ds_select_dst" | "ds_next_dst" | "ds_mark_dst", _) => {
                let Some(code) = destination(call, self.context) else {
                    return false;
                };
                // The host marks destinations by itself.
                if code != "true" {
                    self.line(&format!("{code};"));
                }
                true
            }
            // A peer would get the name of a variable without counterpart.
            ("append_to_reply", [line]) => match self.header(line) {
                Some((name, text)) => {
                    self.reply_headers
                        .push_str(&format!(".header({name:?}, {text})"));
                    true
                }
                None => false,
            },
            ("append_hf", [line, ..]) => match self.header(line) {
                Some((name, text)) => {
                    self.add_header(&name, &text);
                    true
                }
                None => false,
            },
            // The host refuses to remove a field that routing and dialogs depend on; without the removal, the request is another one.
            ("remove_hf", [_]) if literal(0).is_some_and(is_removable) => {
                self.line(&format!(
                    "edits::remove_header({:?});",
                    literal(0).unwrap_or_default()
                ));
                true
            }
            // The host removes its own values of Route.
            ("remove_hf", [_])
                if literal(0).is_some_and(|name| name.eq_ignore_ascii_case("route")) =>
            {
                for helper in [Helper::OtherRoutes, Helper::Myself, Helper::Untranslated] {
                    self.context.need(helper);
                }
                let mend = "the host removes its own values; where Route has another one, the policy answers 500 here";
                self.context.remark(place, "remove_hf(\"Route\")", mend);
                self.line("if has_other_routes() {");
                let what = "remove_hf(\"Route\")";
                self.line(&format!("    untranslated({}, {what:?})?;", place.line));
                self.line("}");
                true
            }
            ("setflag" | "setbflag" | "resetflag" | "resetbflag", [_]) => {
                let Some(flag) = self.context.flag(call) else {
                    return false;
                };
                if matches!(&*call.name, "setbflag" | "resetbflag") {
                    self.context.need(Helper::BranchFlags);
                }
                let change = match &*call.name {
                    "setflag" | "setbflag" => "set_flag",
                    _ => "reset_flag",
                };
                self.line(&format!("self.{change}({flag});"));
                true
            }
            ("t_on_failure", [_]) if self.context.has(Part::FailureRoute) => {
                let line = match literal(0) {
                    Some("0") => "self.failure_route.clear();".to_owned(),
                    name => match name.and_then(|name| self.routes.after_failure(name)) {
                        Some(function) => {
                            format!("self.failure_route = {function:?}.to_owned();")
                        }
                        None => return false,
                    },
                };
                self.line(&line);
                true
            }
            ("t_set_fr", [_] | [_, _]) if self.context.has(Part::Times) => {
                let milliseconds = |at: usize| literal(at).map(str::parse::<i64>);
                let times = [milliseconds(0), milliseconds(1)];
                let known = times.iter().flatten().filter(|time| time.is_ok());
                if known.count() != call.arguments.len() {
                    return false;
                }
                let names = [("ring", 1_000, 600_000), ("first", 100, 32_000)];
                for ((name, least, most), time) in names.into_iter().zip(times) {
                    match time {
                        // The value of the parameter.
                        Some(Ok(..=0)) => self.line(&format!("self.{name} = None;")),
                        Some(Ok(time)) => {
                            let time = time.clamp(least, most);
                            self.line(&format!("self.{name} = Some({time});"));
                        }
                        Some(Err(_)) | None => {}
                    }
                }
                true
            }
            // What these write leads back to the sender: here, its flow does.
            (
                "add_contact_alias" | "set_contact_alias" | "add_path" | "add_path_received"
                | "fix_nated_contact" | "fix_nated_register",
                _,
            ) if !self.is_after_failure => {
                self.line("flows::keep();");
                true
            }
            ("t_reset_fr", []) if self.context.has(Part::Times) => {
                self.line("self.ring = None;");
                self.line("self.first = None;");
                true
            }
            ("append_branch", []) => {
                self.line("self.append_branch(None);");
                self.has_target = true;
                true
            }
            // The second argument is the q of `t_load_contacts`.
            ("append_branch", [uri] | [uri, _]) => {
                let Some(uri) = self.argument(uri) else {
                    return false;
                };
                self.line(&format!("self.append_branch(Some({uri}));"));
                self.has_target = true;
                true
            }
            _ => self.rewrite(call),
        }
    }

    /// The name of a header field, and its value as a Rust expression; `None` if there is no counterpart.
    fn header(&mut self, line: &Expression) -> Option<(String, String)> {
        let (name, text) = header_of(line)?;
        let (text, unknown) = self.text(text);
        unknown.is_empty().then(|| (name.to_owned(), text))
    }

    /// Adds a header field whose value is this Rust expression. One that a failure route adds is for the targets that it names.
    fn add_header(&mut self, name: &str, value: &str) {
        let is_owned = value.starts_with("format!");
        if self.is_after_failure {
            let behind = if is_owned { "" } else { ".to_owned()" };
            self.line(&format!("self.add_header({name:?}, {value}{behind});"));
        } else {
            let begin = if is_owned { "&" } else { "" };
            self.line(&format!("edits::add_header({name:?}, {begin}{value});"));
        }
    }

    /// An argument in which variables may stand, as a Rust expression of type `&str`; `None` if there is a variable without counterpart.
    fn argument(&mut self, argument: &Expression) -> Option<String> {
        if let Term::Text(text) = &argument.term
            && text.contains('$')
        {
            let (format, arguments, unknown) = formatted(text, self.context);
            return unknown
                .is_empty()
                .then(|| format!("&format!({format:?}{arguments})"));
        }
        value(argument, self.context)?.as_argument()
    }

    /// Functions that change the request URI.
    fn rewrite(&mut self, call: &Call) -> bool {
        let [argument] = &call.arguments[..] else {
            let resets = matches!(&*call.name, "resetdsturi") && call.arguments.is_empty();
            if resets {
                self.line("self.destination = None;");
            }
            return resets;
        };
        if let Some(variable) = rewritten_by(&call.name) {
            // An argument has variables within its text; here, only texts without are translated, and single variables.
            let has_variables = matches!(&argument.term, Term::Text(text) if text.contains('$'));
            return !has_variables && self.set(variable, argument);
        }
        let user = "uri::user(&self.uri()).unwrap_or_default()";
        let changed = match (&*call.name, argument.literal()) {
            ("prefix", Some(prefix)) => {
                format!("format!(\"{}{{}}\", {user})", braced(prefix).escape_debug())
            }
            ("strip", Some(count)) => match count.parse::<u16>() {
                Ok(count) => format!("{user}.chars().skip({count}).collect::<String>()"),
                Err(_) => return false,
            },
            _ => return false,
        };
        self.line(&format!("let user = {changed};"));
        self.line("self.request_uri = Some(uri::with_user(&self.uri(), &user));");
        self.has_target = true;
        true
    }

    pub(super) fn assign(&mut self, variable: &str, value: &Expression, statement: &Statement) {
        if self.set(variable, value) {
            self.context.translated += 1;
            return;
        }
        // Where a call goes must not be wrong: without the new value, the policy does not go on.
        match is_private(variable) {
            true => self.leave(statement),
            false => self.close(statement),
        }
    }

    /// Writes the change of a variable. Returns false without a line if there is no counterpart.
    fn set(&mut self, name: &str, expression: &Expression) -> bool {
        let is_null = matches!(&expression.term, Term::Variable(null) if null == "$null");
        if is_null && matches!(name, "$du" | "$duri") {
            self.line("self.destination = None;");
            return true;
        }
        let Some(value) = value(expression, self.context).filter(|_| !is_null) else {
            return false;
        };
        if let Some(variable) = self.context.variables.get(name) {
            let code = match (variable.is_number, &value) {
                (true, Value::Number(code)) => code.clone(),
                (false, Value::Owned(_) | Value::Borrowed(_)) => value.as_owned(),
                (true, Value::Owned(_) | Value::Borrowed(_)) | (false, Value::Number(_)) => {
                    return false;
                }
            };
            let line = format!("self.{} = {code};", variable.field);
            self.line(&line);
            return true;
        }
        if matches!(value, Value::Number(_)) {
            return false;
        }
        // One that has never been set is `$null` there.
        let may_be_null = matches!(&expression.term, Term::Variable(of)
            if self.context.variables.contains_key(of) && !of.starts_with("$var("));
        match name {
            "$du" | "$duri" if may_be_null => {
                let code = value.as_owned();
                self.line(&format!(
                    "self.destination = Some({code}).filter(|place| !place.is_empty());"
                ));
                return true;
            }
            "$du" | "$duri" => {
                self.line(&format!("self.destination = Some({});", value.as_owned()));
            }
            "$ru" | "$ruri" => {
                self.line(&format!("self.request_uri = Some({});", value.as_owned()));
            }
            "$rU" => {
                self.line(&format!("let user = {};", value.as_owned()));
                self.line("self.request_uri = Some(uri::with_user(&self.uri(), &user));");
            }
            "$rd" => {
                self.line(&format!("let host = {};", value.as_owned()));
                self.line("self.request_uri = Some(uri::with_host(&self.uri(), &host));");
            }
            _ => return false,
        }
        self.has_target = true;
        true
    }

    /// Writes a log line of `xlog` and its kin.
    fn log(&mut self, name: &str, arguments: &[Expression], place: &Place) -> bool {
        let (level, text) = match (name, arguments) {
            ("xlog", [level, text]) => (level.literal().unwrap_or("L_ERR"), text),
            ("log", [level, text]) => (level.literal().unwrap_or("L_ERR"), text),
            (_, [text]) => ("", text),
            _ => return false,
        };
        let level = match (name, level) {
            ("xinfo" | "xnotice", _) | (_, "L_INFO" | "L_NOTICE" | "2" | "1") => "info",
            ("xwarn", _) | (_, "L_WARN" | "0") => "warn",
            ("xdbg", _) | (_, "L_DBG" | "3") => "debug",
            _ => "error",
        };
        let (Term::Text(text) | Term::Variable(text)) = &text.term else {
            return false;
        };
        let text = text.trim_end_matches(['\n', '\r']);
        let (format, arguments, unknown) = formatted(text, self.context);
        for name in unknown {
            let mend = "no counterpart: the log line has its name instead of its value";
            self.context.remark(place, &name, mend);
        }
        self.line(&format!("log::{level}!({format:?}{arguments});"));
        true
    }
}

/// `"Name: value\r\n"`
fn header_of(line: &Expression) -> Option<(&str, &str)> {
    let Term::Text(line) = &line.term else {
        return None;
    };
    let (name, value) = line.trim_end().split_once(':')?;
    let is_valid = is_header(name.trim()) && !value.contains(['\r', '\n']);
    is_valid.then_some((name.trim(), value.trim()))
}
