//! Bearer tokens, which identify the caller.

use std::fmt;
use std::ops::Range;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use toml::de::DeTable;

use super::problem::Bad;
use super::section::Value;

/// Prefix of the digest of a token.
const SHA256: &str = "sha256:";

/// Least number of characters in a token.
const SHORTEST: usize = 16;

/// Whether `c` may occur in a bearer token (RFC 6750 §2.1).
fn fits(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~+/=".contains(c)
}

/// A bearer token, or its SHA-256, which is enough to recognise it. Never shown.
#[derive(Clone)]
pub struct Token {
    digest: [u8; 32],
    secret: Option<String>,
}

impl Token {
    pub(super) fn parse(value: Value<'_>) -> Result<Option<Self>, Bad> {
        const MEND: &str =
            "write at least 16 letters or digits, for example the output of `openssl rand -hex 32`";
        let text = value.text()?;
        if let Some(digest) = text.strip_prefix(SHA256) {
            return parse_digest(digest).map(Some);
        }
        match text {
            "" => Ok(None),
            text if !text.chars().all(fits) => {
                Err(Bad::new("a character that a bearer token may not contain", MEND).hidden())
            }
            text => match Self::from_secret(text) {
                Some(token) => Ok(Some(token)),
                None => Err(Bad::new("too short for a token", MEND).hidden()),
            },
        }
    }

    /// Returns the token with this text; `None` if the text is too short, or is not a valid bearer token.
    pub fn from_secret(text: &str) -> Option<Self> {
        let is_secret = text.len() >= SHORTEST && text.chars().all(fits);
        is_secret.then(|| Self {
            digest: Sha256::digest(text).into(),
            secret: Some(text.to_owned()),
        })
    }

    /// Returns the token itself, if the configuration contains it.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// Whether `given` is this token. The comparison takes the same time whatever part of `given` is right.
    pub fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.digest.ct_eq(&given).into()
    }

    /// Returns `sha256:` and 64 digits, which can be written instead of the token.
    pub fn as_digest(&self) -> String {
        SHA256.to_owned() + &hex::encode(self.digest)
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.digest.ct_eq(&other.digest).into()
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Returns a tenant's section with the digest instead of its token, so that the stored section does not disclose the token.
pub fn without_secret(text: &str, token: Option<&Token>) -> String {
    let mut text = text.to_owned();
    if let Some((token, place)) = token.zip(place_of_token(&text)) {
        text.replace_range(place, &format!("\"{}\"", token.as_digest()));
    }
    text
}

fn place_of_token(text: &str) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    Some(table.get_ref().get("token")?.span())
}

fn parse_digest(digits: &str) -> Result<Token, Bad> {
    let bad = || {
        let mend = "write \"sha256:\" and the 64 digits of `printf %s TOKEN | sha256sum`";
        Bad::new("not the SHA-256 of a token", mend).hidden()
    };
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).map_err(|_| bad())?;
    Ok(Token {
        digest,
        secret: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::section::Document;
    use super::*;

    const SECRET: &str = "0123456789abcdef";
    const DIGEST: &str = "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";

    fn parse(text: &str) -> Result<Option<Token>, String> {
        let text = format!("token = \"{text}\"");
        let document = Document::new(&text);
        let token = document.root().optional("token", Token::parse);
        match document.problems().first() {
            None => Ok(token.flatten()),
            Some(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn a_token_is_recognised_by_itself_and_by_its_digest() {
        let secret = parse(SECRET).unwrap().unwrap();
        assert_eq!(secret.as_digest(), DIGEST);
        let digest = parse(DIGEST).unwrap().unwrap();
        assert_eq!(
            parse(&DIGEST.to_uppercase().replace("SHA256", "sha256")),
            Ok(Some(digest.clone()))
        );
        assert_eq!(secret, digest);
        for token in [&secret, &digest] {
            assert!(token.is(SECRET.as_bytes()));
            assert!(!token.is(b"0123456789abcdeF"));
            assert!(
                !token.is(DIGEST.as_bytes()),
                "the digest is not accepted as the token"
            );
            assert_eq!(format!("{token:?}"), "Token(…)");
        }
        assert_eq!(secret.secret(), Some(SECRET));
        assert_eq!(digest.secret(), None);
    }

    #[test]
    fn an_invalid_digest_is_reported_and_not_shown() {
        for wrong in [
            &DIGEST[..70],
            &format!("{DIGEST}0"),
            &DIGEST.replace('f', "g"),
            "sha256:",
            "sha256:ä",
        ] {
            let told = parse(wrong).unwrap_err();
            assert!(
                told.contains("not the SHA-256 of a token; write "),
                "{told}"
            );
            assert!(!told.contains("9f9f51"), "{told}");
        }
    }

    #[test]
    fn only_the_token_is_replaced() {
        let token = parse(SECRET).unwrap();
        let text = format!(
            "# A token = \"x\".\nfile = \"{SECRET}\"\n \"token\" = '{SECRET}' # ours\n[settings]\ntoken = 1\n"
        );
        assert_eq!(
            without_secret(&text, token.as_ref()),
            format!(
                "# A token = \"x\".\nfile = \"{SECRET}\"\n \"token\" = \"{DIGEST}\" # ours\n[settings]\ntoken = 1\n"
            )
        );
        let text = "[settings]\ntoken = 1\n";
        assert_eq!(without_secret(text, token.as_ref()), text);
        assert_eq!(without_secret("token = \"\"\n", None), "token = \"\"\n");
    }
}
