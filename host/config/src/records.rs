//! `[records]`: records of decisions.

use std::path::PathBuf;

use portcullis_policy::Share;

use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{GIB, KIB, MIB, bytes, count, http_url, share};

/// Which decisions are recorded, where, and what is masked in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsConfig {
    /// The records file; `None`: no records.
    pub file: Option<PathBuf>,
    /// The file of call records; `None`: no call records.
    pub calls: Option<PathBuf>,
    /// Share of the dialogs that are recorded.
    pub share: Share,
    /// Most records per second.
    pub per_second: u32,
    /// Most records of one tenant per second; `None`: no limit of its own.
    pub per_tenant: Option<u32>,
    /// Size at which the file is rotated, including the last line.
    pub size: u64,
    /// Most bytes of one record in the file.
    pub line: usize,
    /// Most bytes of all records that wait for the writer.
    pub queue: usize,
    /// Header fields whose values are omitted.
    pub mask: Vec<String>,
    /// Whether users in URIs and display names are replaced by pseudonyms.
    pub mask_users: bool,
    /// Whether bodies are recorded.
    pub body: bool,
    /// The collector of traces over OTLP/HTTP; `None`: no traces.
    pub otlp: Option<String>,
    /// Name of the header field with the context of a trace, in received and relayed requests.
    pub trace_header: Option<String>,
    /// Name of the header field with the id of the decision, in relayed requests and in responses of policies.
    pub id_header: Option<String>,
}

impl RecordsConfig {
    /// Whether decisions have ids.
    pub fn is_on(&self) -> bool {
        let is_written = self.file.is_some() || self.calls.is_some() || self.otlp.is_some();
        is_written || self.id_header.is_some()
    }

    /// Reads `[records]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let file = section.optional("file", |value| Ok(PathBuf::from(value.text()?)));
        let calls = section.optional("calls", |value| Ok(PathBuf::from(value.text()?)));
        let id_header = section.optional("id-header", optional_header);
        let trace_header = section.optional("trace-header", optional_header);
        let records = Self {
            file: file.filter(|file| !file.as_os_str().is_empty()),
            calls: calls.filter(|file| !file.as_os_str().is_empty()),
            share: section.value("share", default.share, share),
            per_second: section.value("per-second", default.per_second, |v| count(v, 1, 1_000_000)),
            per_tenant: match section.value("per-tenant", 0, |v| count(v, 0, 1_000_000)) {
                0 => None,
                most => Some(most),
            },
            size: section.value("size", default.size, |v| bytes(v, 64 * KIB, 1024 * GIB)),
            line: section.value("line", default.line, |v| bytes(v, 4 * KIB, 16 * MIB)),
            queue: section.value("queue", default.queue, |v| bytes(v, MIB, 4 * GIB)),
            mask: section.list("mask", default.mask, |v| Ok(v.text()?.to_owned())),
            mask_users: section.value("mask-users", default.mask_users, |v| v.boolean()),
            body: section.value("body", default.body, |v| v.boolean()),
            otlp: section.value("otlp", None, http_url),
            trace_header: trace_header.flatten(),
            id_header: id_header.flatten(),
        };
        section.finish();
        records
    }
}

impl Default for RecordsConfig {
    fn default() -> Self {
        Self {
            file: None,
            calls: None,
            share: Share::ALL,
            per_second: 100,
            per_tenant: None,
            size: 100 * MIB,
            line: 256 << 10,
            queue: 16 << 20,
            mask: ["Authorization", "Proxy-Authorization"]
                .map(str::to_owned)
                .into(),
            mask_users: false,
            body: false,
            otlp: None,
            trace_header: None,
            id_header: None,
        }
    }
}

/// Reads the name of a header field, or nothing.
fn optional_header(value: Value<'_>) -> Result<Option<String>, Bad> {
    match value.text()? {
        "" => Ok(None),
        _ => header_name(value).map(Some),
    }
}

/// Reads the name of a header field that may be added to relayed requests.
pub(super) fn header_name(value: Value<'_>) -> Result<String, Bad> {
    let name = value.text()?;
    match portcullis_policy::may_be_edited(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(error) => Err(Bad::new(error.to_string(), "leave it out")),
    }
}
