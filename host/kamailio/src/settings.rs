//! Core parameters of Kamailio: `name = value` outside of the routing logic.

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place, excerpt};
use super::statement::Value;

/// Names of parameters that are not translated, with their lines: one finding for each kind.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    not_needed: Vec<String>,
    unknown: Vec<String>,
}

impl LeftOut {
    /// Two findings at most.
    pub(super) fn findings(self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.not_needed.is_empty() {
            let what = format!(
                "settings without a counterpart: {}",
                self.not_needed.join(", ")
            );
            findings.push(Finding::whole(what, "nothing to do"));
        }
        if !self.unknown.is_empty() {
            let what = format!(
                "settings that this import does not know: {}",
                self.unknown.join(", ")
            );
            let mend = "see whether the policy or the configuration needs what they say";
            findings.push(Finding::whole(what, mend));
        }
        findings
    }
}

/// Translates one parameter.
pub(super) fn setting(
    name: &str,
    value: &Value,
    place: &Place,
    draft: &mut Draft,
    findings: &mut Vec<Finding>,
    left_out: &mut LeftOut,
) {
    match name {
        "debug" => match value.number() {
            Some(level) => {
                let level = log_level(level);
                draft.set("log", "level", level, Origin::line(place));
            }
            None => left_out.unknown.push(format!("{name} ({})", place.short())),
        },
        "children" | "socket_workers" => {
            let remark = format!(
                "{name} = {}: a worker never waits, so one for each core is enough",
                value.text()
            );
            let remark = super::finding::excerpt(&remark);
            draft.set("", "workers", "auto", Origin::remark(place, remark));
        }
        "server_header" => {
            // Kamailio's value is the whole header line.
            let text = value.text().trim();
            let header = match text.split_once(':') {
                Some((name, rest)) if name.trim().eq_ignore_ascii_case("server") => rest.trim(),
                _ => text,
            };
            draft.set("sip", "server-header", header, Origin::line(place));
        }
        "force_rport" if is_off(value) => {}
        "force_rport" => draft.switch_on("sip", "force-rport", Origin::line(place)),
        "server_signature" if value.number() == Some(0) => {
            draft.set("sip", "server-header", String::new(), Origin::line(place));
        }
        "tcp_max_connections" => match value.number() {
            Some(most) => {
                let key = "tcp-max-connections";
                draft.set_number("sip", key, most, Origin::line(place));
            }
            None => left_out.unknown.push(format!("{name} ({})", place.short())),
        },
        "dns_try_naptr" if is_off(value) => {
            draft.switch_off("resolver", "naptr", Origin::line(place));
        }
        "dns_try_naptr" => draft.switch_on("resolver", "naptr", Origin::line(place)),
        // As this host does.
        "dns_srv_lb" | "dns_srv_loadbalancing" if !is_off(value) => {}
        "use_dns_failover" => {
            let most = if is_off(value) { 1 } else { 4 };
            draft.set_number("resolver", "addresses", most, Origin::line(place));
        }
        "dns_try_ipv6" if is_off(value) => {
            draft.set("resolver", "families", "ipv4", Origin::line(place));
        }
        "version_table" => draft.set(
            "database",
            "version-table",
            value.text(),
            Origin::line(place),
        ),
        // Read before: they apply to all listen lines.
        "port" | "disable_tcp" | "enable_tls" | "tls_enable" | "disable_tls" | "tls_disable"
        | "tls_port_no" | "advertised_address" | "advertised_port" | "run_dir" | "rundir" => {}
        _ => match explanation(name, value) {
            Some(mend) => {
                let what = format!("{name} = {}", excerpt(value.text()));
                findings.push(Finding::at(place, what, mend));
            }
            None if is_not_needed(name) => {
                left_out
                    .not_needed
                    .push(format!("{name} ({})", place.short()));
            }
            None => left_out.unknown.push(format!("{name} ({})", place.short())),
        },
    }
}

/// Writes the keys that keep what Kamailio does with names unless it is told otherwise.
pub(super) fn keep_defaults_of_names(draft: &mut Draft) {
    if !draft.has("resolver", "naptr") {
        let remark =
            "as Kamailio without dns_try_naptr; true lets NAPTR records choose the transport";
        draft.switch_off("resolver", "naptr", Origin::none(remark));
    }
    if !draft.has("resolver", "addresses") {
        let remark = "as Kamailio without use_dns_failover; 4 tries further addresses of a name";
        draft.set_number("resolver", "addresses", 1, Origin::none(remark));
    }
}

/// Whether the value switches something off.
fn is_off(value: &Value) -> bool {
    value.number() == Some(0)
}

/// Kamailio's levels: -1 errors, 0 warnings, 1 notices, 2 information, 3 debugging.
fn log_level(debug: i64) -> &'static str {
    match debug {
        ..=-1 => "error",
        0 => "warn",
        1 | 2 => "info",
        3.. => "debug",
    }
}

/// What to do about a parameter that is meaningful here but has no key.
fn explanation(name: &str, value: &Value) -> Option<&'static str> {
    let is_on = value.number() != Some(0);
    Some(match name {
        "mhomed" if is_on => {
            "the socket is not chosen by the route to the next hop: a relayed request leaves from the socket that it came to, \
             or where transport or address family differ from the first fitting one in `listen`"
        }
        "tcp_accept_haproxy" if is_on => {
            "name the addresses of the load balancers in `proxy-protocol` of [streams]: their connections begin with PROXY headers, and no others do (docs/load-balancers.md)"
        }
        "enable_sctp" if value.number() == Some(1) => "SCTP is not served",
        "user" | "uid" | "group" | "gid" => {
            "portcullis serve keeps the user it is started as: name it in the service's unit"
        }
        "tos" => {
            "datagrams are sent without a mark: set it with the firewall if the network needs one"
        }
        "ip_free_bind" | "ipfreebind" | "ip_nonlocal_bind" if is_on => {
            "an address that the machine does not have cannot be listened on: set net.ipv4.ip_nonlocal_bind"
        }
        "auto_bind_ipv6" if is_on => {
            "name the IPv6 addresses in `listen`: \"udp:[::]:5060\" stands for all"
        }
        "cfgengine" => {
            "the routing logic is in another language: look there for KSR.permissions.* and write it as a policy"
        }
        "user_agent_header" => {
            "requests of the host itself, which ping gateways, have no User-Agent: not needed"
        }
        "udp4_raw" if is_on => "not needed: datagrams are sent in batches",
        _ => return None,
    })
}

/// Parameters of processes, memory, timers and sockets that the host does not need.
fn is_not_needed(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "tcp_",
        "tls_",
        "sctp_",
        "dns_",
        "use_dns_",
        "dst_blacklist_",
        "dst_blocklist_",
        "mem_",
        "shm",
        "rt_",
        "pv_",
        "latency_",
        "log_",
        "async_",
        "mcast",
    ];
    const NAMES: &[&str] = &[
        "fork",
        "fork_delay",
        "modinit_delay",
        "log_stderror",
        "memlog",
        "memdbg",
        "corelog",
        "core_log",
        "disable_core_dump",
        "open_files_limit",
        "mlock_pages",
        "real_time",
        "chroot",
        "workdir",
        "wdir",
        "exit_timeout",
        "ser_kill_timeout",
        "auto_aliases",
        "rev_dns",
        "dns",
        "maxbuffer",
        "sql_buffer_size",
        "statistics",
        "sip_warning",
        "check_via",
        "server_id",
        "route_locks_size",
        "msg_time",
        "onsend_route_reply",
        "max_while_loops",
        "reply_to_via",
        "http_reply_parse",
        "http_reply_hack",
        "phone2tel",
        "xavp_via_params",
        "xavp_via_fields",
        "pmtu_discovery",
        "max_branches",
        "max_recursive_level",
        "verbose_startup",
        "bind_ipv6_link_local",
        "stats_name_separator",
        "use_dst_blacklist",
        "use_dst_blocklist",
        "mpath",
        "loadpath",
        "mhomed",
        "enable_sctp",
        "disable_sctp",
        "server_signature",
        "udp4_raw",
    ];
    const OFF: &[&str] = &[
        "auto_bind_ipv6",
        "ip_free_bind",
        "ipfreebind",
        "ip_nonlocal_bind",
        "udp4_raw_mtu",
        "udp4_raw_ttl",
    ];
    NAMES.contains(&name)
        || OFF.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
