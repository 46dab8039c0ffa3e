//! What a file imports and exports, and which tools made it.

use std::fmt;

/// Something that a file needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The interface, or the whole name for what is in none.
    pub interface: String,
    /// The item of the interface. Components import interfaces whole.
    pub item: Option<String>,
    /// `function`, `memory`, `interface`, …
    pub kind: &'static str,
}

/// Something that a file offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// `function`, `memory`, …
    pub kind: &'static str,
}

/// One line of a `producers` section.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub role: String,
    /// What it is.
    pub name: String,
    /// Its version, possibly empty.
    pub version: String,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.item {
            Some(item) => write!(f, "{} {item}", self.interface),
            None => f.write_str(&self.interface),
        }
    }
}
