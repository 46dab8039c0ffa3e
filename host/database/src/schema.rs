//! The names of tables and columns: Kamailio's module parameters, with Kamailio's defaults.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest name that MySQL knows, in characters.
const LONGEST_NAME: usize = 64;

/// The names of the tables that are read. A view works instead of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The table of table versions (Kamailio: core parameter `version_table`). It names the others by the names given here.
    pub version_table: Name,
    /// The table of addresses.
    pub address: AddressNames,
    /// The table of trusted peers.
    pub trusted: TrustedNames,
    /// The table of the dispatcher.
    pub dispatcher: DispatcherNames,
}

/// The names of the table of addresses and of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressNames {
    /// The table (Kamailio: `address_table`).
    pub table: Name,
    /// The row's number. Kamailio never reads it; here it identifies rows in messages. A table may lack `id`: rows are then identified by
    /// their position in the table.
    pub id: Name,
    /// The group (`grp_col`).
    pub group: Name,
    /// The address (`ip_addr_col`).
    pub ip_addr: Name,
    /// The bits of the network (`mask_col`).
    pub mask: Name,
    /// The port (`port_col`).
    pub port: Name,
    /// The tag (`tag_col`, for both tables).
    pub tag: Name,
}

/// The names of the table of trusted peers and of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedNames {
    /// The table (Kamailio: `trusted_table`).
    pub table: Name,
    /// The source address (`source_col`).
    pub source: Name,
    /// The transport (`proto_col`).
    pub proto: Name,
    /// The pattern of the From URI (`from_col`).
    pub from: Name,
    /// The pattern of the request URI (`ruri_col`).
    pub ruri: Name,
    /// The tag (`tag_col`, for both tables).
    pub tag: Name,
    /// The priority (`priority_col`).
    pub priority: Name,
}

/// The names of the table of the dispatcher and of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherNames {
    /// The table (Kamailio: `table_name` of the module `dispatcher`).
    pub table: Name,
    /// The number of the set (`setid_col`).
    pub setid: Name,
    /// The URI (`destination_col`).
    pub destination: Name,
    /// The flags (`flags_col`).
    pub flags: Name,
    /// The priority (`priority_col`).
    pub priority: Name,
    /// The attributes (`attrs_col`).
    pub attrs: Name,
    /// The description, which Kamailio does not read.
    pub description: Name,
}

/// The name of a table or column: 1 to 64 letters, digits, `_`, `$` and `-`. It therefore never needs escaping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Cow<'static, str>);

/// Why a text is not a valid name of a table or column.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It is empty.
    #[error("the name is empty; write the name of a table or column")]
    Empty,
    /// It is too long.
    #[error("the name has {0} characters; databases support names of up to {LONGEST_NAME}")]
    TooLong(usize),
    /// It contains a dot: a table of another database.
    #[error(
        "the name contains a dot; name the database in `url`, and create a view there for a table of another database"
    )]
    Dot,
    /// It contains another invalid character.
    #[error("the name has {0:?} in it; use only letters, digits, _, $ and -")]
    Character(char),
}

impl Name {
    /// A name known to be valid.
    pub const fn known(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// As written in a configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As written in a statement: see [`Dialect::statement`](crate::Dialect::statement). SQLite accepts MySQL's quotes; it treats a name in
    /// double quotes as a string if there is no such column.
    pub fn quoted(&self) -> String {
        format!("`{}`", self.0)
    }

    /// As a string literal in a statement.
    pub fn literal(&self) -> String {
        format!("'{}'", self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let is_known = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-');
        match text.chars().find(|&c| !is_known(c)) {
            Some('.') => return Err(NameError::Dot),
            Some(other) => return Err(NameError::Character(other)),
            None => {}
        }
        match text.chars().count() {
            length if length > LONGEST_NAME => Err(NameError::TooLong(length)),
            _ => Ok(Self(Cow::Owned(text.to_owned()))),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            version_table: Name::known("version"),
            address: AddressNames::default(),
            trusted: TrustedNames::default(),
            dispatcher: DispatcherNames::default(),
        }
    }
}

impl Default for AddressNames {
    fn default() -> Self {
        Self {
            table: Name::known("address"),
            id: Name::known("id"),
            group: Name::known("grp"),
            ip_addr: Name::known("ip_addr"),
            mask: Name::known("mask"),
            port: Name::known("port"),
            tag: Name::known("tag"),
        }
    }
}

impl Default for TrustedNames {
    fn default() -> Self {
        Self {
            table: Name::known("trusted"),
            source: Name::known("src_ip"),
            proto: Name::known("proto"),
            from: Name::known("from_pattern"),
            ruri: Name::known("ruri_pattern"),
            tag: Name::known("tag"),
            priority: Name::known("priority"),
        }
    }
}

impl Default for DispatcherNames {
    fn default() -> Self {
        Self {
            table: Name::known("dispatcher"),
            setid: Name::known("setid"),
            destination: Name::known("destination"),
            flags: Name::known("flags"),
            priority: Name::known("priority"),
            attrs: Name::known("attrs"),
            description: Name::known("description"),
        }
    }
}

impl Schema {
    /// The required columns of each table.
    pub fn columns(&self) -> String {
        let list = |columns: &[&Name]| {
            columns
                .iter()
                .map(|c| c.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (trusted, dispatcher) = (&self.trusted, &self.dispatcher);
        format!(
            "table `{}` needs the columns {}, table `{}` the columns {}, table `{}` the columns {}, and table `{}` the columns table_name, table_version",
            self.address.table,
            list(&self.address.columns()),
            trusted.table,
            list(&[
                &trusted.source,
                &trusted.proto,
                &trusted.from,
                &trusted.ruri,
                &trusted.tag,
                &trusted.priority
            ]),
            dispatcher.table,
            list(&dispatcher.columns()),
            self.version_table
        )
    }
}

impl AddressNames {
    /// The columns that Kamailio reads, in its order.
    pub fn columns(&self) -> [&Name; 5] {
        [
            &self.group,
            &self.ip_addr,
            &self.mask,
            &self.port,
            &self.tag,
        ]
    }

    /// Identifies a row and its column, if the column has another name than in Kamailio's table.
    pub fn place(&self, id: i64, column: &str) -> Option<String> {
        let name = self.other_name(column)?;
        Some(format!("row {id}, column `{name}`"))
    }

    /// The configured name of Kamailio's `column`, if it differs.
    pub(crate) fn other_name(&self, column: &str) -> Option<&Name> {
        let name = match column {
            "id" => &self.id,
            "grp" => &self.group,
            "ip_addr" => &self.ip_addr,
            "mask" => &self.mask,
            "port" => &self.port,
            "tag" => &self.tag,
            _ => return None,
        };
        (name.as_str() != column).then_some(name)
    }
}

impl TrustedNames {
    /// Identifies a row and its column, if the column has another name than in Kamailio's table.
    pub fn place(&self, id: i64, column: &str) -> Option<String> {
        let name = match column {
            "src_ip" => &self.source,
            "proto" => &self.proto,
            "from_pattern" => &self.from,
            "ruri_pattern" => &self.ruri,
            "tag" => &self.tag,
            "priority" => &self.priority,
            _ => return None,
        };
        (name.as_str() != column).then(|| format!("row {id}, column `{name}`"))
    }
}

impl DispatcherNames {
    /// The columns that are read, in Kamailio's order.
    pub fn columns(&self) -> [&Name; 6] {
        [
            &self.setid,
            &self.destination,
            &self.flags,
            &self.priority,
            &self.attrs,
            &self.description,
        ]
    }

    /// The configured name of Kamailio's `column`, if it differs.
    pub fn other_name(&self, column: &str) -> Option<&Name> {
        let name = match column {
            "setid" => &self.setid,
            "destination" => &self.destination,
            "flags" => &self.flags,
            "priority" => &self.priority,
            "attrs" => &self.attrs,
            "description" => &self.description,
            _ => return None,
        };
        (name.as_str() != column).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_need_no_escaping() {
        for good in [
            "a",
            "address",
            "sip_trunks2",
            "cost$",
            "kunden-ü",
            &"x".repeat(64),
        ] {
            let name: Name = good.parse().unwrap();
            assert_eq!((name.as_str(), name.to_string().as_str()), (good, good));
            assert_eq!(name.quoted(), format!("`{good}`"));
        }
        for (bad, said) in [
            ("", "empty"),
            (&*"x".repeat(65), "65 characters"),
            ("kamailio.address", "name the database in `url`"),
            ("address`; DROP TABLE x; --", "'`'"),
            ("a b", "' '"),
            ("a'b", "'\\''"),
            ("a\\b", "'\\\\'"),
            ("a\0b", "'\\0'"),
        ] {
            let error = bad.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(said), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_column_with_another_name_is_told() {
        let names = AddressNames {
            ip_addr: "source".parse().unwrap(),
            ..AddressNames::default()
        };
        assert_eq!(names.other_name("ip_addr"), Some(&names.ip_addr));
        assert_eq!(names.other_name("mask"), None);
        assert_eq!(names.other_name("elsewhere"), None);
    }
}
