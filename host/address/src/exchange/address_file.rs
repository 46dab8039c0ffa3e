//! The format of Kamailio's `address_file`.

use std::io::Write;

use super::import::{Import, WriteError};
use crate::database::{NewRow, entries};
use crate::row::{Finding, RowError};

pub(super) fn read(bytes: &[u8], file: &str, import: &mut Import) {
    for entry in entries(bytes, file) {
        let is_good = entry.row.is_ok();
        let row = entry.row.clone().map(NewRow::from);
        import.take(row, |column| entry.place(column));
        if let (true, Some(warning)) = (is_good, entry.warning.clone()) {
            import.warn(warning, |column| entry.place(column));
        }
    }
}

pub(super) fn write(out: &mut impl Write, row: &NewRow) -> Result<(), WriteError> {
    let NewRow {
        group,
        ip_addr,
        mask,
        port,
        tag,
    } = row;
    let tag = tag.as_deref().unwrap_or_default();
    if tag.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
        let mend = "in this format a tag is one word without #: change the tag, or use CSV";
        let error =
            Finding::text("tag", tag, "cannot be written to an address file", mend).error(0);
        let place = Some(format!("group {group}, address {ip_addr}"));
        return Err(RowError { place, ..error }.into());
    }
    match tag {
        "" => writeln!(out, "{group} {ip_addr} {mask} {port}")?,
        tag => writeln!(out, "{group} {ip_addr} {mask} {port} {tag}")?,
    }
    Ok(())
}
