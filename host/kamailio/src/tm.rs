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
            if let Some(mend) = explanation(name) {
                findings.push(Finding::at(place, format!("tm: {name}"), mend));
            }
        }
    }
}

/// What to know about a parameter without a counterpart; `None` if there is nothing to do.
fn explanation(name: &str) -> Option<&'static str> {
    Some(match name {
        "fr_inv_timer" | "fr_timer" => {
            "not a number of milliseconds: see `ring` and `no-answer` in [relay]"
        }
        "max_inv_lifetime" => {
            "an INVITE ends after 600 s at most; a tenant's section can set a shorter `setup-limit`"
        }
        "max_noninv_lifetime" | "retr_timer1" | "retr_timer2" | "wt_timer" => {
            "the timers of RFC 3261 are used: T1 500 ms, T2 4 s, 32 s for what has ended"
        }
        "failure_reply_mode" | "faked_reply_prio" | "reparse_on_dns_failover" => {
            "an answer of a target is always better than a failure of the host's own; answers of an earlier rank do not count once the next rank begins"
        }
        "failover_reply_codes" | "blst_503" | "blst_methods_add" | "blst_methods_lookup" => {
            "a policy names the codes after which the next target is tried: .retry_on(codes)"
        }
        "contacts_avp" | "contact_flows_avp" | "fr_timer_avp" | "fr_inv_timer_avp"
        | "unix_tx_timeout" | "on_sl_reply" | "event_callback" => {
            "a policy sets targets and their times itself: relay_to(\"a\").or(\"b\").within(time)"
        }
        "local_ack_mode" | "disable_6xx_block" | "cancel_b_method" | "unmatched_cancel"
        | "remap_503_500" => "as RFC 3261 says: see docs/from-kamailio.md",
        _ => return None,
    })
}
