//! Parameters of Kamailio's module `tm`.

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place};
use super::statement::Value;

/// Translates one parameter.
pub(super) fn parameter(
    name: &str,
    value: &Value,
    place: &Place,
    draft: &mut Draft,
    findings: &mut Vec<Finding>,
) {
    match (name, value.number()) {
        // Milliseconds until the first final response after a provisional one: timer C.
        ("fr_inv_timer", Some(milliseconds @ 1..)) => {
            let value = format!("{milliseconds}ms");
            draft.set("relay", "ring", value, Origin::line(place));
        }
        // Milliseconds until the first response.
        ("fr_timer", Some(milliseconds @ 1..)) => {
            let remark = format!(
                "fr_timer = {milliseconds}: here for targets that another one follows; the last target has 32 s"
            );
            let value = format!("{}ms", milliseconds.clamp(100, 32_000));
            let origin = Origin::remark(place, remark);
            draft.set("relay", "no-answer", value, origin);
        }
        ("auto_inv_100", Some(0)) => {
            draft.set("relay", "trying", "never", Origin::line(place));
        }
        _ => {
            if let Some(mend) = explanation(name, value.number()) {
                findings.push(Finding::at(place, format!("tm: {name}"), mend));
            }
        }
    }
}

/// The value of `fr_timer` as the time of a target for its first response, in milliseconds; `None` if it is not a number above 0.
pub(super) fn time_of_a_target(value: &Value) -> Option<u32> {
    let milliseconds = value.number().filter(|number| *number > 0)?;
    u32::try_from(milliseconds.clamp(100, 32_000)).ok()
}

/// What to know about a parameter without a counterpart; `None` if there is nothing to do.
fn explanation(name: &str, number: Option<i64>) -> Option<&'static str> {
    let is_off = number == Some(0);
    Some(match name {
        "fr_inv_timer" | "fr_timer" => {
            "not a number of milliseconds: see `ring` and `no-answer` in [relay]"
        }
        "restart_fr_on_each_reply" if is_off => {
            "each response from 101 to 199 starts `ring` of [relay] again; an INVITE ends after 600 s at most, or after the `setup-limit` \
             of its tenant"
        }
        "max_inv_lifetime" => {
            "an INVITE ends after 600 s at most; a tenant's section can set a shorter `setup-limit`"
        }
        "max_noninv_lifetime" | "retr_timer1" | "retr_timer2" | "wt_timer" => {
            "the timers of RFC 3261 are used: T1 500 ms, T2 4 s, 32 s for what has ended"
        }
        "noisy_ctimer" if is_off => "an INVITE that no target answers is answered 408",
        "auto_inv_100_reason" => "the reason phrase of a 100 is Trying",
        "aggregate_challenges" if is_off => {
            "a 401 or 407 carries the challenges of all targets (RFC 3261 §16.7)"
        }
        "ac_extra_hdrs" => {
            "CANCEL and ACK carry the header fields that RFC 3261 names, and no others"
        }
        "failure_reply_mode" | "faked_reply_prio" | "reparse_on_dns_failover" => {
            "an answer of a target is always better than a failure of the host's own; answers of an earlier rank do not count once the next rank begins"
        }
        "failover_reply_codes"
        | "blst_503"
        | "blst_503_def_timeout"
        | "blst_503_min_timeout"
        | "blst_503_max_timeout"
        | "blst_methods_add"
        | "blst_methods_lookup" => {
            "a policy names the codes after which the next target is tried: .retry_on(codes). No target is kept out of use for a time"
        }
        "contacts_avp" | "contact_flows_avp" | "xavp_contact" | "fr_timer_avp"
        | "fr_inv_timer_avp" => {
            "a policy sets targets and their times itself: relay_to(\"a\").or(\"b\").within(time)"
        }
        "on_sl_reply" | "event_callback" | "event_callback_lres_sent" => {
            "no policy is called for responses, nor for requests that the host sends by itself"
        }
        "default_code" | "default_reason" => {
            "a policy names code and reason of each response; `on-failure` in [policy] names those for a policy call that fails"
        }
        "relay_100" if !is_off => "a 100 of a target is never passed on (RFC 3261 §16.7)",
        "rich_redirect" if !is_off => "a redirection is passed on as it came",
        "dns_reuse_rcv_socket" => {
            "a request is sent from the socket that received it, or, where transport or address family differ, from the first suitable one"
        }
        "local_ack_mode" | "disable_6xx_block" | "cancel_b_method" | "unmatched_cancel"
        | "remap_503_500" => "as RFC 3261 says: see docs/from-kamailio.md",
        _ => return None,
    })
}
