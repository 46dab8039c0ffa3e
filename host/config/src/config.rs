//! From the text of a file to a [`Config`]: which key is where, what it may hold, what goes with what.

use std::path::PathBuf;

use super::problem::{Bad, Problem};
use super::section::{Document, Section, Value};
use super::value::{GIB, KIB, bytes, count, one_of, phrase};
use super::{
    Config, ControlConfig, Domain, ForceRport, Listen, LogConfig, LogFormat, NextHop,
    PermissionsConfig, RecordsConfig, RelayConfig, SipConfig, Spread, database, policy, tenant,
};
use crate::ConnectionLimits;

/// The configuration with defaults in place of what can't be used, and every problem.
pub(super) fn config(text: &str) -> (Config, Vec<Problem>) {
    let document = Document::new(text);
    let config = root(document.root());
    (config, document.problems())
}

fn root(mut root: Section<'_>) -> Config {
    let defaults = Config::default();
    let workers = root.value("workers", defaults.workers, workers);
    let spread = root.value("spread", defaults.spread, spread);
    let listen = listen(&mut root, defaults.listen);
    let mut config = Config {
        workers,
        spread,
        database: database::read(root.section("database"), defaults.database),
        permissions: permissions(root.section("permissions")),
        policy: policy::read(root.section("policy"), defaults.policy),
        relay: relay(root.section("relay"), defaults.relay),
        tenants: Vec::new(),
        control: ControlConfig::read(root.section("control"), defaults.control),
        records: RecordsConfig::read(root.section("records"), defaults.records),
        log: log(root.section("log"), defaults.log),
        sip: sip(root.section("sip"), defaults.sip, &listen),
        listen,
    };
    config.tenants = tenant::read_all(root.section("tenants"), &config);
    root.finish();
    config
}

fn workers(value: Value<'_>) -> Result<Option<usize>, Bad> {
    if value.text() == Ok("auto") {
        return Ok(None);
    }
    let mend = |bad: Bad| {
        Bad::new(
            bad.what,
            format!("{}, or \"auto\" for one worker a core", bad.mend),
        )
    };
    count(value, 1, 1024).map(Some).map_err(mend)
}

fn spread(value: Value<'_>) -> Result<Spread, Bad> {
    match value.text()? {
        "flow" => Ok(Spread::Flow),
        "datagram" => Ok(Spread::Datagram),
        _ => Err(Bad::new("no such way", "write \"flow\" or \"datagram\"")),
    }
}

fn listen(root: &mut Section<'_>, default: Vec<Listen>) -> Vec<Listen> {
    let mut seen = Vec::<Listen>::new();
    let read = root.list("listen", default, |value| {
        let listen = Listen::parse(value.text()?)?;
        let same = |other: &&Listen| {
            other.transport == listen.transport
                && other.addr == listen.addr
                && listen.addr.port() != 0
        };
        if let Some(other) = seen.iter().find(same) {
            return Err(Bad::new(
                format!("the same as {other}"),
                "remove one of them",
            ));
        }
        seen.push(listen.clone());
        Ok(listen)
    });
    if root.is_empty_list("listen") {
        let mend = "name at least one address, for example [\"udp:127.0.0.1:5060\"]";
        root.reject("listen", Bad::new("a host that listens nowhere", mend));
    }
    read
}

fn permissions(mut section: Section<'_>) -> PermissionsConfig {
    let default = PermissionsConfig::default();
    let read = PermissionsConfig {
        folder: section.value("folder", default.folder, |v| Ok(PathBuf::from(v.text()?))),
        pattern_memory: section.value("pattern-memory", default.pattern_memory, |v| {
            bytes(v, 64 * KIB, 64 * GIB)
        }),
    };
    section.finish();
    read
}

fn relay(mut section: Section<'_>, default: RelayConfig) -> RelayConfig {
    let next_hop = section.optional("next-hop", |value| match value.text()? {
        "" => Ok(None),
        text => NextHop::parse(text).map(Some),
    });
    let read = RelayConfig {
        next_hop: next_hop.flatten(),
        next_hops: section.section("next-hops").entries(|name, value| {
            if name.is_empty() {
                return Err(Bad::new(
                    "a next hop without a name",
                    "write NAME = \"sip:HOST:PORT\"",
                ));
            }
            NextHop::parse(value.text()?)
        }),
        domains: section.list("domains", default.domains, |v| Domain::parse(v.text()?)),
        record_route: section.value("record-route", default.record_route, |v| v.boolean()),
    };
    section.finish();
    read
}

fn log(mut section: Section<'_>, default: LogConfig) -> LogConfig {
    let format = section.value("format", "human".to_owned(), |v| {
        one_of(v, &["human", "json"])
    });
    let level = section.value("level", default.level, |value| {
        let level = value.text()?;
        crate::log_level::check(level).map_err(|what| {
            Bad::new(what, "write error, warn, info, debug or trace; for parts: \"info,portcullis_address=debug\"")
        })?;
        Ok(level.to_owned())
    });
    section.finish();
    LogConfig {
        format: if format == "json" {
            LogFormat::Json
        } else {
            LogFormat::Human
        },
        level,
    }
}

/// `true`, `false`, or a list of those of `listen` that it goes for.
fn force_rport(section: &mut Section<'_>, default: ForceRport, listen: &[Listen]) -> ForceRport {
    if !section.is_list("force-rport") {
        let read = section.optional("force-rport", |value| {
            let mend =
                "write true, false, or a list of addresses of `listen`: [\"udp:192.0.2.1:5060\"]";
            value.boolean().map_err(|bad| Bad::new(bad.what, mend))
        });
        return match read {
            Some(true) => ForceRport::Always,
            Some(false) => ForceRport::Never,
            None => default,
        };
    }
    let these = section.list("force-rport", Vec::new(), |value| {
        let one = Listen::parse(value.text()?)?;
        if one.transport.is_reliable() {
            let mend = "leave it out: over TCP responses go back over the connection";
            return Err(Bad::new("not a UDP listener", mend));
        }
        if !listen.iter().any(|listen| listen.covers(&one)) {
            return Err(Bad::new(
                "not one of `listen`",
                "write it as it stands there",
            ));
        }
        Ok(one)
    });
    ForceRport::On(these)
}

fn sip(mut section: Section<'_>, default: SipConfig, listen: &[Listen]) -> SipConfig {
    let aliases = section.list("aliases", default.aliases, |value| {
        let alias = value.text()?;
        let mend = "write HOST or HOST:PORT, IPv6 in brackets";
        Domain::parse(alias)
            .ok()
            .filter(|_| !alias.contains(['/', '*']))
            .ok_or_else(|| Bad::new("not a host name or address", mend))?;
        Ok(alias.to_ascii_lowercase())
    });
    let server = section.optional("server-header", phrase);
    let mut limits = default.limits;
    limits.message_bytes =
        section.value("message", limits.message_bytes, |v| bytes(v, KIB, 65_535));
    limits.header_lines = section.value("header-lines", limits.header_lines, |v| count(v, 8, 4096));
    limits.header_bytes = section.value("header-line", limits.header_bytes, |v| {
        bytes(v, 128, 65_535)
    });
    limits.start_line_bytes = section.value("start-line", limits.start_line_bytes, |v| {
        bytes(v, 128, 65_535)
    });
    let key_file = section.optional("key-file", |value| Ok(PathBuf::from(value.text()?)));
    let answers_per_second = section.value("answers-per-second", default.answers_per_second, |v| {
        count(v, 0, 1_000_000)
    });
    let answers_burst = section.value("answers-burst", default.answers_burst, |v| {
        count(v, 1, 10_000_000)
    });
    let tcp = ConnectionLimits {
        total: section.value("tcp-max-connections", default.tcp.total, |v| {
            count(v, 1, 1_000_000)
        }),
        per_address: section.value(
            "tcp-max-connections-per-address",
            default.tcp.per_address,
            |v| count(v, 1, 1_000_000),
        ),
    };
    let force_rport = force_rport(&mut section, default.force_rport, listen);
    section.finish();
    SipConfig {
        aliases,
        force_rport,
        server_header: match server {
            Some(text) => Some(text).filter(|text| !text.is_empty()),
            None => default.server_header,
        },
        limits,
        key_file: key_file.filter(|file| !file.as_os_str().is_empty()),
        answers_per_second,
        answers_burst,
        tcp,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Answer, DEFAULTS, DefaultVerdict};

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        Config::parse(text)
            .unwrap_err()
            .iter()
            .map(Problem::to_string)
            .collect()
    }

    #[test]
    fn the_page_of_defaults_says_what_the_defaults_are() {
        assert_eq!(Config::parse(DEFAULTS), Ok(Config::default()));
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn the_page_of_defaults_names_every_key() {
        // Every key that is asked for is known; on a page that lacks one, an unknown neighbour lists it.
        for section in [
            "",
            "database",
            "permissions",
            "policy",
            "policy.on-failure",
            "policy.before",
            "tenants.acme",
            "relay",
            "control",
            "log",
            "sip",
        ] {
            let header = if section.is_empty() {
                String::new()
            } else {
                format!("[{section}]\n")
            };
            let listed = problems(&format!("{header}zzzz = 1"));
            let mut told = listed.iter();
            let (_, known) = told
                .find_map(|line| line.split_once("known here: "))
                .unwrap();
            for key in known.split(", ").filter(|key| !key.is_empty()) {
                let written = DEFAULTS.lines().any(|line| {
                    // What has no default stands there as an example.
                    let line = line.strip_prefix("# ").unwrap_or(line);
                    line.starts_with(&format!("{key} = "))
                        || line == format!("[{key}]")
                        || line == format!("[{section}.{key}]")
                        // Every policy has these, and they are told once.
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
    fn every_problem_is_told_with_place_value_and_mend() {
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
b = "sip:b.example;transport=tls"
[control]
listen = "0.0.0.0:8060"
[log]
level = "loud"
"#;
        let said = problems(text);
        let expected = [
            "1:11: workers = 0: too small; write a whole number from 1 to 1024, or \"auto\" for one worker a core",
            "2:33: listen[1] = \"upd:127.0.0.1:5060\": unknown transport `upd`; write \"udp:ADDRESS:PORT\"",
            "2:55: listen[2] = \"udp:127.0.0.1:5060\": the same as udp:127.0.0.1:5060; remove one of them",
            "3:1: colour: unknown key; known here: workers, spread, listen, database, permissions, policy, relay, control, records, log, sip, tenants",
            "5:7: database.url: the database \"oracle\" is not supported; write \"mysql://",
            "6:12: database.required = \"yes\": a text, not a yes or no; write true or false",
            "7:8: database.poll = 5: a time without a unit; write a time from \"100ms\" to \"3600s\"",
            "9:1: policy.fiel: unknown key; did you mean `file`?",
            "10:11: policy.default = \"accept\": not one of the choices; write \"reject\" or \"relay\" or \"drop\"",
            "11:16: policy.default-code = 200: too small; write a whole number from 300 to 699",
            "12:12: policy.deadline = \"soon\": not a time; write a time from \"1ms\" to \"10s\"",
            "13:10: policy.memory = \"99GiB\": too large; write a size from \"64KiB\" to \"1GiB\"",
            "14:1: policy.workers: unknown key; it belongs to the top of the file",
            "16:12: relay.next-hop = \"http://example.com\": not a SIP URI; write \"sip:HOST:PORT\"",
            "17:11: relay.domains = \"example.com\": not a list; write domains = [",
            "19:5: relay.next-hops.b = \"sip:b.example;transport=tls\": unknown parameter `transport=tls`; ",
            "21:10: control.listen = \"0.0.0.0:8060\": not a loopback address",
            "23:9: log.level = \"loud\": `loud` is not a level; write error, warn",
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
    }

    #[test]
    fn what_is_not_toml_is_told_beside_the_rest() {
        let said = problems("workers = one\n[log\nlevel = \"info\"\n[control]\nlisten = 8060\n");
        assert!(said[0].starts_with("1:11: not TOML: "), "{said:#?}");
        assert!(said.iter().any(|line| line.starts_with("2:")), "{said:#?}");
        assert!(
            said.last()
                .unwrap()
                .starts_with("5:10: control.listen = 8060: a number, not a text")
        );
    }

    #[test]
    fn a_host_that_listens_nowhere_is_refused() {
        assert_eq!(
            problems("listen = []"),
            [
                "1:10: listen = []: a host that listens nowhere; name at least one address, for example [\"udp:127.0.0.1:5060\"]"
            ]
        );
    }
}
