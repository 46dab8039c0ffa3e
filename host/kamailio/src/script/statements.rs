//! Statements of a script as Rust.
//!
//! A reply or a relay is the policy's decision, so it ends the function: `return Err(verdict)`. Kamailio goes on behind it; log lines that
//! follow are written before it, and anything else that Kamailio would do is a remark.

use portcullis_sip::HeaderName;

use crate::finding::Place;

use super::conditions::condition;
use super::context::{Context, Helper};
use super::routes::Routes;
use super::syntax::{Action, Call, Expression, Statement, Term};
use super::values::{Value, braced, formatted, is_header, value};

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
}

impl<'c> Writer<'c> {
    /// Writes the body of a route; `rest` is what follows its calls.
    pub(super) fn body(
        statements: &[Statement],
        rest: Rest,
        routes: &'c Routes,
        context: &'c mut Context,
    ) -> String {
        let mut writer = Self {
            routes,
            context,
            lines: String::new(),
            depth: 1,
            reply_headers: String::new(),
        };
        writer.depth += usize::from(writer.context.is_stateful);
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
        match relaying(tested) {
            // What follows a failure of the relay is up to the host.
            Some(call) => self.call(call, statement, behind, rest),
            None => self.chain("if", tested, [then, otherwise], rest),
        }
    }

    /// `if … else if … else …`; `begin` is what precedes the condition.
    fn chain(
        &mut self,
        begin: &str,
        tested: &Expression,
        [then, otherwise]: [&[Statement]; 2],
        rest: Rest,
    ) -> bool {
        let code = condition(tested, self.routes, self.context);
        self.context.translated += 1;
        // What the host has checked before.
        if begin == "if" && matches!(&*code, "true" | "false") {
            let taken = if code == "true" { then } else { otherwise };
            return self.block(taken, rest);
        }
        self.line(&format!("{begin} {code} {{"));
        let then_ends = self.inner(then, rest);
        if otherwise.is_empty() {
            self.line("}");
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
        self.depth += 1;
        let ends = self.block(statements, rest);
        self.depth -= 1;
        self.reply_headers = headers;
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

    /// Ends the function with a verdict.
    fn decide(
        &mut self,
        verdict: &str,
        statement: &Statement,
        behind: &[Statement],
        rest: Rest,
    ) -> bool {
        for next in behind {
            let Action::Call(call) = &next.action else {
                break;
            };
            if is_log(&call.name) {
                self.context.translated += usize::from(self.effect(call, &next.place));
            } else if !is_built_in(&call.name) {
                break;
            }
        }
        if rest == Rest::Acts {
            self.context.remark(
                &statement.place,
                &statement.text,
                "Kamailio goes on behind this; the policy's decision ends here",
            );
        }
        self.line(&format!("return Err({verdict});"));
        true
    }

    /// A verdict that relays; `None` if it cannot be translated.
    fn relay(&self, call: &Call) -> Option<String> {
        let own = format!("{}relay()", self.context.receiver());
        let literals: Option<Vec<_>> = call.arguments.iter().map(Expression::literal).collect();
        match (&*call.name, &literals?[..]) {
            ("t_relay" | "t_relay_to" | "forward", []) => Some(own),
            (name, [host, rest @ ..]) if is_host(host) && name != "t_relay_to" => {
                let port = match rest {
                    [] => String::new(),
                    [port] => format!(":{}", port.parse::<u16>().ok()?),
                    _ => return None,
                };
                let transport = match name {
                    "t_relay_to_tcp" | "forward_tcp" => ";transport=tcp",
                    _ => "",
                };
                let uri = format!("sip:{host}{port}{transport}");
                Some(match self.context.is_stateful {
                    true => format!("self.relay_by({uri:?})"),
                    false => format!("relay_to_uri({uri:?})"),
                })
            }
            _ => None,
        }
    }

    fn reply(&mut self, call: &Call, statement: &Statement) -> Decision {
        let headers = self.reply_headers.clone();
        let [code, reason @ ..] = &call.arguments[..] else {
            return Decision::Unknown;
        };
        let code = match code.literal().and_then(|code| code.parse::<u16>().ok()) {
            // The host sends provisional responses itself.
            Some(0..200) => return Decision::Provisional,
            Some(code @ 300..=699) => code,
            Some(_) | None => return Decision::Unknown,
        };
        if code < 400 {
            let mend = "Kamailio adds the request URI as Contact: add .header(\"Contact\", …) in the policy";
            self.context.remark(&statement.place, &statement.text, mend);
        }
        let reason = match reason {
            [] => Some("\"\"".to_owned()),
            [
                Expression {
                    term: Term::Text(text) | Term::Word(text) | Term::Variable(text),
                    ..
                },
            ] => Some(self.text(text)),
            _ => None,
        };
        match reason {
            Some(reason) => Decision::Verdict(format!("reject({code}, {reason}){headers}")),
            None => Decision::Unknown,
        }
    }

    /// Writes a call that decides nothing. Returns false without a line if there is no counterpart.
    fn effect(&mut self, call: &Call, place: &Place) -> bool {
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
            ("append_to_reply", [line]) => match header_of(line) {
                Some((name, text)) => {
                    let text = self.text(text);
                    self.reply_headers
                        .push_str(&format!(".header({name:?}, {text})"));
                    true
                }
                None => false,
            },
            ("append_hf", [line, ..]) => match header_of(line) {
                Some((name, text)) => {
                    let text = self.text(text);
                    let begin = if text.starts_with("format!") { "&" } else { "" };
                    self.line(&format!("edits::add_header({name:?}, {begin}{text});"));
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
            _ => self.rewrite(call),
        }
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
        true
    }

    fn assign(&mut self, variable: &str, value: &Expression, statement: &Statement) {
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
        if matches!(value, Value::Number(_)) {
            return false;
        }
        match name {
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

    /// The Rust expression of a text with variables.
    fn text(&mut self, text: &str) -> String {
        let (format, arguments, _) = formatted(text, self.context);
        match arguments.is_empty() {
            true => format!("{text:?}"),
            false => format!("format!({format:?}{arguments})"),
        }
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
        self.context.need(Helper::Untranslated);
        self.context.leave(
            &statement.place,
            &statement.text,
            "no counterpart: the policy answers 500 here",
        );
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

/// The call in `if (t_relay())` and `if (!t_relay())`.
fn relaying(tested: &Expression) -> Option<&Call> {
    let term = match tested {
        Expression {
            term: Term::Not(inner),
            ..
        } => &inner.term,
        tested => &tested.term,
    };
    let Term::Call(call) = term else {
        return None;
    };
    is_relay(&call.name).then_some(call)
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

/// `"Name: value\r\n"`
fn header_of(line: &Expression) -> Option<(&str, &str)> {
    let Term::Text(line) = &line.term else {
        return None;
    };
    let (name, value) = line.trim_end().split_once(':')?;
    let is_valid = is_header(name.trim()) && !value.contains(['\r', '\n']);
    is_valid.then_some((name.trim(), value.trim()))
}

/// Whether a script changes where the request goes.
pub(super) fn changes_target(statements: &[Statement]) -> bool {
    statements.iter().any(|statement| match &statement.action {
        Action::If {
            then, otherwise, ..
        } => changes_target(then) || changes_target(otherwise),
        Action::Block(inner) => changes_target(inner),
        Action::Call(call) => changes_target_by(&call.name),
        Action::Assign { variable, .. } => is_target(variable),
        Action::Exit | Action::Return(_) | Action::Other => false,
    })
}

fn changes_target_by(function: &str) -> bool {
    rewritten_by(function).is_some() || matches!(function, "prefix" | "strip" | "resetdsturi")
}

fn is_target(variable: &str) -> bool {
    matches!(variable, "$du" | "$duri" | "$ru" | "$ruri" | "$rU" | "$rd")
}

/// The variable that a function of the core sets.
fn rewritten_by(function: &str) -> Option<&'static str> {
    match function {
        "rewriteuri" | "seturi" => Some("$ru"),
        "rewritehost" | "sethost" => Some("$rd"),
        "rewriteuser" | "setuser" => Some("$rU"),
        "setdsturi" => Some("$du"),
        _ => None,
    }
}

/// Whether only the script sees the variable. An operand that reads it is not translated either.
fn is_private(variable: &str) -> bool {
    const PRIVATE: [&str; 13] = [
        "$avp", "$var", "$vn", "$vz", "$xavp", "$xavu", "$xavi", "$dlg_var", "$dlg_ctx", "$shv",
        "$sht", "$null", "$rcv",
    ];
    let name = variable.split(['(', '[']).next().unwrap_or_default();
    PRIVATE.contains(&name)
}

/// Whether a policy may remove a header field.
fn is_removable(name: &str) -> bool {
    is_header(name) && HeaderName::of(name.as_bytes()).may_be_edited()
}

/// Whether a function without counterpart neither decides nor changes where the request goes: media, accounting, timers, statistics, flags, and
/// what is done to replies.
fn is_harmless(function: &str) -> bool {
    const PREFIXES: [&str; 20] = [
        "acc_",
        "avp_",
        "cnxcc_",
        "dlg_",
        "fix_nated_",
        "hep_",
        "pv_",
        "reset_",
        "resetbflag",
        "resetflag",
        "rtpengine_",
        "rtpproxy_",
        "setbflag",
        "setflag",
        "sht_",
        "sip_trace",
        "siptrace",
        "statsd_",
        "t_reset_",
        "xavp_",
    ];
    const NAMES: [&str; 24] = [
        "add_rr_param",
        "append_to_reply",
        "append_hf",
        "insert_hf",
        "append_urihf",
        "add_contact_alias",
        "set_contact_alias",
        "msg_apply_changes",
        "mq_add",
        "setdebug",
        "set_advertised_address",
        "set_advertised_port",
        "t_drop_replies",
        "t_on_branch",
        "t_on_branch_failure",
        "t_on_failure",
        "t_on_reply",
        "t_set_auto_inv_100",
        "t_set_disable_6xx",
        "t_set_fr",
        "t_set_max_lifetime",
        "t_set_retr",
        "update_stat",
        "unforce_rtp_proxy",
    ];
    PREFIXES.iter().any(|prefix| function.starts_with(prefix)) || NAMES.contains(&function)
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
}

fn is_relay(name: &str) -> bool {
    matches!(
        name,
        "t_relay"
            | "t_relay_to"
            | "t_relay_to_udp"
            | "t_relay_to_tcp"
            | "forward"
            | "forward_udp"
            | "forward_tcp"
    )
}

fn is_reply(name: &str) -> bool {
    matches!(
        name,
        "sl_reply" | "sl_send_reply" | "send_reply" | "t_reply" | "t_send_reply"
    )
}

fn is_log(name: &str) -> bool {
    matches!(
        name,
        "xlog"
            | "log"
            | "xalert"
            | "xbug"
            | "xcrit"
            | "xerr"
            | "xwarn"
            | "xnotice"
            | "xinfo"
            | "xdbg"
    )
}

/// What the host does for every request.
fn is_built_in(name: &str) -> bool {
    let of_host = [
        "add_rport",
        "force_rport",
        "loose_route",
        "mf_process_maxfwd_header",
        "record_route",
        "record_route_preset",
        "sanity_check",
        "sl_reply_error",
        "t_check_trans",
        "t_newtran",
        "t_precheck_trans",
        "t_relay_cancel",
    ];
    of_host.contains(&name)
}
