//! JSON lines: one object per line.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::import::{Import, host_mask};
use crate::database::NewRow;
use crate::row::{Finding, RowError};

/// A row as it is written.
#[derive(Serialize)]
struct Line<'r> {
    grp: i64,
    ip_addr: &'r str,
    mask: i64,
    port: i64,
    tag: Option<&'r str>,
}

pub(super) fn read(bytes: &[u8], file: &str, import: &mut Import) {
    for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        if !line.trim_ascii().is_empty() {
            import.take(row(line), |_| format!("{file}:{number}"));
        }
    }
}

pub(super) fn write(out: &mut impl Write, row: &NewRow) -> io::Result<()> {
    let line = Line {
        grp: row.group,
        ip_addr: &row.ip_addr,
        mask: row.mask,
        port: row.port,
        tag: row.tag.as_deref(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn row(line: &[u8]) -> Result<NewRow, RowError> {
    let mut object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| {
        let shown = String::from_utf8_lossy(line);
        let what = format!("is not a JSON object (column {}: {error})", error.column());
        let mend = "write {\"grp\": GROUP, \"ip_addr\": \"ADDRESS\", \"mask\": BITS, \"port\": PORT, \"tag\": \"TAG\"}";
        Finding::text("line", &shown, &what, mend).error(0)
    })?;
    let ip_addr = match object.remove("ip_addr") {
        Some(Value::String(text)) => text,
        other => {
            return Err(wrong(
                "ip_addr",
                other,
                "is not a string",
                "write an address in quotes",
            ));
        }
    };
    let mut number = |column: &'static str, default: Option<i64>| match object.remove(column) {
        None | Some(Value::Null) if default.is_some() => Ok(default.unwrap_or_default()),
        Some(value) if value.is_i64() => Ok(value.as_i64().unwrap_or_default()),
        other => Err(wrong(
            column,
            other,
            "is not a whole number",
            "write one, without quotes",
        )),
    };
    let (group, mask, port) = (
        number("grp", None)?,
        number("mask", Some(host_mask(&ip_addr)))?,
        number("port", Some(0))?,
    );
    let tag = match object.remove("tag") {
        None | Some(Value::Null) => None,
        Some(Value::String(tag)) => Some(tag),
        other => {
            return Err(wrong(
                "tag",
                other,
                "is not a string",
                "write it in quotes, or null",
            ));
        }
    };
    object.remove("id");
    if let Some(unknown) = object.keys().next() {
        let mend = "the keys are grp, ip_addr, mask, port, tag; id is ignored";
        return Err(Finding::text("line", unknown, "is not a key of a row", mend).error(0));
    }
    Ok(NewRow {
        group,
        ip_addr,
        mask,
        port,
        tag,
    })
}

fn wrong(column: &'static str, value: Option<Value>, fault: &str, mend: &str) -> RowError {
    match value {
        Some(value) => Finding::text(column, &value.to_string(), fault, mend).error(0),
        None => Finding::text(column, "", "is missing", mend).error(0),
    }
}
