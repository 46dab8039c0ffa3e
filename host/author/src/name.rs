//! Names of policies.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The longest name in bytes.
const LONGEST: usize = 64;

/// Words that compilers reserve, so that no crate and no module can have them as a name.
const RESERVED: [&str; 14] = [
    "abstract",
    "async",
    "const",
    "crate",
    "fn",
    "impl",
    "mod",
    "portcullis",
    "portcullis-sdk",
    "self",
    "static",
    "super",
    "test",
    "type",
];

/// The name of a policy, which is also the name of its folder and of its file: small letters, digits, hyphens and underscores, with a letter
/// first. It is a crate's, a package's and a module's name in every language.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// Why a text is not the name of a policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A character is not allowed, or the first is no letter.
    #[error(
        "`{0}` cannot be the name of a policy: use small letters, digits, `-` and `_`, with a letter first"
    )]
    Characters(String),
    /// It is too long.
    #[error("the name of a policy has at most {LONGEST} characters")]
    Long,
    /// A compiler reserves it.
    #[error(
        "`{0}` is a word of a language or of Portcullis and cannot be the name of a policy: try `{0}-policy`"
    )]
    Reserved(String),
}

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() > LONGEST {
            return Err(InvalidName::Long);
        }
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let begins_well = text.starts_with(|first: char| first.is_ascii_lowercase());
        if !begins_well || !text.bytes().all(fits) {
            return Err(InvalidName::Characters(text.to_owned()));
        }
        if RESERVED.contains(&text) {
            return Err(InvalidName::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_every_language() {
        for good in ["acl", "acme-policy", "a1_b"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "1a", "Acme", "a b", "a/b", "../a", "a.b", "-a", "é"] {
            let error = bad.parse::<Name>().expect_err(bad);
            assert_eq!(error, InvalidName::Characters(bad.into()));
        }
        assert_eq!(
            "test".parse::<Name>(),
            Err(InvalidName::Reserved("test".into()))
        );
        assert_eq!("a".repeat(65).parse::<Name>(), Err(InvalidName::Long));
    }
}
