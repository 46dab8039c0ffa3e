//! Errors in files, which are reported all at once.

use anyhow::anyhow;

use crate::cli::print::{clean, count};

/// Errors in files, each with its place.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<String>);

impl Mistakes {
    pub(super) fn add(&mut self, mistake: impl Into<String>) {
        self.0.push(mistake.into());
    }

    /// Prints all errors.
    ///
    /// # Errors
    /// If there are any.
    pub(super) fn check(self) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        for mistake in &self.0 {
            eprintln!("{}", clean(mistake));
        }
        let errors = count(self.0.len() as u64, "error");
        Err(anyhow!("{errors} in the files: nothing was changed"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[String] {
        &self.0
    }
}
