//! Tables and rules in the text of a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_address::{
    Format, LoadedRules, Row, RowError, RulesPart, Snapshot, Table, TableBuilder, TrustedBuilder,
    TrustedPart, TrustedRow,
};
use portcullis_dispatcher::Dispatcher;
use serde::Deserialize;
use thiserror::Error;

/// The tables of a case, in place of those of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TablesSpec {
    /// Rows of the address table as in an address file: `GROUP ADDRESS [MASK [PORT [TAG]]]`, where `ADDRESS/BITS` stands for address and mask.
    #[serde(default)]
    pub address: Vec<String>,
    /// Trusted peers.
    #[serde(default)]
    pub trusted: Vec<TrustedSpec>,
    /// Allow and deny files by their basename.
    #[serde(default)]
    pub rules: BTreeMap<String, RulesSpec>,
    /// Rows of the dispatcher as in its file: `SETID URI [FLAGS [PRIORITY [ATTRS]]]`.
    #[serde(default)]
    pub dispatcher: Vec<String>,
}

/// A row of the table of trusted peers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrustedSpec {
    /// Column `src_ip`.
    pub source: String,
    /// Column `proto`; `any` if it is left out.
    pub proto: Option<String>,
    /// Column `from_pattern`.
    pub from: Option<String>,
    /// Column `ruri_pattern`.
    pub ruri: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
    /// Column `priority`.
    #[serde(default)]
    pub priority: i64,
}

/// The lines of a pair of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RulesSpec {
    /// Lines of the allow file.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Lines of the deny file.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// Why tables cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TablesError {
    /// A text is no row of the address table.
    #[error("tables.address: \"{text}\": {cause}")]
    Address {
        /// The row.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A row of the trusted peers is invalid.
    #[error("tables.trusted: source \"{text}\": {cause}")]
    Trusted {
        /// The source.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A text is no row of the dispatcher.
    #[error("tables.dispatcher: \"{text}\": {cause}")]
    Dispatcher {
        /// The row.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A line of the rules is invalid.
    #[error("tables.rules.{name}: {cause}")]
    Rules {
        /// The basename.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl TablesSpec {
    /// Whether there is no row and no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Makes the tables.
    ///
    /// # Errors
    /// If a row or a line is invalid: a host would skip it, but in a case it is a mistake.
    pub fn build(&self) -> Result<Arc<Snapshot>, TablesError> {
        Ok(Arc::new(Snapshot {
            trusted: Arc::new(TrustedPart::of(self.trusted()?)),
            rules: Arc::new(RulesPart::of(self.rules()?)),
            ..Snapshot::of(self.addresses()?)
        }))
    }

    /// Makes the sets of the dispatcher; `None` without rows. Each time, they begin with the same turns.
    ///
    /// # Errors
    /// If a row is invalid.
    pub fn sets(&self) -> Result<Option<Arc<Dispatcher>>, TablesError> {
        if self.dispatcher.is_empty() {
            return Ok(None);
        }
        for text in &self.dispatcher {
            let refused = |cause: String| TablesError::Dispatcher {
                text: text.clone(),
                cause,
            };
            if text.contains('\n') {
                return Err(refused("write each row by itself".to_owned()));
            }
            let read = Dispatcher::of_list(text);
            read.map_err(|error| refused(error.to_string()))?;
        }
        let all = Dispatcher::of_list(&self.dispatcher.join("\n"));
        let refused = |error: RowError| TablesError::Dispatcher {
            text: self.dispatcher.join(", "),
            cause: error.to_string(),
        };
        Ok(Some(Arc::new(all.map_err(refused)?)))
    }

    fn addresses(&self) -> Result<Table, TablesError> {
        let mut builder = TableBuilder::default();
        for text in &self.address {
            let refused = |cause: String| TablesError::Address {
                text: text.clone(),
                cause,
            };
            let line = as_address_file(text);
            let read = Format::AddressFile.read(line.as_bytes(), "row");
            if let Some(error) = read.errors.first() {
                return Err(refused(cause_of(error)));
            }
            let Some(row) = read.rows.first() else {
                let form =
                    "write GROUP ADDRESS MASK PORT TAG, of which the last three may be left out";
                return Err(refused(form.to_owned()));
            };
            let pushed = builder.push(Row {
                id: 0,
                group: row.group,
                ip_addr: &row.ip_addr,
                mask: row.mask,
                port: row.port,
                tag: row.tag.as_deref(),
            });
            pushed.map_err(|error| refused(cause_of(&error)))?;
        }
        Ok(builder.build())
    }

    fn trusted(&self) -> Result<portcullis_address::TrustedTable, TablesError> {
        let mut builder = TrustedBuilder::default();
        for peer in &self.trusted {
            let pushed = builder.push(TrustedRow {
                id: 0,
                source: &peer.source,
                proto: peer.proto.as_deref().unwrap_or("any"),
                from: peer.from.as_deref(),
                ruri: peer.ruri.as_deref(),
                tag: peer.tag.as_deref(),
                priority: peer.priority,
            });
            pushed.map_err(|error| TablesError::Trusted {
                text: peer.source.clone(),
                cause: cause_of(&error),
            })?;
        }
        Ok(builder.build())
    }

    fn rules(&self) -> Result<LoadedRules, TablesError> {
        let texts = self.rules.iter();
        let texts = texts.map(|(name, spec)| (name, spec.allow.join("\n"), spec.deny.join("\n")));
        let texts: Vec<_> = texts.collect();
        let files = texts.iter();
        let files = files.map(|(name, allow, deny)| (name.as_str(), allow.as_str(), deny.as_str()));
        let loaded = LoadedRules::of(files);
        match loaded.errors.first() {
            None => Ok(loaded),
            Some(error) => Err(TablesError::Rules {
                name: error.file.clone(),
                cause: format!(
                    "line {}: \"{}\" {}; {}",
                    error.line, error.value, error.fault, error.mend
                ),
            }),
        }
    }
}

fn cause_of(error: &RowError) -> String {
    let RowError {
        column,
        value,
        fault,
        mend,
        ..
    } = error;
    format!("{column} \"{value}\" {fault}; {mend}")
}

/// A row as the format of address files has it: a network in one word becomes address and mask.
fn as_address_file(text: &str) -> String {
    let mut words = text.split_whitespace();
    let (Some(group), Some(address)) = (words.next(), words.next()) else {
        return text.to_owned();
    };
    match address.split_once('/') {
        Some((address, bits)) => {
            let rest: Vec<_> = words.collect();
            format!("{group} {address} {bits} {}", rest.join(" "))
        }
        None => text.to_owned(),
    }
}
