//! The page for operators, module by module.

use super::*;

const PAGE: &str = include_str!("../../../../docs/from-kamailio.md");

/// A module of Kamailio 5.6.3: its parameters, and its functions and commands.
type Module = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const MODULES: [Module; 7] = [
    (
        "dispatcher",
        &[
            "list_file",
            "db_url",
            "table_name",
            "setid_col",
            "destination_col",
            "flags_col",
            "priority_col",
            "attrs_col",
            "force_dst",
            "flags",
            "use_default",
            "xavp_dst",
            "xavp_dst_mode",
            "xavp_ctx",
            "xavp_ctx_mode",
            "hash_pvar",
            "setid_pvname",
            "attrs_pvname",
            "ds_ping_method",
            "ds_ping_from",
            "ds_ping_interval",
            "ds_probing_threshold",
            "ds_inactive_threshold",
            "ds_ping_reply_codes",
            "ds_probing_mode",
            "ds_ping_latency_stats",
            "ds_latency_estimator_alpha",
            "ds_hash_size",
            "ds_hash_expire",
            "ds_hash_initexpire",
            "ds_hash_check_interval",
            "outbound_proxy",
            "ds_default_socket",
            "ds_default_sockname",
            "ds_timer_mode",
            "event_callback",
            "ds_attrs_none",
            "ds_db_extra_attrs",
            "ds_load_mode",
            "reload_delta",
            "ds_dns_mode",
            "ds_dns_interval",
            "ds_dns_ttl",
        ],
        &[
            "ds_select_dst",
            "ds_select_domain",
            "ds_select",
            "ds_select_routes",
            "ds_next_dst",
            "ds_next_domain",
            "ds_set_dst",
            "ds_set_domain",
            "ds_mark_dst",
            "ds_list_exists",
            "ds_is_from_list",
            "ds_is_active",
            "ds_load_update",
            "ds_load_unset",
            "ds_reload",
            "dispatcher.list",
        ],
    ),
    (
        "tls",
        &[
            "tls_method",
            "certificate",
            "private_key",
            "ca_list",
            "ca_path",
            "crl",
            "verify_certificate",
            "verify_depth",
            "require_certificate",
            "cipher_list",
            "server_name",
            "connection_timeout",
            "tls_disable_compression",
            "ssl_release_buffers",
            "ssl_freelist_max_len",
            "ssl_max_send_fragment",
            "ssl_read_ahead",
            "send_close_notify",
            "con_ct_wq_max",
            "ct_wq_max",
            "ct_wq_blk_size",
            "tls_log",
            "tls_debug",
            "low_mem_threshold1",
            "low_mem_threshold2",
            "tls_force_run",
            "session_cache",
            "session_id",
            "renegotiation",
            "xavp_cfg",
            "event_callback",
            "rand_engine",
            "engine",
            "engine_config",
            "engine_algorithms",
            "verify_client",
        ],
        &[
            "is_peer_verified",
            "tls_set_connect_server_id",
            "tls.info",
            "tls.list",
            "tls.options",
            "tls.reload",
        ],
    ),
    (
        "websocket",
        &[
            "keepalive_mechanism",
            "keepalive_timeout",
            "keepalive_processes",
            "keepalive_interval",
            "ping_application_data",
            "sub_protocols",
            "cors_mode",
            "verbose_list",
            "event_callback",
            "timer_interval",
            "rm_delay_interval",
        ],
        &[
            "ws_handle_handshake",
            "ws_close",
            "ws.dump",
            "ws.close",
            "ws.ping",
            "ws.pong",
            "ws.disable",
            "ws.enable",
        ],
    ),
    (
        "nathelper",
        &[
            "force_socket",
            "natping_interval",
            "ping_nated_only",
            "natping_processes",
            "natping_socket",
            "received_avp",
            "sipping_bflag",
            "sipping_from",
            "sipping_method",
            "natping_disable_bflag",
            "nortpproxy_str",
            "keepalive_timeout",
            "udpping_from_path",
            "append_sdp_oldmediaip",
            "filter_server_id",
            "nat_addr_mode",
            "alias_name",
        ],
        &[
            "fix_nated_contact",
            "fix_nated_sdp",
            "add_rcv_param",
            "fix_nated_register",
            "nat_uac_test",
            "is_rfc1918",
            "add_contact_alias",
            "handle_ruri_alias",
            "set_contact_alias",
            "set_alias_to_pv",
            "nathelper.enable_ping",
        ],
    ),
    (
        "path",
        &[
            "use_received",
            "received_format",
            "received_name",
            "enable_r2",
            "sockname_mode",
        ],
        &["add_path", "add_path_received"],
    ),
    (
        "outbound",
        &[
            "force_outbound_flag",
            "force_no_outbound_flag",
            "flow_token_secret",
        ],
        &[],
    ),
    (
        "pike",
        &[
            "sampling_time_unit",
            "reqs_density_per_unit",
            "remove_latency",
            "pike_log_level",
        ],
        &["pike_check_req", "pike_check_ip", "pike.top"],
    ),
];

/// The part of the page below the heading with this text, up to the next heading.
fn section(heading: &str) -> &'static str {
    let start = format!("# {heading}\n");
    let (_, behind) = PAGE
        .split_once(&start)
        .unwrap_or_else(|| panic!("the page has no section {heading}"));
    behind.split("\n#").next().unwrap_or(behind)
}

#[test]
fn each_module_of_the_edge_is_on_the_page_and_known_to_the_import() {
    for (module, parameters, functions) in MODULES {
        let heading = if module == "tls" { "TLS" } else { module };
        let section = section(heading);
        for name in parameters.iter().chain(functions) {
            let is_there = section.contains(&format!("`{name}`"))
                || section.contains(&format!("`{name}("))
                // The commands are in a table of their own, in which names share a prefix.
                || name.contains('.') && PAGE.contains(&format!("`{name}`"));
            assert!(is_there, "{module}: {name} is not in its section");
        }
        for name in parameters {
            let import = imported(&format!("modparam(\"{module}\", \"{name}\", \"x\")"));
            let said = said(&import).concat();
            assert!(!said.contains("does not know"), "{module}: {name}: {said}");
        }
        let import = imported(&format!("modparam(\"{module}\", \"nonsense\", \"x\")"));
        let said = said(&import).concat();
        assert!(said.contains("does not know"), "{module}: {said}");
    }
}
