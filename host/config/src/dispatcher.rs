//! `[dispatcher]`: the sets of the dispatcher, and how their destinations are judged.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_database::{Connections, DispatcherNames, Name};
use portcullis_dispatcher::{Dispatcher, Rules, Source, Thresholds};

use super::database::DatabaseConfig;
use super::problem::Bad;
use super::section::Section;
use super::value::{count, duration};

/// Sets of destinations, and how they are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherConfig {
    /// File that replaces the table.
    pub file: Option<PathBuf>,
    /// The names of the table and its columns.
    pub names: DispatcherNames,
    /// How destinations are judged, and how calls are counted.
    pub rules: Rules,
}

impl DispatcherConfig {
    /// Returns a dispatcher on the table in this database, or on the file. Nothing is loaded yet.
    pub fn dispatcher(&self, database: &DatabaseConfig) -> Dispatcher {
        let connections = Connections::kept(database.url.clone());
        let source = self.source(connections, database);
        Dispatcher::new(source, self.rules, database.book_options())
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
            rules: Rules {
                thresholds: Thresholds {
                    down_after: 3,
                    up_after: 2,
                },
                is_passive: true,
                rest: Duration::from_secs(30),
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
    let Rules {
        thresholds,
        is_passive,
        rest,
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
        calls: section.value("calls", calls, |v| count(v, 32, 16_777_216)),
        longest_call: section.value("longest-call", longest_call, |v| {
            duration(v, Duration::from_secs(60), 7 * day)
        }),
    };
    section.finish();
    DispatcherConfig {
        file: file.filter(|file| !file.as_os_str().is_empty()),
        names,
        rules,
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
        let text = "[dispatcher]\nfile = \"d.list\"\ntable = \"gateways\"\nsetid-col = \"pool\"\ndown-after = 1\npassive = false\nrest = \"5s\"\n";
        let config = Config::parse(text).unwrap();
        let read = &config.dispatcher;
        assert_eq!(read.file.as_deref(), Some("d.list".as_ref()));
        assert_eq!(read.rules.thresholds.down_after, 1);
        assert!(!read.rules.is_passive);
        assert_eq!(read.rules.rest.as_secs(), 5);
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
        let problems = Config::parse("[dispatcher]\ndown-after = 0\nrest = 5\n").unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
