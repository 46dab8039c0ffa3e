//! Tests of the sections of tenants.

use super::*;
use crate::Config;

const HOST: &str = "listen = [\"udp:127.0.0.1:5060\", \"udp:0.0.0.0:5070\"]\n\
                    [relay.next-hops]\npstn = \"sip:127.0.0.1:5080\"\n";

fn problems(text: &str) -> Vec<String> {
    let problems = Config::parse(&format!("{HOST}{text}")).unwrap_err();
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn a_tenant_is_read_and_inherits() {
    let text = format!(
        "{HOST}[policy]\nfailure-code = 500\ndefault = \"relay\"\n\
         [tenants.acme]\nlocal = [\"udp:127.0.0.2:5070\"]\nuri-domains = [\"Acme.Example.\", \"*.acme.example\", \"[2001:DB8::1]\"]\n\
         source-groups = [200]\nfile = \"acme.wasm\"\nmode = \"monitor\"\nnext-hops = [\"pstn\"]\nnext-hop = \"pstn\"\n\
         domains = [\"acme.example\"]\ntargets = 3\ncpu-share = \"12.5%\"\nrequests-per-second = 100\ndeadline = \"2ms\"\n\
         [tenants.acme.settings]\nnumbers = [1, 2.5]\nname.first = \"x\"\nsince = 2026-01-01\n\
         [tenants.acme.on-failure]\ntimeout = \"reject 480 Busy Here\"\ntrap = \"last-good\"\n"
    );

    let config = Config::parse(&text).unwrap();

    let [acme] = &config.tenants[..] else {
        panic!("{:?}", config.tenants)
    };
    assert_eq!(acme.name, "acme");
    let domains = ["acme.example", "*.acme.example", "2001:db8::1"];
    assert_eq!(acme.selector.uri_domains, domains);
    assert_eq!(acme.groups, [200], "the default is source-groups");
    assert_eq!(acme.next_hop.as_deref(), Some("pstn"));
    assert_eq!(acme.default, DefaultVerdict::Relay);
    assert_eq!(acme.cpu_share.to_string(), "12.50%");
    let forwarding = ForwardingLimits {
        targets: 3,
        ..ForwardingLimits::TENANT
    };
    assert_eq!(acme.forwarding, forwarding);
    let rate = Rate {
        per_second: 100,
        burst: 100,
    };
    assert_eq!(acme.rate, Some(rate));
    let settings =
        serde_json::json!({"numbers": [1, 2.5], "name": {"first": "x"}, "since": "2026-01-01"});
    assert_eq!(acme.seat.settings, settings);
    assert_eq!(acme.seat.failure.answer, policy::Answer::new(500));
    assert_eq!(acme.seat.failure.trap, policy::OnFailure::LastGood);
    let busy = policy::Answer {
        code: 480,
        reason: "Busy Here".into(),
    };
    assert_eq!(
        acme.seat.failure.timeout,
        policy::OnFailure::RejectWith(busy)
    );
    assert_eq!(acme.seat.breaker.failures, 20);
}

#[test]
fn a_selector_belongs_to_one_tenant() {
    let said = problems(
        "[tenants.a]\nuri-domains = [\"x.example\"]\nsource-groups = [1]\nlocal = [\"udp:127.0.0.1:5060\"]\n\
         [tenants.b]\nuri-domains = [\"X.example\"]\nfrom-domains = [\"x.example\"]\nsource-groups = [2, 1]\n\
         local = [\"udp:127.0.0.1:5060\"]\n",
    );
    assert_eq!(said.len(), 3, "{said:#?}");
    let mend = "the tenant a has the same; a selector can belong to one tenant only: remove it from one of them";
    assert!(
        said[0].contains("tenants.b.uri-domains[0] = \"X.example\""),
        "{said:#?}"
    );
    assert!(said.iter().all(|line| line.ends_with(mend)), "{said:#?}");
}

#[test]
fn a_group_that_selects_a_tenant_is_edited_by_none() {
    let mend = "use groups of their own for the rows that tenants change";
    for text in [
        "[tenants.a]\nsource-groups = [1]\n[tenants.b]\nfrom-domains = [\"b.example\"]\nedit-groups = [7, 1]\n",
        "[tenants.a]\nfrom-domains = [\"b.example\"]\nedit-groups = [1]\n[tenants.b]\nsource-groups = [2, 1]\n",
        "[tenants.a]\nsource-groups = [1]\nedit-groups = [2, 1]\n",
    ] {
        let said = problems(text);
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].ends_with(mend), "{said:#?}");
    }
    let said = problems(
        "[tenants.a]\nsource-groups = [1]\n[tenants.b]\nfrom-domains = [\"b.example\"]\nedit-groups = [7, 1]\n",
    );
    assert!(
        said[0].contains("tenants.b.edit-groups[1] = 1: the rows of this group select the requests of the tenant a"),
        "{said:#?}"
    );
    let shared = "[tenants.a]\nsource-groups = [1]\nedit-groups = [9]\n[tenants.b]\nsource-groups = [2]\nedit-groups = [9]\n";
    let config = Config::parse(&format!("{HOST}{shared}")).unwrap();
    assert_eq!(config.tenants[1].edit.groups, [9]);
    // A tenant of the database against those of the file, and against others of the database.
    let parse = |name: &str, text: &str| config.parse_tenant(name, text, &config.tenants);
    for (text, expected) in [
        (
            "source-groups = [9]",
            "the tenant a may change the rows of this group",
        ),
        (
            "source-groups = [3]\nedit-groups = [2]",
            "select the requests of the tenant b",
        ),
    ] {
        let said = parse("c", text).unwrap_err()[0].to_string();
        assert!(said.contains(expected), "{said}");
    }
    assert!(parse("a", "source-groups = [1]\nedit-groups = [9]").is_ok());
}

#[test]
fn invalid_tenants_are_refused() {
    for (text, expected) in [
        (
            "[tenants.a]\n",
            "tenants.a: no selector; set at least one of local",
        ),
        (
            "[tenants.Acme]\nsource-groups = [1]\n",
            "tenants.Acme: not a valid name of a tenant; use lower-case letters",
        ),
        (
            "[tenants.default]\nsource-groups = [1]\n",
            "a reserved name",
        ),
        (
            "[tenants]\na = 1\n",
            "tenants.a: not a section; write it as [tenants.a]",
        ),
        (
            "[tenants.a]\nlocal = [\"tcp:127.0.0.1:5060\"]\n",
            "the host does not listen there; `listen` has \"udp:",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nnext-hops = [\"pstm\"]\n",
            "unknown next hop; [relay.next-hops] has pstn",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nmemory = \"64MiB\"\n",
            "(the limit of [policy] is the maximum)",
        ),
        (
            "[policy]\ndeadline = \"2ms\"\n[tenants.a]\nsource-groups = [1]\ndeadline = \"10s\"\n",
            "tenants.a.deadline = \"10s\": too long; write a time from \"1ms\" to \"2ms\"",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nhost-call = \"16MiB\"\n",
            "to \"64KiB\": B, KiB, MiB or GiB (the limit of [policy] is the maximum)",
        ),
        (
            "[policy]\nlog-lines = 1\n[tenants.a]\nsource-groups = [1]\nlog-lines = 1000\n",
            "tenants.a.log-lines",
        ),
        (
            "[policy]\nlog-line = \"64B\"\n[tenants.a]\nsource-groups = [1]\nlog-line = \"64KiB\"\n",
            "tenants.a.log-line",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\ntable-elements = 10001\n",
            "tenants.a.table-elements",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nmodule = \"5MiB\"\n",
            "tenants.a.module",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\ncounters = 10001\n",
            "tenants.a.counters",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\ngenerations = 21\n",
            "tenants.a.generations",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nreuse = true\n",
            "tenants.a.reuse = true: not allowed here; write at most \"1000 calls\" (it needs `reuse = true` in [policy])",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\ntargets = 17\n",
            "tenants.a.targets = 17: too large; write a whole number from 1 to 16",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nparallel = 9\n",
            "tenants.a.parallel = 9: too large; write a whole number from 1 to 8",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\ntries = 9\n",
            "tenants.a.tries = 9: too large; write a whole number from 0 to 8",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nsetup-limit = \"601s\"\n",
            "tenants.a.setup-limit = \"601s\": too long; write a time from \"1s\" to \"600s\"",
        ),
        (
            "[policy.before]\ndeadline = \"10s\"\n",
            "policy.before.deadline",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nedit-prefix-v4 = 33\n",
            "tenants.a.edit-prefix-v4 = 33: too large; write a whole number from 1 to 32",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nedit-prefix-v6 = 0\n",
            "tenants.a.edit-prefix-v6 = 0: too small; write a whole number from 1 to 128",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\ncpu-share = \"0%\"\n",
            "not a share; write \"1%\"",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\nfiel = \"x\"\n",
            "tenants.a.fiel: unknown key; did you mean `file`?",
        ),
        (
            "[tenants.a]\nuri-domains = [\"a b\"]\n",
            "not a host name or address",
        ),
        (
            "[tenants.a]\nsource-groups = [1]\n[tenants.a.on-failure]\noverload = \"last-good\"\n",
            "\"last-good\" is not possible for `overload`",
        ),
        (
            "[policy.on-failure]\ntrap = \"reject 200\"\n",
            "not a status code from 300 to 699",
        ),
    ] {
        let said = problems(text);
        assert!(
            said.iter().any(|line| line.contains(expected)),
            "{expected}\n{said:#?}"
        );
    }
}

#[test]
fn names_are_validated_whatever_their_source() {
    let config = Config::default();
    let parse = |name: &str| config.parse_tenant(name, "source-groups = [1]", &[]);
    assert!(parse("acme-2_b").is_ok());
    let long = "x".repeat(300);
    for name in [
        "default",
        "before",
        "after",
        "operator",
        "breaker",
        "",
        "../x",
        "a b",
        "a/b",
        "A",
        "-a",
        "\u{1b}[31m",
        "a\nb",
        "a\u{202e}b",
        "\u{e9}",
        "a%2f",
        &long,
    ] {
        assert!(parse(name).is_err(), "{name:?}");
    }
}

#[test]
fn the_signers_of_the_operator_apply_to_tenants_in_the_database() {
    const ANN: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const BOB: &str = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
    let host = |lines: &str| {
        let text = format!("[policy]\n{lines}\n[policy.signers]\nann = \"{ANN}\"\n");
        Config::parse(&text).unwrap()
    };
    let bound = host("");
    let free = host("signers-bind-stored = false");
    let parse = |config: &Config, text: &str| {
        let text = format!("source-groups = [1]\n{text}");
        config
            .parse_tenant("a", &text, &[])
            .map(|tenant| tenant.seat.signers.clone())
    };
    assert_eq!(parse(&bound, "").unwrap(), bound.policy.seat.signers);
    assert!(parse(&bound, "").unwrap().required);
    let own = format!("[signers]\nme = \"{BOB}\"");
    let told = parse(&bound, &own).unwrap_err()[0].to_string();
    assert!(
        told.contains("me is not among the `signers` of [policy]"),
        "{told}"
    );
    let some = format!("require-signature = false\n[signers]\nann = \"{ANN}\"");
    assert!(parse(&bound, &some).unwrap().required);
    assert_eq!(parse(&free, &own).unwrap().keys[0].0, "me");
    assert_eq!(parse(&free, "").unwrap(), Signers::default());
}

#[test]
fn a_tenants_token_needs_one_of_the_host() {
    let token = "[tenants.a]\nsource-groups = [1]\ntoken = \"0123456789abcdef\"\n";
    let said = problems(&format!("[control]\ntoken-file = \"\"\n{token}"));
    assert!(said[0].contains("a token without effect"), "{said:?}");
    assert!(!said[0].contains("0123456789abcdef"));
    for control in [
        "",
        "[control]\ntoken-file = \"\"\nlisten = \"\"\n",
        "[control]\ntoken = \"another-0123456789\"\n",
    ] {
        assert!(
            Config::parse(&format!("{control}{token}")).is_ok(),
            "{control}"
        );
    }
}

#[test]
fn a_tenant_can_be_read_from_a_text_of_its_own() {
    let config = Config::parse(&format!("{HOST}[tenants.a]\nsource-groups = [1]\n")).unwrap();
    let parse = |name: &str, text: &str| config.parse_tenant(name, text, &config.tenants);

    assert_eq!(parse("b", "source-groups = [2]").unwrap().groups, [2]);
    assert_eq!(parse("a", "source-groups = [1, 2]").unwrap().groups, [1, 2]);
    let bounded = parse("b", "source-groups = [2]\nreuse = \"1000 calls\"").unwrap();
    assert_eq!(bounded.seat.reuse.to_string(), "1000 calls");
    let limit = "(the limit of [policy] is the maximum)";
    for (beyond, expected) in [
        ("deadline = \"6ms\"", limit),
        ("log-lines = 17", limit),
        ("reuse = true", "(it needs `reuse = true` in [policy])"),
        (
            "reuse = \"1001 calls\"",
            "not allowed here; write at most \"1000 calls\" (it needs `reuse = \"1001 calls\"` in [policy])",
        ),
        ("reuse = \"0 calls\"", "a number of calls: \"1000 calls\""),
        ("reuse = 1000", "a number of calls: \"1000 calls\""),
        ("counters = 20000", limit),
    ] {
        let text = format!("source-groups = [2]\n{beyond}\n");
        let problems = parse("b", &text).unwrap_err();
        let said = problems[0].to_string();
        assert!(said.ends_with(expected), "{said}");
    }
    let problems = parse("b", "\nsource-groups = [1]").unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "2:18: source-groups[0] = 1: the tenant a has the same; a selector can belong to one tenant only: remove it from one of them"
    );
}
