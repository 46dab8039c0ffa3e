//! The table `settings` in the stored section of a tenant: replaced, while the rest of the text stays as it is.

use serde_json::{Map, Value as Json};
use thiserror::Error;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

/// Why settings cannot be written in a section.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsTextError {
    /// TOML has no null.
    #[error("{0} is null, which TOML cannot store: leave the key out")]
    Null(String),
    /// A number that TOML does not have.
    #[error("{0} is a number beyond 64 bits with a sign: write it as a text")]
    Number(String),
    /// The section is not TOML.
    #[error("the stored section cannot be read: {0}")]
    Section(String),
}

/// Returns the section of a tenant with these settings. Comments and the order of all other keys stay as they are.
///
/// # Errors
/// If the settings contain something that TOML does not have.
pub fn with_settings(
    section: &str,
    settings: &Map<String, Json>,
) -> Result<String, SettingsTextError> {
    let document = section.parse::<DocumentMut>();
    let mut document =
        document.map_err(|error| SettingsTextError::Section(error.message().to_owned()))?;
    // What is left of dotted keys and sub-tables goes with the old table.
    document.remove("settings");
    if !settings.is_empty() {
        let table = table("settings", settings)?;
        document.insert("settings", Item::Table(table));
    }
    Ok(document.to_string())
}

fn table(path: &str, members: &Map<String, Json>) -> Result<Table, SettingsTextError> {
    let mut table = Table::new();
    for (key, json) in members {
        let path = format!("{path}.{key}");
        let item = match json {
            Json::Object(members) => Item::Table(self::table(&path, members)?),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                Item::Value(value(&path, json)?)
            }
        };
        table.insert(key, item);
    }
    Ok(table)
}

fn value(path: &str, json: &Json) -> Result<Value, SettingsTextError> {
    Ok(match json {
        Json::Null => return Err(SettingsTextError::Null(path.to_owned())),
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(float)) if number.is_f64() => float.into(),
            (None, _) => return Err(SettingsTextError::Number(path.to_owned())),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => {
            let mut array = Array::new();
            for (at, item) in items.iter().enumerate() {
                array.push(value(&format!("{path}[{at}]"), item)?);
            }
            array.into()
        }
        Json::Object(members) => {
            let mut table = InlineTable::new();
            for (key, json) in members {
                table.insert(key, value(&format!("{path}.{key}"), json)?);
            }
            table.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::Config;

    fn map(json: Json) -> Map<String, Json> {
        json.as_object().cloned().unwrap()
    }

    fn parsed(text: &str) -> crate::TenantConfig {
        Config::default().parse_tenant("acme", text, &[]).unwrap()
    }

    #[test]
    fn only_the_settings_are_replaced_however_they_were_written() {
        let wanted = json!({
            "limit": 5, "share": 0.5, "whole": 1.0, "on": true, "text": "a\"\n\u{1}ü", "list": [1, {"a": [], "b c": "x"}],
            "": {"deep": {"er": []}, "empty": {}}, "big": i64::MIN,
        });
        for section in [
            "# Ours.\nsource-groups = [200] # the trunk\nlog-rate = 7\n",
            "source-groups = [200]\nsettings = { limit = 1 }\nlog-rate = 7 # the last\n",
            "source-groups = [200]\nsettings.limit = 1\nsettings.other.key = 2\nlog-rate = 7\n",
            "source-groups = [200]\nlog-rate = 7\n[settings]\nold = 1\n[settings.more]\nolder = 2\n[[settings.list]]\na = 1\n",
            "source-groups = [200]\nlog-rate = 7\n[settings.more]\nolder = 2\n",
        ] {
            let before = parsed(section);
            let text = with_settings(section, &map(wanted.clone())).unwrap();
            let after = parsed(&text);
            assert_eq!(after.seat.settings, wanted, "{text}");
            let mut rest = after;
            Arc::make_mut(&mut rest.seat).settings = before.seat.settings.clone();
            assert_eq!(rest, before, "{text}");
            assert!(!text.contains("old"), "{text}");
            for comment in ["# Ours.", "# the trunk", "# the last"] {
                assert_eq!(text.contains(comment), section.contains(comment), "{text}");
            }
            // And away again.
            let none = with_settings(&text, &Map::new()).unwrap();
            assert_eq!(parsed(&none).seat.settings, json!({}), "{none}");
        }
    }

    #[test]
    fn what_toml_does_not_have_is_named_with_its_place() {
        let refused = |json: Json| with_settings("", &map(json)).unwrap_err().to_string();
        let null = refused(json!({"a": {"b": [1, null]}}));
        assert!(null.starts_with("settings.a.b[1] is null"), "{null}");
        let number = refused(json!({"a": u64::MAX}));
        assert!(number.contains("settings.a is a number"), "{number}");
        assert!(matches!(
            with_settings("= 1", &Map::new()),
            Err(SettingsTextError::Section(_))
        ));
    }
}
