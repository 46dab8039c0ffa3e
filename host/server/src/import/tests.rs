//! Whole configurations, from text to text.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::config::Config;

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

#[track_caller]
fn listens(text: &str, expected: &[&str]) -> Import {
    let import = imported(text);
    let config = Config::parse(&import.text).unwrap();
    let listens: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listens, expected, "{}\n{:#?}", import.text, said(&import));
    import
}

#[test]
fn listen_lines_bind_what_kamailio_binds() {
    listens("", &["udp:0.0.0.0:5060", "tcp:0.0.0.0:5060"]);
    listens("port=5070 disable_tcp=yes", &["udp:0.0.0.0:5070"]);
    listens(
        "listen=10.0.0.1 listen = udp:10.0.0.2:5080\nport=5070",
        &[
            "udp:10.0.0.1:5070",
            "tcp:10.0.0.1:5070",
            "udp:10.0.0.2:5080",
        ],
    );
    listens(
        "listen=udp:10.0.0.1:5060 tcp:10.0.0.1:5061 # both\nchildren=4",
        &["udp:10.0.0.1:5060", "tcp:10.0.0.1:5061"],
    );
    listens("listen=udp:[::1]:5060;", &["udp:[::1]:5060"]);
    listens("listen=\"udp:10.0.0.1\"", &["udp:10.0.0.1:5060"]);
    listens(
        "#!define MY_IP 10.0.0.9 \n#!define MY_SOCKET tcp:MY_IP:5066\nlisten=udp:MY_IP:5065\nlisten=MY_SOCKET",
        &["udp:10.0.0.9:5065", "tcp:10.0.0.9:5066"],
    );
}

#[test]
fn listen_lines_carry_what_is_advertised() {
    listens(
        "listen=udp:10.0.0.1:5060 advertise 198.51.100.7:5061 name \"a\"\nlisten=tcp:10.0.0.1:5060 name \"b\"",
        &[
            "udp:10.0.0.1:5060 advertise 198.51.100.7:5061",
            "tcp:10.0.0.1:5060",
        ],
    );
    listens(
        "advertised_address=\"sip.example.com\"\nadvertised_port=5062\nlisten=udp:10.0.0.1:5060",
        &["udp:10.0.0.1:5060 advertise sip.example.com:5062"],
    );
    listens(
        "socket = {\n  bind = udp:10.0.0.1:5060;\n  advertise = 11.0.0.1:5070;\n  name = \"s\"; workers = 4\n}\n\
         socket={ bind = tcp:10.0.0.1:5060 }",
        &[
            "udp:10.0.0.1:5060 advertise 11.0.0.1:5070",
            "tcp:10.0.0.1:5060",
        ],
    );
}

#[test]
fn interfaces_and_names_become_addresses() {
    let import = listens(
        "listen=udp:eth0:5070\nlisten=tcp:edge.example.com\nlisten=udp:eth7",
        &[
            "udp:10.0.0.5:5070",
            "udp:[2001:db8::5]:5070",
            "tcp:192.0.2.7:5060",
        ],
    );
    assert_eq!(
        said(&import)[..3],
        [
            "/etc/k/k.cfg:1: listen=udp:eth0:5070: eth0 stands for the addresses of this interface at the time of the import: \
             add or remove addresses in `listen` when that changes",
            "/etc/k/k.cfg:2: listen=tcp:edge.example.com: edge.example.com stands for what this name resolves to at the time of \
             the import: add or remove addresses in `listen` when that changes",
            "/etc/k/k.cfg:3: listen=udp:eth7: eth7 is no address, no interface of this machine and no name that resolves here: \
             add the address to `listen`",
        ]
    );
}

#[test]
fn what_is_not_served_is_said_with_its_line() {
    let import = listens(
        "listen=udp:10.0.0.1:5060\nlisten=tls:10.0.0.1:5061",
        &["udp:10.0.0.1:5060"],
    );
    assert_eq!(
        said(&import)[0],
        "/etc/k/k.cfg:2: listen can't be taken over as it is: the transport tls is not there yet; listen on udp or tcp"
    );
    assert!(
        import
            .text
            .contains("#     \"tls:10.0.0.1:5061\",  # k.cfg:2: not taken: the transport tls"),
        "{}",
        import.text
    );
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
    let import = imported("modparam(\"permissions\", \"db_url\", \"postgres://a:s3cret@b/c\")");
    let said = said(&import).concat();
    assert!(
        said.starts_with("/etc/k/k.cfg:1: url can't be taken over as it is: the database \"postgres\" is not supported"),
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
         modparam(\"permissions\", \"peer_tag_mode\", 0)\n",
    );
    let said = said(&import);
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
fn switched_off_parts_are_passed_over_and_told() {
    let text = "#!ifdef WITH_A\n#!ifdef WITH_B\nlisten=udp:10.0.0.1\n#!else\nlisten=udp:10.0.0.2\n#!endif\n\
                #!else\nlisten=udp:10.0.0.3\n#!endif\nport=5070\n";
    let fake = Fake::default().file("/etc/k/k.cfg", text);
    let listen = |defines: &[(&str, &str)]| {
        let import = fake.import(defines);
        let config = Config::parse(&import.text).unwrap();
        (config.listen[0].to_string(), said(&import))
    };
    let (first, said) = listen(&[]);
    assert_eq!(first, "udp:10.0.0.3:5070");
    assert_eq!(
        said[..2],
        [
            "/etc/k/k.cfg:1: #!ifdef WITH_A and #!ifdef WITH_B do not hold, and line about permissions or listening passed \
             over: k.cfg:3: where Kamailio is started with -A NAME, give --define NAME here",
            "/etc/k/k.cfg:1: #!ifdef WITH_A does not hold, and line about permissions or listening passed over: k.cfg:5: where \
             Kamailio is started with -A NAME, give --define NAME here",
        ]
    );
    assert_eq!(listen(&[("WITH_A", "")]).0, "udp:10.0.0.2:5070");
    assert_eq!(
        listen(&[("WITH_A", ""), ("WITH_B", "1")]).0,
        "udp:10.0.0.1:5070"
    );
    assert_eq!(listen(&[("WITH_B", "")]).0, "udp:10.0.0.3:5070");
}

#[test]
fn definitions_and_substitutions_reach_the_values() {
    let import = imported(
        "#!substdef \"!HOST!10.0.0.3!g\"\n#!subst \"/USER/kamailio/i\"\n#!defenv DB_HOST\n#!defenv ID=NOT_SET\n\
         #!define A B\n#!define B A\n#!trydef HOST x\n\
         modparam(\"permissions\", \"db_url\", \"mysql://user@HOST/\" \"k\")\n\
         listen=udp:HOST:5060\nalias=DB_HOST\nalias=A\n",
    );
    let config = Config::parse(&import.text).unwrap();
    assert_eq!(
        config.database.url.to_string(),
        "mysql://kamailio@10.0.0.3:3306/k"
    );
    assert_eq!(config.listen[0].to_string(), "udp:10.0.0.3:5060");
    assert_eq!(config.sip.aliases, ["db.example.com", "a"]);
    assert!(
        said(&import)[0]
            .starts_with("/etc/k/k.cfg:4: #!defenv ID=NOT_SET: NOT_SET is not in the environment")
    );
}

#[test]
fn files_are_included_from_beside_the_file_that_names_them() {
    let fake = Fake::default()
        .file(
            "/etc/k/k.cfg",
            "include_file \"more/a.cfg\"\nimport_file \"absent.cfg\"\n#!include_file \"lost.cfg\"\nalias=last.example.com",
        )
        .file("/etc/k/more/a.cfg", "\nlisten=udp:10.0.0.1:5060\n!!include_file \"b.cfg\"\n")
        .file("/etc/k/more/b.cfg", "include_file \"b.cfg\"\nmodparam(\"permissions\", \"max_subnets\", 1)\n");
    let import = fake.import(&[]);
    assert!(
        import.text.contains("\"udp:10.0.0.1:5060\",  # a.cfg:2\n"),
        "{}",
        import.text
    );
    assert!(
        import.text.contains("\"last.example.com\",  # k.cfg:4\n"),
        "{}",
        import.text
    );
    let said = said(&import);
    assert!(
        said.iter().any(|line| line.starts_with("/etc/k/k.cfg:3: include_file lost.cfg: entity not found")),
        "{said:#?}"
    );
    assert!(
        said.iter().any(|line| line
            .starts_with("/etc/k/more/b.cfg:1: include_file b.cfg: files are included too deep")),
        "{said:#?}"
    );
    assert!(
        said.iter()
            .any(|line| line.starts_with("/etc/k/more/b.cfg:2: permissions: max_subnets"))
    );
}

#[test]
fn the_file_itself_must_be_there() {
    let error = import(Path::new("/etc/k/none.cfg"), &[], &Fake::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("can't read /etc/k/none.cfg: entity not found; name Kamailio's")
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
    assert_eq!(
        Config::parse(&imported("server_signature=no").text)
            .unwrap()
            .sip
            .server_header,
        None
    );
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
            "/etc/k/k.cfg:9: allow_routing(): in the policy, write allow_routing(\"permissions\")",
        ]
    );
    // A word in the routing logic is no setting.
    assert!(import.text.contains("udp:0.0.0.0:5060"), "{}", import.text);
}

#[test]
fn what_does_not_end_is_told_where_it_starts() {
    for (text, words) in [
        ("a=1\nroute {\n", "k.cfg:2: a block that does not end"),
        ("a=1\n}", "k.cfg:2: a } without its {"),
        ("\n#!ifdef A\n", "k.cfg:2: #!ifdef A has no #!endif"),
        ("#!endif", "k.cfg:1: #!endif without #!ifdef"),
        ("\n/* a", "k.cfg:2: a comment that does not end"),
        (
            "a=\"b",
            "k.cfg:1: a text in double quotes that does not end",
        ),
        (
            "route { allow_trusted(",
            "k.cfg:1: allow_trusted: its arguments do not end",
        ),
        (
            "modparam(\"permissions\", 5)",
            "k.cfg:1: modparam: not understood",
        ),
        (
            "loadmodule permissions",
            "k.cfg:1: loadmodule: not understood",
        ),
        (
            "modparam(\"(\", \"a\", 5)",
            "k.cfg:1: modparam of \"(\": not a name of modules",
        ),
    ] {
        let said = said(&imported(text)).join("\n");
        assert!(said.contains(words), "{text:?}: {said}");
    }
}

#[test]
fn a_definition_that_explodes_is_cut_off() {
    let mut text = String::from("#!define A0 x x x x\n");
    for n in 1..20 {
        let m = n - 1;
        text += &format!("#!define A{n} A{m} A{m} A{m} A{m}\n");
    }
    text += "A19\n";
    assert!(said(&imported(&text))[0].contains("more than 1000000 words"));
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
        let import = imported(&parts.concat());
        let read = Config::parse(&import.text);
        prop_assert!(read.is_ok(), "{}\n{:?}", import.text, read);
    }
}
