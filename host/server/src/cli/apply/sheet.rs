//! Rows of a table in a file, as texts by the names of their columns: CSV, or TOML.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord};
use toml::Spanned;

use super::mistakes::Mistakes;

/// A text that is NULL, in CSV.
const NULL: &str = "\\N";

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its name in CSV, which is that of the database.
    pub(super) csv: &'static str,
    /// Its name in TOML, which is that of the API.
    pub(super) toml: &'static str,
    /// Whether a row must have it.
    pub(super) is_required: bool,
    /// Whether it is a number.
    pub(super) is_number: bool,
}

/// A row: its place, and its values by their names in TOML. What is NULL or not there is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SheetRow {
    /// File and line.
    pub(super) place: String,
    values: BTreeMap<&'static str, String>,
}

impl SheetRow {
    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// Takes a number.
    ///
    /// # Errors
    /// If the text is no whole number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.values.remove(name) else {
            return Ok(None);
        };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{name} {text:?} is not a whole number")),
        }
    }
}

/// Reads rows in CSV, with a header of column names.
pub(super) fn csv(
    bytes: &[u8],
    file: &str,
    columns: &[Column],
    mistakes: &mut Mistakes,
) -> Vec<SheetRow> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let mut record = StringRecord::new();
    let mut lines = Lines {
        bytes,
        at: 0,
        line: 1,
    };
    let mut head: Option<Vec<Option<Column>>> = None;
    let mut rows = Vec::new();
    loop {
        let begin = reader.position().byte();
        let read = reader.read_record(&mut record);
        let place = format!("{file}:{}", lines.at(begin));
        match read {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                mistakes.add(format!("{place}: {error}"));
                return rows;
            }
        }
        match &head {
            None => match heading(&record, columns) {
                Ok(named) => head = Some(named),
                Err(error) => {
                    mistakes.add(format!("{place}: {error}"));
                    return rows;
                }
            },
            Some(head) => match csv_row(&record, head, columns, &place) {
                Ok(row) => rows.push(row),
                Err(error) => mistakes.add(format!("{place}: {error}")),
            },
        }
    }
    if head.is_none() {
        let names = names(columns, |column| column.csv);
        mistakes.add(format!(
            "{file}:1: there is no header: write the names of the columns in the first line: {names}"
        ));
    }
    rows
}

/// Reads rows in TOML: an array of tables with the name of the table.
pub(super) fn toml(
    text: &str,
    file: &str,
    table: &str,
    columns: &[Column],
    mistakes: &mut Mistakes,
) -> Vec<SheetRow> {
    let line_of = |offset: usize| {
        let before = text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    };
    let read: Result<BTreeMap<String, Vec<Spanned<toml::Table>>>, _> = toml::from_str(text);
    let mut all = match read {
        Ok(all) => all,
        Err(error) => {
            let line = line_of(error.span().map_or(0, |span| span.start));
            let what = error.message();
            mistakes.add(format!(
                "{file}:{line}: {what}; write each row as [[{table}]] with its values below"
            ));
            return Vec::new();
        }
    };
    let mut rows = Vec::new();
    for entry in all.remove(table).unwrap_or_default() {
        let place = format!("{file}:{}", line_of(entry.span().start));
        match toml_row(entry.into_inner(), columns, &place) {
            Ok(row) => rows.push(row),
            Err(error) => mistakes.add(format!("{place}: {error}")),
        }
    }
    for (other, entries) in all {
        let line = entries
            .first()
            .map_or(1, |entry| line_of(entry.span().start));
        mistakes.add(format!(
            "{file}:{line}: [[{other}]] is unknown here: write [[{table}]]"
        ));
    }
    rows
}

fn heading(record: &StringRecord, columns: &[Column]) -> Result<Vec<Option<Column>>, String> {
    let mut head: Vec<Option<Column>> = Vec::new();
    for name in record {
        let name = name.trim();
        let column = columns.iter().find(|column| column.csv == name).copied();
        if column.is_none() && name != "id" {
            let names = names(columns, |column| column.csv);
            return Err(format!("unknown column {name:?}: the columns are {names}"));
        }
        if column.is_some() && head.iter().flatten().any(|other| other.csv == name) {
            return Err(format!("the column {name} occurs twice"));
        }
        head.push(column);
    }
    let is_there = |column: &&Column| head.iter().flatten().any(|other| other.csv == column.csv);
    let missing = columns.iter().filter(|column| column.is_required);
    match missing.into_iter().find(|column| !is_there(column)) {
        Some(missing) => Err(format!("the column {} is missing", missing.csv)),
        None => Ok(head),
    }
}

fn csv_row(
    record: &StringRecord,
    head: &[Option<Column>],
    columns: &[Column],
    place: &str,
) -> Result<SheetRow, String> {
    if record.len() != head.len() {
        return Err(format!(
            "there are {} values for {} columns: write as many values, and quotes around those with a comma in them",
            record.len(),
            head.len()
        ));
    }
    let mut values = BTreeMap::new();
    for (column, text) in head.iter().zip(record) {
        let Some(column) = column else {
            continue;
        };
        let is_absent = text == NULL || column.is_number && text.trim().is_empty();
        if !is_absent {
            values.insert(column.toml, text.to_owned());
        }
    }
    whole(values, columns, |column| column.csv, place)
}

fn toml_row(entry: toml::Table, columns: &[Column], place: &str) -> Result<SheetRow, String> {
    let mut values = BTreeMap::new();
    for (name, value) in entry {
        let Some(column) = columns.iter().find(|column| column.toml == name) else {
            let names = names(columns, |column| column.toml);
            return Err(format!("unknown key {name:?}: the keys are {names}"));
        };
        let text = match (value, column.is_number) {
            (toml::Value::String(text), false) => text,
            (toml::Value::Integer(number), true) => number.to_string(),
            (other, true) => return Err(format!("{name} = {other} is not a whole number")),
            (other, false) => {
                return Err(format!(
                    "{name} = {other} is not a text: write it in quotes"
                ));
            }
        };
        values.insert(column.toml, text);
    }
    whole(values, columns, |column| column.toml, place)
}

/// A row that has what it must have.
fn whole(
    values: BTreeMap<&'static str, String>,
    columns: &[Column],
    name: impl Fn(&Column) -> &'static str,
    place: &str,
) -> Result<SheetRow, String> {
    let missing = columns
        .iter()
        .find(|column| column.is_required && !values.contains_key(column.toml));
    match missing {
        Some(column) => Err(format!("{} is missing", name(column))),
        None => Ok(SheetRow {
            place: place.to_owned(),
            values,
        }),
    }
}

fn names(columns: &[Column], name: impl Fn(&Column) -> &'static str) -> String {
    let names: Vec<_> = columns.iter().map(name).collect();
    names.join(", ")
}

/// Counts lines. The CSV reader does not count empty lines and lines that end with CR LF correctly.
struct Lines<'t> {
    bytes: &'t [u8],
    /// Bytes counted so far.
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the record that begins at or after this byte.
    fn at(&mut self, begin: u64) -> usize {
        let begin = usize::try_from(begin)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let rest = self.bytes.get(begin..).unwrap_or_default();
        let blank = rest.iter().take_while(|&byte| b"\r\n".contains(byte));
        // At the end of the file, the place is that of the last line.
        let to = match blank.count() {
            blank if blank == rest.len() => begin,
            blank => begin + blank,
        };
        let passed = self.bytes.get(self.at..to).unwrap_or_default();
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.at = self.at.max(to);
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            csv: "setid",
            toml: "set",
            is_required: true,
            is_number: true,
        },
        Column {
            csv: "destination",
            toml: "uri",
            is_required: true,
            is_number: false,
        },
        Column {
            csv: "attrs",
            toml: "attrs",
            is_required: false,
            is_number: false,
        },
    ];

    fn shown(rows: Vec<SheetRow>) -> Vec<String> {
        let shown = rows.into_iter().map(|mut row| {
            let set = row.number("set").unwrap().unwrap();
            let uri = row.text("uri").unwrap();
            let attrs = row.text("attrs");
            format!("{} {set} {uri} {attrs:?}", row.place)
        });
        shown.collect()
    }

    #[test]
    fn rows_of_both_forms_have_the_lines_of_their_places() {
        let text =
            "destination,setid,attrs,id\r\n\r\nsip:a,1,\"x,y\",7\r\nsip:b,2,\\N,\n\nsip:c,3,,9\n";
        let mut mistakes = Mistakes::default();
        let rows = csv(text.as_bytes(), "a.csv", &COLUMNS, &mut mistakes);
        assert_eq!(mistakes.all(), [""; 0]);
        assert_eq!(
            shown(rows),
            [
                "a.csv:3 1 sip:a Some(\"x,y\")",
                "a.csv:4 2 sip:b None",
                "a.csv:6 3 sip:c Some(\"\")",
            ]
        );
        let text = "# gateways\n[[dispatcher]]\nset = 1\nuri = \"sip:a\"\n\n[[dispatcher]]\nset = 2\nuri = \"sip:b\"\nattrs = \"x\"\n";
        let rows = toml(text, "a.toml", "dispatcher", &COLUMNS, &mut mistakes);
        assert_eq!(mistakes.all(), [""; 0]);
        assert_eq!(
            shown(rows),
            ["a.toml:2 1 sip:a None", "a.toml:6 2 sip:b Some(\"x\")"]
        );
        assert_eq!(
            toml("", "a.toml", "dispatcher", &COLUMNS, &mut mistakes),
            []
        );
        assert_eq!(mistakes.all(), [""; 0]);
    }

    #[test]
    fn all_errors_are_reported_with_their_lines() {
        let mut mistakes = Mistakes::default();
        let text = "setid,destination\n1\n,sip:a\n2,sip:b,3\n4,sip:c\n";
        let rows = csv(text.as_bytes(), "a.csv", &COLUMNS, &mut mistakes);
        assert_eq!(shown(rows), ["a.csv:5 4 sip:c None"]);
        let said = mistakes.all();
        assert!(
            said[0].starts_with("a.csv:2: there are 1 values for 2"),
            "{said:?}"
        );
        assert_eq!(said[1], "a.csv:3: setid is missing");
        assert!(
            said[2].starts_with("a.csv:4: there are 3 values"),
            "{said:?}"
        );

        for (text, error) in [
            ("setid\n", "a.csv:1: the column destination is missing"),
            (
                "setid,setid,destination\n",
                "a.csv:1: the column setid occurs twice",
            ),
            ("", "a.csv:1: there is no header"),
            ("set,destination\n", "a.csv:1: unknown column \"set\""),
        ] {
            let mut mistakes = Mistakes::default();
            csv(text.as_bytes(), "a.csv", &COLUMNS, &mut mistakes);
            assert!(mistakes.all()[0].starts_with(error), "{mistakes:?}");
        }

        let mut mistakes = Mistakes::default();
        let text = "[[dispatcher]]\nset = \"1\"\nuri = \"sip:a\"\n[[dispatcher]]\nset = 1\nurl = \"sip:a\"\n[[other]]\n";
        toml(text, "a.toml", "dispatcher", &COLUMNS, &mut mistakes);
        let said = mistakes.all();
        assert_eq!(said[0], "a.toml:1: set = \"1\" is not a whole number");
        assert!(
            said[1].starts_with("a.toml:4: unknown key \"url\": the keys are set, uri"),
            "{said:?}"
        );
        assert!(
            said[2].starts_with("a.toml:7: [[other]] is unknown"),
            "{said:?}"
        );
        let mut mistakes = Mistakes::default();
        toml(
            "[[dispatcher]]\nset = \n",
            "a.toml",
            "dispatcher",
            &COLUMNS,
            &mut mistakes,
        );
        assert!(mistakes.all()[0].starts_with("a.toml:2: "), "{mistakes:?}");
    }
}
