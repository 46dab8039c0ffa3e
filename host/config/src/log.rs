//! `[log]`: format and level of the log.

use super::log_level;
use super::problem::Bad;
use super::section::Section;
use super::value::one_of;

/// Format and level of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Format of the log lines.
    pub format: LogFormat,
    /// Level of the log, or levels by module.
    pub level: String,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable text.
    Human,
    /// One JSON object per line.
    Json,
    /// Entries of systemd's journal, not on standard error.
    Journal,
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
        one_of(v, &["human", "json", "journal"])
    });
    let level = section.value("level", default.level, |value| {
        let level = value.text()?;
        log_level::check(level).map_err(|what| {
            Bad::new(what, "write error, warn, info, debug or trace; by module: \"info,portcullis_address=debug\"")
        })?;
        Ok(level.to_owned())
    });
    section.finish();
    LogConfig {
        format: match format.as_str() {
            "json" => LogFormat::Json,
            "journal" => LogFormat::Journal,
            _ => LogFormat::Human,
        },
        level,
    }
}
