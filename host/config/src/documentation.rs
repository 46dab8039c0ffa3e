//! What `defaults.toml` says about the configuration: its comments and the keys below them.

use std::mem;

/// A part of the file of defaults.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A comment that describes no key.
    Remark(String),
    /// A section in brackets, and the comment above it.
    Section(&'a str, String),
    /// Lines of keys, and the comment above them.
    Keys(Vec<KeyLine<'a>>, String),
}

/// A key with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLine<'a> {
    /// The line, without the mark of a comment.
    pub text: &'a str,
    /// Whether the line is a comment: an example, or a key without a default.
    pub is_example: bool,
}

/// Returns the parts of a configuration file in which comments describe the keys below them.
pub fn items(defaults: &str) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let mut comment = Vec::new();
    for line in defaults.lines() {
        let remark = line.strip_prefix("# ");
        let active = match remark {
            // An example, in a comment of its own.
            Some(text) if is_toml(text) => text,
            Some(text) => {
                comment.push(text);
                continue;
            }
            None => line,
        };
        if active.is_empty() {
            flush(&mut comment, &mut items);
        } else if active.starts_with('[') {
            items.push(Item::Section(active, take(&mut comment)));
        } else {
            let key = KeyLine {
                text: active,
                is_example: remark.is_some(),
            };
            match items.last_mut() {
                Some(Item::Keys(keys, _)) if comment.is_empty() => keys.push(key),
                _ => items.push(Item::Keys(vec![key], take(&mut comment))),
            }
        }
    }
    flush(&mut comment, &mut items);
    items
}

/// Whether a comment is a line of a configuration file: a key with its value, or a section.
fn is_toml(text: &str) -> bool {
    toml::from_str::<toml::Table>(text).is_ok_and(|table| !table.is_empty())
}

fn take(comment: &mut Vec<&str>) -> String {
    mem::take(comment).join(" ")
}

fn flush(comment: &mut Vec<&str>, items: &mut Vec<Item<'_>>) {
    if !comment.is_empty() {
        items.push(Item::Remark(take(comment)));
    }
}

#[cfg(test)]
mod tests {
    use crate::DEFAULTS;

    use super::*;

    fn keys<'a>(lines: &[(&'a str, bool)], text: &str) -> Item<'a> {
        let lines = lines
            .iter()
            .map(|&(text, is_example)| KeyLine { text, is_example });
        Item::Keys(lines.collect(), text.to_owned())
    }

    #[test]
    fn comments_belong_to_the_keys_below_them() {
        let text = "# A file.\n\n# How many,\n# or none.\nworkers = 1\n\n# Where.\n[a]\n# Two.\nb = 2\nc = \"3\"\n# d = true\n# The value d = 1 is odd.\n";

        assert_eq!(
            items(text),
            [
                Item::Remark("A file.".to_owned()),
                keys(&[("workers = 1", false)], "How many, or none."),
                Item::Section("[a]", "Where.".to_owned()),
                keys(
                    &[("b = 2", false), ("c = \"3\"", false), ("d = true", true)],
                    "Two."
                ),
                Item::Remark("The value d = 1 is odd.".to_owned()),
            ]
        );
    }

    #[test]
    fn every_key_of_the_defaults_is_described() {
        let table: toml::Table = DEFAULTS.parse().unwrap();
        let items = items(DEFAULTS);
        let described = |key: &str| {
            items.iter().any(|item| match item {
                Item::Keys(keys, text) => {
                    let is_key = |line: &KeyLine<'_>| line.text.starts_with(&format!("{key} "));
                    !text.is_empty() && keys.iter().any(is_key)
                }
                Item::Section(name, _) => name.trim_matches(['[', ']']).ends_with(key),
                Item::Remark(_) => false,
            })
        };
        let sections = table.values().filter_map(toml::Value::as_table);
        for key in table.keys().chain(sections.flat_map(toml::Table::keys)) {
            assert!(described(key), "{key}");
        }
    }
}
