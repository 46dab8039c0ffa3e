//! Kamailio's tables `address` and `trusted` and its allow and deny files, in memory.
//!
//! Operators keep trusted sources in the table `address` of Kamailio's `permissions` module: a group, an address or a network, a port, a
//! tag. This crate reads that table from MySQL, MariaDB, PostgreSQL or SQLite, reports invalid rows, and answers "is this source in group
//! 200?" as Kamailio would, at the cost of a few cache lines, whatever the number of rows.
//!
//! - [`Table`] is the immutable lookup structure, built by [`TableBuilder`] from [`Row`]s;
//! - [`Database`] reads and changes the rows where operators keep them, under the names of a [`Schema`];
//! - [`Import`] and [`RowWriter`] read rows from files and write them to files;
//! - [`TrustedTable`] are the peers of the table `trusted`, [`Rules`] those of Kamailio's allow and deny files, with POSIX patterns
//!   compiled once ([`Pattern`]);
//! - [`AddressBook`] holds the current [`Snapshot`] of all three, reloads it, and watches the database for changes.
//!
//! ```
//! use portcullis_address::{Row, TableBuilder};
//!
//! let mut builder = TableBuilder::default();
//! builder.push(Row { id: 1, group: 200, ip_addr: "192.168.1.0", mask: 24, port: 0, tag: Some("OfficeSubnet") })?;
//! let table = builder.build();
//!
//! let source = table.lookup("192.168.1.7".parse().unwrap());
//! assert_eq!(source.find(200, 5060).unwrap().tag, Some("OfficeSubnet"));
//! assert!(source.find(250, 5060).is_none());
//! # Ok::<(), portcullis_address::RowError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod book;
mod database;
mod exchange;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod pattern;
mod regular;
mod row;
mod rules;
mod settle;
mod table;
mod trusted;
mod turns;

pub use book::{
    AddressBook, BookOptions, Counts, DatabaseState, LoadReport, PartStatus, Reader, RulesPart,
    Snapshot, Status, TrustedPart,
};
pub use database::columns;
pub use database::{
    AddError, AddressNames, ChangeSource, Cursor, CursorError, Database, DatabaseError,
    DatabaseUrl, DatabaseUrls, Failure, Imported, Loaded, LoadedTrusted, Look, MaskError,
    MigrationAction, MigrationStep, Name, NameError, NewRow, NewTrusted, Prefix, RowBound,
    RowChanges, RowFilter, RowPage, RowsChanged, Schema, ServerUrl, SslMode, StoredRow,
    StoredTrusted, TrustedNames, UrlError, Watcher, network,
};
pub use exchange::{Format, FormatError, Import, RowWriter, WriteError};
pub use pattern::{
    DEFAULT_PATTERN_MEMORY, Effort, Pattern, PatternBudget, PatternError, STEPS_PER_LOOK, Spent,
    Syntax,
};
pub use row::{Row, RowError, RowWarning, parse_ip};
pub use rules::{DEFAULT_RULES, LoadedRules, RuleError, RuleFolder, RuleSet, Rules, RulesError};
pub use settle::FileWatch;
pub use table::{
    DomainRow, Entries, Entry, EntryIter, HostRow, Match, SubnetRow, Table, TableBuilder,
};
pub use trusted::{
    FromUri, Proto, TrustedBuilder, TrustedDumpRow, TrustedMatch, TrustedQuestion, TrustedRow,
    TrustedSource, TrustedTable,
};
