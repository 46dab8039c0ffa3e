//! Reads a TOML document key by key, and collects every problem with its position, so that all problems are reported at once.

use std::cell::RefCell;
use std::ops::Range;

use serde_json::{Number, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Bad, Problem, place};
use super::shape::Shape;

/// The document that is read, with the problems found so far.
pub(super) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    notes: RefCell<Notes>,
}

impl<'t> Document<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut notes = Notes::default();
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            let (line, column) = place(text, offset);
            notes.broken_lines.push(line);
            notes.problems.push(Problem {
                line,
                column,
                key: String::new(),
                value: String::new(),
                what: format!("not TOML: {}", error.message()),
                mend: "write strings in quotes and lists in brackets".into(),
            });
        }
        Self {
            text,
            root,
            notes: RefCell::new(notes),
        }
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section {
            name: String::new(),
            text: self.text,
            table: Some(self.root.get_ref()),
            notes: &self.notes,
            known: Vec::new(),
            start: 0,
        }
    }

    /// Returns every problem, in the order of the lines.
    pub(super) fn problems(self) -> Vec<Problem> {
        let mut notes = self.notes.into_inner();
        let known = std::mem::take(&mut notes.known);
        for unknown in std::mem::take(&mut notes.unknown) {
            let (line, column) = place(self.text, unknown.offset);
            notes.problems.push(Problem {
                line,
                column,
                key: join(&unknown.section, &unknown.key),
                value: String::new(),
                what: "unknown key".into(),
                mend: mend_unknown(&unknown, &known),
            });
        }
        // A line that is not TOML is parsed as far as possible. Problems of its values would only be confusing.
        let broken = notes.broken_lines;
        let mut problems = notes.problems;
        problems.retain(|problem| problem.key.is_empty() || !broken.contains(&problem.line));
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        problems
    }

    /// Returns which keys and sections were read, and what the problems say about their values.
    pub(super) fn outline(self) -> Outline {
        let notes = self.notes.into_inner();
        Outline {
            keys: notes.known,
            sections: notes.sections,
            open: notes.open,
            shapes: notes.shapes,
        }
    }
}

/// What a reader of a document asked for.
#[derive(Default)]
pub(super) struct Outline {
    /// Sections with the keys that were read in them, those of subsections included.
    pub(super) keys: Vec<(String, &'static str)>,
    /// Paths of sections.
    pub(super) sections: Vec<String>,
    /// Sections whose keys the operator chooses.
    pub(super) open: Vec<(String, Open)>,
    /// The shapes of values that were not accepted, by path. That of an item of a list has an index: `listen[0]`.
    pub(super) shapes: Vec<(String, Shape)>,
}

/// What the keys of a section are that the operator chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// Names of sections.
    Sections,
    /// Names of values.
    Values,
    /// Anything that JSON has.
    Json,
}

/// One table of the document. [`Section::finish`] reports every key that has not been read as unknown.
pub(super) struct Section<'d> {
    name: String,
    text: &'d str,
    table: Option<&'d DeTable<'d>>,
    notes: &'d RefCell<Notes>,
    known: Vec<&'static str>,
    /// Offset of the name of the table.
    start: usize,
}

impl<'d> Section<'d> {
    /// Returns the value of `key` as `parse` reads it; `None` if it is absent or invalid.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(Value<'_>) -> Result<T, Bad>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        self.read(&join(&self.name, key), value, parse)
    }

    /// Returns the value of `key` as `parse` reads it; `default` if it is absent or invalid.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(Value<'_>) -> Result<T, Bad>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// Returns the items of the list `key`, each as `parse` reads it; `default` if the list is absent.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        mut parse: impl FnMut(Value<'_>) -> Result<T, Bad>,
    ) -> Vec<T> {
        self.known.push(key);
        let Some(value) = self.table.and_then(|table| table.get(key)) else {
            return default;
        };
        let path = join(&self.name, key);
        let Some(items) = value.get_ref().as_array() else {
            let mend = format!("write {key} = [\"…\", \"…\"]");
            let bad = Bad::new("not a list", mend).shaped(Shape::List);
            self.note(&path, value.span(), bad);
            return default;
        };
        let mut read = Vec::new();
        for (at, item) in items.iter().enumerate() {
            read.extend(self.read(&format!("{path}[{at}]"), item, &mut parse));
        }
        read
    }

    /// Returns the table `key`; an empty table if it is absent.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        self.known.push(key);
        let path = join(&self.name, key);
        let value = self.table.and_then(|table| table.get(key));
        if let Some(value) = value.filter(|value| !value.get_ref().is_table()) {
            let bad = Bad::new("not a section", format!("write it as [{path}]"));
            self.note(&path, value.span(), bad);
        }
        self.notes.borrow_mut().sections.push(path.clone());
        Section {
            name: path,
            text: self.text,
            table: value.and_then(|value| value.get_ref().as_table()),
            notes: self.notes,
            known: Vec::new(),
            start: value.map_or(0, |value| value.span().start),
        }
    }

    /// Returns the table `key`; `None` if it is absent.
    pub(super) fn present(&mut self, key: &'static str) -> Option<Self> {
        let section = self.section(key);
        section.table.is_some().then_some(section)
    }

    /// Returns every table in this table, whose keys the operator chooses. `accept` validates a key.
    pub(super) fn tables(
        self,
        mut accept: impl FnMut(&str) -> Result<(), Bad>,
    ) -> Vec<(String, Self)> {
        self.choose_keys(Open::Sections);
        let mut read = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            let path = join(&self.name, name);
            let table = value.get_ref().as_table();
            let accepted = match table {
                Some(_) => accept(name),
                None => Err(Bad::new("not a section", format!("write it as [{path}]"))),
            };
            if let Err(bad) = accepted {
                self.note(&path, key.span().start..key.span().start, bad);
                continue;
            }
            let section = Self {
                name: path,
                text: self.text,
                table,
                notes: self.notes,
                known: Vec::new(),
                start: key.span().start,
            };
            read.push((name.to_owned(), section));
        }
        read
    }

    /// Returns the table `key` as a JSON object, whatever it contains.
    pub(super) fn json(&mut self, key: &'static str, default: Json) -> Json {
        let section = self.section(key);
        section.choose_keys(Open::Json);
        match section.table {
            Some(table) => section.json_object(&section.name, table),
            None => default,
        }
    }

    fn json_object(&self, path: &str, table: &DeTable<'_>) -> Json {
        let members = table.iter().map(|(key, value)| {
            let key = key.get_ref().as_ref();
            (key.to_owned(), self.json_value(&join(path, key), value))
        });
        Json::Object(members.collect())
    }

    /// Dates become texts: JSON has none.
    fn json_value(&self, path: &str, value: &Spanned<DeValue<'_>>) -> Json {
        match value.get_ref() {
            DeValue::String(text) => text.as_ref().into(),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => number.into(),
                    Err(_) => {
                        let mend = format!("write one from {} to {}", i64::MIN, i64::MAX);
                        let bad = Bad::new("no whole number of 64 bits", mend);
                        self.note(path, value.span(), bad);
                        Json::Null
                    }
                }
            }
            DeValue::Float(number) => {
                let number = number.as_str().parse().ok();
                number.and_then(Number::from_f64).map_or_else(
                    || {
                        let bad = Bad::new("not a finite number", "write a number that JSON has");
                        self.note(path, value.span(), bad);
                        Json::Null
                    },
                    Json::Number,
                )
            }
            DeValue::Boolean(flag) => (*flag).into(),
            DeValue::Datetime(time) => time.to_string().into(),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(at, item)| self.json_value(&format!("{path}[{at}]"), item));
                Json::Array(items.collect())
            }
            DeValue::Table(table) => self.json_object(path, table),
        }
    }

    /// Returns every key of this table, whose keys the operator chooses, with its value as `parse` reads it.
    pub(super) fn entries<T>(
        self,
        mut parse: impl FnMut(&str, Value<'_>) -> Result<T, Bad>,
    ) -> Vec<(String, T)> {
        self.choose_keys(Open::Values);
        let mut read = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let key = key.get_ref().as_ref();
            let item = self.read(&join(&self.name, key), value, |value| parse(key, value));
            read.extend(item.map(|item| (key.to_owned(), item)));
        }
        read
    }

    /// Whether one of these keys is present, whatever its value.
    pub(super) fn has_any(&self, keys: &[&str]) -> bool {
        let has = |key: &&str| self.table.is_some_and(|table| table.contains_key(*key));
        keys.iter().any(has)
    }

    /// Whether `key` is a table with something in it.
    pub(super) fn is_filled_table(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        let table = value.and_then(|value| value.get_ref().as_table());
        table.is_some_and(|table| !table.is_empty())
    }

    /// Whether `key` is a list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value.is_some_and(|value| value.get_ref().is_array())
    }

    /// Whether `key` is an empty list.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        let list = value.and_then(|value| value.get_ref().as_array());
        list.is_some_and(|list| list.is_empty())
    }

    /// Reports a problem of a value that is valid in itself, but not together with another value.
    pub(super) fn reject(&self, key: &str, bad: Bad) {
        let entry = self.table.and_then(|table| table.get(key));
        let span = entry.map_or(0..0, |value| value.span());
        self.note(&join(&self.name, key), span, bad);
    }

    /// Reports a problem of the table itself.
    pub(super) fn reject_whole(&self, bad: Bad) {
        self.note(&self.name, self.start..self.start, bad);
    }

    /// Ends the reading of this table, and reports unknown keys.
    pub(super) fn finish(self) {
        let mut notes = self.notes.borrow_mut();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                notes.unknown.push(Unknown {
                    section: self.name.clone(),
                    key: name.to_owned(),
                    offset: key.span().start,
                });
            }
        }
        let known = self.known.into_iter();
        notes
            .known
            .extend(known.map(|key| (self.name.clone(), key)));
    }

    fn read<T>(
        &self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        parse: impl FnOnce(Value<'_>) -> Result<T, Bad>,
    ) -> Option<T> {
        match parse(Value(value.get_ref())) {
            Ok(read) => Some(read),
            Err(bad) => {
                self.note(path, value.span(), bad);
                None
            }
        }
    }

    /// Notes that the operator chooses the keys of this table.
    fn choose_keys(&self, open: Open) {
        self.notes.borrow_mut().open.push((self.name.clone(), open));
    }

    fn note(&self, path: &str, span: Range<usize>, bad: Bad) {
        let (line, column) = place(self.text, span.start);
        let mut notes = self.notes.borrow_mut();
        let shape = bad.shape.map(|shape| (path.to_owned(), shape));
        notes.shapes.extend(shape);
        notes.problems.push(Problem {
            line,
            column,
            key: path.to_owned(),
            value: match bad.hidden {
                true => String::new(),
                false => excerpt(self.text.get(span).unwrap_or_default()),
            },
            what: bad.what,
            mend: bad.mend,
        });
    }
}

/// One value of the document.
#[derive(Clone, Copy)]
pub(super) struct Value<'v>(&'v DeValue<'v>);

impl<'v> Value<'v> {
    pub(super) fn text(self) -> Result<&'v str, Bad> {
        let wrong = || {
            let what = format!("{}, not a string", self.kind());
            Bad::new(what, "put it in quotes").shaped(Shape::Text)
        };
        self.0.as_str().ok_or_else(wrong)
    }

    pub(super) fn boolean(self) -> Result<bool, Bad> {
        let wrong = || {
            let what = format!("{}, not a boolean", self.kind());
            Bad::new(what, "write true or false").shaped(Shape::Boolean)
        };
        self.0.as_bool().ok_or_else(wrong)
    }

    /// Returns a whole number from `least` to `most`, both included.
    pub(super) fn number(self, least: u64, most: u64) -> Result<u64, Bad> {
        let range = || format!("write a whole number from {least} to {most}");
        let Some(number) = self.0.as_integer() else {
            let what = format!("{}, not a whole number", self.kind());
            return Err(Bad::new(what, range()).shaped(Shape::Number(least, Some(most))));
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(n) if n < least => Err(Bad::new("too small", range())),
            Ok(n) if n <= most => Ok(n),
            _ if number.as_str().starts_with('-') => Err(Bad::new("too small", range())),
            _ => Err(Bad::new("too large", range())),
        }
    }

    /// Whether the value is a whole number.
    pub(super) fn is_number(self) -> bool {
        self.0.is_integer()
    }

    fn kind(self) -> &'static str {
        match self.0.type_str() {
            "string" => "a string",
            "integer" => "an integer",
            "float" => "a decimal number",
            "boolean" => "a boolean",
            "array" => "a list",
            "table" => "a section",
            _ => "a date",
        }
    }
}

#[derive(Default)]
struct Notes {
    problems: Vec<Problem>,
    unknown: Vec<Unknown>,
    known: Vec<(String, &'static str)>,
    sections: Vec<String>,
    open: Vec<(String, Open)>,
    shapes: Vec<(String, Shape)>,
    broken_lines: Vec<usize>,
}

struct Unknown {
    section: String,
    key: String,
    offset: usize,
}

fn mend_unknown(unknown: &Unknown, known: &[(String, &'static str)]) -> String {
    let here: Vec<_> = known
        .iter()
        .filter(|(section, _)| *section == unknown.section)
        .map(|&(_, key)| key)
        .collect();
    let alike = here
        .iter()
        .map(|key| (strsim::jaro_winkler(key, &unknown.key), *key))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    if let Some((_, key)) = alike {
        return format!("did you mean `{key}`?");
    }
    match known.iter().find(|(_, key)| *key == unknown.key) {
        Some((section, _)) if section.is_empty() => {
            "it belongs at the top of the file, before the first [section]".into()
        }
        Some((section, _)) => format!("it belongs to [{section}]"),
        None => format!("known keys: {}", here.join(", ")),
    }
}

pub(super) fn join(section: &str, key: &str) -> String {
    match section {
        "" => key.to_owned(),
        _ => format!("{section}.{key}"),
    }
}

/// Returns the value as it is written, on one line and shortened.
fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < text.len() => format!("{line} …"),
        None => line.to_owned(),
    }
}
