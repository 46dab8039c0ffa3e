//! `[control.tokens.NAME]`: further tokens of HTTP clients, each with a role.

use std::fmt;

use super::problem::Bad;
use super::section::{Section, Value};
use super::shape::Shape;
use super::token::Token;

/// Longest name of a token in bytes.
const MAX_NAME: usize = 32;

/// A token with a name and a role.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedToken {
    /// The name, which the log and the audit show.
    pub name: String,
    /// The token.
    pub token: Token,
    /// What it permits.
    pub role: TokenRole,
}

/// What a token permits. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenRole {
    /// To read states, statistics, tables, traces and decisions.
    Read,
    /// To bring policies to seats: push, activate, trials, rollback.
    Ship,
    /// Everything: tenants, addresses, reloads, transactions.
    Operate,
}

/// Reads `[control.tokens]`. `own` is the token of the operator.
pub(super) fn read_all(section: Section<'_>, own: Option<&Token>) -> Vec<NamedToken> {
    let mut read: Vec<NamedToken> = Vec::new();
    for (name, mut section) in section.tables(check_name) {
        let token = section.optional("token", |value| {
            let Some(token) = Token::parse(value)? else {
                return Err(Bad::new("no token", "write at least 16 letters or digits"));
            };
            let is_same = |other: &Token| *other == token;
            let mut others = own.into_iter().chain(read.iter().map(|named| &named.token));
            match others.any(is_same) {
                true => Err(Bad::new("another token is the same", "choose another one").hidden()),
                false => Ok(token),
            }
        });
        let role = section.optional("role", role);
        match (token, role) {
            (Some(token), Some(role)) => read.push(NamedToken { name, token, role }),
            _ if !section.has_any(&["token"]) || !section.has_any(&["role"]) => {
                section.reject_whole(Bad::new("no token or no role", "set `token` and `role`"));
            }
            _ => {}
        }
        section.finish();
    }
    read
}

fn check_name(name: &str) -> Result<(), Bad> {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
        return Err(Bad::new(
            "not a valid name of a token",
            "use lower-case letters, digits, -, _ and ., at most 32",
        ));
    }
    Ok(())
}

fn role(value: Value<'_>) -> Result<TokenRole, Bad> {
    let roles = Shape::OneOf(&["read", "ship", "operate"]);
    match value.text().map_err(|bad| bad.shaped(roles))? {
        "read" => Ok(TokenRole::Read),
        "ship" => Ok(TokenRole::Ship),
        "operate" => Ok(TokenRole::Operate),
        _ => Err(Bad::new(
            "not a role",
            "write \"read\", \"ship\" or \"operate\"",
        )),
    }
}

impl fmt::Display for TokenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Ship => "ship",
            Self::Operate => "operate",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TokenRole;
    use crate::Config;

    #[test]
    fn tokens_have_a_name_and_a_role() {
        let config = Config::parse(
            "[control.tokens.ci]\ntoken = \"ci-0123456789abcdef\"\nrole = \"ship\"\n[control.tokens.wall]\n\
             token = \"wall-0123456789abcdef\"\nrole = \"read\"",
        )
        .unwrap();
        let named: Vec<_> = config.control.tokens.iter().collect();
        assert_eq!(
            named
                .iter()
                .map(|one| (&*one.name, one.role))
                .collect::<Vec<_>>(),
            [("ci", TokenRole::Ship), ("wall", TokenRole::Read)]
        );
        assert!(TokenRole::Read < TokenRole::Ship && TokenRole::Ship < TokenRole::Operate);
    }

    #[test]
    fn a_token_without_a_role_of_its_own_is_refused() {
        for text in [
            "[control.tokens.ci]\ntoken = \"ci-0123456789abcdef\"",
            "[control.tokens.ci]\nrole = \"read\"",
            "[control.tokens.ci]\ntoken = \"short\"\nrole = \"read\"",
            "[control.tokens.ci]\ntoken = \"ci-0123456789abcdef\"\nrole = \"admin\"",
            "[control.tokens.CI]\ntoken = \"ci-0123456789abcdef\"\nrole = \"read\"",
            "[control]\ntoken = \"ci-0123456789abcdef\"\n[control.tokens.ci]\ntoken = \"ci-0123456789abcdef\"\nrole = \"read\"",
            "[control]\ntoken-file = \"\"\n[control.tokens.ci]\ntoken = \"ci-0123456789abcdef\"\nrole = \"read\"",
            "[control.tokens.ci]\ntoken = \"ci-0123456789abcdef\"\nrole = \"read\"\n[tenants.a]\nuri-domains = [\"a.example\"]\n\
             token = \"ci-0123456789abcdef\"",
        ] {
            assert!(Config::parse(text).is_err(), "{text}");
        }
    }
}
