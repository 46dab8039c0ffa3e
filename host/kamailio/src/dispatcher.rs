//! Parameters of Kamailio's module `dispatcher`, each as a key of `[dispatcher]`, or with the reason why there is none.

mod pings;

use std::path::Path;

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place, excerpt};
use super::permissions::beside;
use super::statement::Value;

pub(super) use pings::Pings;

/// Translates one parameter.
pub(super) fn parameter(
    file: &Path,
    name: &str,
    value: &Value,
    place: &Place,
    pings: &mut Pings,
    draft: &mut Draft,
    findings: &mut Vec<Finding>,
) {
    if pings.parameter(name, value, place, draft, findings) {
        return;
    }
    let origin = || Origin::line(place);
    match (name, value.number()) {
        ("list_file", _) => {
            let path = beside(file, value.text());
            draft.set("dispatcher", "file", path, origin());
        }
        ("ds_probing_threshold" | "ds_probing_threshhold", Some(count @ 1..=100)) => {
            draft.set_number("dispatcher", "down-after", count, origin());
        }
        ("ds_inactive_threshold", Some(count @ 1..=100)) => {
            draft.set_number("dispatcher", "up-after", count, origin());
        }
        ("ds_hash_expire", Some(seconds @ 60..)) => {
            let time = format!("{seconds}s");
            draft.set("dispatcher", "longest-call", time, origin());
        }
        _ => match column_or_table(name) {
            Some(key) => draft.set("dispatcher", key, value.text(), origin()),
            None => {
                // A database URL contains a password.
                let shown = if name == "db_url" {
                    "…"
                } else {
                    value.text()
                };
                let what = format!("dispatcher: {name} = {}", excerpt(shown));
                findings.push(Finding::at(place, what, explanation(name)));
            }
        },
    }
}

fn column_or_table(name: &str) -> Option<&'static str> {
    Some(match name {
        "table_name" => "table",
        "setid_col" => "setid-col",
        "destination_col" => "destination-col",
        "flags_col" => "flags-col",
        "priority_col" => "priority-col",
        "attrs_col" => "attrs-col",
        _ => return None,
    })
}

/// What to know about a parameter without a counterpart, or with a value that has none.
fn explanation(name: &str) -> &'static str {
    match name {
        "db_url" => {
            "the table of the dispatcher is in the database of [database]: it must be the same one"
        }
        "flags" => {
            "bit 1 (failover) is always on; bit 0 (hash of the user only) has no counterpart: use the algorithm `key` with the user"
        }
        "use_default" => {
            "the last destination of a set is one like the others: give it the lowest priority, or name it with relay_to in the policy"
        }
        "force_dst" | "ds_default_socket" | "ds_default_sockname" => {
            "the host chooses the socket by the route to the destination"
        }
        "hash_pvar" | "ds_hash_pvar" => "the policy passes the text: Algorithm::Key(text)",
        "ds_hash_size" | "ds_hash_initexpire" | "ds_hash_check_interval" => {
            "calls are always counted, from the answer to the BYE: see `calls` in [dispatcher]"
        }
        "xavp_dst" | "xavp_dst_mode" | "xavp_ctx" | "xavp_ctx_mode" | "dst_avp" | "grp_avp"
        | "cnt_avp" | "dstid_avp" | "attrs_avp" | "sock_avp" | "setid_pvname" | "attrs_pvname" => {
            "no variable is needed: relay_to_set keeps the further destinations, which are tried after a failure"
        }
        "outbound_proxy" | "ds_timer_mode" | "event_callback" | "ds_latency_estimator_alpha" => {
            "no counterpart: see [dispatcher]"
        }
        "ds_attrs_none" | "ds_load_mode" | "ds_db_extra_attrs" | "reload_delta" => {
            "no counterpart; invalid rows are skipped and named"
        }
        "ds_dns_mode" | "ds_dns_interval" | "ds_dns_ttl" => {
            "not needed: the names of destinations are resolved in advance, and again by their TTLs ([resolver], docs/names.md)"
        }
        "ds_probing_threshold" | "ds_probing_threshhold" => {
            "not a number from 1 to 100: `down-after` in [dispatcher] is the number of failures"
        }
        "ds_inactive_threshold" => {
            "not a number from 1 to 100: `up-after` in [dispatcher] is the number of successes"
        }
        "ds_hash_expire" => {
            "not a number of seconds from 60: `longest-call` in [dispatcher] ends calls whose BYE never comes"
        }
        "ds_ping_interval" => "not a number of seconds: `ping` in [dispatcher]",
        "ds_probing_mode" => "not a number from 0 to 3: `probe` in [dispatcher]",
        _ => "this import does not know the parameter",
    }
}
