//! The names of entries, and of their files.

use std::fmt::Write as _;

/// The suffix of every entry's file name.
pub(crate) const EXTENSION: &str = "entry";

/// The key of an entry: a digest of everything that its content depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub [u8; 32]);

impl Name {
    /// 64 hexadecimal digits and [`EXTENSION`].
    pub(crate) fn file_name(&self) -> String {
        let mut text = String::with_capacity(2 * self.0.len() + 1 + EXTENSION.len());
        for byte in self.0 {
            // Writing to a `String` cannot fail.
            let _written = write!(text, "{byte:02x}");
        }
        text + "." + EXTENSION
    }
}
