//! Sections of tenants, as items of a plan: two sections are equal if their values are, whatever comments and order they have.

use std::path::Path;

use portcullis_config::Token;
use portcullis_plan::Item;

use super::mistakes::Mistakes;

/// A tenant in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TenantFile {
    pub(super) name: String,
    /// The file, for errors.
    pub(super) place: String,
    /// The content of its section.
    pub(super) text: String,
    pub(super) item: Item,
}

/// Reads a tenant.
pub(super) fn read(name: String, path: &Path, mistakes: &mut Mistakes) -> Option<TenantFile> {
    let place = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            mistakes.add(format!("cannot read {place}: {error}"));
            return None;
        }
    };
    match item(&name, &text) {
        Ok(item) => Some(TenantFile {
            name,
            place,
            text,
            item,
        }),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().get(..at).unwrap_or_default();
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            mistakes.add(format!("{place}:{line}: not TOML: {}", error.message()));
            None
        }
    }
}

/// The item of a section.
///
/// # Errors
/// If it is not TOML.
pub(super) fn item(name: &str, text: &str) -> Result<Item, toml::de::Error> {
    let section: toml::Table = toml::from_str(text)?;
    let mut item = Item::new(name);
    for (key, value) in section {
        add(&mut item, key, value);
    }
    Ok(item)
}

/// The item of a stored section that is not TOML: it differs from every section that is.
pub(super) fn unreadable(name: &str) -> Item {
    Item::new(name).with("(section)", "not TOML")
}

fn add(item: &mut Item, name: String, value: toml::Value) {
    let text = match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                add(item, format!("{name}.{key}"), value);
            }
            return;
        }
        // The database has the digest of a token only, and a plan shows nothing else either.
        toml::Value::String(text) if name == "token" => match Token::from_secret(&text) {
            Some(token) if !text.starts_with("sha256:") => format!("\"{}\"", token.as_digest()),
            Some(_) | None if text.starts_with("sha256:") => format!("\"{text}\""),
            Some(_) | None => "(no token)".to_owned(),
        },
        value @ (toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)) => value.to_string(),
    };
    item.fields.insert(name, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_with_equal_values_are_equal() {
        let one = item(
            "acme",
            "# ours\nuri-domains = [\"a\", \"b\"]\n[settings]\nlimit = 5\nnames = { x = 1 }\n",
        );
        let two = item(
            "acme",
            "settings = { names.x = 1, limit = 5 }\nuri-domains = ['a', \"b\"]",
        );
        let one = one.unwrap();
        assert_eq!(one, two.unwrap());
        let names: Vec<_> = one.fields.keys().collect();
        assert_eq!(names, ["settings.limit", "settings.names.x", "uri-domains"]);
        assert_ne!(one, item("acme", "uri-domains = [\"b\", \"a\"]").unwrap());
        assert_ne!(item("acme", "").unwrap(), unreadable("acme"));
    }

    #[test]
    fn a_token_equals_its_digest_and_is_never_shown() {
        let digest = "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        let of = |text: &str| item("a", &format!("token = \"{text}\"")).unwrap();
        assert_eq!(of("0123456789abcdef"), of(digest));
        assert_eq!(of(digest).fields["token"], format!("\"{digest}\""));
        assert_eq!(of("short").fields["token"], "(no token)");
    }
}
