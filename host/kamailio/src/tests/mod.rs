//! Whole configurations, from text to text.

mod control;
mod dispatcher;
mod listen;
mod page;
mod text;
mod tls;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portcullis_config::Config;
use proptest::prelude::*;

use super::*;

/// A machine with these files, the interface eth0 and the name edge.example.com.
#[derive(Default)]
struct Fake {
    files: HashMap<PathBuf, String>,
}

impl Fake {
    fn file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.into(), text.into());
        self
    }

    fn import(&self, defines: &[(&str, &str)]) -> Import {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let defines: Vec<_> = defines.iter().map(owned).collect();
        import(Path::new("/etc/k/k.cfg"), &defines, self).expect("the file is there")
    }
}

impl Surroundings for Fake {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = self.files.get(path).cloned();
        text.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn interface(&self, name: &str) -> Vec<IpAddr> {
        let addresses: &[&str] = match name {
            "eth0" => &["10.0.0.5", "fe80::5", "2001:db8::5"],
            _ => &[],
        };
        addresses.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        match name {
            "edge.example.com" => vec!["192.0.2.7".parse().unwrap()],
            _ => Vec::new(),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "DB_HOST").then(|| "db.example.com".to_owned())
    }
}

fn imported(text: &str) -> Import {
    Fake::default().file("/etc/k/k.cfg", text).import(&[])
}

fn said(import: &Import) -> Vec<String> {
    import.findings.iter().map(Finding::to_string).collect()
}

/// The values without their origins, as lines.
fn lines(import: &Import) -> Vec<&str> {
    let lines = import.text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split("  # ").next().unwrap_or(line))
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn the_database_comes_from_the_module_permissions_only() {
    let import = imported(
        "#!define DBURL \"mysql://kamailio:s3cret@10.0.0.3/kamailio\"\n\
         modparam(\"acc\", \"db_url\", \"mysql://a:b@c/d\")\n\
         modparam(\"auth_db|permissions\", \"db_url\", DBURL)\n\
         modparam(\"usrloc|alias_db\", \"db_url\", \"mysql://e:f@g/h\")\n",
    );
    assert!(
        lines(&import).contains(&"url = \"mysql://kamailio:s3cret@10.0.0.3/kamailio\""),
        "{}",
        import.text
    );
    assert!(import.text.contains("# k.cfg:3\n"), "{}", import.text);
    assert!(!said(&import).concat().contains("s3cret"));
}

#[test]
fn a_database_that_is_not_read_is_said_without_its_password() {
    let import = imported("modparam(\"permissions\", \"db_url\", \"oracle://a:s3cret@b/c\")");
    let said = said(&import).concat();
    assert!(
        said.starts_with(
            "/etc/k/k.cfg:1: url cannot be taken over: the database \"oracle\" is not supported"
        ),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
    assert!(Config::parse(&import.text).is_ok());
}

#[test]
fn no_finding_holds_a_password() {
    let import = imported(
        "#!substdef \"!PW!s3cret$x!g\"\n#!subst \"/PW/s3cret\"\n#!subst \"/(/s3cret/\"\n#!define P \"s3cret\"\n#!define P \"s3cret\"\n\
         modparamx(\"permissions\", \"db_url\", \"mysql://a:s3cret$x@b/c\")\n",
    );
    assert_eq!(said(&import).len(), 5 + 1, "{:#?}", said(&import));
    assert!(
        !said(&import).concat().contains("s3cret"),
        "{:#?}",
        said(&import)
    );
    let import = imported("modparam(\"permissions\", \"db_url\", \"mysql://a:$ecret@b/c\")");
    assert!(
        lines(&import).contains(&"url = \"mysql://a:$ecret@b/c\""),
        "{}",
        import.text
    );
}

#[test]
fn parameters_without_a_counterpart_are_explained() {
    let import = imported(
        "modparam(\"permissions\", \"max_subnets\", 4096)\n\
         modparam(\"permissions\", \"peer_tag_avp\", \"$avp(s:tag)\")\n\
         modparam(\"permissions\", \"subnet_match_mode\", 1)\n\
         modparam(\"permissions\", \"db_mode\", 1)\n\
         modparam(\"permissions\", \"reload_delta\", 10)\n\
         modparam(\"permissions\", \"colour\", \"red\")\n\
         modparam(\"permissions\", \"peer_tag_mode\", 0)\n\
         modparam(\"permissions\", \"db_mode\", 0)\nroute { allow_trusted(); }\n",
    );
    let said = said(&import);
    for what in [
        "db_mode = 0: the trusted table is always",
        "write allow_trusted(); rows are tried as with db_mode",
    ] {
        assert!(said.iter().any(|said| said.contains(what)), "{said:#?}");
    }
    for (at, words) in [
        "max_subnets = 4096: not needed",
        "peer_tag_avp = $avp(s:tag): no variable",
        "subnet_match_mode = 1: there is no longest-prefix match",
        "db_mode = 1: not needed",
        "reload_delta = 10: not needed",
        "colour = red: a parameter that this import does not know",
    ]
    .into_iter()
    .enumerate()
    {
        let start = format!("/etc/k/k.cfg:{}: permissions: {words}", at + 1);
        assert!(said[at].starts_with(&start), "{said:#?}");
    }
}

#[test]
fn the_file_itself_must_be_there() {
    let error = import(Path::new("/etc/k/none.cfg"), &[], &Fake::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read /etc/k/none.cfg: entity not found; name Kamailio's")
    );
}

#[test]
fn the_cores_settings_go_where_they_belong() {
    let import = imported(
        "debug=3\nchildren=8\nalias=sip.example.com udp:10.0.0.1:5070\nserver_header=\"Server: My edge\"\n\
         mhomed=1\nmemdbg=5\npstn.gw_ip = \"10.0.0.7\" desc \"x\"\ncolour=red\nfoo=\n",
    );
    let config = Config::parse(&import.text).unwrap();
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.workers, None);
    assert_eq!(config.sip.aliases, ["sip.example.com", "10.0.0.1:5070"]);
    assert_eq!(config.sip.server_header.as_deref(), Some("My edge"));
    let tcp = imported("tcp_max_connections = 4096").text;
    assert_eq!(Config::parse(&tcp).unwrap().sip.tcp.total, 4096);
    assert!(tcp.contains("tcp-max-connections = 4096  #"), "{tcp}");
    let none = imported("tcp_max_connections = 0").text;
    assert!(none.contains("# tcp-max-connections = 0"), "{none}");
    assert_eq!(
        Config::parse(&none).unwrap().sip.tcp,
        Config::default().sip.tcp
    );
    assert_eq!(
        Config::parse(&imported("server_signature=no").text)
            .unwrap()
            .sip
            .server_header,
        None
    );
    let balanced = imported("tcp_accept_haproxy=yes");
    let mend = "name the addresses of the load balancers in `proxy-protocol`";
    assert!(said(&balanced).join("\n").contains(mend));
    let said = said(&import).join("\n");
    for words in [
        "k.cfg:5: mhomed = 1: the socket is not chosen by the route",
        "settings without a counterpart: memdbg (k.cfg:6): nothing to do",
        "settings that this import does not know: pstn.gw_ip (k.cfg:7), colour (k.cfg:8)",
        "k.cfg:9: foo: not understood",
    ] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}

#[test]
fn names_lead_where_they_led_before() {
    let resolver = |text: &str| Config::parse(&imported(text).text).unwrap().resolver;
    let usual = resolver("debug=2\n");
    assert_eq!((usual.naptr, usual.srv, usual.addresses), (false, true, 1));
    let all = resolver("dns_try_naptr=on\nuse_dns_failover=yes\ndns_srv_lb=on\n");
    assert_eq!((all.naptr, all.addresses), (true, 4));
    let none = resolver("dns_try_naptr=no\nuse_dns_failover=0\ndns_try_ipv6=off\n");
    assert_eq!((none.naptr, none.addresses), (false, 1));
    assert_ne!(none.families, usual.families);
    let text = imported("debug=2\n").text;
    assert!(text.contains("naptr = false  # as Kamailio"), "{text}");
}

#[test]
fn calls_of_the_routing_logic_are_listed_with_their_rust() {
    let import = imported(
        "loadmodule \"permissions.so\"\nrequest_route {\n  if (allow_source_address(\"200\") || $si == \"allow_address(\") {\n\
         \txlog(\"group 200\\n\"); # allow_trusted()\n  } else if (!allow_address(\"2\", \"$avp(ip)\", \"$sp\")) { exit; }\n\
         \tallow_source_address = 1;\n\tport = 5070;\n}\nroute[X] { if (allow_routing()) return; }\n",
    );
    let said = said(&import);
    assert_eq!(
        said[..3],
        [
            "/etc/k/k.cfg:3: allow_source_address(\"200\"): in the policy, write allow_source_address(200)",
            "/etc/k/k.cfg:5: allow_address(\"2\", \"$avp(ip)\", \"$sp\"): in the policy, write allow_address(2, &address, \
             request::source_port()), where address is what \"$avp(ip)\" held",
            "/etc/k/k.cfg:9: allow_routing(): in the policy, write allow_routing(None)",
        ]
    );
    // A word in the routing logic is no setting.
    assert!(import.text.contains("udp:0.0.0.0:5060"), "{}", import.text);
}

#[test]
fn the_page_for_operators_names_every_parameter_and_function() {
    const PAGE: &str = include_str!("../../../../docs/from-kamailio.md");
    const PARAMETERS: [&str; 28] = [
        "db_url",
        "address_table",
        "grp_col",
        "ip_addr_col",
        "mask_col",
        "port_col",
        "tag_col",
        "address_file",
        "trusted_table",
        "source_col",
        "proto_col",
        "from_col",
        "ruri_col",
        "priority_col",
        "db_mode",
        "peer_tag_avp",
        "peer_tag_mode",
        "max_subnets",
        "subnet_match_mode",
        "load_backends",
        "reload_delta",
        "trusted_cleanup_interval",
        "default_allow_file",
        "default_deny_file",
        "allow_suffix",
        "deny_suffix",
        "check_all_branches",
        "version_table",
    ];
    for name in PARAMETERS {
        assert!(
            PAGE.contains(&format!("`{name}`")),
            "{name} is not on the page"
        );
        if name != "version_table" {
            let import = imported(&format!("modparam(\"permissions\", \"{name}\", \"x\")"));
            assert!(
                !said(&import).concat().contains("does not know"),
                "{name}: {:#?}",
                said(&import)
            );
        }
    }
    for function in functions::FUNCTIONS {
        assert!(
            PAGE.contains(&format!("| `{function}(")),
            "{function} is not on the page"
        );
    }
}

/// Pieces that mean something to the reader, to be put together at random.
fn fragment() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "#!ifdef A\n",
        "#!ifndef B\n",
        "#!else\n",
        "#!endif\n",
        "#!define A \"x\" \\\n",
        "#!define B A\n",
        "#!substdef \"!A!\\1é!gi\"\n",
        "#!subst '/(x*)/\\9/'\n",
        "include_file \"k.cfg\"\n",
        "import_file \"b\"\n",
        "listen=udp:eth0:5060",
        "listen=[::1]",
        "listen=",
        " advertise ",
        "socket={bind=",
        "alias=",
        "port=",
        "debug=-",
        "modparam(\"permissions\", \"db_url\", ",
        "modparam(\"ctl|jsonrpcs\", \"mode\", 0660)",
        "loadmodule \"ctl.so\"\n",
        "modparam(\"permissions\", \"load_backends\", ",
        "allow_address(\"1\", $si, $sp)",
        "allow_uri(",
        "\"",
        "'",
        "\\",
        "$var(",
        "/*",
        "*/",
        "//",
        "#",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ";",
        ",",
        ":",
        "=",
        ".",
        "\n",
        " ",
        "5060",
        "é",
        "\u{0}",
        "10.0.0.1",
        "name \"x\"",
        "!!",
        "#!",
        "0x",
        "run_dir=\"/\"",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => ".{0,8}"]
}

proptest! {
    #[test]
    fn no_input_panics_and_every_result_is_a_configuration(parts in prop::collection::vec(fragment(), 0..60)) {
        invariants::import(&parts.concat());
    }
}

#[test]
fn calls_of_tm_become_calls_of_a_policy() {
    let import = imported(
        "loadmodule \"tm.so\"\nrequest_route {\n    t_set_fr(\"120000\", \"4000\");\n    t_on_failure(\"NEXT\");\n    if (!t_relay()) sl_reply_error();\n}\n\
         failure_route[NEXT] {\n    if (t_is_canceled()) exit;\n    if (t_check_status(\"5[0-9][0-9]\") || t_branch_timeout()) {\n\
         $du = \"sip:192.0.2.2:5060\";\n        append_branch();\n        t_relay();\n        exit;\n    }\n    t_reply(\"503\", \"No Carrier\");\n}\n",
    );
    let said = said(&import);
    for (call, code) in [
        (
            "k.cfg:3: t_set_fr(\"120000\", \"4000\")",
            ".ring_for(Duration::from_millis(120000)).within(Duration::from_millis(4000))",
        ),
        (
            "k.cfg:4: t_on_failure(\"NEXT\")",
            "policy!(decide, on_failure: next)",
        ),
        ("k.cfg:5: t_relay() (also k.cfg:12)", "return relay()"),
        ("k.cfg:8: t_is_canceled()", "not needed"),
        (
            "k.cfg:9: t_check_status(\"5[0-9][0-9]\"), t_branch_timeout() (also k.cfg:9)",
            "outcome::best()",
        ),
        ("k.cfg:11: append_branch()", "relay_to(\"a\").and(\"b\")"),
        (
            "k.cfg:15: t_reply(\"503\", \"No Carrier\")",
            "answer(503, \"No Carrier\")",
        ),
    ] {
        let is_it = |line: &&String| line.contains(call) && line.contains(code);
        assert_eq!(said.iter().filter(is_it).count(), 1, "{call}: {said:#?}");
    }
    let calls = said.iter().filter(|line| line.contains("k.cfg:"));
    assert_eq!(calls.count(), 7, "{said:#?}");
}

#[test]
fn timers_of_tm_become_those_of_the_relay() {
    let import = imported(
        "loadmodule \"tm.so\"\nmodparam(\"tm\", \"fr_timer\", 5000)\nmodparam(\"tm\", \"fr_inv_timer\", 120000)\n\
         modparam(\"tm\", \"auto_inv_100\", 0)\nmodparam(\"tm\", \"wt_timer\", 5000)\n\
         modparam(\"tm\", \"failure_reply_mode\", 3)\nmodparam(\"tm\", \"ruri_matching\", 1)\n",
    );
    for line in [
        "no-answer = \"5000ms\"",
        "ring = \"120000ms\"",
        "trying = \"never\"",
    ] {
        assert!(import.text.contains(line), "{line}: {}", import.text);
    }
    let said = said(&import);
    let about = |name: &str| said.iter().filter(|line| line.contains(name)).count();
    assert_eq!(
        (about("tm: wt_timer"), about("tm: failure_reply_mode")),
        (1, 1)
    );
    assert_eq!(about("ruri_matching"), 0, "there is nothing to do");
    assert_eq!(about("module tm"), 0, "{said:?}");
}
