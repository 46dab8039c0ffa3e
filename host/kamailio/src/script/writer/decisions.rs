//! Calls that decide: relays and replies.

use super::super::context::Part;
use super::super::kinds::{is_built_in, is_host, is_log};
use super::super::syntax::{Action, Call, Expression, Statement, Term};
use super::{Decision, Rest, Writer};

impl Writer<'_> {
    /// Ends the function with a verdict.
    pub(super) fn decide(
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

    /// Ends the function with a relay if there is a target that has not failed. Otherwise Kamailio's relay fails, and the script goes on.
    pub(super) fn decide_with_target(
        &mut self,
        verdict: &str,
        statement: &Statement,
        behind: &[Statement],
        rest: Rest,
    ) {
        self.line("if self.has_target() {");
        self.depth += 1;
        // What follows is translated again, behind the block.
        let translated = self.context.translated;
        self.decide(verdict, statement, behind, rest);
        self.context.translated = translated;
        self.depth -= 1;
        self.line("}");
    }

    /// A verdict that relays; `None` if it cannot be translated.
    pub(super) fn relay(&self, call: &Call) -> Option<String> {
        let own = format!("{}relay()", self.context.receiver());
        let literals: Option<Vec<_>> = call.arguments.iter().map(Expression::literal).collect();
        match (&*call.name, &literals?[..]) {
            ("t_relay" | "t_relay_to" | "forward", []) => Some(own),
            // Kamailio sends the branches there, too.
            (_, [_, ..]) if self.context.has(Part::Branches) => None,
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
                Some(match self.context.is_stateful() {
                    true => format!("self.relay_by({uri:?})"),
                    false => format!("relay_to_uri({uri:?})"),
                })
            }
            _ => None,
        }
    }

    pub(super) fn reply(&mut self, call: &Call, statement: &Statement) -> Decision {
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
            // This function takes a variable or a text, in which a variable is not replaced.
            [
                Expression {
                    term: Term::Text(text),
                    ..
                },
            ] if call.name == "t_reply" => Some(format!("{text:?}")),
            [
                Expression {
                    term: Term::Text(text) | Term::Word(text) | Term::Variable(text),
                    ..
                },
            ] => {
                let (text, unknown) = self.text(text);
                for name in unknown {
                    let mend =
                        "no counterpart: the reason phrase has its name instead of its value";
                    self.context.remark(&statement.place, &name, mend);
                }
                Some(text)
            }
            _ => None,
        };
        match reason {
            Some(reason) => Decision::Verdict(format!("reject({code}, {reason}){headers}")),
            None => Decision::Unknown,
        }
    }
}
