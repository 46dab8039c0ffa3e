//! Flags, variables, tables, and what most configurations begin with.

use super::tests::{main_route, said, translated};

#[test]
fn what_most_configurations_begin_with_decides_as_in_kamailio() {
    let script = translated(
        r#"
        request_route {
            set_reply_no_connect();
            if (!pike_check_req()) { exit; }
            if (has_totag()) { exit; }
            remove_hf("Route");
            route(RELAY);
        }
        route[RELAY] {
            if (is_method("INVITE|SUBSCRIBE")) {
                if (!t_is_set("branch_route")) t_on_branch("MANAGE");
            }
            if (is_method("INVITE")) {
                if (!t_is_set("failure_route")) t_on_failure("MANAGE");
            }
            if (!t_relay()) { sl_reply_error(); }
            exit;
        }
        failure_route[MANAGE] { if (t_is_canceled()) exit; }
        "#,
    );
    for part in [
        "// k.cfg:3: not translated: set_reply_no_connect();\n        if request::has_to_tag() {\n",
        "        if has_other_routes() {\n            untranslated(6, \"remove_hf(\\\"Route\\\")\")?;\n        }\n",
        "// k.cfg:11: not translated: if (!t_is_set(\"branch_route\")) t_on_branch(\"MANAGE\");\n",
        "            if self.failure_route.is_empty() {\n                self.failure_route = \"failure_manage\".to_owned();\n",
        "\nfn has_other_routes() -> bool {\n",
        "\nfn is_myself(place: &str) -> bool {\n",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
    // Only a Route of somebody else is answered 500.
    assert_eq!(script.source.matches("untranslated(").count(), 2);
    assert_eq!((script.left, script.closed), (2, 0), "{:?}", said(&script));
}

#[test]
fn a_condition_without_counterpart_is_left_out_only_where_nothing_depends_on_it() {
    for (text, is_left_out) in [
        ("if (check_route_param(\"nat=yes\")) setbflag(6);", true),
        (
            "if (sdp_content() && $xavp(a=>b) == 1) { $avp(x) = 1; rtpengine_manage(); } else acc_log_request(\"x\");",
            true,
        ),
        (
            "if (is_first_hop()) { if (isflagset(X)) setbflag(6); }",
            true,
        ),
        // The function may do something.
        ("if (!save(\"location\")) setflag(1);", false),
        ("if (sdp_content()) exit;", false),
        ("if (sdp_content()) append_hf(\"X: 1\\r\\n\");", false),
        ("if (sdp_content()) xlog(\"first\\n\");", false),
    ] {
        let lines = main_route(&format!("{text}\nt_relay();"));
        let comment = "// k.cfg:2: not translated: if (";
        let is_comment = lines.iter().any(|line| line.starts_with(comment));
        assert_eq!(is_comment, is_left_out, "{text}: {lines:?}");
    }
}

#[test]
fn flags_that_are_read_are_kept() {
    let script = translated(
        "request_route { setflag(1); setflag(5); setbflag(6); if (isflagset(5) && !isbflagset(6)) exit; resetflag(5); t_relay(); }",
    );
    for part in [
        "        // k.cfg:1: not translated: setflag(1);\n        self.set_flag(5);\n        self.set_flag(BRANCH + 6);\n",
        "        if self.has_flag(5) && !self.has_flag(BRANCH + 6) {\n",
        "        self.reset_flag(5);\n",
        "    flags: u64,\n",
        "\nconst BRANCH: u32 = 32;\n",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
    assert_eq!(script.left, 1);
    // Without a question, nothing depends on them.
    assert!(
        !translated("request_route { setflag(5); t_relay(); }")
            .source
            .contains("flags")
    );
}

#[test]
fn a_flag_that_something_else_may_change_is_not_kept() {
    for text in [
        "setflag(FLT_A); if (isflagset(5)) exit; t_relay(); }",
        "setbflag(6, 1); if (isbflagset(6)) exit; t_relay(); }",
        "setflag(5); t_on_failure(\"F\"); t_relay(); } failure_route[F] { if (isflagset(5)) exit; }\n\
         onreply_route { while (1) { resetflag(5); break; } }",
        "setbflag(6); append_branch(\"sip:a@b\"); t_on_failure(\"F\"); t_relay(); } failure_route[F] { if (isbflagset(6)) exit; }",
    ] {
        let script = translated(&format!("request_route {{ {text}"));
        assert!(
            script.source.contains("if untranslated(1, \"(is"),
            "{text}\n{}",
            script.source
        );
    }
}

#[test]
fn variables_are_fields() {
    let script = translated(
        r#"
        request_route {
            $var(tries) = 0;
            $var(tries) = $var(tries) + 1;
            $avp(s:prefix) = "+49";
            if ($rU =~ "^0") { $avp(s:prefix) = "+4" + "9" + $rU; }
            $var(place) = "sip:" + $avp(s:prefix) + "@10.0.0.7";
            if ($var(tries) > 3 || !$var(tries) || $avp(s:prefix) == $null) { exit; }
            xlog("L_INFO", "to $var(place)\n");
            $du = $var(place);
            t_relay();
        }
        "#,
    );
    for part in [
        "    /// `$avp(s:prefix)`\n    avp_s_prefix: String,\n",
        "    /// `$var(tries)`\n    var_tries: i64,\n",
        "        self.var_tries = 0;\n        self.var_tries = i64::wrapping_add(self.var_tries, 1);\n",
        "        self.avp_s_prefix = \"+49\".to_string();\n",
        "        self.var_place = format!(\"sip:{}@10.0.0.7\", self.avp_s_prefix.clone());\n",
        "        if self.var_tries > 3 || self.var_tries == 0 || self.avp_s_prefix.clone() == \"\" {\n",
        "        log::info!(\"to {}\", self.var_place.clone());\n",
        "        self.destination = Some(self.var_place.clone());\n",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
    assert_eq!((script.left, said(&script)), (0, Vec::new()));
}

#[test]
fn a_destination_that_has_never_been_set_is_none() {
    let script = translated(
        "request_route { if (has_body()) $avp(gw) = \"sip:192.0.2.7\"; $du = $avp(gw); t_on_failure(\"F\"); t_relay(); }\n\
         failure_route[F] { $du = $avp(gw); t_relay(); t_reply(\"480\", \"No\"); }",
    );
    let line = "self.destination = Some(self.avp_gw.clone()).filter(|place| !place.is_empty());";
    assert_eq!(script.source.matches(line).count(), 2, "{}", script.source);
    // Without a target, the relay of a failure route fails.
    let relay = "        if self.has_target() {\n            return Err(self.relay());\n        }\n        return Err(reject(480";
    assert!(script.source.contains(relay), "{}", script.source);
}

#[test]
fn a_variable_whose_value_is_not_known_is_not_kept() {
    for text in [
        // The result of a function, and what depends on it.
        "$var(x) = $rc; if ($var(x) == 1) exit;",
        "$var(y) = $rc; $var(x) = $var(y); if ($var(x) == 1) exit;",
        // A function may set it.
        "$avp(x) = \"a\"; avp_subst(\"$avp(x)\", \"/a/b/\"); if ($avp(x) == \"a\") exit;",
        // Numbers and texts.
        "$var(x) = 1; $var(x) = \"a\"; if ($var(x) == 1) exit;",
        // One that has never been set is no number.
        "$avp(x) = 1; if ($avp(x) == 1) exit;",
        "$avp(x) = \"a\"; $avp(x) = $null; if ($avp(x) == \"a\") exit;",
        "$var(x) = \"a\"; if ($var(x) == $null) exit;",
        // An empty text is not $null.
        "$avp(x) = \"\"; if ($avp(x) == $null) exit;",
        "$avp(y) = $rU + \"\"; $avp(x) = $avp(y); if ($avp(x) != $null) exit;",
        // One variable with two names, and names that are values.
        "$avp(s:x) = \"a\"; $avp(x) = \"b\"; if ($avp(s:x) == \"a\") exit;",
        "$avp(x) = \"a\"; $avp($var(n)) = \"b\"; if ($avp(x) == \"a\") exit;",
        // It loads what a database has.
        "$avp(x) = \"a\"; avp_db_load(\"$fu\", \"*\"); if ($avp(x) == \"a\") exit;",
        // The failure route is another call.
        "$var(x) = \"a\"; if ($var(x) == \"a\") exit; t_on_failure(\"F\"); t_relay(); } failure_route[F] { if ($var(x) == \"a\") exit;",
    ] {
        let script = translated(&format!("request_route {{ {text} t_relay(); }}"));
        assert!(
            script.source.contains("if untranslated(1, "),
            "{text}\n{}",
            script.source
        );
    }
    for text in [
        "modparam(\"permissions\", \"peer_tag_avp\", \"$avp(x)\")\n\
         request_route { $avp(x) = \"a\"; if ($avp(x) == \"a\") exit; t_relay(); }",
        "modparam(\"auth_db\", \"load_credentials\", \"$avp(s:x)=email;rpid\")\n\
         request_route { $avp(x) = \"a\"; if ($avp(x) == \"a\") exit; t_relay(); }",
        "onreply_route { while (1) { $avp(x) = \"b\"; break; } }\n\
         request_route { $avp(x) = \"a\"; if ($avp(x) == \"a\") exit; t_on_failure(\"F\"); t_relay(); } failure_route[F] { if ($avp(x) == \"a\") exit; }",
    ] {
        let script = translated(text);
        assert!(
            script.source.contains("if untranslated(2, "),
            "{text}\n{}",
            script.source
        );
    }
}

#[test]
fn what_is_known_of_every_request_is_no_question() {
    let script = translated(
        r#"
        pstn.gw_ip = "192.0.2.9" desc "gateway"
        pstn.gw_port = "" desc "port"
        request_route {
            if (!is_request() || is_reply() || t_is_branch_route() || !t_newtran()) { exit; }
            if (isdsturiset()) { exit; }
            if (is_first_hop() && strempty($sel(cfg_get.pstn.gw_port)) && starts_with("$rU", "00")) { exit; }
            $ru = "sip:" + $rU + "@" + $sel(cfg_get.pstn.gw_ip);
            if (strempty($sel(cfg_get.pstn.other))) { exit; }
            t_relay();
        }
        "#,
    );
    for part in [
        "    fn request_route(&mut self) -> Route {\n        if self.destination.is_some() {\n",
        "        if is_first_hop() && \"\".is_empty() && uri::user(&self.uri()).unwrap_or_default().starts_with(\"00\") {\n",
        "        self.request_uri = Some(format!(\"sip:{}@{}\", uri::user(&self.uri()).unwrap_or_default(), \"192.0.2.9\"));\n",
        "        if untranslated(9, \"(strempty($sel(cfg_get.pstn.other)))\")? {\n",
        "\nfn is_first_hop() -> bool {\n",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
    assert_eq!((script.left, script.closed), (1, 1));
}

#[test]
fn floods_are_left_to_the_guard() {
    let flood = |more: &str| {
        translated(&format!(
            "modparam(\"htable\", \"htable\", \"ipban=>size=8;autoexpire=300;\")\n\
             request_route {{ if (src_ip != myself) {{ if ($sht(ipban=>$si) != $null) {{ exit; }}\n\
             if (!pike_check_req()) {{ $sht(ipban=>$si) = 1; exit; }} }} {more} t_relay(); }}"
        ))
    };
    let script = flood("");
    let said = said(&script);
    assert!(
        said[0].contains("$sht(ipban=>$si): taken as $null"),
        "{said:?}"
    );
    assert!(said[1].contains("pike_check_req(): true"), "{said:?}");
    assert!(
        !script.source.contains("untranslated("),
        "{}",
        script.source
    );
    // What is empty then is left out.
    let line = "fn request_route() -> Route {\n    return Err(relay());\n}\n";
    assert!(script.source.ends_with(line), "{}", script.source);
    assert_eq!(script.left, 0);
    for more in [
        "if (has_totag()) { $sht(ipban=>$si) = 1; }",
        "sht_lock(\"ipban=>x\");",
        "sql_pvquery(\"c\", \"q\", \"$sht(ipban=>$si)\");",
        "$var(x) = $shtinc(ipban=>$si);",
        "xlog(\"$shtinc(ipban=>$si)\\n\");",
    ] {
        let script = flood(more);
        assert!(
            script.source.contains("if untranslated(2, "),
            "{more}\n{}",
            script.source
        );
    }
}

#[test]
fn a_table_may_have_values_without_an_assignment() {
    for options in ["initval=1;", "dmqreplicate=1;", "dbtable=bans;"] {
        let script = translated(&format!(
            "modparam(\"htable\", \"htable\", \"ipban=>size=8;{options}\")\n\
             request_route {{ if ($sht(ipban=>$si) != $null) {{ exit; }} t_relay(); }}"
        ));
        assert!(
            script.source.contains("if untranslated(2, "),
            "{options}\n{}",
            script.source
        );
    }
}

#[test]
fn what_only_seems_to_be_known_is_a_question() {
    for text in [
        // The destination of a set is one, too.
        "ds_select_dst(\"1\", \"4\"); if (isdsturiset()) exit;",
        "if (starts_with(\"$rU$fU\", \"00\")) exit;",
    ] {
        let script = translated(&format!("request_route {{ {text} t_relay(); }}"));
        assert!(
            script.source.contains("if untranslated(1, "),
            "{text}\n{}",
            script.source
        );
    }
}

#[test]
fn cases_are_conditions() {
    let lines = main_route(
        "switch ($rU) {\ncase \"100\":\ncase \"101\": xlog(\"a\\n\"); break;\ncase \"102\": exit;\ndefault: sl_send_reply(\"404\", \"No\"); exit;\n}\nt_relay();",
    );
    let user = "uri::user(&request::uri()).unwrap_or_default()";
    assert_eq!(
        lines,
        [
            format!("if {user} == \"100\" || {user} == \"101\" {{").as_str(),
            "log::error!(\"a\");",
            &format!("}} else if {user} == \"102\" {{"),
            "return Err(drop_request());",
            "} else {",
            "return Err(reject(404, \"No\"));",
            "}",
            "return Err(relay());",
        ]
    );
    for other in [
        // On in the next case.
        "switch ($rU) { case \"1\": xlog(\"a\"); case \"2\": exit; }",
        "switch ($rU) { case /^1/: exit; }",
        "switch ($rU + \"1\") { case \"1\": exit; }",
        "switch ($rU) { exit; }",
    ] {
        let lines = main_route(&format!("{other}\nt_relay();"));
        assert!(
            lines[0].starts_with("untranslated(2, \"switch ($rU"),
            "{lines:?}"
        );
    }
}

#[test]
fn conditions_of_cases_are_not_nested_without_limit() {
    let labels = "case \"1\": ".repeat(51);
    let cases = "switch ($rU) { ".to_owned() + &"case \"1\": exit; ".repeat(50) + "default: ";
    for other in [
        format!("switch ($rU) {{ {labels} exit; }}"),
        cases.repeat(150) + "exit; " + &"}".repeat(150),
    ] {
        let script = translated(&format!("request_route {{ {other} t_relay(); }}"));
        let is_closed = script.source.contains("untranslated(1, \"switch ($rU");
        assert!(is_closed, "{}", script.source);
    }
}

#[test]
fn what_a_branch_route_sets_by_a_route_of_the_policy_is_said() {
    let of = |branch: &str| {
        let script = translated(&format!(
            "request_route {{ route(MARK); t_on_failure(\"F\"); t_relay(); }}\n\
             route[MARK] {{ if (has_body()) {{ setflag(5); $avp(x) = \"a\"; }} }}\n\
             branch_route[B] {{ {branch} }}\n\
             failure_route[F] {{ if (isflagset(5) && $avp(x) == \"a\") exit; }}"
        ));
        assert_eq!(script.closed, 0, "{}", script.source);
        said(&script).join("\n")
    };
    let expected = "route[MARK]: branch, reply or event routes call it, too";
    assert!(of("route(MARK);").contains(expected));
    assert!(!of("exit;").contains(expected));
}

#[test]
fn what_a_reply_route_sets_is_not_known() {
    let script = translated(
        "request_route { setflag(5); $avp(x) = \"a\"; t_on_failure(\"F\"); t_on_reply(\"R\"); t_relay(); }\n\
         failure_route[F] { if (isflagset(5)) exit; if ($avp(x) == \"a\") exit; }\n\
         onreply_route[R] { resetflag(5); $avp(x) = \"b\"; }\n",
    );
    for part in [
        "if untranslated(2, \"(isflagset(5))\")? {",
        "if untranslated(2, \"($avp(x) == \\\"a\\\")\")? {",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
}
