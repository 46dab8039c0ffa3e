//! Rows of tables in files, each checked as a load would check it, and as items of a plan.

use std::collections::BTreeMap;

use portcullis_address::{AddError, Format, NewRow, NewTrusted, RowError};
use portcullis_dispatcher::NewDestination;
use portcullis_plan::Item;

use super::mistakes::Mistakes;
use super::sheet::{Column, SheetRow, csv, toml};

/// A file with rows, and the form of its content.
pub(super) struct RowFile<'f> {
    /// Its name in errors.
    pub(super) name: &'f str,
    pub(super) bytes: &'f [u8],
    pub(super) form: Form,
}

/// The form of a file with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Comma-separated values.
    Csv,
    /// One JSON object in each line; of addresses only.
    JsonLines,
    /// An array of tables.
    Toml,
}

const fn column(csv: &'static str, toml: &'static str) -> Column {
    Column {
        csv,
        toml,
        is_required: false,
        is_number: false,
    }
}

const fn required(column: Column) -> Column {
    Column {
        is_required: true,
        ..column
    }
}

const fn number(column: Column) -> Column {
    Column {
        is_number: true,
        ..column
    }
}

const ADDRESS: [Column; 5] = [
    required(number(column("grp", "group"))),
    required(column("ip_addr", "address")),
    number(column("mask", "mask")),
    number(column("port", "port")),
    column("tag", "tag"),
];

const TRUSTED: [Column; 6] = [
    required(column("src_ip", "source")),
    required(column("proto", "proto")),
    column("from_pattern", "from_pattern"),
    column("ruri_pattern", "ruri_pattern"),
    column("tag", "tag"),
    number(column("priority", "priority")),
];

const DISPATCHER: [Column; 6] = [
    required(number(column("setid", "set"))),
    required(column("destination", "uri")),
    number(column("flags", "flags")),
    number(column("priority", "priority")),
    column("attrs", "attrs"),
    column("description", "description"),
];

/// Reads addresses.
pub(super) fn addresses(
    file: &RowFile<'_>,
    mistakes: &mut Mistakes,
    warnings: &mut Vec<String>,
) -> Vec<NewRow> {
    let format = match file.form {
        Form::Csv => Format::Csv,
        Form::JsonLines => Format::JsonLines,
        Form::Toml => {
            let rows = sheet(file, "addresses", &ADDRESS, mistakes);
            return checked(rows, mistakes, warnings, |row| {
                let group = row.number("group")?.unwrap_or_default();
                let address = row.text("address").unwrap_or_default();
                let (mask, port) = (row.number("mask")?, row.number("port")?.unwrap_or(0));
                let tag = row.text("tag");
                let new = NewRow::of_words(group, address, mask, port, tag);
                let new = new.map_err(|error| error.to_string())?;
                let warning = new.check().map_err(|error| at(error, &row.place))?;
                Ok((new, warning.map(|warning| warning.to_string())))
            });
        }
    };
    let read = format.read(file.bytes, file.name);
    for error in &read.errors {
        mistakes.add(error.to_string());
    }
    warnings.extend(read.warnings.iter().map(ToString::to_string));
    read.rows
}

/// Reads trusted peers. A source can have one row.
pub(super) fn trusted(
    file: &RowFile<'_>,
    mistakes: &mut Mistakes,
    warnings: &mut Vec<String>,
) -> Vec<(String, NewTrusted)> {
    let rows = sheet(file, "trusted", &TRUSTED, mistakes);
    checked(rows, mistakes, warnings, |row| {
        let full = |text: Option<String>| text.filter(|text| !text.is_empty());
        let new = NewTrusted {
            source: row.text("source").unwrap_or_default(),
            proto: row.text("proto").unwrap_or_default(),
            from: full(row.text("from_pattern")),
            ruri: full(row.text("ruri_pattern")),
            tag: full(row.text("tag")),
            priority: row.number("priority")?.unwrap_or(0),
        };
        let warning = new.check().map_err(|error| match error {
            AddError::Row(error) => at(error, &row.place),
            AddError::Exists { .. } | AddError::TooMany { .. } | AddError::Database(_) => {
                error.to_string()
            }
        })?;
        let warning = warning.map(|warning| warning.to_string());
        Ok(((row.place.clone(), new), warning))
    })
}

/// Reads destinations of the dispatcher.
pub(super) fn dispatcher(
    file: &RowFile<'_>,
    mistakes: &mut Mistakes,
    warnings: &mut Vec<String>,
) -> Vec<NewDestination> {
    let rows = sheet(file, "dispatcher", &DISPATCHER, mistakes);
    checked(rows, mistakes, warnings, |row| {
        let new = NewDestination {
            setid: row.number("set")?.unwrap_or_default(),
            destination: row.text("uri").unwrap_or_default(),
            flags: row.number("flags")?.unwrap_or(0),
            priority: row.number("priority")?.unwrap_or(0),
            attrs: row.text("attrs").unwrap_or_default(),
            description: row.text("description").unwrap_or_default(),
        };
        let warning = new.check().map_err(|error| at(error, &row.place))?;
        Ok((new, warning.map(|warning| warning.to_string())))
    })
}

/// The item of an address. A column that is NULL is `None`.
pub(super) fn address_item([group, address, mask, port, tag]: [Option<&str>; 5]) -> Item {
    let shown = |text: Option<&str>| text.unwrap_or("NULL").to_owned();
    let mut key = format!("{} {}/{}", shown(group), shown(address), shown(mask));
    if port != Some("0") {
        key += &format!(" port {}", shown(port));
    }
    Item::new(key).with_optional("tag", tag)
}

/// The item of a trusted peer. An empty pattern is none.
pub(super) fn trusted_item([source, proto, from, ruri, tag, priority]: [Option<&str>; 6]) -> Item {
    let full = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    Item::new(source.unwrap_or("NULL"))
        .with_optional("proto", proto)
        .with_optional("from_pattern", full(from))
        .with_optional("ruri_pattern", full(ruri))
        .with_optional("tag", tag)
        .with("priority", priority.unwrap_or("0"))
}

/// The item of a destination. An empty text is none.
pub(super) fn dispatcher_item(
    [set, uri, flags, priority, attrs, description]: [Option<&str>; 6],
) -> Item {
    let full = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let shown = |text: Option<&str>| text.unwrap_or("NULL").to_owned();
    Item::new(format!("{} {}", shown(set), shown(uri)))
        .with("flags", flags.unwrap_or("0"))
        .with("priority", priority.unwrap_or("0"))
        .with_optional("attrs", full(attrs))
        .with_optional("description", full(description))
}

/// The items of rows of files.
pub(super) fn of_new_rows(rows: &[NewRow]) -> Vec<Item> {
    let items = rows.iter().map(|row| {
        let [group, mask, port] = [row.group, row.mask, row.port].map(|number| number.to_string());
        let columns = [&group, &row.ip_addr, &mask, &port].map(|text| Some(text.as_str()));
        let [group, address, mask, port] = columns;
        address_item([group, address, mask, port, row.tag.as_deref()])
    });
    items.collect()
}

/// The items of trusted peers of files.
pub(super) fn of_new_peers(rows: &[NewTrusted]) -> Vec<Item> {
    let items = rows.iter().map(|row| {
        trusted_item([
            Some(&row.source),
            Some(&row.proto),
            row.from.as_deref(),
            row.ruri.as_deref(),
            row.tag.as_deref(),
            Some(&row.priority.to_string()),
        ])
    });
    items.collect()
}

/// The items of destinations of files.
pub(super) fn of_new_destinations(rows: &[NewDestination]) -> Vec<Item> {
    let items = rows.iter().map(|row| {
        dispatcher_item([
            Some(&row.setid.to_string()),
            Some(row.destination.trim()),
            Some(&row.flags.to_string()),
            Some(&row.priority.to_string()),
            Some(&row.attrs),
            Some(&row.description),
        ])
    });
    items.collect()
}

/// Reports sources that have several rows.
pub(super) fn check_sources(peers: &[(String, NewTrusted)], mistakes: &mut Mistakes) {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for (place, peer) in peers {
        if let Some(other) = first.get(peer.source.as_str()) {
            let source = &peer.source;
            mistakes.add(format!(
                "{place}: {source} has a row at {other} already: a source can have one row"
            ));
            continue;
        }
        first.insert(&peer.source, place);
    }
}

fn sheet(
    file: &RowFile<'_>,
    table: &str,
    columns: &[Column],
    mistakes: &mut Mistakes,
) -> Vec<SheetRow> {
    match (file.form, std::str::from_utf8(file.bytes)) {
        (Form::Csv | Form::JsonLines, _) => csv(file.bytes, file.name, columns, mistakes),
        (Form::Toml, Ok(text)) => toml(text, file.name, table, columns, mistakes),
        (Form::Toml, Err(_)) => {
            mistakes.add(format!("{}: the file is not UTF-8", file.name));
            Vec::new()
        }
    }
}

/// Checks rows one by one.
fn checked<T>(
    rows: Vec<SheetRow>,
    mistakes: &mut Mistakes,
    warnings: &mut Vec<String>,
    check: impl Fn(&mut SheetRow) -> Result<(T, Option<String>), String>,
) -> Vec<T> {
    let mut usable = Vec::new();
    for mut row in rows {
        match check(&mut row) {
            Ok((new, warning)) => {
                usable.push(new);
                warnings.extend(warning.map(|warning| format!("{}: {warning}", row.place)));
            }
            Err(error) if error.starts_with(&row.place) => mistakes.add(error),
            Err(error) => mistakes.add(format!("{}: {error}", row.place)),
        }
    }
    usable
}

/// The error at its place in a file.
fn at(error: RowError, place: &str) -> String {
    let place = Some(place.to_owned());
    RowError { place, ..error }.to_string()
}
