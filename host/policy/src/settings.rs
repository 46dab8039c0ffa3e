//! The settings of a policy.

use serde_json::Value;

/// An immutable table of typed values.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    table: Value,
    json: String,
}

impl Settings {
    /// Settings from a JSON object. Any other JSON value counts as an empty object.
    pub fn new(table: Value) -> Self {
        let table = match table.is_object() {
            true => table,
            false => Value::Object(serde_json::Map::new()),
        };
        let json = table.to_string();
        Self { table, json }
    }

    /// The whole table as JSON.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        self.find(key)?.as_bool()
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        self.find(key)?.as_i64()
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.find(key)?.as_f64()
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.find(key)?.as_str()
    }

    pub(crate) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let list = self.find(key)?.as_array()?;
        let texts = list.iter().map(|one| one.as_str().map(str::to_owned));
        texts.collect()
    }

    /// The keys of the table at `key`, sorted; those of the whole table if `key` is empty.
    pub(crate) fn keys(&self, key: &str) -> Vec<String> {
        let table = match key {
            "" => Some(&self.table),
            _ => self.find(key),
        };
        let names = table.and_then(Value::as_object).map(|table| table.keys());
        let mut names: Vec<_> = names.into_iter().flatten().cloned().collect();
        names.sort_unstable();
        names
    }

    fn find(&self, key: &str) -> Option<&Value> {
        key.split('.')
            .try_fold(&self.table, |table, name| table.get(name))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_found_by_their_path_and_type() {
        let settings = Settings::new(json!({
            "open": true, "rate": 5, "share": 0.5, "zone": "Europe/Berlin",
            "hours": {"monday": ["08:00", "18:00"], "friday": ["08:00", 12]},
        }));
        assert_eq!(settings.boolean("open"), Some(true));
        assert_eq!(settings.boolean("rate"), None);
        assert_eq!(settings.integer("rate"), Some(5));
        assert_eq!(settings.integer("share"), None);
        assert_eq!(settings.number("rate"), Some(5.0));
        assert_eq!(settings.number("share"), Some(0.5));
        assert_eq!(settings.text("zone"), Some("Europe/Berlin"));
        assert_eq!(settings.text("hours"), None);
        let monday = settings.texts("hours.monday").unwrap();
        assert_eq!(monday, ["08:00", "18:00"]);
        assert_eq!(
            settings.texts("hours.friday"),
            None,
            "one element is not a string"
        );
        assert_eq!(settings.keys("hours"), ["friday", "monday"]);
        assert_eq!(settings.keys("").len(), 5);
        assert!(settings.keys("zone").is_empty());
        for nothing in [
            "",
            ".",
            "hours.",
            "hours.sunday",
            "zone.0",
            "hours.monday.0",
        ] {
            assert_eq!(settings.text(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_value_other_than_a_table_counts_as_an_empty_table() {
        assert_eq!(Settings::new(json!([1])), Settings::default());
        assert_eq!(Settings::default().json(), "{}");
    }
}
