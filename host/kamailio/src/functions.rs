//! The names of functions in a routing logic that the import recognises.

/// The module's functions.
pub(super) const FUNCTIONS: [&str; 9] = [
    "allow_source_address",
    "allow_source_address_group",
    "allow_address",
    "allow_address_group",
    "allow_trusted",
    "allow_routing",
    "allow_register",
    "allow_register_include_port",
    "allow_uri",
];

/// The core functions that send every response to the source port, and their newer name.
const FORCE_RPORT: [&str; 2] = ["force_rport", "add_rport"];

/// Functions of `nathelper` and `path`: sealed flows in Path and Record-Route replace them.
pub(super) const FLOWS: &[&str] = &[
    "add_contact_alias",
    "add_path",
    "add_path_received",
    "fix_nated_contact",
    "fix_nated_register",
    "handle_ruri_alias",
    "nat_uac_test",
    "set_contact_alias",
];

/// Functions of `tm` and `tmx`, and `append_branch` of the core, that a policy or the configuration replaces.
pub(super) const TM: &[&str] = &[
    "append_branch",
    "t_any_replied",
    "t_any_timeout",
    "t_branch_replied",
    "t_branch_timeout",
    "t_cancel_branches",
    "t_cancel_callid",
    "t_check_status",
    "t_continue",
    "t_drop",
    "t_drop_replies",
    "t_forward_nonack",
    "t_forward_nonack_sctp",
    "t_forward_nonack_tcp",
    "t_forward_nonack_tls",
    "t_forward_nonack_udp",
    "t_get_status_code",
    "t_grep_status",
    "t_is_canceled",
    "t_is_expired",
    "t_load_contacts",
    "t_next_contact_flow",
    "t_next_contacts",
    "t_on_branch",
    "t_on_branch_failure",
    "t_on_failure",
    "t_on_reply",
    "t_relay",
    "t_relay_to",
    "t_relay_to_sctp",
    "t_relay_to_tcp",
    "t_relay_to_tls",
    "t_relay_to_udp",
    "t_replicate",
    "t_reply",
    "t_reply_callid",
    "t_reset_fr",
    "t_reset_max_lifetime",
    "t_reset_retr",
    "t_send_reply",
    "t_set_auto_inv_100",
    "t_set_disable_6xx",
    "t_set_disable_failover",
    "t_set_disable_internal_reply",
    "t_set_fr",
    "t_set_max_lifetime",
    "t_set_no_e2e_cancel_reason",
    "t_set_retr",
    "t_suspend",
    "t_uac_send",
];

/// Functions of `tm` and `tmx` whose work the host does for each request that is relayed.
pub(super) const TM_BUILT_IN: &[&str] = &[
    "t_check_trans",
    "t_clean",
    "t_flush_flags",
    "t_flush_xflags",
    "t_is_branch_route",
    "t_is_failure_route",
    "t_is_reply_route",
    "t_is_request_route",
    "t_is_retr_async_reply",
    "t_is_set",
    "t_lookup_cancel",
    "t_lookup_request",
    "t_newtran",
    "t_precheck_trans",
    "t_relay_cancel",
    "t_release",
    "t_retransmit_reply",
    "t_reuse_branch",
    "t_save_lumps",
    "t_use_uac_headers",
];

/// The function with this name, if it is translated.
pub(super) fn function(word: &str) -> Option<&'static str> {
    let all = FUNCTIONS.iter().chain(&FORCE_RPORT);
    let mut all = all.chain(FLOWS).chain(TM).chain(TM_BUILT_IN);
    all.find(|name| **name == word).copied()
}

/// Whether it is one of those of `tm` and `tmx`.
pub(super) fn is_of_tm(function: &str) -> bool {
    TM.contains(&function) || TM_BUILT_IN.contains(&function)
}

/// Whether it is one that flows replace.
pub(super) fn is_of_flows(function: &str) -> bool {
    FLOWS.contains(&function)
}

/// Whether it is one of the functions replaced by `force-rport` of `[sip]`.
pub(super) fn forces_rport(function: &str) -> bool {
    FORCE_RPORT.contains(&function)
}

/// Whether a line of text names one of the functions.
pub(super) fn is_named_in(line: &str) -> bool {
    FUNCTIONS.iter().any(|name| line.contains(name))
}

/// Whether the function reads allow and deny files.
pub(super) fn reads_files(function: &str) -> bool {
    matches!(
        function,
        "allow_routing" | "allow_register" | "allow_register_include_port" | "allow_uri"
    )
}
