//! Routing logics and their policies.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::preprocessor::Preprocessor;
use crate::surroundings::Machine;

pub(super) fn translated(text: &str) -> Script {
    let file = Path::new("/etc/k/k.cfg");
    let (tokens, _) = Preprocessor::new(file, text, &[], &Machine).run();
    let own = [
        ("sip.example.com".to_owned(), None),
        ("192.0.2.1".to_owned(), Some(5070)),
    ];
    let settings = Settings {
        own: own.to_vec(),
        first: None,
    };
    translate(file, &tokens, &settings)
}

/// The lines of the main route.
pub(super) fn main_route(text: &str) -> Vec<String> {
    let script = translated(&format!("request_route {{\n{text}\n}}\n"));
    let (_, behind) = script.source.split_once("request_route(").expect("a call");
    let (_, behind) = behind.split_once("-> Route {\n").expect("a function");
    let lines = behind.lines().map(str::trim);
    let lines = lines.take_while(|line| !line.starts_with("///") && !line.is_empty());
    let mut lines: Vec<_> = lines.map(str::to_owned).collect();
    lines.truncate(closing(&lines));
    lines
}

/// The number of lines up to the end of the function.
fn closing(lines: &[String]) -> usize {
    let mut depth = 1_i32;
    for (at, line) in lines.iter().enumerate() {
        depth -= i32::from(line.starts_with('}'));
        if depth == 0 {
            return at;
        }
        depth += i32::from(line.ends_with('{'));
    }
    lines.len()
}

pub(super) fn said(script: &Script) -> Vec<String> {
    script.findings.iter().map(Finding::to_string).collect()
}

#[test]
fn the_routing_logic_of_the_seed() {
    let script = translated(
        r#"
        request_route {
            if (allow_source_address("200")) {
                xlog("L_INFO", "Coming from address group 200\n");
                forward();
            } else if (allow_source_address("250")) {
                xlog("L_INFO", "Coming from address group $si {250}\n");
                forward();
            } else {
                sl_reply("401", "Address not authorised");
            }
        }
        "#,
    );
    let expected = r#"/// k.cfg:2: `request_route`
fn request_route() -> Route {
    if allow_source_address(200) {
        log::info!("Coming from address group 200");
        return Err(relay());
    } else if allow_source_address(250) {
        log::info!("Coming from address group {} {{250}}", request::source_address());
        return Err(relay());
    } else {
        return Err(reject(401, "Address not authorised"));
    }
}
"#;
    assert!(script.source.ends_with(expected), "{}", script.source);
    assert_eq!((script.left, said(&script)), (0, Vec::new()));
    assert_eq!(script.translated, 7);
}

#[test]
fn conditions_have_their_operators() {
    for (kamailio, rust) in [
        (
            "is_method(\"INVITE\")",
            "request::method().eq_ignore_ascii_case(\"INVITE\")",
        ),
        (
            "!is_method(\"INVITE|ACK\")",
            "!([\"INVITE\", \"ACK\"].iter().any(|name| request::method().eq_ignore_ascii_case(name)))",
        ),
        (
            "method == \"INVITE\"",
            "request::method().eq_ignore_ascii_case(\"INVITE\")",
        ),
        (
            "has_totag() && !allow_trusted()",
            "request::has_to_tag() && !allow_trusted()",
        ),
        (
            "(allow_trusted() || has_totag()) && $si == \"10.0.0.1\"",
            "(allow_trusted() || request::has_to_tag()) && request::source_address() == \"10.0.0.1\"",
        ),
        (
            "!(allow_trusted() || has_totag())",
            "!(allow_trusted() || request::has_to_tag())",
        ),
        (
            "not allow_trusted() or has_totag()",
            "!allow_trusted() || request::has_to_tag()",
        ),
        (
            "src_ip == 10.0.0.1",
            "request::source_address() == \"10.0.0.1\"",
        ),
        (
            "src_ip != 10.1.2.3/8",
            "!is_in(&request::source_address(), 0x0a000000, 0xff000000)",
        ),
        (
            "$rU =~ \"^00\"",
            "uri::user(&request::uri()).unwrap_or_default().starts_with(\"00\")",
        ),
        (
            "$ua =~ \"sipcli\"",
            "request::header(\"User-Agent\").unwrap_or_default().to_ascii_lowercase().contains(\"sipcli\")",
        ),
        (
            "$rU !~ \"^[0-9]+$\"",
            "!matches(uri::user(&request::uri()).unwrap_or_default(), &Node::Sequence(&[Node::Start, \
         Node::Repeat(&Node::Set(false, &[('0', '9')]), 1, usize::MAX), Node::End]))",
        ),
        ("$sp > 1024", "i64::from(request::source_port()) > 1024"),
        ("$time(hour) >= 18", "i64::from(now(ZONE).hour) >= 18"),
        ("proto == UDP", "request::transport() == \"UDP\""),
        ("!uri == myself", "!is_myself(&request::uri())"),
        (
            "src_ip == myself",
            "is_my_address(&request::source_address())",
        ),
        (
            "allow_address(\"7\", \"$si\", \"$sp\")",
            "allow_address(7, &request::source_address(), request::source_port())",
        ),
        ("allow_routing(\"a\")", "allow_routing(Some(\"a\"))"),
        (
            "$hdr(X-Key) == \"\"",
            "request::header(\"X-Key\").unwrap_or_default() == \"\"",
        ),
        (
            "is_present_hf(\"X-Key\")",
            "request::header(\"X-Key\").is_some()",
        ),
    ] {
        let lines = main_route(&format!("if ({kamailio}) exit;"));
        assert_eq!(lines[0], format!("if {rust} {{"), "{kamailio}");
        assert_eq!(lines[1..], ["return Err(drop_request());", "}", "Ok(true)"]);
    }
}

#[test]
fn an_operand_without_counterpart_ends_the_script_where_it_decides() {
    let text = "request_route {\n if (has_totag() && !auth_check(\"$fd\", \"subscriber\", \"1\")) {\n exit; }\n t_relay(); }";
    let script = translated(text);
    let line = "if request::has_to_tag() && !untranslated(2, \"auth_check(\\\"$fd\\\", \\\"subscriber\\\", \\\"1\\\")\")? {";
    assert!(script.source.contains(line), "{}", script.source);
    assert!(script.source.contains("fn untranslated("));
    assert_eq!(script.left, 1);
    let said = said(&script);
    assert_eq!(
        said,
        [
            "/etc/k/k.cfg:2: auth_check(\"$fd\", \"subscriber\", \"1\"): there are no passwords here: allow addresses, or leave it to the server behind to challenge: the policy answers 500 where this decides"
        ]
    );
}

#[test]
fn own_addresses_have_ports() {
    let script = translated("request_route { if (uri == myself) { exit; } t_relay(); }");
    let own = "const OWN: &[(&str, Option<u16>)] = &[(\"sip.example.com\", None), (\"192.0.2.1\", Some(5070))];";
    assert!(script.source.contains(own), "{}", script.source);
}

#[test]
fn the_time_zone_of_the_machine_is_a_remark() {
    let of = |variable: &str| {
        let script = translated(&format!(
            "request_route {{ if ({variable} > 8) {{ exit; }} t_relay(); }}"
        ));
        (said(&script).join("\n"), script.source)
    };
    let (said, source) = of("$time(hour)");
    assert!(
        said.contains("$time(…): Kamailio takes the time zone of its machine"),
        "{said}"
    );
    assert!(source.contains("const ZONE: &str = \"UTC\";"), "{source}");
    let (said, source) = of("$utime(hour)");
    assert_eq!(said, "");
    assert!(!source.contains("ZONE"), "{source}");
}

#[test]
fn a_statement_without_counterpart_is_a_comment() {
    let lines = main_route(
        "$avp(x) = 1;\nrtpproxy_manage(\"co\");\nwhile ($var(i) < 3) { $var(i) = 1; }\nt_relay();",
    );
    assert_eq!(
        lines,
        [
            "// k.cfg:2: not translated: $avp(x) = 1;",
            "// k.cfg:3: not translated: rtpproxy_manage(\"co\");",
            "untranslated(4, \"while ($var(i) < 3) { $var(i) = 1; }\")?;",
            "return Err(relay());",
        ]
    );
}

#[test]
fn routes_are_functions() {
    let script = translated(
        "request_route { route(CHECK); if (route(NIGHT)) { exit; } route(\"RELAY\"); }\n\
         route[CHECK] { if (!allow_trusted()) { sl_send_reply(\"403\", \"No\"); exit; } return; }\n\
         route[NIGHT] { return -1; }\n\
         route[RELAY] { if (!t_relay()) { sl_reply_error(); } exit; }\n\
         route[UNUSED] { exit; }\n\
         failure_route[X] { exit; }\n",
    );
    for part in [
        "    route_check()?;\n    if route_night()? {\n",
        "    route_relay()?;\n    Ok(true)\n",
        "/// k.cfg:2: `route[CHECK]`\nfn route_check() -> Route {\n    if !allow_trusted() {\n        return Err(reject(403, \"No\"));\n    }\n    return Ok(true);\n}\n",
        "fn route_night() -> Route {\n    return Ok(false);\n}\n",
        "fn route_relay() -> Route {\n    return Err(relay());\n}\n",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
    assert!(!script.source.contains("route_unused"));
    let said = said(&script);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("route[UNUSED]: not translated: request_route does not call it"));
    assert!(said[1].contains("failure_route[X]: not translated: no t_on_failure names it"));
}

#[test]
fn what_kamailio_does_behind_a_decision_is_said() {
    let lines = main_route("sl_reply(\"403\", \"No\"); xlog(\"bye\\n\"); exit;");
    assert_eq!(
        lines,
        ["log::error!(\"bye\");", "return Err(reject(403, \"No\"));"]
    );
    for (text, is_said) in [
        (
            "if (has_totag()) { sl_reply(\"403\", \"No\"); }\n t_relay();",
            true,
        ),
        (
            "if (has_totag()) { sl_reply(\"403\", \"No\"); exit; }\n t_relay();",
            false,
        ),
        (
            "if (has_totag()) { sl_reply(\"403\", \"No\"); }\n xlog(\"x\");",
            false,
        ),
        (
            "sl_reply(\"403\", \"No\"); append_hf(\"X: 1\\r\\n\");",
            true,
        ),
    ] {
        let script = translated(&format!("request_route {{ {text} }}"));
        assert_eq!(
            said(&script).concat().contains("goes on behind"),
            is_said,
            "{text}"
        );
    }
}

#[test]
fn targets_are_state() {
    let script = translated(
        "request_route {\n\
         if ($rU =~ \"^0\") { strip(1); prefix(\"+49\"); }\n\
         $du = \"sip:\" + $rU + \"@10.0.0.7:5070\";\n\
         $rd = \"example.com\";\n\
         route(R);\n\
         }\n\
         route[R] { t_relay(); }\n",
    );
    for part in [
        "Script::default().request_route()",
        "if uri::user(&self.uri()).unwrap_or_default().starts_with(\"0\") {",
        "let user = uri::user(&self.uri()).unwrap_or_default().chars().skip(1).collect::<String>();",
        "let user = format!(\"+49{}\", uri::user(&self.uri()).unwrap_or_default());",
        "self.destination = Some(format!(\"sip:{}@10.0.0.7:5070\", uri::user(&self.uri()).unwrap_or_default()));",
        "self.request_uri = Some(uri::with_host(&self.uri(), &host));",
        "self.route_r()?;",
        "return Err(self.relay());",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
}

#[test]
fn a_target_without_counterpart_is_never_ignored() {
    let lines = main_route("$du = $xavp(a=>b);\nt_relay();");
    assert_eq!(
        lines,
        [
            "untranslated(2, \"$du = $xavp(a=>b);\")?;",
            "return Err(self.relay());"
        ]
    );
    assert_eq!(
        main_route("sl_reply(\"200\", \"OK\");")[0],
        "untranslated(2, \"sl_reply(\\\"200\\\", \\\"OK\\\");\")?;"
    );
}

#[test]
fn no_peer_gets_the_name_of_a_variable_unsaid() {
    let script = translated(
        "request_route { append_hf(\"X-A: $xavp(a)\\r\\n\"); append_to_reply(\"X-B: $xavp(b)\\r\\n\"); sl_send_reply(\"480\", \"No $xavp(c)\"); }",
    );
    for part in [
        "// k.cfg:1: not translated: append_hf(",
        "// k.cfg:1: not translated: append_to_reply(",
        "return Err(reject(480, \"No $xavp(c)\"));",
    ] {
        assert!(script.source.contains(part), "{part}\n{}", script.source);
    }
    let said = said(&script).join("\n");
    assert!(
        said.contains("$xavp(c): no counterpart: the reason phrase"),
        "{said}"
    );
    assert_eq!((script.left, script.closed), (2, 0));
}

#[test]
fn headers_and_fixed_targets() {
    let lines = main_route(
        "append_hf(\"X-Trunk: $rU\\r\\n\"); remove_hf(\"X-Old\");\n\
         append_to_reply(\"Retry-After: 5\\r\\n\");\n\
         if (has_totag()) { sl_send_reply(\"503\", \"Busy $si\"); exit; }\n\
         t_relay_to_udp(\"10.0.0.7\", \"5070\");",
    );
    assert_eq!(
        lines,
        [
            "edits::add_header(\"X-Trunk\", &format!(\"{}\", uri::user(&request::uri()).unwrap_or_default()));",
            "edits::remove_header(\"X-Old\");",
            "if request::has_to_tag() {",
            "return Err(reject(503, format!(\"Busy {}\", request::source_address())).header(\"Retry-After\", \"5\"));",
            "}",
            "return Err(relay_to_uri(\"sip:10.0.0.7:5070\"));",
        ]
    );
}

#[test]
fn a_file_without_a_main_route_is_said() {
    let script = translated("listen=udp:10.0.0.1:5060\n");
    assert!(said(&script)[0].contains("no request_route"));
    assert!(script.source.contains("Ok(true)"));
}

#[test]
fn deep_nesting_is_not_understood_but_harmless() {
    for deep in [
        format!("request_route {{ if ({}1) exit; }}", "(".repeat(50_000)),
        format!("request_route {{ {} }}", "if (1) {".repeat(50_000)),
        format!("request_route {{ if ({}1) exit; }}", "!".repeat(50_000)),
        format!("request_route {{ {} }}", "{".repeat(50_000)),
        format!("request_route {{ x({}); }}", "y(".repeat(50_000)),
    ] {
        let _ = translated(&deep);
    }
}

proptest! {
    #[test]
    fn any_sequence_of_tokens_is_translated(parts in proptest::collection::vec(prop::sample::select(PARTS), 0..60)) {
        let text = format!("request_route {{ {}", parts.join(" "));
        let script = translated(&text);
        // Neither a comment nor a text can end early.
        for line in script.source.lines() {
            prop_assert!(!line.contains('\r'));
        }
        prop_assert!(script.source.contains("fn decide()"));
        prop_assert_eq!(&translated(&text).source, &script.source);
    }
}

const PARTS: &[&str] = &[
    "if",
    "(",
    ")",
    "{",
    "}",
    ";",
    "else",
    "&&",
    "||",
    "!",
    "==",
    "=~",
    "=",
    "+",
    ",",
    "exit",
    "return",
    "-",
    "1",
    "route",
    "(X)",
    "failure_route[X] {",
    "t_on_failure(X);",
    "append_branch();",
    "t_check_status(\"5\")",
    "route[X] {",
    "t_relay()",
    "sl_reply(\"403\", \"a\")",
    "xlog(\"$si {x}\")",
    "$rU",
    "$du",
    "$avp(x)",
    "\"text\"",
    "\"^[0-9]\"",
    "has_totag()",
    "src_ip",
    "10.0.0.1",
    "/8",
    "myself",
    "uri",
    "unknown(",
    "[",
    "]",
    "while",
];

#[test]
fn what_leads_back_to_phones_behind_nat_is_their_flow() {
    let script = translated(
        r#"
        request_route {
            force_rport();
            if (nat_uac_test("19")) {
                if (is_method("REGISTER")) {
                    fix_nated_register();
                } else {
                    set_contact_alias();
                }
            }
            if (nat_uac_test("8")) {
                add_contact_alias();
            }
            if (!handle_ruri_alias()) {
                exit;
            }
            handle_ruri_alias();
            t_relay();
        }
        "#,
    );
    for lines in [
        "    if nat_uac_test(19) {\n",
        "            flows::keep();\n        } else {\n            flows::keep();\n",
        "\nfn nat_uac_test(flags: u32) -> bool {\n",
        "    return Err(relay());\n",
    ] {
        assert!(script.source.contains(lines), "{lines}: {}", script.source);
    }
    assert!(!script.source.contains("alias"), "{}", script.source);
    // SDP is not read.
    assert_eq!(script.left, 1);
    let said = said(&script);
    assert!(said[0].contains("nat_uac_test(\"8\")"), "{said:?}");
}
