//! `[fleet]`: how a host announces itself to the others on the same database.

use std::time::Duration;

use super::peers::PeersConfig;
use super::problem::Bad;
use super::section::{Section, Value};
use super::shape::Shape;
use super::value::duration;

/// The longest name of a host, in characters.
const LONGEST_NAME: usize = 64;

/// How a host announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetConfig {
    /// The name of the host; `None`: that of the system.
    pub name: Option<String>,
    /// Whether the host announces itself.
    pub announce: Announce,
    /// The shortest time between two announcements.
    pub interval: Duration,
    /// Whether an operator may drain the host through another one.
    pub remote_drain: bool,
    /// The hosts that share the addresses of this one.
    pub peers: PeersConfig,
}

/// Whether a host announces itself in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announce {
    /// If the database is a server: an SQLite file has one host as a rule.
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

impl FleetConfig {
    /// Reads `[fleet]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let most = Duration::from_secs(2);
        let name = section.optional("name", name);
        let fleet = Self {
            name: name.filter(|name| !name.is_empty()),
            announce: section.value("announce", default.announce, announce),
            interval: section.value("interval", default.interval, |v| {
                duration(v, Duration::from_millis(200), most)
            }),
            remote_drain: section.value("remote-drain", default.remote_drain, |v| v.boolean()),
            peers: PeersConfig::read(&mut section, default.peers),
        };
        section.finish();
        fleet
    }
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            name: None,
            announce: Announce::Auto,
            interval: Duration::from_secs(1),
            remote_drain: true,
            peers: PeersConfig::default(),
        }
    }
}

/// Reads the name of a host.
fn name(value: Value<'_>) -> Result<String, Bad> {
    let text = value.text()?;
    let mend = || {
        format!(
            "write up to {LONGEST_NAME} letters, digits, dots, `-` and `_`, for example \"edge-1\""
        )
    };
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(bad) = text.chars().find(|&c| !is_good(c)) {
        return Err(Bad::new(
            format!("the name of a host has {bad:?} in it"),
            mend(),
        ));
    }
    match text.len() {
        length if length > LONGEST_NAME => Err(Bad::new("too long for the name of a host", mend())),
        _ => Ok(text.to_owned()),
    }
}

/// Reads whether the host announces itself.
fn announce(value: Value<'_>) -> Result<Announce, Bad> {
    const MEND: &str = "write \"auto\", true or false";
    if let Ok(is_on) = value.boolean() {
        return Ok(match is_on {
            true => Announce::Always,
            false => Announce::Never,
        });
    }
    let shape = || Shape::Any(vec![Shape::Boolean, Shape::OneOf(&["auto"])]);
    let text = value
        .text()
        .map_err(|bad| Bad::new(bad.what, MEND).shaped(shape()))?;
    match text {
        "auto" => Ok(Announce::Auto),
        _ => Err(Bad::new("neither \"auto\" nor a boolean", MEND)),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    use super::*;

    #[test]
    fn a_section_is_read() {
        let text = "[fleet]\nname = \"edge-1.example.com\"\nannounce = true\ninterval = \"500ms\"\nremote-drain = false\n";
        let fleet = Config::parse(text).unwrap().fleet;
        assert_eq!(fleet.name.as_deref(), Some("edge-1.example.com"));
        assert_eq!(fleet.announce, Announce::Always);
        assert_eq!(fleet.interval, Duration::from_millis(500));
        assert!(!fleet.remote_drain);
        let of = |value: &str| {
            let text = format!("[fleet]\nannounce = {value}\n");
            Config::parse(&text).unwrap().fleet.announce
        };
        assert_eq!(of("false"), Announce::Never);
        assert_eq!(of("\"auto\""), Announce::Auto);
        let unnamed = Config::parse("[fleet]\nname = \"\"\n").unwrap().fleet;
        assert_eq!(unnamed, FleetConfig::default());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_mend() {
        let text = "[fleet]\nname = \"edge 1\"\nannounce = \"yes\"\ninterval = \"5s\"\n";
        let problems = Config::parse(text).unwrap_err();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "2:8: fleet.name = \"edge 1\": the name of a host has ' ' in it; write up to 64 letters",
            "3:12: fleet.announce = \"yes\": neither \"auto\" nor a boolean; write \"auto\", true or false",
            "4:12: fleet.interval = \"5s\": too long; write a time from \"200ms\" to \"2s\"",
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
        let long = format!("[fleet]\nname = \"{}\"\n", "a".repeat(65));
        let said = Config::parse(&long).unwrap_err()[0].to_string();
        assert!(said.contains("too long for the name of a host"), "{said}");
    }
}
