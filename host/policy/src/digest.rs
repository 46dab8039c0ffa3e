//! The SHA-256 digest that identifies the content of a policy file.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// The SHA-256 digest of a policy file. Displays as 64 hexadecimal digits; `{:#}` displays the first 12.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of the remaining bytes of a reader, which are read in blocks.
    ///
    /// # Errors
    /// If the reader fails.
    pub fn of_all(mut from: impl Read) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut block = vec![0; 256 << 10];
        loop {
            match from.read(&mut block) {
                Ok(0) => return Ok(Self(hash.finalize().into())),
                Ok(read) => hash.update(&block[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The 32 bytes of the digest.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { 6 } else { 32 };
        f.write_str(&hex::encode(&self.0[..shown]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_hexadecimal() {
        let digest = Digest::of(b"abc");

        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(format!("{digest:#}"), "ba7816bf8f01");
    }

    #[test]
    fn a_reader_has_the_same_digest_as_its_bytes() {
        let long = vec![7; (256 << 10) + 1];
        for bytes in [&b""[..], b"abc", &long] {
            assert_eq!(Digest::of_all(bytes).unwrap(), Digest::of(bytes));
        }
    }
}
