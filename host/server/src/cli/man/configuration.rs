//! portcullis.toml(5), from the file with all keys and their defaults.

use clap_mangen::roff::{Roff, bold, roman};

use super::parts::{reference, source};

/// Returns the page for a configuration file in which comments describe the keys below them.
pub(super) fn page(defaults: &str) -> String {
    let mut roff = Roff::new();
    roff.control(
        "TH",
        ["portcullis.toml", "5", "", source().as_str(), "Portcullis"],
    );
    roff.control("SH", ["NAME"]);
    roff.text([roman("portcullis.toml - configuration of portcullis")]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in INTRODUCTION {
        roff.text([roman(paragraph)]);
        roff.control("PP", []);
    }
    for item in items(defaults) {
        write(&item, &mut roff);
    }
    roff.control("SH", ["FILES"]);
    for (file, meaning) in FILES {
        roff.control("TP", []);
        roff.text([bold(file)]);
        roff.text([roman(meaning)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    let mut line = reference("portcullis", "1");
    line.push(roman(", "));
    line.extend(reference("portcullis-check", "1"));
    roff.text(line);
    roff.render()
}

const INTRODUCTION: [&str; 1] = [
    "The configuration of a host, in TOML. `portcullis check` reports every error in it; `portcullis check --defaults` prints this page as a file.",
];

const FILES: [(&str, &str); 2] = [
    ("./portcullis.toml", "is read if no file is named."),
    (
        "/etc/portcullis/portcullis.toml",
        "is read if the current directory has none.",
    ),
];

/// A part of the file.
#[derive(Debug, PartialEq, Eq)]
enum Item<'a> {
    /// A comment that describes no key.
    Remark(String),
    /// A section, and the comment above it.
    Section(&'a str, String),
    /// Keys with their values, and the comment above them.
    Keys(Vec<&'a str>, String),
}

fn items(defaults: &str) -> Vec<Item<'_>> {
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
            match items.last_mut() {
                Some(Item::Keys(keys, _)) if comment.is_empty() => keys.push(active),
                _ => items.push(Item::Keys(vec![active], take(&mut comment))),
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
    std::mem::take(comment).join(" ")
}

fn flush(comment: &mut Vec<&str>, items: &mut Vec<Item<'_>>) {
    if !comment.is_empty() {
        items.push(Item::Remark(take(comment)));
    }
}

fn write(item: &Item<'_>, roff: &mut Roff) {
    match item {
        Item::Remark(text) => {
            roff.text([roman(text)]);
            roff.control("PP", []);
        }
        Item::Section(name, text) => {
            roff.control("SH", [*name]);
            roff.text([roman(text)]);
        }
        Item::Keys(keys, text) => {
            for (at, key) in keys.iter().enumerate() {
                roff.control(if at == 0 { "TP" } else { "TQ" }, []);
                roff.text([bold(*key)]);
            }
            roff.text([roman(text)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_config::DEFAULTS;

    use super::*;

    #[test]
    fn comments_belong_to_the_keys_below_them() {
        let text = "# A file.\n\n# How many,\n# or none.\nworkers = 1\n\n# Where.\n[a]\n# Two.\nb = 2\nc = \"3\"\n# d = true\n# The value d = 1 is odd.\n";

        assert_eq!(
            items(text),
            [
                Item::Remark("A file.".to_owned()),
                Item::Keys(vec!["workers = 1"], "How many, or none.".to_owned()),
                Item::Section("[a]", "Where.".to_owned()),
                Item::Keys(vec!["b = 2", "c = \"3\"", "d = true"], "Two.".to_owned()),
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
                    !text.is_empty() && keys.iter().any(|line| line.starts_with(&format!("{key} ")))
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

    #[test]
    fn no_line_of_text_is_taken_for_a_request_of_roff() {
        let page = page("# 'quoted' and\n# .dotted \\ text\nkey = '.'\n");

        assert!(!page.contains("\n'quoted"), "{page}");
        assert!(!page.contains("\n.dotted"), "{page}");
    }
}
