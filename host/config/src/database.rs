//! `[database]`: the database of the tables, their names, and the intervals of change detection.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_address::{
    AddressNames, BookOptions, Database, DatabaseUrl, Name, Schema, TrustedNames,
};

use super::problem::Bad;
use super::section::Section;
use super::value::duration;

/// Where the tables come from.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseConfig {
    /// `mysql://…`, `postgres://…` or `sqlite:…`
    pub url: DatabaseUrl,
    /// Whether the host refuses to start while the database is unreachable.
    pub required: bool,
    /// Interval between two checks for changes of the tables.
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

impl DatabaseConfig {
    /// Returns the database with the names of its tables, and with the file that replaces the address table, if there is one.
    pub fn database(&self) -> Database {
        let database = Database::new(self.url.clone()).with_schema(self.schema.clone());
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
            url: DatabaseUrl::Sqlite("portcullis.db".into()),
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
        url: section.value("url", default.url, |value| {
            let known = value.text()?.parse::<DatabaseUrl>();
            known.map_err(|error| Bad::new(error.to_string(), "").hidden())
        }),
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
    use crate::Config;

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
