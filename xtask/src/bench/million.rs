//! A million rows: the duration of a load, and the memory of the table.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::control::Control;
use super::database::{Database, MILLION};
use super::plan::{Pace, Rows, Server, Subject};
use super::servers::{Programs, Running};

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Million {
    /// Rows in the table.
    pub(crate) rows: u64,
    /// Duration of a reload over the control port until the new table is active; the median of several.
    pub(crate) load_seconds: f64,
    /// Size of the table as the host reports it.
    pub(crate) table_bytes: u64,
    /// Memory of the whole process with the table.
    pub(crate) memory_bytes: u64,
    /// The host's report of the last reload.
    pub(crate) report: Value,
}

/// Reloads that are timed.
const RELOADS: usize = 3;

/// Loads the table of a million rows repeatedly.
pub(crate) fn measure(programs: &Programs, database: &Database, pace: &Pace) -> Result<Million> {
    let subject = Subject {
        server: Server::Portcullis,
        rows: Some(Rows::Many),
    };
    let url = database.url("million");
    let host = Running::start(subject, pace.server_core, programs, Some(&url))?;
    let control = Control::new(host.control);
    let mut seconds = Vec::new();
    let mut report = Value::Null;
    for _ in 0..RELOADS {
        let begun = Instant::now();
        report = control.reload()?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    let rows = control.metric("portcullis_address_rows")?;
    ensure!(
        rows == u64::from(MILLION),
        "the table has {rows} rows instead of {MILLION}"
    );
    Ok(Million {
        rows,
        load_seconds: super::figures::median(seconds),
        table_bytes: control.metric("portcullis_address_memory_bytes")?,
        memory_bytes: super::machine::memory_bytes(host.pid()),
        report,
    })
}
