//! What is compared: a table, the questions that callers ask about it, and their answers.

use std::fmt;

/// A row of the table `address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Column `grp`.
    pub group: u32,
    /// Column `ip_addr`.
    pub ip_addr: String,
    /// Column `mask`.
    pub mask: i32,
    /// Column `port`.
    pub port: u16,
    /// Column `tag`.
    pub tag: Option<String>,
}

/// A question about the table: one call of a function of Kamailio's `permissions` module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `allow_source_address(group)`
    Source {
        /// The group.
        group: u32,
    },
    /// `allow_source_address_group()`
    SourceGroup,
    /// `allow_address(group, text, port)`
    Address {
        /// The group.
        group: u32,
        /// An address or a name.
        text: String,
        /// The port.
        port: u16,
    },
    /// `allow_address_group(text, port)`
    AddressGroup {
        /// An address or a name.
        text: String,
        /// The port.
        port: u16,
    },
}

/// A question and its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The number of the caller.
    pub caller: usize,
    /// The question.
    pub question: Question,
}

/// A table and questions about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The rows, in the order of their ids.
    pub rows: Vec<Row>,
    /// The questions.
    pub asks: Vec<Ask>,
}

/// A server's answer to one question; `None` if the function returns -1.
pub type Answer = Option<Found>;

/// A match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value that the function returns: 1, or the group.
    pub value: u32,
    /// The tag of the row that matched.
    pub tag: Option<String>,
}

impl Row {
    /// The values of an INSERT in the order of the columns.
    fn values(&self) -> String {
        let Self {
            group,
            ip_addr,
            mask,
            port,
            tag,
        } = self;
        let tag = tag.as_deref().map_or_else(|| "NULL".into(), quoted);
        format!("({group}, {}, {mask}, {port}, {tag})", quoted(ip_addr))
    }
}

impl Case {
    /// The questions without their callers.
    pub fn questions(&self) -> Vec<&Question> {
        self.asks.iter().map(|ask| &ask.question).collect()
    }
}

impl Question {
    /// The value of the header field `X-Ask` for this question: see `tests/oracle/src/lib.rs`.
    pub fn line(&self) -> String {
        match self {
            Self::Source { group } => format!("source,{group}"),
            Self::SourceGroup => "source-group".into(),
            Self::Address { group, text, port } => format!("address,{group},{port},{text},."),
            Self::AddressGroup { text, port } => format!("address-group,,{port},{text},."),
        }
    }
}

impl fmt::Display for Question {
    /// The call in Kamailio's configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { group } => write!(f, "allow_source_address({group})"),
            Self::SourceGroup => write!(f, "allow_source_address_group()"),
            Self::Address { group, text, port } => {
                write!(f, "allow_address({group}, {text:?}, {port})")
            }
            Self::AddressGroup { text, port } => {
                write!(f, "allow_address_group({text:?}, {port})")
            }
        }
    }
}

/// SQL that replaces the content of the table by these rows in one transaction.
pub fn sql(rows: &[Row]) -> String {
    let mut sql = String::from("BEGIN; DELETE FROM address; ");
    if !rows.is_empty() {
        let values: Vec<_> = rows.iter().map(Row::values).collect();
        sql.push_str(&format!(
            "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES {}; ",
            values.join(", ")
        ));
    }
    sql.push_str("COMMIT;");
    sql
}

/// An answer as text for a report.
pub fn shown(answer: &Answer) -> String {
    match answer {
        None => "no".into(),
        Some(Found { value, tag: None }) => format!("{value}, no tag"),
        Some(Found {
            value,
            tag: Some(tag),
        }) => format!("{value}, tag {tag:?}"),
    }
}

/// Parses an answer in `X-Answers`.
///
/// # Panics
/// If it is invalid.
pub fn read_answer(text: &str) -> Answer {
    if text == "no" {
        return None;
    }
    let (value, tag) = match text.split_once('[') {
        None => (text, None),
        Some((value, tag)) => (value, tag.strip_suffix(']').map(str::to_owned)),
    };
    let value = value
        .parse()
        .unwrap_or_else(|_| panic!("{text:?} is no answer"));
    Some(Found { value, tag })
}

/// A text as an SQL literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_are_told() {
        let found = |value, tag: Option<&str>| {
            let tag = tag.map(str::to_owned);
            Some(Found { value, tag })
        };
        assert_eq!(read_answer("no"), None);
        assert_eq!(read_answer("1"), found(1, None));
        assert_eq!(
            read_answer("200[office one]"),
            found(200, Some("office one"))
        );
        assert_eq!(read_answer("3[]"), found(3, Some("")));
    }

    #[test]
    fn rows_survive_sql() {
        let row = Row {
            group: 1,
            ip_addr: "o'neil\\".into(),
            mask: -1,
            port: 0,
            tag: None,
        };
        assert_eq!(row.values(), r"(1, 'o''neil\\', -1, 0, NULL)");
    }
}
