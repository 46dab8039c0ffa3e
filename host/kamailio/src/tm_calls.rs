//! The calls of Kamailio's modules `tm`, `tmx`, `nathelper` and `path` in a routing logic, and what replaces them in a policy or in the
//! configuration.

use super::finding::{Finding, Place, excerpt};
use super::functions;
use super::statement::Value;

/// The calls so far. Those with the same replacement become one finding.
#[derive(Clone, Debug, Default)]
pub(super) struct TmCalls {
    replaced: Vec<Replaced>,
}

/// Calls with the same replacement.
#[derive(Clone, Debug)]
struct Replaced {
    /// The calls as written, each form once.
    calls: Vec<String>,
    mend: String,
    /// The places of all of them, in order.
    places: Vec<Place>,
}

impl TmCalls {
    /// Notes a call.
    pub(super) fn call(&mut self, function: &str, arguments: &[Value], place: &Place) {
        let mend = replacement(function, arguments);
        // The arguments of a built-in function do not matter.
        let call = match functions::TM_BUILT_IN.contains(&function) {
            true => format!("{function}()"),
            false => as_written(function, arguments),
        };
        let known = self.replaced.iter_mut().find(|known| known.mend == mend);
        let Some(known) = known else {
            return self.replaced.push(Replaced {
                calls: vec![call],
                mend,
                places: vec![place.clone()],
            });
        };
        if !known.calls.contains(&call) {
            known.calls.push(call);
        }
        known.places.push(place.clone());
    }

    /// One finding for each replacement, at the place of its first call.
    pub(super) fn findings(self) -> impl Iterator<Item = Finding> {
        self.replaced.into_iter().filter_map(Replaced::finding)
    }
}

impl Replaced {
    fn finding(self) -> Option<Finding> {
        /// Places that are named beside the first one.
        const NAMED: usize = 5;
        let (first, others) = self.places.split_first()?;
        let mut what = self.calls.join(", ");
        if !others.is_empty() {
            let named: Vec<_> = others.iter().take(NAMED).map(Place::short).collect();
            what += &format!(" (also {}", named.join(", "));
            if let Some(more @ 1..) = others.len().checked_sub(NAMED) {
                what += &format!(" and {more} more");
            }
            what.push(')');
        }
        Some(Finding::at(first, what, self.mend))
    }
}

/// What stands in a policy or in the configuration in place of a call.
fn replacement(function: &str, arguments: &[Value]) -> String {
    let constant = match function {
        "t_relay" if arguments.is_empty() => {
            "in the policy, return relay(), or relay_to(\"NAME\") for a next hop of [relay.next-hops]"
        }
        "t_relay"
        | "t_relay_to"
        | "t_relay_to_udp"
        | "t_relay_to_tcp"
        | "t_relay_to_tls"
        | "t_relay_to_sctp"
        | "t_forward_nonack"
        | "t_forward_nonack_udp"
        | "t_forward_nonack_tcp"
        | "t_forward_nonack_tls"
        | "t_forward_nonack_sctp" => {
            "in the policy, return relay_to(\"NAME\"), with NAME = \"sip:HOST:PORT\" in [relay.next-hops], and \";transport=tcp\" for TCP"
        }
        "t_on_failure" => return on_failure(arguments),
        "t_on_branch_failure" => {
            "in the policy, name the codes after which the next target has its turn: .retry_on(codes); a function is called only when \
             all targets have failed: policy!(decide, on_failure: NAME)"
        }
        "t_on_branch" => {
            "in the policy, change the request for one target with .request_uri(uri) and .header(name, value), and for all with \
             edits::add_header and edits::remove_header"
        }
        "t_on_reply" => {
            "no policy is called for responses: they are returned as they came; force-rport of [sip] does part of what such a route does for \
             phones behind NAT"
        }
        "append_branch" | "t_load_contacts" | "t_next_contacts" | "t_next_contact_flow" => {
            "in the policy, relay_to(\"a\").and(\"b\") or fork(list) for targets at once, .or(\"c\") or in_turn(list) for one after the \
             other; after a failure, again(relay_to(\"d\"))"
        }
        "t_set_fr" => return times(arguments),
        "t_reset_fr" => {
            "not needed: a target without .ring_for(time) and .within(time) has the times of [relay]"
        }
        "t_set_max_lifetime" | "t_reset_max_lifetime" => {
            "a request ends after 600 s at most; a tenant's section can set a shorter `setup-limit`"
        }
        "t_set_retr" | "t_reset_retr" => {
            "the timers of RFC 3261 are used for all requests: T1 500 ms, T2 4 s"
        }
        "t_set_auto_inv_100" => "for all requests, see `trying` in [relay]",
        "t_check_status" | "t_branch_timeout" | "t_branch_replied" | "t_any_timeout"
        | "t_any_replied" | "t_grep_status" | "t_get_status_code" => {
            "in the policy's on_failure, outcome::best() has the status and the cause of the best response, outcome::attempts() those of \
             each target; to only try the next target after some codes, .retry_on(codes) is enough"
        }
        "t_is_canceled" | "t_is_expired" => {
            "not needed: on_failure is not called after a CANCEL, nor after the time limit of the whole transaction"
        }
        "t_reply" | "t_send_reply" => return answer(arguments),
        "t_drop_replies" => {
            "not needed: responses of earlier targets do not count once the next target has its turn"
        }
        "t_set_disable_6xx" => {
            "no counterpart: after a response from 600 on, no other target is tried (RFC 3261 §16.7)"
        }
        "t_set_disable_failover" => "not needed: only the targets that the policy names are tried",
        "t_set_disable_internal_reply" => {
            "no counterpart: every request other than ACK is answered, or times out at its sender"
        }
        "t_set_no_e2e_cancel_reason" => {
            "no counterpart: a CANCEL is sent on with its Reason header field"
        }
        "t_replicate" => {
            "no counterpart: a request is not sent to places whose responses are ignored"
        }
        "t_uac_send" => {
            "no counterpart: the host sends no requests of its own but pings to gateways"
        }
        "t_suspend" | "t_continue" => {
            "no counterpart: a policy decides at once, from what is in memory"
        }
        "t_cancel_branches" | "t_cancel_callid" | "t_reply_callid" | "t_drop" => {
            "no counterpart in a policy: the host cancels what is not needed any more; tm.cancel, for kamcmd and others, ends a call"
        }
        "add_contact_alias" | "set_contact_alias" | "fix_nated_contact" => {
            "name the listen addresses of phones in `clients` of [nat], or write flows::keep() in the policy: a sealed flow in Record-Route leads \
             back to the phone, and Contact is left alone; no ;alias= is written (docs/nat.md)"
        }
        "handle_ruri_alias" => {
            "not needed: the Route with the sealed flow leads to the phone, whatever the request URI is; ;alias= is not followed, because anybody can \
             write one (docs/nat.md)"
        }
        "fix_nated_register" | "add_path" | "add_path_received" => {
            "name the listen addresses of phones in `clients` of [nat], or write flows::keep() in the policy: REGISTER gets Path with the sealed \
             flow, which the registrar must keep: use_path (docs/nat.md)"
        }
        "nat_uac_test" => {
            "the policy path-nat keeps the flows of phones behind NAT; with `clients` of [nat], all peers of a listen address are clients \
             (docs/nat.md)"
        }
        _ => "built in: the host keeps the transaction of each request that is relayed",
    };
    constant.to_owned()
}

/// The replacement of `t_on_failure("NAME")`.
fn on_failure(arguments: &[Value]) -> String {
    let named = arguments
        .first()
        .filter(|name| !matches!(name, Value::Variable(_)));
    let route = named.map_or("", Value::text);
    let mut function: String = route
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_lowercase(),
            false => '_',
        })
        .collect();
    if function.is_empty() || function.starts_with(|c: char| c.is_ascii_digit()) {
        function.insert_str(0, "on_");
    }
    let route = match route {
        "" => "the failure_route".to_owned(),
        route => format!("failure_route[{route}]"),
    };
    format!(
        "in the policy, write policy!(decide, on_failure: {function}), and {route} as fn {function}() -> NextStep, which is called when \
         all targets have failed; a policy has one such function, and .memo(bytes) can say which of several routes applies"
    )
}

/// The replacement of `t_set_fr(ring, first)`, in milliseconds. 0 stands for the value of the parameter.
fn times(arguments: &[Value]) -> String {
    let time = |at: usize, least: i64, most: i64| {
        let value = arguments.get(at)?;
        match value.number() {
            Some(0) => None,
            Some(time) => Some(time.clamp(least, most).to_string()),
            None => Some("…".to_owned()),
        }
    };
    let ring = time(0, 1_000, 600_000);
    let first = time(1, 100, 32_000);
    let methods: String = [("ring_for", ring), ("within", first)]
        .into_iter()
        .filter_map(|(method, time)| Some(format!(".{method}(Duration::from_millis({}))", time?)))
        .collect();
    match methods.is_empty() {
        true => "not needed: `ring` and `no-answer` in [relay] apply".to_owned(),
        false => {
            format!("in the policy, append {methods} to the target: relay_to(\"NAME\"){methods}")
        }
    }
}

/// The replacement of `t_reply(code, reason)`.
fn answer(arguments: &[Value]) -> String {
    let literal =
        |value: &Value| !matches!(value, Value::Variable(_)) && !value.text().contains('$');
    let (code, reason) = match arguments {
        [code, reason] if literal(code) && code.number().is_some() && literal(reason) => {
            (code.text(), format!("{:?}", reason.text()))
        }
        _ => ("code", "reason".to_owned()),
    };
    format!(
        "in the policy, return reject({code}, {reason}); in on_failure, answer({code}, {reason})"
    )
}

fn as_written(function: &str, arguments: &[Value]) -> String {
    let arguments: Vec<_> = arguments.iter().map(Value::as_written).collect();
    excerpt(&format!("{function}({})", arguments.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn place(line: usize) -> Place {
        Place {
            file: Path::new("k.cfg").into(),
            line,
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn word(text: &str) -> Value {
        Value::Word(text.into())
    }

    /// The findings of these calls, one on each line.
    fn said(calls: &[(&str, &[Value])]) -> Vec<String> {
        let mut all = TmCalls::default();
        for (line, (function, arguments)) in (1..).zip(calls) {
            all.call(function, arguments, &place(line));
        }
        all.findings().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_failure_route_becomes_a_function() {
        let said = said(&[("t_on_failure", &[text("MANAGE-FAILURE")])]);
        assert_eq!(
            said,
            [
                "k.cfg:1: t_on_failure(\"MANAGE-FAILURE\"): in the policy, write policy!(decide, on_failure: manage_failure), and \
                 failure_route[MANAGE-FAILURE] as fn manage_failure() -> NextStep, which is called when all targets have failed; a policy \
                 has one such function, and .memo(bytes) can say which of several routes applies"
            ]
        );
        for unnamed in [&[][..], &[Value::Variable("$var(x)".into())], &[word("1")]] {
            let mend = on_failure(unnamed);
            assert!(mend.contains("on_failure: on_"), "{mend}");
        }
    }

    #[test]
    fn times_are_within_the_bounds_of_a_target() {
        assert_eq!(
            times(&[text("30000"), word("4000")]),
            "in the policy, append .ring_for(Duration::from_millis(30000)).within(Duration::from_millis(4000)) to the target: \
             relay_to(\"NAME\").ring_for(Duration::from_millis(30000)).within(Duration::from_millis(4000))"
        );
        assert!(
            times(&[word("0"), word("10")])
                .contains("append .within(Duration::from_millis(100)) to")
        );
        assert!(
            times(&[word("900000")]).contains("append .ring_for(Duration::from_millis(600000)) to")
        );
        assert!(
            times(&[Value::Variable("$var(t)".into())])
                .contains(".ring_for(Duration::from_millis(…))")
        );
        assert!(times(&[word("0")]).starts_with("not needed"));
        assert!(times(&[]).starts_with("not needed"));
    }

    #[test]
    fn an_answer_has_its_code_and_reason() {
        let mend = answer(&[text("404"), text("Not found")]);
        assert!(mend.contains("reject(404, \"Not found\")"), "{mend}");
        assert!(mend.contains("answer(404, \"Not found\")"), "{mend}");
        for variable in [
            &[text("$var(code)"), text("x")][..],
            &[Value::Variable("$var(code)".into()), text("x")],
            &[],
        ] {
            assert!(answer(variable).contains("reject(code, reason)"));
        }
    }

    #[test]
    fn calls_with_the_same_replacement_are_one_finding() {
        let calls: Vec<(&str, &[Value])> = vec![("t_relay", &[]); 8];
        assert_eq!(
            said(&calls),
            [
                "k.cfg:1: t_relay() (also k.cfg:2, k.cfg:3, k.cfg:4, k.cfg:5, k.cfg:6 and 2 more): in the policy, return relay(), or \
                 relay_to(\"NAME\") for a next hop of [relay.next-hops]"
            ]
        );
        let built_in = said(&[
            ("t_newtran", &[]),
            ("t_is_set", &[text("failure_route")]),
            ("t_newtran", &[]),
        ]);
        assert_eq!(
            built_in,
            [
                "k.cfg:1: t_newtran(), t_is_set() (also k.cfg:2, k.cfg:3): built in: the host keeps the transaction of each request \
                 that is relayed"
            ]
        );
    }

    #[test]
    fn each_function_has_a_replacement_of_its_own() {
        for name in functions::TM {
            let mend = replacement(name, &[]);
            assert!(!mend.starts_with("built in"), "{name}: {mend}");
        }
        for name in functions::TM_BUILT_IN {
            assert!(replacement(name, &[]).starts_with("built in"), "{name}");
        }
    }
}
