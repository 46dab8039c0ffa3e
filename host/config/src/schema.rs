//! The JSON Schema of the configuration file, for editors.
//!
//! Keys and sections are those that the reader asks for. Their values are what its parsers say about a value that no key has. Descriptions and
//! defaults are those of `defaults.toml`.

#[cfg(test)]
mod blocks;
#[cfg(test)]
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::config::{DEFAULTS, outline};
use super::documentation::{Item, KeyLine, items};
use super::section::{Open, join};
use super::shape::Shape;

/// Returns the JSON Schema (draft 4, which all editors read) of the configuration file.
pub fn schema() -> Json {
    let mut schema = Map::new();
    schema.insert(
        "$schema".into(),
        "http://json-schema.org/draft-04/schema#".into(),
    );
    schema.insert("title".into(), "The configuration of Portcullis".into());
    let root = Schema {
        survey: Survey::new(),
        documentation: Documentation::new(),
    };
    if let Json::Object(members) = root.section("") {
        schema.extend(members);
    }
    Json::Object(schema)
}

struct Schema {
    survey: Survey,
    documentation: Documentation,
}

impl Schema {
    fn section(&self, path: &str) -> Json {
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        if let Some(text) = self.documentation.text(path) {
            schema.insert("description".into(), text.into());
        }
        let chosen = join(path, CHOSEN);
        match self.survey.open.get(path) {
            Some(Open::Json) => {}
            Some(Open::Sections) => {
                schema.insert("additionalProperties".into(), self.section(&chosen));
            }
            Some(Open::Values) => {
                schema.insert("additionalProperties".into(), self.survey.schema(&chosen));
            }
            None => {
                let keys = self.survey.keys.get(path).into_iter().flatten();
                let properties: Map<_, _> = keys
                    .map(|key| ((*key).to_owned(), self.property(&join(path, key))))
                    .collect();
                schema.insert("properties".into(), properties.into());
                schema.insert("additionalProperties".into(), false.into());
            }
        }
        Json::Object(schema)
    }

    fn property(&self, path: &str) -> Json {
        if self.survey.sections.contains(path) {
            return self.section(path);
        }
        let mut schema = self.survey.schema(path);
        if let Some(text) = self.documentation.text(path) {
            schema["description"] = text.into();
        }
        if let Some(default) = self.documentation.defaults.get(path) {
            schema["default"] = default.clone();
        }
        schema
    }
}

/// Stands for the names that the operator chooses.
const CHOSEN: &str = "name";

/// What the reader of a configuration file asks for.
#[derive(Default)]
struct Survey {
    keys: BTreeMap<String, BTreeSet<&'static str>>,
    sections: BTreeSet<String>,
    open: BTreeMap<String, Open>,
    shapes: BTreeMap<String, Shape>,
}

impl Survey {
    /// Reads files in which every key that is known so far has a value that no key may have, until no further key becomes known.
    fn new() -> Self {
        let mut survey = Self::default();
        let mut text = String::new();
        loop {
            survey.read(&text);
            let next = survey.probe();
            if next == text {
                return survey;
            }
            text = next;
        }
    }

    fn read(&mut self, text: &str) {
        let outline = outline(text);
        for (section, key) in outline.keys {
            self.keys.entry(section).or_default().insert(key);
        }
        self.sections.extend(outline.sections);
        self.open.extend(outline.open);
        for (path, shape) in outline.shapes {
            self.shapes.entry(path).or_insert(shape);
        }
    }

    /// Returns a file with all known keys. No key has a date; after a first round, those that may be lists have a list with a date.
    fn probe(&self) -> String {
        let mut text = String::new();
        self.write_keys("", &mut text);
        let chosen = self.open.iter().filter_map(|(path, open)| match open {
            Open::Sections => Some(join(path, CHOSEN)),
            Open::Values | Open::Json => None,
        });
        let chosen: Vec<_> = chosen.collect();
        for path in self.sections.iter().chain(&chosen) {
            text.push_str(&format!("[{path}]\n"));
            self.write_keys(path, &mut text);
        }
        text
    }

    fn write_keys(&self, path: &str, text: &mut String) {
        let mut write = |key: &str| {
            let path = join(path, key);
            if self.sections.contains(&path) {
                return;
            }
            let is_list = self.shapes.get(&path).is_some_and(Shape::has_lists);
            let value = if is_list {
                "[1970-01-01]"
            } else {
                "1970-01-01"
            };
            let _infallible = writeln!(text, "{key} = {value}");
        };
        self.keys
            .get(path)
            .into_iter()
            .flatten()
            .for_each(|key| write(key));
        if self.open.get(path) == Some(&Open::Values) {
            write(CHOSEN);
        }
    }

    /// Returns the schema of the value of a key; that of any value if nothing is known about it.
    fn schema(&self, path: &str) -> Json {
        let items = self.shapes.get(&format!("{path}[0]"));
        match self.shapes.get(path) {
            Some(shape) => shape.schema(items),
            None => json!({}),
        }
    }
}

/// What `defaults.toml` says, by path. [`CHOSEN`] stands for the names in its examples.
struct Documentation {
    texts: BTreeMap<String, String>,
    defaults: BTreeMap<String, Json>,
}

impl Documentation {
    fn new() -> Self {
        let mut documentation = Self {
            texts: BTreeMap::new(),
            defaults: BTreeMap::new(),
        };
        let mut section = String::new();
        for item in items(DEFAULTS) {
            match item {
                Item::Remark(_) => {}
                Item::Section(name, text) => {
                    section = general(name);
                    documentation.add_text(&section, &text);
                }
                Item::Keys(lines, text) => {
                    for line in lines {
                        documentation.add_key(&section, line, &text);
                    }
                }
            }
        }
        documentation
    }

    fn add_text(&mut self, path: &str, text: &str) {
        if !text.is_empty() {
            self.texts.insert(path.to_owned(), text.to_owned());
        }
    }

    fn add_key(&mut self, section: &str, line: KeyLine<'_>, text: &str) {
        for (key, value) in toml::from_str::<toml::Table>(line.text).unwrap_or_default() {
            let path = join(section, &key);
            // The comment above a section describes the keys that have none.
            let section = self.texts.get(section).cloned().unwrap_or_default();
            self.add_text(&path, if text.is_empty() { &section } else { text });
            if let (false, Ok(value)) = (line.is_example, serde_json::to_value(value)) {
                self.defaults.insert(path, value);
            }
        }
    }

    /// Returns the description of a key or section. What the policies of tenants and those before and after have in common with `[policy]` is
    /// described there, and what only the operator's own policy lacks, for tenants.
    fn text(&self, path: &str) -> Option<&str> {
        let inherited = || {
            let seats = ["tenants.name.", "policy.before.", "policy.after."];
            let key = seats.iter().find_map(|seat| path.strip_prefix(seat))?;
            let places = [join("policy", key), join("tenants.name", key)];
            places.iter().find_map(|place| self.texts.get(place))
        };
        self.texts.get(path).or_else(inherited).map(String::as_str)
    }
}

/// Returns the path of a section of `defaults.toml` without the names that it has as examples.
fn general(header: &str) -> String {
    let name = header.trim_matches(['[', ']']);
    for open in ["tenants", "control.tokens", "tls", "relay.tls-profiles"] {
        let rest = name
            .strip_prefix(open)
            .and_then(|rest| rest.strip_prefix('.'));
        if let Some(rest) = rest {
            let below = rest.split_once('.').map(|(_, below)| below);
            let chosen = join(open, CHOSEN);
            return below.map_or_else(|| chosen.clone(), |below| join(&chosen, below));
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    /// Returns what is wrong with a value, for the parts of JSON Schema that the schema uses.
    pub(super) fn problems(value: &Json, schema: &Json, path: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for (word, rule) in schema.as_object().unwrap() {
            let is_fine = match word.as_str() {
                "type" => match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    other => panic!("{other}"),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_i64().is_none_or(|n| n >= rule.as_i64().unwrap()),
                "maximum" => value.as_u64().is_none_or(|n| n <= rule.as_u64().unwrap()),
                "pattern" => {
                    let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                    value.as_str().is_none_or(|text| pattern.is_match(text))
                }
                "anyOf" => {
                    let mut any = rule.as_array().unwrap().iter();
                    any.any(|one| self::problems(value, one, path).is_empty())
                }
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        problems.extend(self::problems(item, rule, &format!("{path}[{at}]")));
                    }
                    true
                }
                "properties" => true,
                "additionalProperties" => {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        let path = join(path, key);
                        match schema.get("properties").and_then(|keys| keys.get(key)) {
                            Some(property) => {
                                problems.extend(self::problems(value, property, &path));
                            }
                            None if rule == false => problems.push(format!("{path}: unknown key")),
                            None => problems.extend(self::problems(value, rule, &path)),
                        }
                    }
                    true
                }
                "$schema" | "title" | "description" | "default" => true,
                other => panic!("the schema has {other}"),
            };
            if !is_fine {
                problems.push(format!("{path} = {value}: not {word} {rule}"));
            }
        }
        problems
    }

    pub(super) fn json_of(text: &str) -> Json {
        let table: toml::Table = text.parse().unwrap();
        serde_json::to_value(table).unwrap()
    }

    #[test]
    fn the_defaults_fit_the_schema() {
        let schema = schema();
        assert_eq!(problems(&json_of(DEFAULTS), &schema, ""), [""; 0]);
    }

    /// With the examples, which are comments.
    #[test]
    fn the_schema_has_every_key_of_the_defaults() {
        let mut text = String::new();
        for item in items(DEFAULTS) {
            match item {
                Item::Remark(_) => {}
                Item::Section(name, _) => text += &format!("{name}\n"),
                Item::Keys(lines, _) => {
                    lines
                        .iter()
                        .for_each(|line| text += &format!("{}\n", line.text));
                }
            }
        }
        assert_eq!(problems(&json_of(&text), &schema(), ""), [""; 0]);
    }

    #[test]
    fn every_key_has_a_description_and_a_type() {
        let survey = Survey::new();
        let documentation = Documentation::new();
        let mut keys = 0;
        for (section, names) in &survey.keys {
            for key in names {
                let path = join(section, key);
                if survey.sections.contains(&path) {
                    continue;
                }
                keys += 1;
                assert!(
                    documentation.text(&path).is_some(),
                    "{path} has no description"
                );
                let shape = survey.shapes.get(&path);
                let shape = shape.unwrap_or_else(|| panic!("the parser of {path} states no shape"));
                assert!(
                    !shape.has_lists() || survey.shapes.contains_key(&format!("{path}[0]")),
                    "{path}"
                );
            }
        }
        assert!(keys > 200, "{keys}");
    }

    #[test]
    fn wrong_values_do_not_fit() {
        let schema = schema();
        for (text, expected) in [
            ("workers = 0", "workers = 0: not anyOf"),
            ("workers = \"all\"", "workers = \"all\": not anyOf"),
            ("colour = \"red\"", "colour: unknown key"),
            ("listen = [5060]", "listen[0] = 5060: not type"),
            (
                "[database]\npoll = \"5\"",
                "database.poll = \"5\": not pattern",
            ),
            ("[database]\npoll = 5", "database.poll = 5: not type"),
            (
                "[policy]\nmode = \"watch\"",
                "policy.mode = \"watch\": not enum",
            ),
            (
                "[policy]\nfailure-code = 200",
                "policy.failure-code = 200: not minimum",
            ),
            (
                "[policy.before]\nfiel = \"a\"",
                "policy.before.fiel: unknown key",
            ),
            (
                "[tenants.acme]\ncpu-share = 5",
                "tenants.acme.cpu-share = 5: not type",
            ),
            (
                "[tenants.acme.on-failure]\nlod = \"a\"",
                "tenants.acme.on-failure.lod: unknown key",
            ),
            (
                "[relay.next-hops]\na = 1",
                "relay.next-hops.a = 1: not type",
            ),
            (
                "[control.tokens.ci]\nrole = \"root\"",
                "control.tokens.ci.role = \"root\": not enum",
            ),
        ] {
            let found = problems(&json_of(text), &schema, "");
            let is_found = found.iter().any(|problem| problem.starts_with(expected));
            assert!(is_found, "{text}: {found:?}");
        }
    }
}
