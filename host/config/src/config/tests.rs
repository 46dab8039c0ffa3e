//! Tests of the whole configuration.

use std::time::Duration;

use crate::{Answer, DefaultVerdict, LogFormat};

use super::*;

fn problems(text: &str) -> Vec<String> {
    Config::parse(text)
        .unwrap_err()
        .iter()
        .map(Problem::to_string)
        .collect()
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(Config::parse(DEFAULTS), Ok(Config::default()));
    assert_eq!(Config::parse(""), Ok(Config::default()));
}

#[test]
fn the_environment_names_the_database() {
    let config = Config::parse("[database]\nurl = \"sqlite:a.db\"\n").unwrap();
    let with = |url: &str| config.clone().with_database_url(Some(url.into()));
    let changed = with("mysql://kamailio:secret@db/kamailio").unwrap();
    assert_eq!(
        changed.database.url.to_string(),
        "mysql://kamailio@db:3306/kamailio"
    );
    assert_eq!(with("").unwrap(), config);
    assert_eq!(config.clone().with_database_url(None).unwrap(), config);
    let error = with("mysql:kamailio:secret@db").unwrap_err().to_string();
    assert!(
        error.starts_with("the environment variable PORTCULLIS_DATABASE_URL: \"//\" is missing"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn every_key_is_documented() {
    // The parser knows every key that it reads. The error for an unknown key lists the known keys of the section.
    for section in [
        "",
        "database",
        "fleet",
        "permissions",
        "dispatcher",
        "policy",
        "policy.on-failure",
        "policy.before",
        "tenants.acme",
        "relay",
        "relay.tls",
        "relay.tls-profiles.carrier",
        "streams",
        "tls.edge",
        "nat",
        "websocket",
        "transactions",
        "control",
        "log",
        "sip",
        "guard",
        "fleet.redis",
    ] {
        let header = if section.is_empty() {
            String::new()
        } else {
            format!("[{section}]\n")
        };
        let listed = problems(&format!("{header}zzzz = 1"));
        let mut told = listed.iter();
        let (_, known) = told
            .find_map(|line| line.split_once("known keys: "))
            .unwrap();
        for key in known.split(", ").filter(|key| !key.is_empty()) {
            let written = DEFAULTS.lines().any(|line| {
                // A key without a default is documented as a commented example.
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.starts_with(&format!("{key} = "))
                    || line == format!("[{key}]")
                    || line == format!("[{section}.{key}]")
                    // A section whose keys the operator chooses.
                    || line.starts_with(&format!("[{section}.{key}."))
                    // The sections that all policies have are documented once, for [policy].
                    || line == format!("[policy.{key}]")
            });
            assert!(written, "{section}.{key} is not in defaults.toml");
        }
    }
}

#[test]
fn a_whole_file_is_read() {
    let read = Config::parse(
        r#"
        workers = 1
        spread = "datagram"
        listen = ["udp:127.0.0.1:5060", "tcp:[::1]:5061 advertise sip.example.com"]
        [database]
        url = "mysql://kamailio:kamailiorw@127.0.0.1/kamailio"
        required = false
        poll = "500ms"
        [policy]
        file = "target/policies/address-acl.wasm"
        default = "reject"
        default-code = 480
        default-reason = "Not now"
        failure-code = 500
        deadline = "20ms"
        memory = "1MiB"
        [relay]
        next-hop = "sip:127.0.0.1:5080"
        domains = ["example.com", "10.0.0.0/8"]
        record-route = false
        [relay.next-hops]
        pstn = "sip:10.0.0.7;transport=tcp"
        "voice mail" = "sip:[::1]:5090"
        [control]
        listen = "[::1]:8061"
        [log]
        format = "json"
        level = "warn"
        [sip]
        aliases = ["Edge.Example.com", "192.0.2.1:5070"]
        server-header = ""
        header-lines = 100
        "#,
    )
    .unwrap();
    assert_eq!(read.workers, Some(1));
    assert_eq!(read.spread, Spread::Datagram);
    assert_eq!(
        read.listen[1].to_string(),
        "tcp:[::1]:5061 advertise sip.example.com:5060"
    );
    assert!(!read.database.required);
    assert_eq!(read.database.poll, Duration::from_millis(500));
    assert_eq!(
        read.policy.seat.file,
        Some("target/policies/address-acl.wasm".into())
    );
    let answer = Answer {
        code: 480,
        reason: "Not now".into(),
    };
    assert_eq!(read.policy.default, DefaultVerdict::Reject(answer));
    assert_eq!(read.policy.seat.failure.answer, Answer::new(500));
    assert_eq!(read.policy.seat.limits.deadline, Duration::from_millis(20));
    assert_eq!(read.policy.seat.limits.memory_bytes, 1 << 20);
    assert_eq!(
        read.relay.next_hop.unwrap().to_string(),
        "sip:127.0.0.1:5080"
    );
    let names: Vec<_> = read
        .relay
        .next_hops
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["pstn", "voice mail"]);
    assert_eq!(read.relay.domains.len(), 2);
    assert!(!read.relay.record_route);
    assert_eq!(read.control.listen, "[::1]:8061".parse().ok());
    assert_eq!(read.log.format, LogFormat::Json);
    assert_eq!(read.sip.aliases, ["edge.example.com", "192.0.2.1:5070"]);
    assert_eq!(read.sip.server_header, None);
    assert_eq!(read.sip.limits.header_lines, 100);
}

#[test]
fn every_problem_has_position_value_and_correction() {
    let text = r#"workers = 0
listen = ["udp:127.0.0.1:5060", "upd:127.0.0.1:5060", "udp:127.0.0.1:5060"]
colour = "red"
[database]
url = "oracle://localhost/kamailio"
required = "yes"
poll = 5
[policy]
fiel = "a.wasm"
default = "accept"
default-code = 200
deadline = "soon"
memory = "99GiB"
workers = 2
[relay]
next-hop = "http://example.com"
domains = "example.com"
[relay.next-hops]
b = "sip:b.example;transport=sctp"
[control]
listen = "0.0.0.0:8060"
[log]
level = "loud"
"#;
    let said = problems(text);
    let expected = [
        "1:11: workers = 0: too small; write a whole number from 1 to 1024, or \"auto\" for one worker per core",
        "2:33: listen[1] = \"upd:127.0.0.1:5060\": unknown transport `upd`; write \"udp:ADDRESS:PORT\"",
        "2:55: listen[2] = \"udp:127.0.0.1:5060\": duplicate of udp:127.0.0.1:5060; remove one of them",
        "3:1: colour: unknown key; known keys: workers, spread, listen, database, fleet, permissions, dispatcher, policy, relay, streams, tls, nat, websocket, resolver, transactions, control, capture, events, records, log, sip, guard, tenants",
        "5:7: database.url: the database \"oracle\" is not supported; write \"mysql://",
        "6:12: database.required = \"yes\": a string, not a boolean; write true or false",
        "7:8: database.poll = 5: a time without a unit; write a time from \"100ms\" to \"3600s\"",
        "9:1: policy.fiel: unknown key; did you mean `file`?",
        "10:11: policy.default = \"accept\": not one of the choices; write \"reject\" or \"relay\" or \"drop\"",
        "11:16: policy.default-code = 200: too small; write a whole number from 300 to 699",
        "12:12: policy.deadline = \"soon\": not a time; write a time from \"1ms\" to \"10s\"",
        "13:10: policy.memory = \"99GiB\": too large; write a size from \"64KiB\" to \"1GiB\"",
        "14:1: policy.workers: unknown key; it belongs at the top of the file",
        "16:12: relay.next-hop = \"http://example.com\": not a SIP URI; write \"sip:HOST:PORT\"",
        "17:11: relay.domains = \"example.com\": not a list; write domains = [",
        "19:5: relay.next-hops.b = \"sip:b.example;transport=sctp\": unknown parameter `transport=sctp`; ",
        "21:10: control.listen = \"0.0.0.0:8060\": not a loopback address",
        "23:9: log.level = \"loud\": `loud` is not a level; write error, warn",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said}\n{expected}");
    }
}

#[test]
fn a_line_that_is_not_toml_does_not_hide_other_problems() {
    let said = problems("workers = one\n[log\nlevel = \"info\"\n[control]\nlisten = 8060\n");
    assert!(said[0].starts_with("1:11: not TOML: "), "{said:#?}");
    assert!(said.iter().any(|line| line.starts_with("2:")), "{said:#?}");
    assert!(
        said.last()
            .unwrap()
            .starts_with("5:10: control.listen = 8060: an integer, not a string")
    );
}

#[test]
fn addresses_that_no_socket_has_are_named_with_their_keys() {
    let config = Config::parse(
        "listen = [\"udp:lo:5060\", \"udp:192.0.2.1:5070\"]\n[nat]\nclients = [\"udp:lo:5060\", \"udp:192.0.2.9:5060\"]\n\
         [sip]\nforce-rport = [\"udp:192.0.2.1:5070\", \"udp:127.0.0.1:5060\"]\n[tenants.acme]\nlocal = [\"udp:192.0.2.8:5060\"]\n",
    )
    .unwrap();
    let sockets = Socket::all(&config.listen).unwrap();
    let unmatched = config.unmatched(&sockets).into_iter();
    let said: Vec<_> = unmatched.map(|(key, one)| format!("{key} {one}")).collect();
    assert_eq!(
        said,
        [
            "nat.clients udp:192.0.2.9:5060",
            "tenants.acme.local udp:192.0.2.8:5060"
        ]
    );
}

#[test]
fn an_empty_list_of_listen_addresses_is_refused() {
    assert_eq!(
        problems("listen = []"),
        [
            "1:10: listen = []: no listen address; name at least one address, for example [\"udp:127.0.0.1:5060\"]"
        ]
    );
}

#[test]
fn a_link_local_next_hop_needs_one_link() {
    let relay = "[relay]\nnext-hop = \"sip:[fe80::9]:5060;transport=tcp\"\n";
    let with = |listen: &str| Config::parse(&format!("listen = [{listen}]\n{relay}"));
    let said = |listen: &str| with(listen).unwrap_err()[0].to_string();
    let none = said("\"tcp:[::]:5060\", \"udp:[fe80::1%eth0]:5060\"");
    let text = "the next hop sip:[fe80::9]:5060;transport=tcp is link-local, and `listen` has no link-local tcp address; \
                add that of the link: \"tcp:[fe80::1%INTERFACE]:5060\"";
    assert!(none.ends_with(text), "{none}");
    let two = said("\"tcp:[fe80::1%eth0]:5060\", \"tcp:[fe80::2%eth1]:5060\"");
    assert!(
        two.contains("`listen` has tcp addresses of several links"),
        "{two}"
    );
    assert!(with("\"tcp:[fe80::1%eth0]:5060\", \"tcp:[fe80::1%eth0]:5070\"").is_ok());
}

#[test]
fn counters_of_a_fleet_need_a_redis_in_every_section_that_lists_them() {
    let redis = "[fleet.redis]\nurl = \"redis://192.0.2.60\"\n";
    let list = "fleet-counters = [\"limit-\"]\n";
    for (section, place) in [
        ("[policy]\n", ""),
        ("[policy.before]\n", " in [policy.before]"),
        ("[policy.after]\n", " in [policy.after]"),
        ("[tenants.acme]\nsource-groups = [1]\n", ""),
    ] {
        let text = format!("{section}{list}");
        let told = problems(&text);
        assert_eq!(told.len(), 1, "{told:?}");
        let message = format!("`fleet-counters`{place} without a Redis");
        assert!(told[0].contains(&message), "{told:?}");
        let with = Config::parse(&format!("{text}{redis}"));
        assert!(with.is_ok(), "{with:?}");
    }
    // A tenant in the database, and one that inherits the list of [policy].
    let acme = format!("source-groups = [1]\n{list}");
    let parsed = Config::default().parse_tenant("acme", &acme, &[]);
    assert!(parsed.unwrap_err()[0].to_string().contains("[fleet.redis]"));
    let config = Config::parse(&format!("[policy]\n{list}{redis}")).unwrap();
    let inherits = config.parse_tenant("acme", "source-groups = [1]", &[]);
    assert_eq!(inherits.unwrap().seat.fleet_counters, ["limit-"]);
    let own = "source-groups = [1]\nfleet-counters = []";
    let alone = config.parse_tenant("acme", own, &[]).unwrap();
    assert!(alone.seat.fleet_counters.is_empty());
}
