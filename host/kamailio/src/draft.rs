//! The configuration that an import writes: keys with their values, each with the line it comes from.
//!
//! A value that our configuration would refuse is written as a comment with the reason, so that the file is always valid.

use std::borrow::Cow;

use portcullis_config::Config;

use super::finding::{Finding, Place};

/// A configuration file under construction.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    head: Vec<String>,
    notes: Vec<(Cow<'static, str>, String)>,
    entries: Vec<Entry>,
}

/// The origin of a value: its line, and a remark.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    place: Option<Place>,
    text: String,
}

#[derive(Clone, Debug)]
struct Entry {
    section: Cow<'static, str>,
    key: &'static str,
    is_list: bool,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    value: String,
    /// Whether the value is quoted.
    is_text: bool,
    origin: Origin,
    refused: Option<String>,
}

/// The content of a line: an item, the key of a list, or the header of a section.
#[derive(Clone)]
struct Written {
    line: usize,
    section: String,
    entry: Option<usize>,
    item: Option<usize>,
}

/// The text of a draft, and the content of each line.
struct Rendered {
    text: String,
    line: usize,
    places: Vec<Written>,
}

impl Origin {
    pub(super) fn line(place: &Place) -> Self {
        Self {
            place: Some(place.clone()),
            text: place.short(),
        }
    }

    /// A line with a remark.
    pub(super) fn remark(place: &Place, remark: impl AsRef<str>) -> Self {
        Self {
            place: Some(place.clone()),
            text: format!("{}: {}", place.short(), remark.as_ref()),
        }
    }

    /// A value that comes from no line.
    pub(super) fn none(remark: impl Into<String>) -> Self {
        Self {
            place: None,
            text: remark.into(),
        }
    }
}

impl Draft {
    /// An empty file that begins with these comment lines.
    pub(super) fn new(head: Vec<String>) -> Self {
        Self {
            head,
            notes: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Sets a key; an earlier value is replaced, as in Kamailio.
    pub(super) fn set(
        &mut self,
        section: impl Into<Cow<'static, str>>,
        key: &'static str,
        value: impl Into<String>,
        origin: Origin,
    ) {
        let entry = self.entry(section, key, false);
        entry.items = vec![Item::new(value.into(), origin)];
    }

    /// Sets a key to an integer.
    pub(super) fn set_number(
        &mut self,
        section: impl Into<Cow<'static, str>>,
        key: &'static str,
        value: i64,
        origin: Origin,
    ) {
        let item = Item::new(value.to_string(), origin);
        self.entry(section, key, false).items = vec![Item {
            is_text: false,
            ..item
        }];
    }

    /// Sets a key to `true`.
    pub(super) fn switch_on(
        &mut self,
        section: impl Into<Cow<'static, str>>,
        key: &'static str,
        origin: Origin,
    ) {
        let mut item = Item::new("true".into(), origin);
        item.is_text = false;
        self.entry(section, key, false).items = vec![item];
    }

    /// Sets a key to `false`.
    pub(super) fn switch_off(
        &mut self,
        section: impl Into<Cow<'static, str>>,
        key: &'static str,
        origin: Origin,
    ) {
        let mut item = Item::new("false".into(), origin);
        item.is_text = false;
        self.entry(section, key, false).items = vec![item];
    }

    /// Adds an item to a list.
    pub(super) fn push(
        &mut self,
        section: impl Into<Cow<'static, str>>,
        key: &'static str,
        value: impl Into<String>,
        origin: Origin,
    ) {
        let value = value.into();
        let entry = self.entry(section, key, true);
        if entry.items.iter().all(|item| item.value != value) {
            entry.items.push(Item::new(value, origin));
        }
    }

    /// Adds a comment line to the beginning of a section.
    pub(super) fn note(&mut self, section: impl Into<Cow<'static, str>>, line: impl Into<String>) {
        self.notes.push((section.into(), line.into()));
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, section: &str, key: &str) {
        self.entries
            .retain(|entry| (&*entry.section, entry.key) != (section, key));
    }

    /// The items of a list so far.
    pub(super) fn items(&self, section: &str, key: &str) -> impl Iterator<Item = &str> {
        let same = |entry: &&Entry| (&*entry.section, entry.key) == (section, key);
        let items = self.entries.iter().find(same).map(|entry| &entry.items);
        items.into_iter().flatten().map(|item| &*item.value)
    }

    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        let same = |entry: &Entry| (&*entry.section, entry.key) == (section, key);
        self.entries.iter().any(same)
    }

    /// The file, the number of values in it, and the parts of the draft that our configuration refuses.
    pub(super) fn settle(mut self) -> (String, usize, Vec<Finding>) {
        let mut findings = Vec::new();
        loop {
            let rendered = self.render();
            let problems = match Config::parse(&rendered.text) {
                Ok(_) => Vec::new(),
                Err(problems) => problems,
            };
            let mut refused = false;
            for problem in problems {
                let Some(written) = rendered.on_line(problem.line) else {
                    continue;
                };
                let value = match problem.value.as_str() {
                    "" => String::new(),
                    value => format!(" = {value}"),
                };
                let reason = match problem.mend.as_str() {
                    "" => problem.what,
                    mend => format!("{}; {mend}", problem.what),
                };
                for (number, entry) in self.entries.iter_mut().enumerate() {
                    if entry.section == written.section
                        && written.entry.is_none_or(|entry| entry == number)
                    {
                        refused |= entry.refuse(written.item, &value, &reason, &mut findings);
                    }
                }
            }
            if !refused {
                let items = self.entries.iter().flat_map(|entry| &entry.items);
                let taken = |item: &&Item| item.refused.is_none() && item.origin.place.is_some();
                return (rendered.text, items.filter(taken).count(), findings);
            }
        }
    }

    fn entry(
        &mut self,
        section: impl Into<Cow<'static, str>>,
        key: &'static str,
        is_list: bool,
    ) -> &mut Entry {
        let section = section.into();
        let same = |entry: &Entry| entry.section == section && entry.key == key;
        let at = self.entries.iter().position(same).unwrap_or_else(|| {
            self.entries.push(Entry {
                section,
                key,
                is_list,
                items: Vec::new(),
            });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    fn render(&self) -> Rendered {
        let mut rendered = Rendered {
            text: String::new(),
            line: 1,
            places: Vec::new(),
        };
        for line in &self.head {
            rendered.push(&format!("# {line}"));
        }
        for section in &self.sections() {
            let entries = self.entries.iter().enumerate();
            let entries: Vec<_> = entries.filter(|(_, e)| &e.section == section).collect();
            let notes = self.notes.iter().filter(|(of, _)| of == section);
            let notes: Vec<_> = notes.map(|(_, line)| format!("# {line}")).collect();
            if entries.is_empty() && notes.is_empty() {
                continue;
            }
            rendered.push("");
            if !section.is_empty() {
                rendered.head(section, entries.iter().map(|(_, entry)| *entry));
            }
            notes.iter().for_each(|line| rendered.push(line));
            for (at, entry) in entries {
                let before = format!("{} = ", entry.key);
                match entry.is_list {
                    true => rendered.list(at, entry),
                    false => rendered.item(section, (at, 0), &entry.items[0], &before, ""),
                }
            }
        }
        rendered
    }

    /// The sections in their order: those with a name of their own follow [relay].
    fn sections(&self) -> Vec<Cow<'static, str>> {
        let mut sections: Vec<Cow<'static, str>> = Vec::new();
        for section in SECTIONS {
            sections.push(section.into());
            if section != "relay" {
                continue;
            }
            for entry in &self.entries {
                let is_named = !SECTIONS.contains(&&*entry.section);
                if is_named && !sections.contains(&entry.section) {
                    sections.push(entry.section.clone());
                }
            }
        }
        sections
    }
}

impl Entry {
    fn is_refused(&self) -> bool {
        self.items.iter().all(|item| item.refused.is_some())
    }

    /// Removes an item, or all items. True if any was removed.
    fn refuse(
        &mut self,
        which: Option<usize>,
        value: &str,
        reason: &str,
        findings: &mut Vec<Finding>,
    ) -> bool {
        let mut refused = false;
        for (number, item) in self.items.iter_mut().enumerate() {
            let concerns = which.is_none_or(|which| which == number);
            if !concerns || item.refused.is_some() {
                continue;
            }
            item.refused = Some(reason.to_owned());
            findings.push(Finding {
                place: item.origin.place.clone(),
                what: format!("{}{value} cannot be taken over", self.key),
                mend: reason.to_owned(),
            });
            refused = true;
        }
        refused
    }
}

impl Item {
    fn new(value: String, origin: Origin) -> Self {
        Self {
            value,
            is_text: true,
            origin,
            refused: None,
        }
    }
}

impl Rendered {
    fn push(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
        self.line += 1;
    }

    fn head<'e>(&mut self, section: &str, mut entries: impl ExactSizeIterator<Item = &'e Entry>) {
        // Without entries, the section exists for its notes.
        let is_refused = entries.len() > 0 && entries.all(Entry::is_refused);
        let mark = if is_refused { "# " } else { "" };
        self.places.push(Written {
            line: self.line,
            section: section.to_owned(),
            entry: None,
            item: None,
        });
        self.push(&format!("{mark}[{section}]"));
    }

    fn list(&mut self, at: usize, entry: &Entry) {
        let mark = if entry.is_refused() { "# " } else { "" };
        self.places.push(Written {
            line: self.line,
            section: entry.section.to_string(),
            entry: Some(at),
            item: None,
        });
        self.push(&format!("{mark}{} = [", entry.key));
        for (number, item) in entry.items.iter().enumerate() {
            self.item(&entry.section, (at, number), item, "    ", ",");
        }
        self.push(&format!("{mark}]"));
    }

    fn item(
        &mut self,
        section: &str,
        (entry, number): (usize, usize),
        item: &Item,
        before: &str,
        behind: &str,
    ) {
        let value = match item.is_text {
            true => quote(&item.value),
            false => item.value.clone(),
        };
        let origin = plain(&item.origin.text);
        match &item.refused {
            None => {
                self.places.push(Written {
                    line: self.line,
                    section: section.to_owned(),
                    entry: Some(entry),
                    item: Some(number),
                });
                self.push(&format!("{before}{value}{behind}  # {origin}"));
            }
            Some(reason) => {
                let reason = plain(reason);
                self.push(&format!(
                    "# {before}{value}{behind}  # {origin}: not taken: {reason}"
                ));
            }
        }
    }

    fn on_line(&self, line: usize) -> Option<Written> {
        self.places
            .iter()
            .find(|written| written.line == line)
            .cloned()
    }
}

/// A text as a TOML value on one line.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Text for a comment, on one line.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

/// The sections of a file, in order; the first one has no header.
const SECTIONS: [&str; 13] = [
    "",
    "database",
    "permissions",
    "dispatcher",
    "policy",
    "relay",
    "nat",
    "websocket",
    "resolver",
    "control",
    "log",
    "sip",
    "guard",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_refused_is_a_comment_with_its_reason() {
        let mut draft = Draft::new(vec!["head".into()]);
        for listen in ["udp:10.0.0.5:5060", "tls:10.0.0.5:5061"] {
            draft.push("", "listen", listen, Origin::none("here"));
        }
        draft.set("log", "level", "loud", Origin::none("there"));
        draft.push("sip", "aliases", "not a name", Origin::none("x\ny"));
        let (file, taken, findings) = draft.settle();
        assert_eq!(taken, 0);
        assert_eq!(findings.len(), 3, "{findings:#?}");
        let config = Config::parse(&file).unwrap();
        assert_eq!(config.listen.len(), 1);
        assert_eq!(
            file.lines().take(6).collect::<Vec<_>>(),
            [
                "# head",
                "",
                "listen = [",
                "    \"udp:10.0.0.5:5060\",  # here",
                "#     \"tls:10.0.0.5:5061\",  # here: not taken: a TLS address without a certificate; add a section [tls.NAME] with `certificate` and `key`",
                "]",
            ]
        );
        assert!(file.contains("# aliases = [\n"), "{file}");
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let mut draft = Draft::new(Vec::new());
        draft.set("log", "level", "info", Origin::none("a"));
        draft.set("log", "level", "warn", Origin::none("b"));
        assert_eq!(draft.settle().0, "\n[log]\nlevel = \"warn\"  # b\n");
    }

    #[test]
    fn texts_survive() {
        for text in ["a\"b\\c", "ü\u{7f}\u{1}\n\t'", "#"] {
            let read: toml::Table = format!("a = {}", quote(text)).parse().unwrap();
            assert_eq!(read["a"].as_str(), Some(text));
        }
    }
}
