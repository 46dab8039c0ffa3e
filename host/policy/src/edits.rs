//! Changes to header fields of a request that is relayed.

use std::fmt;

use crate::verdict::{InvalidVerdict, MAX_HEADERS, check_value, may_be_edited};

/// A change to the header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Appends a header field after all others.
    Add {
        /// The name, a token.
        name: String,
        /// The value, without line breaks.
        value: String,
    },
    /// Removes all received header fields of this name.
    Remove {
        /// The name, in full or compact form.
        name: String,
    },
}

/// The changes that a policy made, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits(Vec<Edit>);

impl Edits {
    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the changes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.0.iter()
    }

    /// Memory beyond the value itself, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = self.0.iter().map(|edit| match edit {
            Edit::Add { name, value } => name.len() + value.len(),
            Edit::Remove { name } => name.len(),
        });
        self.0.len() * size_of::<Edit>() + texts.sum::<usize>()
    }

    /// Appends the changes of the next policy.
    pub fn append(&mut self, mut next: Self) {
        self.0.append(&mut next.0);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends a change that has been checked.
    ///
    /// # Errors
    /// If there are [`MAX_HEADERS`] changes already.
    pub(crate) fn push(&mut self, edit: Edit) -> Result<(), InvalidVerdict> {
        if self.0.len() == MAX_HEADERS {
            return Err(InvalidVerdict::ManyEdits);
        }
        self.0.push(edit);
        Ok(())
    }
}

impl Edit {
    /// The name of the header field.
    pub fn name(&self) -> &str {
        match self {
            Self::Add { name, .. } | Self::Remove { name } => name,
        }
    }

    /// Checks the change against the rules of the contract.
    pub(crate) fn check(&self) -> Result<(), InvalidVerdict> {
        may_be_edited(self.name())?;
        match self {
            Self::Add { name, value } => check_value(name, value),
            Self::Remove { .. } => Ok(()),
        }
    }
}

/// For logs: `add X-Trunk: 7, remove P-Asserted-Identity`.
impl fmt::Display for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, edit) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match edit {
                Edit::Add { name, value } => write!(f, "{comma}add {name}: {value}")?,
                Edit::Remove { name } => write!(f, "{comma}remove {name}")?,
            }
        }
        Ok(())
    }
}

impl FromIterator<Edit> for Edits {
    fn from_iter<I: IntoIterator<Item = Edit>>(edits: I) -> Self {
        Self(edits.into_iter().collect())
    }
}
