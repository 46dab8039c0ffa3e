//! The names of entries, and of their files.

/// The suffix of every entry's file name.
pub(crate) const EXTENSION: &str = "entry";

/// The key of an entry: a digest of everything that its content depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub [u8; 32]);

impl Name {
    /// 64 hexadecimal digits and [`EXTENSION`].
    pub(crate) fn file_name(&self) -> String {
        hex::encode(self.0) + "." + EXTENSION
    }
}
