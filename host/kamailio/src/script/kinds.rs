//! What kind of function, variable or header field a name is.

use portcullis_sip::HeaderName;

use super::syntax::{Call, Expression, Term};
use super::values::is_header;

/// Whether a function changes where the request goes.
pub(super) fn changes_target(function: &str) -> bool {
    rewritten_by(function).is_some() || matches!(function, "prefix" | "strip" | "resetdsturi")
}

/// Whether a variable says where the request goes.
pub(super) fn is_target(variable: &str) -> bool {
    matches!(variable, "$du" | "$duri" | "$ru" | "$ruri" | "$rU" | "$rd")
}

/// The variable that a function of the core sets.
pub(super) fn rewritten_by(function: &str) -> Option<&'static str> {
    match function {
        "rewriteuri" | "seturi" => Some("$ru"),
        "rewritehost" | "sethost" => Some("$rd"),
        "rewriteuser" | "setuser" => Some("$rU"),
        "setdsturi" => Some("$du"),
        _ => None,
    }
}

/// Whether only the script sees the variable. An operand that reads it is not translated either.
pub(super) fn is_private(variable: &str) -> bool {
    const PRIVATE: [&str; 13] = [
        "$avp", "$var", "$vn", "$vz", "$xavp", "$xavu", "$xavi", "$dlg_var", "$dlg_ctx", "$shv",
        "$sht", "$null", "$rcv",
    ];
    let name = variable.split(['(', '[']).next().unwrap_or_default();
    PRIVATE.contains(&name)
}

/// Whether a function, as an operand of a condition, changes nothing.
pub(super) fn is_question(function: &str) -> bool {
    matches!(
        function,
        "check_route_param"
            | "has_body"
            | "has_totag"
            | "is_direction"
            | "is_first_hop"
            | "is_method"
            | "is_present_hf"
            | "is_reply"
            | "is_request"
            | "isbflagset"
            | "isdsturiset"
            | "isflagset"
            | "nat_uac_test"
            | "sdp_content"
            | "starts_with"
            | "strempty"
            | "t_is_branch_route"
            | "t_is_failure_route"
            | "t_is_set"
    )
}

/// What the author can do about a statement or an operand without counterpart, if that can be said.
pub(super) fn advice(text: &str) -> Option<&'static str> {
    if text.contains("$rs") {
        return Some(
            "empty in Kamailio, too, where a request is routed; $T_reply_code is the code of the best response",
        );
    }
    // A condition may stand in parentheses, and may be negated.
    let call = text.trim_start_matches(['(', '!', ' ']);
    let calls = |names: &[&str]| names.iter().any(|name| call.starts_with(name));
    if let Some((name, arguments)) = call.split_once('(')
        && is_reply(name)
        && arguments.trim_start_matches(['"', ' ']).starts_with('2')
    {
        return Some(
            "a policy gives no answer below 300, and the host itself answers OPTIONS that are for it, before it calls a policy",
        );
    }
    if calls(&["save(", "lookup(", "registered(", "reg_fetch_contacts("]) {
        return Some(
            "there is no registrar: name the server that keeps the locations in [relay.next-hops], and write return Err(relay_to(\"NAME\"))",
        );
    }
    if calls(&[
        "auth_check(",
        "auth_challenge(",
        "www_auth",
        "proxy_auth",
        "pv_auth",
    ]) {
        return Some(
            "there are no passwords here: allow addresses, or leave it to the server behind to challenge",
        );
    }
    if calls(&["ds_select_domain(", "ds_next_domain("]) {
        return Some(
            "a set leaves the request URI as it is. If the gateways accept that, write ds_select_dst and ds_next_dst in their place; if they need \
             their own host in it, name them in [relay.next-hops], and write relay_to(\"NAME\").request_uri(uri::with_host(…)) in the policy",
        );
    }
    if calls(&["ds_select_dst(", "ds_select(", "ds_select_routes("]) {
        return Some(
            "only sets and algorithms that are numbers are translated, and no algorithm 7 and 12; in the policy, write \
             relay_to_set(set, algorithm, limit)",
        );
    }
    None
}

/// Whether a policy may remove a header field.
pub(super) fn is_removable(name: &str) -> bool {
    is_header(name) && HeaderName::of(name.as_bytes()).may_be_edited()
}

/// Whether a function without counterpart neither decides nor changes where the request goes: media, accounting, timers, statistics, flags,
/// connections, and what is done to replies.
pub(super) fn is_harmless(function: &str) -> bool {
    const PREFIXES: [&str; 22] = [
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
        "set_forward_",
        "set_reply_",
        "t_reset_",
        "xavp_",
    ];
    const NAMES: [&str; 28] = [
        "add_rr_param",
        "append_to_reply",
        "append_hf",
        "insert_hf",
        "append_urihf",
        "add_contact_alias",
        "add_path",
        "add_path_received",
        "set_contact_alias",
        "msg_apply_changes",
        "mq_add",
        "setdebug",
        "set_advertised_address",
        "set_advertised_port",
        "t_on_branch",
        "t_on_branch_failure",
        "t_on_failure",
        "t_on_reply",
        "t_set_auto_inv_100",
        "t_set_disable_6xx",
        "t_set_disable_failover",
        "t_set_disable_internal_reply",
        "t_set_fr",
        "t_set_max_lifetime",
        "t_set_no_e2e_cancel_reason",
        "t_set_retr",
        "update_stat",
        "unforce_rtp_proxy",
    ];
    PREFIXES.iter().any(|prefix| function.starts_with(prefix)) || NAMES.contains(&function)
}

/// Whether a function reads its arguments only, whatever else it does. A name of a variable in another one may say where a result goes.
pub(super) fn reads_arguments(function: &str) -> bool {
    is_log(function)
        || is_reply(function)
        || is_relay(function)
        || is_question(function)
        || rewritten_by(function).is_some()
        || function.starts_with("allow_")
        || matches!(
            function,
            "append_branch" | "append_hf" | "append_to_reply" | "route"
        )
}

/// Whether a harmless function has a counterpart for some arguments.
pub(super) fn may_be_code(function: &str) -> bool {
    const NAMES: [&str; 8] = [
        "add_contact_alias",
        "add_path",
        "add_path_received",
        "append_hf",
        "append_to_reply",
        "set_contact_alias",
        "t_on_failure",
        "t_set_fr",
    ];
    const PREFIXES: [&str; 2] = ["fix_nated_", "t_reset_"];
    PREFIXES.iter().any(|prefix| function.starts_with(prefix)) || NAMES.contains(&function)
}

pub(super) fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
}

pub(super) fn is_relay(name: &str) -> bool {
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

/// The call in `if (t_relay())` and `if (!t_relay())`.
pub(super) fn relaying(tested: &Expression) -> Option<&Call> {
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

pub(super) fn is_reply(name: &str) -> bool {
    matches!(
        name,
        "sl_reply" | "sl_send_reply" | "send_reply" | "t_reply" | "t_send_reply"
    )
}

pub(super) fn is_log(name: &str) -> bool {
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
pub(super) fn is_built_in(name: &str) -> bool {
    let of_host = [
        "add_rport",
        "force_rport",
        // A request to a client follows its flow, which Route names.
        "handle_ruri_alias",
        "loose_route",
        "mf_process_maxfwd_header",
        "pike_check_req",
        "record_route",
        "record_route_preset",
        "sanity_check",
        "sl_reply_error",
        "t_check_trans",
        "t_drop_replies",
        "t_newtran",
        "t_precheck_trans",
        "t_relay_cancel",
    ];
    of_host.contains(&name)
}
