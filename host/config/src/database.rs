//! `[database]`: the database of the tables, their names, and the intervals of change detection.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_address::{
    AddressNames, BookOptions, Database, DatabaseUrl, DatabaseUrls, Name, Schema, TrustedNames,
};

use super::problem::Bad;
use super::section::{Section, Value};
use super::shape::Shape;
use super::value::{duration, one_of};

/// Where Linux has the name of the host.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Where the tables come from.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseConfig {
    /// `mysql://…`, `postgres://…` or `sqlite:…`; several for the servers of a cluster, as they are written. The order in which they are used
    /// is that of [`servers`](Self::servers).
    pub url: DatabaseUrls,
    /// Which server of a cluster this host prefers.
    pub prefer: Prefer,
    /// `name` of `[fleet]`, which chooses the server with [`Prefer::Spread`]; `None`: the name of the system does.
    pub(super) host: Option<String>,
    /// Whether the host refuses to start while the database is unreachable.
    pub required: bool,
    /// Longest time between two looks for changes of the tables.
    pub poll: Duration,
    /// Longest interval between two loads of a table whose database does not report changes.
    pub reread: Duration,
    /// How long a table or a rules file must stay empty, or the file missing, before this takes effect.
    pub settle: Duration,
    /// File that replaces the address table.
    pub address_file: Option<PathBuf>,
    /// The names of tables and columns.
    pub schema: Schema,
}

/// Which server of a cluster a host prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// The first of the list, then the second, and so on.
    #[default]
    First,
    /// The one that the name of the host chooses, then those after it: hosts spread over the servers.
    Spread,
}

impl DatabaseConfig {
    /// Returns the servers in the order in which this host prefers them.
    pub fn servers(&self) -> DatabaseUrls {
        match self.prefer {
            Prefer::First => self.url.clone(),
            Prefer::Spread => {
                let of_system = || std::fs::read_to_string(HOST_NAME).unwrap_or_default();
                let name = self.host.clone().unwrap_or_else(of_system);
                self.url.clone().spread(name.trim())
            }
        }
    }

    /// Returns the database with the names of its tables, and with the file that replaces the address table, if there is one.
    pub fn database(&self) -> Database {
        let database = Database::new(self.servers()).with_schema(self.schema.clone());
        match &self.address_file {
            Some(file) => database.with_address_file(file),
            None => database,
        }
    }

    /// Returns the options of an address book on these tables.
    pub fn book_options(&self) -> BookOptions {
        BookOptions {
            poll: self.poll,
            reread: self.reread,
            settle: self.settle,
        }
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        let BookOptions {
            poll,
            reread,
            settle,
        } = BookOptions::default();
        Self {
            url: DatabaseUrl::Sqlite("portcullis.db".into()).into(),
            prefer: Prefer::First,
            host: None,
            required: true,
            poll,
            reread,
            settle,
            address_file: None,
            schema: Schema::default(),
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: DatabaseConfig) -> DatabaseConfig {
    let longest = Duration::from_secs(3600);
    let file = section.optional("address-file", |value| Ok(PathBuf::from(value.text()?)));
    let read = DatabaseConfig {
        url: urls(&mut section, default.url),
        prefer: section.value("prefer", default.prefer, |value| {
            Ok(match one_of(value, &["first", "spread"])?.as_str() {
                "spread" => Prefer::Spread,
                _ => Prefer::First,
            })
        }),
        host: default.host,
        required: section.value("required", default.required, |v| v.boolean()),
        poll: section.value("poll", default.poll, |v| {
            duration(v, Duration::from_millis(100), longest)
        }),
        reread: section.value("reread", default.reread, |v| {
            duration(v, Duration::from_secs(1), longest)
        }),
        settle: section.value("settle", default.settle, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(600))
        }),
        address_file: file.filter(|file| !file.as_os_str().is_empty()),
        schema: schema(&mut section, default.schema),
    };
    section.finish();
    read
}

/// One URL, or a list of the servers of a cluster.
fn urls(section: &mut Section<'_>, default: DatabaseUrls) -> DatabaseUrls {
    let one = |value: Value<'_>| {
        let text = value.text().map_err(|bad| {
            let shape = Shape::Any(vec![Shape::Text, Shape::List]);
            Bad::new(bad.what, "write one URL in quotes, or a list of them").shaped(shape)
        })?;
        let known = text.parse::<DatabaseUrl>();
        known.map_err(|error| Bad::new(error.to_string(), "").hidden())
    };
    if !section.is_list("url") {
        return section
            .optional("url", one)
            .map_or(default, DatabaseUrls::from);
    }
    let mut all = Vec::new();
    let read = section.list("url", Vec::new(), |value| {
        let url = one(value)?;
        all.push(url);
        // The entry is judged beside those before it: the error has its place.
        let together = DatabaseUrls::new(all.clone());
        if together.is_err() {
            all.pop();
        }
        together.map_err(|error| Bad::new(error.to_string(), "").hidden())
    });
    // An empty list is the default, and reported.
    if section.is_empty_list("url") {
        let mend = "write one URL, or one for each server of the cluster";
        section.reject("url", Bad::new("the list is empty", mend));
    }
    read.into_iter().last().unwrap_or(default)
}

/// The keys are Kamailio's module parameters, with dashes.
fn schema(section: &mut Section<'_>, default: Schema) -> Schema {
    let mut name = |key, default| {
        section.value(key, default, |value| {
            let name = value.text()?.parse::<Name>();
            name.map_err(|error| Bad::new(error.to_string(), ""))
        })
    };
    let (address, trusted) = (default.address, default.trusted);
    // As in Kamailio, one parameter names this column in both tables.
    let tag = name("tag-col", address.tag);
    Schema {
        version_table: name("version-table", default.version_table),
        address: AddressNames {
            table: name("address-table", address.table),
            id: name("id-col", address.id),
            group: name("grp-col", address.group),
            ip_addr: name("ip-addr-col", address.ip_addr),
            mask: name("mask-col", address.mask),
            port: name("port-col", address.port),
            tag: tag.clone(),
        },
        trusted: TrustedNames {
            table: name("trusted-table", trusted.table),
            source: name("source-col", trusted.source),
            proto: name("proto-col", trusted.proto),
            from: name("from-col", trusted.from),
            ruri: name("ruri-col", trusted.ruri),
            tag,
            priority: name("priority-col", trusted.priority),
        },
        // Named in [dispatcher].
        dispatcher: default.dispatcher,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, Prefer};

    #[test]
    fn a_list_of_servers_is_read_and_a_wrong_entry_is_named() {
        let read = Config::parse(
            "[database]\nurl = [\"mysql://k:p@db1/k\", \"mysql://k:p@db2/k\"]\nprefer = \"spread\"\n",
        );
        let read = read.unwrap().database;
        assert_eq!(read.url.all().len(), 2);
        assert_eq!(read.prefer, Prefer::Spread);
        let servers = read.servers();
        assert!(read.url.all().iter().all(|url| servers.all().contains(url)));
        // Hosts whose systems have one name, such as containers of one machine, spread by their names in the fleet.
        let first = |host: &str| {
            let text = format!(
                "[database]\nurl = [\"mysql://k:p@db1/k\", \"mysql://k:p@db2/k\"]\nprefer = \"spread\"\n[fleet]\nname = \"{host}\"\n"
            );
            Config::parse(&text)
                .unwrap()
                .database
                .servers()
                .first()
                .to_string()
        };
        let firsts: std::collections::BTreeSet<_> =
            (0..32).map(|host| first(&format!("edge-{host}"))).collect();
        assert_eq!(firsts.len(), 2);
        for (urls, expected) in [
            (
                "[\"mysql://k:geheim@db1/k\", \"postgres://k:geheim@db2/k\"]",
                "2:34: database.url[1]: entry 2 (postgres://k@db2:5432/k) is a server of another kind",
            ),
            (
                "[\"mysql://k:geheim@db1/k\", \"oracle://k:geheim@db2/k\"]",
                "2:34: database.url[1]: the database \"oracle\" is not supported",
            ),
            ("[]", "2:7: database.url"),
            (
                "7",
                "2:7: database.url = 7: an integer, not a string; write one URL",
            ),
        ] {
            let text = format!("[database]\nurl = {urls}\n");
            let problems = Config::parse(&text).unwrap_err();
            let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].starts_with(expected), "{said:?}");
            assert!(!said[0].contains("geheim"), "{said:?}");
        }
    }

    #[test]
    fn names_and_files_are_read() {
        let read = Config::parse(
            r#"
            [database]
            reread = "10s"
            address-file = "address.list"
            address-table = "sip_trunks"
            grp-col = "customer"
            tag-col = "label"
            source-col = "peer"
            "#,
        )
        .unwrap()
        .database;
        let names = &read.schema.address;
        assert_eq!(names.table.as_str(), "sip_trunks");
        assert_eq!(
            (names.group.as_str(), names.mask.as_str()),
            ("customer", "mask")
        );
        assert_eq!(
            (names.tag.as_str(), read.schema.trusted.tag.as_str()),
            ("label", "label")
        );
        assert_eq!(read.schema.trusted.source.as_str(), "peer");
        assert_eq!(read.book_options().reread.as_secs(), 10);
        let database = read.database();
        assert_eq!(database.schema(), &read.schema);
        assert_eq!(database.address_source(), "address.list");
    }

    #[test]
    fn invalid_names_are_reported_with_position_and_correction() {
        let problems = Config::parse(
            "[database]\naddress-table = \"address; DROP TABLE version\"\nmask-col = \"\"\ngrp-col = 7\nip_addr_col = \"ip\"\n",
        )
        .unwrap_err();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "2:17: database.address-table = \"address; DROP TABLE version\": the name has ';' in it; use only letters",
            "3:12: database.mask-col = \"\": the name is empty; write the name of a table or column",
            "4:11: database.grp-col = 7: an integer, not a string; put it in quotes",
            "5:1: database.ip_addr_col: unknown key; did you mean `ip-addr-col`?",
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
    }
}
