//! Parameters of Kamailio's modules `websocket`, `nathelper`, `path` and `outbound`, each as a key, or with the reason why there is none.

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place, excerpt};
use super::statement::Value;

/// The modules.
pub(super) const MODULES: [&str; 4] = ["websocket", "nathelper", "path", "outbound"];

/// Translates one parameter of one of [`MODULES`].
pub(super) fn parameter(
    module: &str,
    name: &str,
    value: &Value,
    place: &Place,
    draft: &mut Draft,
    findings: &mut Vec<Finding>,
) {
    let mend = match module {
        "websocket" => match (name, value.number()) {
            ("keepalive_timeout", Some(seconds @ 1..)) => {
                if !draft.has("websocket", "ping") {
                    let time = format!("{seconds}s");
                    draft.set("websocket", "ping", time, Origin::line(place));
                }
                return;
            }
            ("keepalive_mechanism", Some(0)) => {
                let origin = Origin::remark(place, "no pings");
                draft.set("websocket", "ping", "0s", origin);
                return;
            }
            ("keepalive_mechanism", Some(1)) => return,
            _ => of_websocket(name),
        },
        "nathelper" => match (name, value.number()) {
            ("natping_interval", Some(seconds @ 1..=3600)) => {
                let remark = "clients over UDP, from their registration on";
                let origin = Origin::remark(place, remark);
                draft.set("nat", "ping", format!("{seconds}s"), origin);
                return;
            }
            ("natping_interval", Some(0)) => {
                draft.set("nat", "ping", "0s", Origin::line(place));
                return;
            }
            _ => of_nathelper(name),
        },
        "path" => of_path(name),
        _ => of_outbound(name),
    };
    // A secret stays where it is.
    let shown = match name {
        "flow_token_secret" => "…",
        _ => value.text(),
    };
    let what = format!("{module}: {name} = {}", excerpt(shown));
    findings.push(Finding::at(place, what, mend));
}

fn of_websocket(name: &str) -> &'static str {
    match name {
        "keepalive_mechanism" => "clients are pinged with ping frames, as with 1",
        "keepalive_timeout" => {
            "not a number above 0: `ping` in [websocket] is the time of silence before a ping"
        }
        "keepalive_interval" | "keepalive_processes" | "timer_interval" | "rm_delay_interval" => {
            "not needed: each connection has its own timer, and is removed when it ends"
        }
        "ping_application_data" => "pings have data of the host's own",
        "sub_protocols" => "the only protocol is sip",
        "cors_mode" => {
            "not needed: browsers do not ask for CORS before they open a WebSocket; `origins` in [websocket] lists whose pages may connect"
        }
        "verbose_list" => {
            "`portcullis tls connections` lists those over TLS; `portcullis_connections_open` counts all"
        }
        "event_callback" => "no event of a connection calls a policy",
        _ => "this import does not know the parameter",
    }
}

fn of_nathelper(name: &str) -> &'static str {
    match name {
        "natping_interval" => {
            "not a number from 0 to 3600: `ping` in [nat] is the time between two pings of a client"
        }
        "ping_nated_only" | "natping_disable_bflag" | "sipping_bflag" => {
            "registered clients over UDP are pinged, all of them with OPTIONS: the policy path-nat makes only phones behind NAT clients (docs/nat.md)"
        }
        "sipping_from" | "sipping_method" => {
            "a ping is an OPTIONS from sip:keepalive@HOST, the host of the socket"
        }
        "keepalive_timeout" => {
            "a client that has not answered three pings is not pinged until it registers again: its contact is the registrar's"
        }
        "natping_processes" | "natping_socket" | "udpping_from_path" | "filter_server_id" => {
            "each worker pings, along the flow of the registration"
        }
        "received_avp" => {
            "the registrar gets the flow in Path, and no received address: it needs use_path (docs/nat.md)"
        }
        "force_socket" => "requests to a phone leave by the flow that it opened",
        "nortpproxy_str" | "append_sdp_oldmediaip" => {
            "media is not relayed, and SDP is not changed"
        }
        "alias_name" => "Contact is left alone: Path and Record-Route lead back to the flow",
        "nat_addr_mode" => {
            "[nat] says by listen address or group who is a client, and not by the address in a header field"
        }
        _ => "this import does not know the parameter",
    }
}

fn of_path(name: &str) -> &'static str {
    match name {
        "use_received" | "received_format" | "received_name" => {
            "the flow of a client in [nat] is sealed in the user part of the Path URI, in place of a received parameter"
        }
        "enable_r2" => "where transports differ, each side has its own value, as with 1",
        "sockname_mode" => "the socket is in the sealed flow",
        _ => "this import does not know the parameter",
    }
}

fn of_outbound(name: &str) -> &'static str {
    match name {
        "flow_token_secret" => {
            "flows are sealed with the key of the host: `key-file` in [sip] names its file, the same for all hosts of a fleet"
        }
        "force_outbound_flag" | "force_no_outbound_flag" => {
            "[nat] says who is a client; each of them gets a flow, whether it asks for outbound or not"
        }
        _ => "this import does not know the parameter",
    }
}
