//! Settings of a fake host.

use std::collections::BTreeMap;

/// The value of a setting.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Setting {
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Number(f64),
    /// A string.
    Text(String),
    /// A list of strings.
    Texts(Vec<String>),
}

/// All settings by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(BTreeMap<String, Setting>);

impl Settings {
    pub(super) fn insert(&mut self, key: &str, value: Setting) {
        self.0.insert(key.to_owned(), value);
    }

    pub(super) fn value(&self, key: &str) -> Option<&Setting> {
        self.0.get(key)
    }

    pub(super) fn keys(&self, key: &str) -> Vec<String> {
        let within = self.0.keys().filter_map(|name| match key {
            "" => Some(name.as_str()),
            _ => name.strip_prefix(key)?.strip_prefix('.'),
        });
        let mut names: Vec<_> = within.map(first_name).map(str::to_owned).collect();
        names.dedup();
        names
    }

    pub(super) fn json(&self) -> String {
        self.json_of("")
    }

    fn json_of(&self, table: &str) -> String {
        let member = |name: &String| {
            let key = match table {
                "" => name.clone(),
                _ => format!("{table}.{name}"),
            };
            let value = match self.0.get(&key) {
                Some(value) => value.json(),
                None => self.json_of(&key),
            };
            format!("{}:{value}", quoted(name))
        };
        let members: Vec<_> = self.keys(table).iter().map(member).collect();
        format!("{{{}}}", members.join(","))
    }
}

impl Setting {
    fn json(&self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => quoted(value),
            Self::Texts(values) => {
                let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
                format!("[{}]", values.join(","))
            }
        }
    }
}

impl From<bool> for Setting {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for Setting {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Setting {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Setting {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl<const N: usize> From<[&str; N]> for Setting {
    fn from(values: [&str; N]) -> Self {
        Self::Texts(values.map(str::to_owned).into())
    }
}

fn first_name(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_dots_are_paths_in_tables() {
        let mut settings = Settings::default();
        settings.insert("zone", "a \"b\"\n".into());
        settings.insert("hours.monday", ["08:00", "18:00"].into());
        settings.insert("hours.friday", true.into());
        settings.insert("rate", 5.into());
        assert_eq!(settings.keys(""), ["hours", "rate", "zone"]);
        assert_eq!(settings.keys("hours"), ["friday", "monday"]);
        assert!(settings.keys("rate").is_empty());
        let expected = r#"{"hours":{"friday":true,"monday":["08:00","18:00"]},"rate":5,"zone":"a \"b\"\u000a"}"#;
        assert_eq!(settings.json(), expected);
    }
}
