//! Imports, exports and producers of a policy file.

use std::fmt;

/// An import of a policy file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The interface, or the whole name of an import that is not in an interface.
    pub interface: String,
    /// The item of the interface; `None` for components, which import whole interfaces.
    pub item: Option<String>,
    /// `function`, `memory`, `interface`, …
    pub kind: &'static str,
}

/// An export of a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The name.
    pub name: String,
    /// `function`, `memory`, …
    pub kind: &'static str,
}

/// An entry of the `producers` section.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub role: String,
    /// The name of the language or tool.
    pub name: String,
    /// The version, possibly empty.
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
