//! Which destinations are pinged, how, and which answers count (Kamailio: `ds_ping_…` and `ds_probing_mode`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::pinged::Pinged;
use crate::state::{Admission, State};

/// The flag of a row whose destination is never pinged.
const NO_PING: u32 = 32;

/// How destinations are pinged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pings {
    /// Time between two pings of a destination (Kamailio: `ds_ping_interval`); zero: nothing is pinged.
    pub interval: Duration,
    /// How long an address may take to answer (later versions of Kamailio: `ds_ping_fr_timer`).
    pub timeout: Duration,
    /// Which destinations are pinged.
    pub which: Pinged,
    /// The answers that count as a success (Kamailio: `ds_ping_reply_codes`).
    pub codes: Codes,
    /// The method (Kamailio: `ds_ping_method`).
    pub method: Box<str>,
    /// The URI of From (Kamailio: `ds_ping_from`). Empty: `sip:dispatcher@HOST`, with the address of the socket that sends.
    pub from: Box<str>,
}

/// Status codes: single ones, and whole classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codes {
    /// `classes[n]`: whether all codes from n00 to n99 are among them.
    classes: [bool; 7],
    codes: Vec<u16>,
}

/// Not a code or class of codes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write a status code from 200 to 699, or a class such as \"2xx\"")]
pub struct UnknownCode;

impl Default for Pings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(4),
            which: Pinged::All,
            codes: ["2xx", "3xx", "4xx"]
                .iter()
                .fold(Codes::default(), |codes, class| {
                    codes.with(class).unwrap_or_default()
                }),
            method: "OPTIONS".into(),
            from: "".into(),
        }
    }
}

impl Pings {
    /// Whether a destination with these flags in its row and this state is pinged.
    pub fn include(&self, flags: u32, state: State) -> bool {
        let is_asked = match self.which {
            Pinged::All => true,
            Pinged::Flagged | Pinged::FlaggedAlways => state.is_probing,
            Pinged::Inactive => state.is_probing && state.admission == Admission::Inactive,
        };
        is_asked && self.may_include(flags) && state.admission != Admission::Disabled
    }

    /// Whether a destination with these flags in its row is pinged in some state.
    pub fn may_include(&self, flags: u32) -> bool {
        !self.interval.is_zero() && flags & NO_PING == 0
    }
}

impl Codes {
    /// Whether this code is among them.
    pub fn has(&self, code: u16) -> bool {
        let class = self.classes.get(usize::from(code / 100));
        class.is_some_and(|class| *class) || self.codes.contains(&code)
    }

    /// Each code and class as a text, as [`Codes::with`] reads it.
    pub fn texts(&self) -> Vec<String> {
        let classes = (0..).zip(self.classes).filter(|(_, is_in)| *is_in);
        let classes = classes.map(|(class, _)| format!("{class}xx"));
        let codes = self.codes.iter().map(ToString::to_string);
        classes.chain(codes).collect()
    }

    /// With a code, such as `404`, or a class, such as `2xx`.
    ///
    /// # Errors
    /// If the text is neither.
    pub fn with(mut self, text: &str) -> Result<Self, UnknownCode> {
        match text.strip_suffix("xx") {
            Some(class) => {
                let class = class
                    .parse::<usize>()
                    .ok()
                    .filter(|class| (2..=6).contains(class));
                self.classes[class.ok_or(UnknownCode)?] = true;
            }
            None => {
                let code = u16::from_str(text)
                    .ok()
                    .filter(|code| (200..700).contains(code));
                self.codes.push(code.ok_or(UnknownCode)?);
            }
        }
        Ok(self)
    }
}

/// `2xx, 404`.
impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pings(which: Pinged) -> Pings {
        Pings {
            which,
            ..Pings::default()
        }
    }

    #[test]
    fn who_is_pinged_follows_kamailios_modes() {
        //                 AX     AP    IX     IP    TX     TP    DX
        let table = [
            (Pinged::All, [true, true, true, true, true, true, false]),
            (
                Pinged::Flagged,
                [false, true, false, true, false, true, false],
            ),
            (
                Pinged::Inactive,
                [false, false, false, true, false, false, false],
            ),
            (
                Pinged::FlaggedAlways,
                [false, true, false, true, false, true, false],
            ),
        ];
        for (which, expected) in table {
            let states = ["a", "ap", "i", "ip", "t", "tp", "d"];
            let asked = states.map(|state| pings(which).include(0, state.parse().unwrap()));
            assert_eq!(asked, expected, "{which:?}");
            assert_eq!(Pinged::of_name(which.name()), Some(which));
            assert!(Pinged::NAMES.contains(&which.name()));
        }
        let all = pings(Pinged::All);
        assert!(!all.include(32, State::default()), "flag 32 forbids it");
        let off = Pings {
            interval: Duration::ZERO,
            ..all
        };
        assert!(!off.include(0, State::default()));
        assert_eq!(Pinged::of_name("some"), None);
    }

    #[test]
    fn codes_are_single_ones_and_classes() {
        let codes = Codes::default().with("2xx").unwrap().with("404").unwrap();
        for (code, is_in) in [
            (199, false),
            (200, true),
            (299, true),
            (404, true),
            (403, false),
            (999, false),
        ] {
            assert_eq!(codes.has(code), is_in, "{code}");
        }
        assert_eq!(codes.to_string(), "2xx, 404");
        for bad in ["", "xx", "1xx", "7xx", "199", "700", "2XX", "ok", "-200"] {
            assert_eq!(Codes::default().with(bad), Err(UnknownCode), "{bad}");
        }
        assert_eq!(Pings::default().codes.to_string(), "2xx, 3xx, 4xx");
    }
}
