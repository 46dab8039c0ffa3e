//! What a host has, or should have.

use std::collections::BTreeMap;

use crate::kind::Kind;

/// A tenant, a policy or a row: what identifies it, and the rest of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What identifies it among the items of its kind, in a form for people. Several rows of a table may have the same key.
    pub key: String,
    /// The rest, by name. A column that is NULL is absent.
    pub fields: BTreeMap<String, String>,
}

/// The items of each kind, in their order. A kind that is absent is not described; one without items is described as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(BTreeMap<Kind, Vec<Item>>);

impl Item {
    /// An item without fields.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            fields: BTreeMap::new(),
        }
    }

    /// The same with a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// The same with a field, if there is a value.
    #[must_use]
    pub fn with_optional(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

impl State {
    /// The same with the items of a kind.
    #[must_use]
    pub fn with(mut self, kind: Kind, items: Vec<Item>) -> Self {
        self.0.insert(kind, items);
        self
    }

    /// Returns the items of a kind; `None` if the kind is not described.
    pub fn of(&self, kind: Kind) -> Option<&[Item]> {
        self.0.get(&kind).map(Vec::as_slice)
    }

    /// Returns the kinds that are described.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        self.0.keys().copied()
    }
}
