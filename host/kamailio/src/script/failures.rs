//! Failure routes and forks become policies.

use std::path::Path;

use super::{Script, Settings, translate};
use crate::preprocessor::Preprocessor;
use crate::surroundings::Machine;

fn translated_with(text: &str, first: Option<u32>) -> Script {
    let file = Path::new("/etc/k/k.cfg");
    let (tokens, _) = Preprocessor::new(file, text, &[], &Machine).run();
    let settings = Settings {
        own: Vec::new(),
        first,
    };
    translate(file, &tokens, &settings)
}

fn translated(text: &str) -> Script {
    translated_with(text, None)
}

/// The text without blanks.
fn bare(text: &str) -> String {
    text.split_whitespace().collect()
}

#[track_caller]
fn has(script: &Script, parts: &[&str]) {
    for part in parts {
        let is_there = bare(&script.source).contains(&bare(part));
        assert!(is_there, "{part}\nis not in\n{}", script.source);
    }
}

#[test]
fn a_failure_route_is_a_function_of_on_failure() {
    let script = translated(
        "request_route { $du = \"sip:192.0.2.1\"; t_on_failure(\"NEXT\"); t_relay(); }\n\
         failure_route[NEXT] {\n\
         if (t_is_canceled()) exit;\n\
         if (t_check_status(\"408|5[0-9][0-9]\")) { $du = \"sip:192.0.2.2\"; t_on_failure(\"LAST-ONE\"); t_relay(); }\n\
         }\n\
         failure_route[LAST-ONE] { if (t_branch_timeout() || $T_reply_code == \"503\") t_reply(\"503\", \"No Carrier\"); }\n",
    );
    has(
        &script,
        &[
            "policy!(decide, on_failure: on_failure);",
            "let (failure_route, mut script) = Script::after_failure();
             let result = match &*failure_route {
                 \"failure_next\" => script.failure_next(),
                 \"failure_last_one\" => script.failure_last_one(),
                 _ => Ok(true),
             };",
            "self.failure_route = \"failure_next\".to_owned(); return Err(self.relay());",
            "/// k.cfg:2: `failure_route[NEXT]`
             fn failure_next(&mut self) -> Route {
                 if matches!(reply_code(), 408 | 500..=599) {
                     self.destination = Some(\"sip:192.0.2.2\".to_string());
                     self.failure_route = \"failure_last_one\".to_owned();
                     return Err(self.relay());
                 }
                 Ok(true)
             }",
            "if branch_timeout() || i64::from(reply_code()) == 503 { return Err(reject(503, \"No Carrier\")); }",
            "self.kept(relay())",
        ],
    );
    assert_eq!(script.left, 0, "{:?}", script.findings);
    let said = script.findings[0].to_string();
    assert!(
        said.contains(
            "failure_route[NEXT]: becomes on_failure, which is not called after a code from 600 on"
        ),
        "{said}"
    );
    assert_eq!(script.findings.len(), 1);
    assert!(!script.source.contains("fn uri("), "{}", script.source);
}

#[test]
fn a_relay_in_a_failure_route_needs_a_new_target() {
    let of = |body: &str| {
        translated(&format!(
            "request_route {{ t_on_failure(\"F\"); route(R); }}\nroute[R] {{ t_relay(); exit; }}\nfailure_route[F] {{ {body} }}"
        ))
    };
    let relayed = "if self.has_target() { return Err(self.relay()); }";
    has(
        &of("t_relay(); t_reply(\"480\", \"No\");"),
        &[&format!("{relayed} return Err(reject(480, \"No\"));")],
    );
    has(
        &of("if (!t_relay()) { t_reply(\"480\", \"No\"); exit; } exit;"),
        &[&format!("{relayed} return Err(reject(480, \"No\"));")],
    );
    has(
        &of("if (t_relay()) { exit; } else { t_reply(\"480\", \"No\"); }"),
        &[&format!("{relayed} return Err(reject(480, \"No\"));")],
    );
    // `$du = $null` is no target.
    has(
        &of("$du = $null; t_relay();"),
        &[&format!("self.destination = None; {relayed} Ok(true)")],
    );
    has(
        &of("$rU = \"x\"; t_relay(); t_reply(\"480\", \"No\");"),
        &["return Err(self.relay()); }"],
    );
    // One of a branch is not there behind it.
    has(
        &of("if (has_body()) { $rU = \"x\"; } t_relay();"),
        &[relayed],
    );
    // A route of both kinds.
    let shared = of("$du = \"sip:192.0.2.1\"; route(R);");
    has(
        &shared,
        &[&format!(
            "fn route_r(&mut self) -> Route {{ {relayed} return Err(drop_request()); }}"
        )],
    );
}

#[test]
fn only_a_reply_of_sl_replaces_variables_in_a_text() {
    let script = translated(
        "request_route { t_on_failure(\"F\"); t_relay(); }\n\
         failure_route[F] { if (has_body()) { t_reply(\"480\", \"No $rU\"); } else if (has_totag()) { t_reply(\"480\", \"$rU\"); } else { send_reply(\"480\", \"No $rU\"); } }",
    );
    let user = "uri::user(&self.uri()).unwrap_or_default()";
    has(
        &script,
        &[
            "return Err(reject(480, \"No $rU\"));",
            &format!("return Err(reject(480, format!(\"{{}}\", {user})));"),
            &format!("return Err(reject(480, format!(\"No {{}}\", {user})));"),
        ],
    );
}

#[test]
fn conditions_about_a_failure_have_their_functions() {
    for (kamailio, rust) in [
        (
            "t_branch_timeout() && !t_branch_replied()",
            "branch_timeout() && !branch_replied(1)?",
        ),
        ("t_any_timeout()", "any_timeout()"),
        (
            "t_check_status(\"^48[67]$\")",
            "matches!(reply_code(), 486..=487)",
        ),
        ("!t_check_status(\"486\")", "!matches!(reply_code(), 486)"),
        (
            "$T_reply_code =~ \"^5\"",
            "matches!(reply_code(), 500..=599)",
        ),
        (
            "$T_reply_code !~ \"^5\"",
            "!matches!(reply_code(), 500..=599)",
        ),
        ("$T_reply_code >= 500", "i64::from(reply_code()) >= 500"),
        (
            "t_is_canceled() || has_body()",
            "request::body_length() > 0",
        ),
        (
            "has_body() && !t_is_canceled()",
            "request::body_length() > 0",
        ),
        (
            "(t_is_canceled() || t_is_expired() || has_body()) && has_totag()",
            "request::body_length() > 0 && request::has_to_tag()",
        ),
        ("t_is_failure_route()", "self.begin.is_some()"),
    ] {
        let script = translated(&format!(
            "request_route {{ t_on_failure(\"F\"); t_relay(); }} failure_route[F] {{ if ({kamailio}) exit; }}"
        ));
        has(
            &script,
            &[&format!("if {rust} {{ return Err(drop_request()); }}")],
        );
        assert_eq!(script.left, 0, "{kamailio}: {:?}", script.findings);
    }
    for (kamailio, said) in [
        (
            "$rs == 486",
            "$T_reply_code is the code of the best response",
        ),
        ("t_any_replied()", "no counterpart"),
        ("t_grep_status(\"486\")", "no counterpart"),
        ("t_check_status(\"(\")", "no counterpart"),
    ] {
        let script = translated(&format!(
            "request_route {{ t_on_failure(\"F\"); t_relay(); }} failure_route[F] {{ if ({kamailio}) exit; }}"
        ));
        has(&script, &["if untranslated(1, "]);
        let found = script
            .findings
            .iter()
            .any(|finding| finding.to_string().contains(said));
        assert!(found, "{kamailio}: {:?}", script.findings);
    }
}

#[test]
fn times_are_those_of_the_targets() {
    let text = "request_route { t_set_fr(120000, \"3\"); t_set_fr(0); t_on_failure(\"F\"); t_relay(); } failure_route[F] { t_reset_fr(); exit; }";
    let script = translated_with(text, Some(4000));
    has(
        &script,
        &[
            "use std::time::Duration;",
            "const FR_TIMER: u64 = 4000;",
            "self.ring = Some(120000); self.first = Some(100); self.ring = None; self.failure_route",
            "let first = self.first.unwrap_or(FR_TIMER); target = target.within(Duration::from_millis(first)); if let Some(ring) = self.ring {",
            "self.ring = None; self.first = None; return Err(drop_request());",
        ],
    );
    // Without a failure route, the times stay a comment.
    let script = translated_with(
        "request_route { t_set_fr(0, 3000); t_relay(); }",
        Some(4000),
    );
    has(
        &script,
        &["// k.cfg:1: not translated: t_set_fr(0, 3000); return Err(relay());"],
    );
    assert!(!script.source.contains("Duration"), "{}", script.source);
}

#[test]
fn header_fields_of_a_failure_route_are_for_its_targets() {
    let script = translated(
        "request_route { append_hf(\"X-A: 1\\r\\n\"); t_on_failure(\"F\"); t_relay(); }\n\
         failure_route[F] { append_hf(\"X-B: $rU\\r\\n\"); append_hf(\"X-C: 3\\r\\n\"); $du = \"sip:192.0.2.1\"; t_relay(); }",
    );
    has(
        &script,
        &[
            "edits::add_header(\"X-A\", \"1\");",
            "self.add_header(\"X-B\", format!(\"{}\", uri::user(&self.uri()).unwrap_or_default()));",
            "self.add_header(\"X-C\", \"3\".to_owned());",
            "for (name, value) in &self.headers { target = target.header(*name, value); }",
        ],
    );
}

#[test]
fn branches_are_targets() {
    let script = translated(
        "request_route { append_branch(\"sip:a@192.0.2.1\"); append_branch(\"sip:$rU@192.0.2.2\", \"0.5\"); append_branch(); t_relay(); }",
    );
    has(
        &script,
        &[
            "self.append_branch(Some(\"sip:a@192.0.2.1\"));",
            "self.append_branch(Some(&format!(\"sip:{}@192.0.2.2\", uri::user(&self.uri()).unwrap_or_default())));",
            "self.append_branch(None); return Err(self.relay());",
            "return fork(targets);",
        ],
    );
    assert!(
        !script.source.contains("failure_route"),
        "{}",
        script.source
    );
    let script = translated(
        "request_route { append_branch(\"sip:$avp(x)@a\"); t_relay_to_udp(\"192.0.2.1\"); }",
    );
    has(
        &script,
        &[
            "untranslated(1, \"append_branch",
            "untranslated(1, \"t_relay_to_udp",
        ],
    );
}

#[test]
fn a_failure_route_that_is_not_there_or_not_named_is_said() {
    let script = translated(
        "request_route { t_on_failure(\"F\"); t_on_failure($var(x)); t_on_failure(\"0\"); t_on_failure(\"G\"); t_relay(); }\n\
         failure_route[F] { exit; }\nfailure_route[OTHER] { t_reply(\"480\", \"x\"); }",
    );
    has(
        &script,
        &[
            "// k.cfg:1: not translated: t_on_failure($var(x));",
            "self.failure_route.clear();",
            "// k.cfg:1: not translated: t_on_failure(\"G\");",
        ],
    );
    let said: Vec<_> = script.findings.iter().map(ToString::to_string).collect();
    assert!(
        said.iter()
            .any(|line| line
                .contains("failure_route[OTHER]: not translated: no t_on_failure names it")),
        "{said:?}"
    );
    assert_eq!(script.left, 3, "{said:?}");
    // Names that differ in other signs only.
    let script = translated(
        "request_route { t_on_failure(\"A-B\"); t_on_failure(\"A_B\"); t_relay(); } failure_route[A-B] { exit; } failure_route[A_B] { exit; }",
    );
    has(&script, &["fn failure_a_b(", "fn failure_a_b_("]);
}

#[test]
fn destinations_of_a_set_are_chosen_as_the_script_says() {
    let script = translated(
        "request_route { if (!ds_select_dst(\"1\", \"4\")) { sl_send_reply(\"404\", \"No destination\"); exit; } t_on_failure(\"F\"); t_relay(); exit; }\n\
         failure_route[F] { if (t_check_status(\"5[0-9][0-9]\")) { ds_mark_dst(\"p\"); if (ds_next_dst()) { t_on_failure(\"F\"); t_relay(); exit; } } }",
    );
    has(
        &script,
        &[
            "use portcullis_sdk::dispatcher::{Algorithm, relay_to_set};",
            "if !self.select(1, 4) {",
            "if self.next_destination() {",
            "set: part(3).and_then(|set| set.parse().ok()).zip(part(4)",
            "of_set(|(set, _)| set),",
            "self.set = Some((set, algorithm)); self.selected = relay_to_set(set, how, 1);",
            "return self.kept(verdict.clone());",
            "fn has_target(&self) -> bool { if self.selected.is_some() {",
        ],
    );
    assert!(!script.source.contains("ds_mark_dst"), "{}", script.source);
    assert_eq!(script.left, 0, "{:?}", script.findings);
    for (other, said) in [
        ("ds_select_dst(\"1\", \"7\")", "no algorithm 7 and 12"),
        (
            "ds_select_dst($var(x), \"4\")",
            "relay_to_set(set, algorithm, limit)",
        ),
        (
            "ds_select_domain(\"1\", \"4\")",
            "a set leaves the request URI as it is",
        ),
        (
            "ds_next_domain()",
            "write ds_select_dst and ds_next_dst in their place",
        ),
        ("ds_next_dst()", "no counterpart: the policy answers 500"),
        (
            "ds_mark_dst(\"d\")",
            "no counterpart: the policy answers 500",
        ),
    ] {
        for text in [
            format!("request_route {{ if ({other}) {{ t_relay(); }} }}"),
            format!("request_route {{ {other}; t_relay(); }}"),
        ] {
            let script = translated(&text);
            assert!(script.left > 0, "{text}\n{}", script.source);
            has(&script, &["untranslated(1,"]);
            let findings: Vec<_> = script.findings.iter().map(ToString::to_string).collect();
            assert!(
                findings.iter().any(|line| line.contains(said)),
                "{text}: {findings:?}"
            );
        }
    }
    // What a set cannot carry is refused, or said.
    let script = translated(
        "request_route { t_set_fr(0, 2000); ds_select_dst(\"1\", \"4\"); t_on_failure(\"F\"); t_relay(); }\n\
         failure_route[F] { append_hf(\"X-Way: second\\r\\n\"); if (ds_next_dst()) { t_relay(); } }",
    );
    has(
        &script,
        &[
            "if self.request_uri.is_some() || self.destination.is_some() || !self.headers.is_empty() {",
            "another $ru or $du, or with append_hf in a failure route, is not translated",
        ],
    );
    let said: Vec<_> = script.findings.iter().map(ToString::to_string).collect();
    assert!(
        said.iter()
            .any(|line| line.contains("do not hold for destinations of a set")),
        "{said:?}"
    );
    // Without a failure route, the destination is the only one.
    let script = translated("request_route { ds_select_dst(\"2\", \"8\", \"1\"); t_relay(); }");
    has(
        &script,
        &[
            "self.select(2, 8); return Err(self.relay());",
            "return verdict.clone();",
        ],
    );
    assert!(
        !script.source.contains("next_destination"),
        "{}",
        script.source
    );
}

#[test]
fn a_failure_route_has_the_flags_of_the_request() {
    let script = translated(
        "request_route { setflag(5); t_set_fr(0, 5000); t_on_failure(\"F\"); t_relay(); }\n\
         failure_route[F] { if (isflagset(5)) { $du = \"sip:192.0.2.2\"; t_relay(); } }\n",
    );
    has(
        &script,
        &[
            "first: part(3).and_then(|time| time.parse().ok()),
             ring: part(4).and_then(|time| time.parse().ok()),
             flags: part(5).and_then(|flags| flags.parse().ok()).unwrap_or_default(),",
            "number(self.first), number(self.ring), self.flags.to_string(),",
            "if self.has_flag(5) {",
        ],
    );
}

#[test]
fn a_failure_route_has_the_avps_of_the_request() {
    let script = translated(
        "request_route { $avp(exten) = $rU; t_on_failure(\"F\"); t_relay(); }\n\
         failure_route[F] { if ($avp(exten) != $null) { $du = \"sip:\" + $avp(exten) + \"@192.0.2.2\"; t_relay(); } }\n",
    );
    has(
        &script,
        &[
            "avp_exten: part(3).unwrap_or_default(),",
            "text(destination), self.avp_exten.clone(), ];
             let are_lines = memo.iter().all(|part| !part.contains('\\n'));
             let memo = memo.join(\"\\n\");
             if memo.len() > 256 || !are_lines {",
            "self.avp_exten = uri::user(&self.uri()).unwrap_or_default().to_string();",
            "self.destination = Some(format!(\"sip:{}@192.0.2.2\", self.avp_exten.clone()));",
        ],
    );
    assert_eq!(script.left, 0);
}
