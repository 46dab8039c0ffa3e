//! `[dispatcher]`: the sets of the dispatcher, and how their destinations are judged.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_database::{Connections, DispatcherNames, Name};
use portcullis_dispatcher::{Codes, Dispatcher, Pinged, Pings, Rules, Source, Thresholds, is_from};

use super::database::DatabaseConfig;
use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{count, duration, one_of};

/// Sets of destinations, and how they are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherConfig {
    /// File that replaces the table.
    pub file: Option<PathBuf>,
    /// The names of the table and its columns.
    pub names: DispatcherNames,
    /// Whether calls are counted together with the hosts of the same `[fleet.redis]`.
    pub shares_calls: bool,
    /// How destinations are judged, and how calls are counted.
    pub rules: Rules,
}

impl DispatcherConfig {
    /// Returns a dispatcher on the table in this database, or on the file. Nothing is loaded yet.
    pub fn dispatcher(&self, database: &DatabaseConfig) -> Dispatcher {
        let connections = Connections::kept(database.servers());
        let source = self.source(connections, database);
        Dispatcher::new(source, self.rules.clone(), database.book_options())
    }

    /// Returns where the rows are.
    pub fn source(&self, connections: Connections, database: &DatabaseConfig) -> Source {
        let source = Source::new(connections, database.schema.clone());
        match &self.file {
            Some(file) => source.with_file(file),
            None => source,
        }
    }
}

impl Default for DispatcherConfig {
    fn default() -> Self {
        Self {
            file: None,
            names: DispatcherNames::default(),
            shares_calls: true,
            rules: Rules {
                thresholds: Thresholds {
                    down_after: 3,
                    up_after: 2,
                },
                is_passive: true,
                rest: Duration::from_secs(30),
                longest_pause: Duration::from_secs(60),
                pings: Pings::default(),
                calls: 16_384,
                longest_call: Duration::from_secs(7_200),
            },
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: DispatcherConfig) -> DispatcherConfig {
    let day = Duration::from_secs(86_400);
    let file = section.optional("file", |value| Ok(PathBuf::from(value.text()?)));
    let names = names(&mut section, default.names);
    let shares_calls = default.shares_calls;
    let shares_calls = section.value("share-calls", shares_calls, |v| v.boolean());
    let Rules {
        thresholds,
        is_passive,
        rest,
        longest_pause,
        pings,
        calls,
        longest_call,
    } = default.rules;
    let rules = Rules {
        thresholds: Thresholds {
            down_after: section.value("down-after", thresholds.down_after, |v| count(v, 1, 100)),
            up_after: section.value("up-after", thresholds.up_after, |v| count(v, 1, 100)),
        },
        is_passive: section.value("passive", is_passive, |v| v.boolean()),
        rest: section.value("rest", rest, |v| duration(v, Duration::from_secs(1), day)),
        longest_pause: section.value("longest-retry-after", longest_pause, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(3_600))
        }),
        pings: self::pings(&mut section, pings),
        calls: section.value("calls", calls, |v| count(v, 32, 16_777_216)),
        longest_call: section.value("longest-call", longest_call, |v| {
            duration(v, Duration::from_secs(60), 7 * day)
        }),
    };
    section.finish();
    DispatcherConfig {
        file: file.filter(|file| !file.as_os_str().is_empty()),
        names,
        shares_calls,
        rules,
    }
}

fn pings(section: &mut Section<'_>, default: Pings) -> Pings {
    let second = Duration::from_secs(1);
    let which = default.which.name().to_owned();
    let which = section.value("probe", which, |value| one_of(value, &Pinged::NAMES));
    let codes = section.list("ping-codes", default.codes.texts(), |value| {
        let text = value.text()?;
        let read = Codes::default().with(text).map(drop);
        read.map_err(|error| Bad::new("not a status code", error.to_string()))?;
        Ok(text.to_owned())
    });
    Pings {
        interval: section.value("ping", default.interval, |value| {
            let time = duration(value, Duration::ZERO, 86_400 * second)?;
            let mend = "write \"0s\" for no pings, or at least \"100ms\"";
            match time.is_zero() || time >= second / 10 {
                true => Ok(time),
                false => Err(Bad::new("too short", mend)),
            }
        }),
        timeout: section.value("ping-timeout", default.timeout, |value| {
            duration(value, second / 20, 32 * second)
        }),
        which: Pinged::of_name(&which).unwrap_or(default.which),
        codes: codes.iter().fold(Codes::default(), |codes, text| {
            codes.clone().with(text).unwrap_or(codes)
        }),
        method: section.value("ping-method", default.method, method),
        from: section.value("ping-from", default.from, from),
    }
}

/// A method without an effect: one that begins a dialog or a registration is no question.
fn method(value: Value<'_>) -> Result<Box<str>, Bad> {
    const MEND: &str = "write \"OPTIONS\", or another method in capital letters that needs no dialog, such as \"INFO\"";
    let text = value.text()?;
    let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let has_effect = ["INVITE", "ACK", "CANCEL", "BYE", "REGISTER"].contains(&text);
    match is_method && !has_effect {
        true => Ok(text.into()),
        false => Err(Bad::new("not a method for pings", MEND)),
    }
}

fn from(value: Value<'_>) -> Result<Box<str>, Bad> {
    let text = value.text()?;
    match text.is_empty() || is_from(text) {
        true => Ok(text.into()),
        false => Err(Bad::new(
            "not a SIP URI",
            "write a URI without parameters, such as \"sip:edge@example.com\"",
        )),
    }
}

/// The keys are Kamailio's module parameters, with dashes.
fn names(section: &mut Section<'_>, default: DispatcherNames) -> DispatcherNames {
    let mut name = |key, default| {
        section.value(key, default, |value| {
            let name = value.text()?.parse::<Name>();
            name.map_err(|error| Bad::new(error.to_string(), ""))
        })
    };
    DispatcherNames {
        table: name("table", default.table),
        setid: name("setid-col", default.setid),
        destination: name("destination-col", default.destination),
        flags: name("flags-col", default.flags),
        priority: name("priority-col", default.priority),
        attrs: name("attrs-col", default.attrs),
        description: name("description-col", default.description),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn the_section_is_read() {
        let text = "[dispatcher]\nfile = \"d.list\"\ntable = \"gateways\"\nsetid-col = \"pool\"\ndown-after = 1\npassive = false\nrest = \"5s\"\nlongest-retry-after = \"0s\"\n";
        let config = Config::parse(text).unwrap();
        let read = &config.dispatcher;
        assert_eq!(read.file.as_deref(), Some("d.list".as_ref()));
        assert_eq!(read.rules.thresholds.down_after, 1);
        assert!(!read.rules.is_passive);
        assert_eq!(read.rules.rest.as_secs(), 5);
        assert!(read.rules.longest_pause.is_zero());
        let names = &config.database.schema.dispatcher;
        assert_eq!(
            (names.table.as_str(), names.setid.as_str()),
            ("gateways", "pool")
        );
        assert_eq!(
            Config::parse("[dispatcher]\nfile = \"\"\n")
                .unwrap()
                .dispatcher
                .file,
            None
        );
        let text = "[dispatcher]\nping = \"10s\"\nping-timeout = \"500ms\"\nping-codes = [\"2xx\", \"404\"]\nprobe = \"inactive\"\n\
                    ping-method = \"INFO\"\nping-from = \"sip:edge@example.com\"\n";
        let pings = Config::parse(text).unwrap().dispatcher.rules.pings;
        assert_eq!(
            (pings.interval.as_secs(), pings.timeout.as_millis()),
            (10, 500)
        );
        assert_eq!(
            (pings.codes.to_string(), pings.which.name()),
            ("2xx, 404".to_owned(), "inactive")
        );
        assert_eq!(
            (&*pings.method, &*pings.from),
            ("INFO", "sip:edge@example.com")
        );
        let off = Config::parse("[dispatcher]\nping = \"0s\"\n").unwrap();
        assert!(off.dispatcher.rules.pings.interval.is_zero());
        for bad in [
            "ping = \"x\"",
            "ping = \"99ms\"",
            "ping-timeout = \"0s\"",
            "ping-codes = [\"7xx\"]",
            "probe = \"some\"",
            "ping-method = \"INVITE\"",
            "ping-method = \"options\"",
            "ping-from = \"edge\"",
            "ping-from = \"sip:a>b@c\"",
            "longest-retry-after = \"2h\"",
        ] {
            let problems = Config::parse(&format!("[dispatcher]\n{bad}\n")).unwrap_err();
            assert_eq!(problems.len(), 1, "{bad}: {problems:?}");
        }
        let problems = Config::parse("[dispatcher]\ndown-after = 0\nrest = 5\n").unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
