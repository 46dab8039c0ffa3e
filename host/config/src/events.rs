//! `[events]`: events of the log for other programs.

use std::fmt;
use std::path::PathBuf;

use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{GIB, KIB, MIB, bytes, http_url, one_of};

/// Which events go where.
#[derive(Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// The file; `None`: no file.
    pub file: Option<PathBuf>,
    /// Size at which the file is rotated.
    pub size: u64,
    /// The server that gets events in requests; `None`: no requests.
    pub webhook: Option<String>,
    /// Key of the signature of requests; `None`: requests are not signed.
    pub secret: Option<String>,
    /// The least level.
    pub level: EventLevel,
    /// The names of the events; empty: all.
    pub names: Vec<String>,
}

/// The least level of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLevel {
    /// Errors.
    Error,
    /// Warnings, and what is above.
    Warn,
    /// Information, and what is above.
    Info,
}

impl EventsConfig {
    /// Whether events go anywhere.
    pub fn is_on(&self) -> bool {
        self.file.is_some() || self.webhook.is_some()
    }

    /// Reads `[events]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let file = section.optional("file", |value| Ok(PathBuf::from(value.text()?)));
        let level = section.value("level", "warn".to_owned(), |v| {
            one_of(v, &["error", "warn", "info"])
        });
        let events = Self {
            file: file.filter(|file| !file.as_os_str().is_empty()),
            size: section.value("size", default.size, |v| bytes(v, 64 * KIB, 1024 * GIB)),
            webhook: section.value("webhook", default.webhook, http_url),
            secret: section.value("secret", default.secret, secret),
            level: match level.as_str() {
                "error" => EventLevel::Error,
                "info" => EventLevel::Info,
                _ => EventLevel::Warn,
            },
            names: section.list("names", default.names, |v| Ok(v.text()?.to_owned())),
        };
        section.finish();
        events
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            file: None,
            size: 100 * MIB,
            webhook: None,
            secret: None,
            level: EventLevel::Warn,
            names: Vec::new(),
        }
    }
}

/// Without the secret.
impl fmt::Debug for EventsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            size,
            webhook,
            secret,
            level,
            names,
        } = self;
        f.debug_struct("EventsConfig")
            .field("file", file)
            .field("size", size)
            .field("webhook", webhook)
            .field("has_secret", &secret.is_some())
            .field("level", level)
            .field("names", names)
            .finish()
    }
}

/// Reads the key of signatures.
fn secret(value: Value<'_>) -> Result<Option<String>, Bad> {
    let text = value.text()?;
    match text.len() {
        0 => Ok(None),
        1..16 => Err(Bad::new(
            "too short for a secret",
            "write at least 16 characters, for example the output of `openssl rand -hex 32`",
        )
        .hidden()),
        _ => Ok(Some(text.to_owned())),
    }
}
