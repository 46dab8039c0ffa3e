//! `[log]`: how lines look, and which there are.

use super::log_level;
use super::problem::Bad;
use super::section::Section;
use super::value::one_of;

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or levels for parts.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: "info".into(),
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: LogConfig) -> LogConfig {
    let format = section.value("format", "human".to_owned(), |v| {
        one_of(v, &["human", "json"])
    });
    let level = section.value("level", default.level, |value| {
        let level = value.text()?;
        log_level::check(level).map_err(|what| {
            Bad::new(what, "write error, warn, info, debug or trace; for parts: \"info,portcullis_address=debug\"")
        })?;
        Ok(level.to_owned())
    });
    section.finish();
    LogConfig {
        format: if format == "json" {
            LogFormat::Json
        } else {
            LogFormat::Human
        },
        level,
    }
}
