//! The state of a destination: Kamailio's flags, and the rules by which failures and answers change them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::pinged::Pinged;

/// The state of a destination, with what has been counted towards the next one. 32 bits, so that it fits an atomic number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whether requests go there.
    pub admission: Admission,
    /// Whether it is being probed because of its state (Kamailio: flag 8).
    pub is_probing: bool,
    /// Failures in a row, up to 255.
    pub failures: u8,
    /// Successes in a row while it is down, up to 255.
    pub successes: u8,
}

/// Whether requests go to a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// They do.
    #[default]
    Active,
    /// They do not, because it has failed too often (Kamailio: flag 1).
    Inactive,
    /// They do not, because the operator says so. Nothing that happens changes this (flag 4).
    Disabled,
    /// They do, although it has failed (flag 2).
    Trying,
}

/// What has been observed of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has answered as it should.
    Success,
    /// It has not answered, could not be reached, or has said that it cannot serve.
    Failure,
}

/// How many signs in a row change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures after which an active destination becomes inactive (Kamailio: `ds_probing_threshold`).
    pub down_after: u8,
    /// Successes after which an inactive one becomes active (Kamailio: `ds_inactive_threshold`).
    pub up_after: u8,
}

/// Not a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not a state: write a (active), i (inactive), d (disabled) or t (trying), with p for probing"
)]
pub struct UnknownState;

impl Admission {
    /// All of them, each at its number.
    const ALL: [Self; 4] = [Self::Active, Self::Inactive, Self::Disabled, Self::Trying];

    /// Whether requests go there.
    pub fn is_open(self) -> bool {
        match self {
            Self::Active | Self::Trying => true,
            Self::Inactive | Self::Disabled => false,
        }
    }

    /// Kamailio's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Active => 'A',
            Self::Inactive => 'I',
            Self::Disabled => 'D',
            Self::Trying => 'T',
        }
    }
}

impl State {
    /// The state that the column `flags` says.
    pub fn of_flags(flags: u32) -> Self {
        Self {
            admission: match flags {
                flags if flags & 1 != 0 => Admission::Inactive,
                flags if flags & 4 != 0 => Admission::Disabled,
                flags if flags & 2 != 0 => Admission::Trying,
                _ => Admission::Active,
            },
            is_probing: flags & 8 != 0,
            ..Self::default()
        }
    }

    /// Kamailio's letters: `AX`, `AP`, `IX`, `IP`, `DX`, `TX`, `TP`.
    pub fn letters(self) -> [char; 2] {
        let probing = if self.is_probing { 'P' } else { 'X' };
        [self.admission.letter(), probing]
    }

    /// The state after a sign, of a request or of a ping. `pinged` says which destinations are pinged, if this one may be: the flag follows
    /// from that.
    #[must_use]
    pub fn after(self, sign: Sign, thresholds: Thresholds, pinged: Option<Pinged>) -> Self {
        let active = Self {
            is_probing: match pinged {
                Some(pinged) => pinged.flag_after_success(self.is_probing),
                None => self.is_probing && self.admission == Admission::Active,
            },
            ..Self::default()
        };
        match (self.admission, sign) {
            (Admission::Disabled, Sign::Success | Sign::Failure) => self,
            (Admission::Active | Admission::Trying, Sign::Success) => active,
            (Admission::Active | Admission::Trying, Sign::Failure) => {
                let failures = self.failures.saturating_add(1);
                match failures >= thresholds.down_after {
                    true => Self {
                        admission: Admission::Inactive,
                        is_probing: true,
                        failures,
                        successes: 0,
                    },
                    false => Self {
                        admission: Admission::Trying,
                        is_probing: self.is_probing || pinged.is_some(),
                        failures,
                        ..self
                    },
                }
            }
            (Admission::Inactive, Sign::Success) => {
                let successes = self.successes.saturating_add(1);
                match successes >= thresholds.up_after {
                    true => active,
                    false => Self { successes, ..self },
                }
            }
            (Admission::Inactive, Sign::Failure) => Self {
                failures: self.failures.saturating_add(1),
                successes: 0,
                ..self
            },
        }
    }

    /// The state of a destination that has asked for no requests; `None` if it is disabled.
    pub(crate) fn paused(self) -> Option<Self> {
        match self.admission {
            Admission::Disabled => None,
            Admission::Inactive => Some(self),
            Admission::Active | Admission::Trying => Some(Self {
                admission: Admission::Inactive,
                is_probing: true,
                successes: 0,
                ..self
            }),
        }
    }

    /// The state as a number.
    pub(crate) fn to_bits(self) -> u32 {
        self.admission as u32
            | u32::from(self.is_probing) << 2
            | u32::from(self.failures) << 8
            | u32::from(self.successes) << 16
    }

    /// The state that such a number means.
    pub(crate) fn of_bits(bits: u32) -> Self {
        let [low, failures, successes, _] = bits.to_le_bytes();
        Self {
            admission: Admission::ALL[usize::from(low & 3)],
            is_probing: low & 4 != 0,
            failures,
            successes,
        }
    }
}

/// `AX`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [admission, probing] = self.letters();
        write!(f, "{admission}{probing}")
    }
}

/// Reads a state as `kamcmd dispatcher.set_state` does: the first letter is `i`, `a`, `d` or `t`, or 0, 1, 2 or 3; `p` may follow, except
/// after `d`.
impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let mut letters = text.bytes();
        let admission = match letters.next() {
            Some(b'0' | b'i' | b'I') => Admission::Inactive,
            Some(b'1' | b'a' | b'A') => Admission::Active,
            Some(b'2' | b'd' | b'D') => Admission::Disabled,
            Some(b'3' | b't' | b'T') => Admission::Trying,
            Some(_) | None => return Err(UnknownState),
        };
        let is_p = matches!(letters.next(), Some(b'p' | b'P'));
        Ok(Self {
            admission,
            is_probing: is_p && admission != Admission::Disabled,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Thresholds = Thresholds {
        down_after: 3,
        up_after: 2,
    };

    fn after(state: &str, signs: &str) -> String {
        after_pings(state, signs, None)
    }

    fn after_pings(state: &str, signs: &str, pinged: Option<Pinged>) -> String {
        let state = signs
            .chars()
            .fold(state.parse::<State>().unwrap(), |state, sign| {
                let sign = match sign {
                    '+' => Sign::Success,
                    _ => Sign::Failure,
                };
                state.after(sign, RULES, pinged)
            });
        state.to_string()
    }

    #[test]
    fn three_failures_put_it_down_and_two_successes_up_again() {
        for (state, signs, expected) in [
            ("a", "", "AX"),
            ("a", "-", "TX"),
            ("a", "--", "TX"),
            ("a", "---", "IP"),
            ("a", "--+", "AX"),
            ("a", "--+--", "TX"),
            ("a", "---+", "IP"),
            ("a", "---+-+", "IP"),
            ("a", "---++", "AX"),
            ("ap", "+", "AP"),
            ("ap", "-", "TP"),
            ("t", "+", "AX"),
            ("i", "++", "AX"),
            ("d", "+++", "DX"),
            ("d", "----", "DX"),
            ("dp", "", "DX"),
        ] {
            assert_eq!(after(state, signs), expected, "{state} {signs}");
        }
    }

    /// The letters that Kamailio shows for each mode, except that a failure never loses the P: in modes 0 and 2, Kamailio may then stop to
    /// ping a destination that is down.
    #[test]
    fn the_flag_follows_kamailios_modes() {
        for (pinged, state, signs, expected) in [
            (Pinged::All, "a", "+", "AP"),
            (Pinged::All, "a", "-", "TP"),
            (Pinged::All, "a", "---", "IP"),
            (Pinged::All, "i", "+", "IX"),
            (Pinged::All, "i", "++", "AP"),
            (Pinged::All, "t", "+", "AP"),
            (Pinged::All, "d", "++", "DX"),
            (Pinged::Flagged, "ap", "+", "AX"),
            (Pinged::Flagged, "ap", "-", "TP"),
            (Pinged::Flagged, "ap", "---", "IP"),
            (Pinged::Flagged, "ip", "++", "AX"),
            (Pinged::Inactive, "ap", "+", "AX"),
            (Pinged::Inactive, "i", "++", "AX"),
            (Pinged::Inactive, "a", "---", "IP"),
            (Pinged::FlaggedAlways, "ap", "+", "AP"),
            (Pinged::FlaggedAlways, "a", "+", "AX"),
            (Pinged::FlaggedAlways, "ap", "---++", "AP"),
        ] {
            let shown = after_pings(state, signs, Some(pinged));
            assert_eq!(shown, expected, "{pinged:?}: {state} {signs}");
        }
    }

    #[test]
    fn a_pause_closes_all_but_what_the_operator_has_disabled() {
        let paused = |state: &str| {
            let state: State = state.parse().unwrap();
            state.paused().map(|state| state.to_string())
        };
        for state in ["a", "ap", "t", "tp", "ip"] {
            assert_eq!(paused(state).as_deref(), Some("IP"), "{state}");
        }
        assert_eq!(
            paused("i").as_deref(),
            Some("IX"),
            "the operator has done it"
        );
        assert_eq!(paused("d"), None);
    }

    #[test]
    fn flags_and_letters_are_kamailios() {
        for (flags, letters) in [
            (0, "AX"),
            (1, "IX"),
            (2, "TX"),
            (4, "DX"),
            (8, "AP"),
            (9, "IP"),
            (10, "TP"),
            (5, "IX"),
            (48, "AX"),
        ] {
            assert_eq!(State::of_flags(flags).to_string(), letters, "{flags}");
        }
        for bad in ["", "x", "4", "p"] {
            assert_eq!(bad.parse::<State>(), Err(UnknownState));
        }
        assert_eq!("3P".parse::<State>().unwrap().to_string(), "TP");
    }

    proptest! {
        #[test]
        fn a_state_is_what_its_number_says(bits: u32, failures: u8, successes: u8) {
            let state = State { failures, successes, ..State::of_bits(bits) };
            prop_assert_eq!(State::of_bits(state.to_bits()), state);
        }

        #[test]
        fn a_destination_is_open_unless_the_last_signs_put_it_down(signs in prop::collection::vec(any::<bool>(), 0..40)) {
            let mut state = State::default();
            let (mut open, mut row, mut last) = (true, 0, None);
            for &is_good in &signs {
                let sign = if is_good { Sign::Success } else { Sign::Failure };
                state = state.after(sign, RULES, None);
                // The naive model: the length of the current run.
                row = if last == Some(is_good) { row + 1 } else { 1 };
                last = Some(is_good);
                match (open, is_good) {
                    (true, false) if row >= 3 => (open, row) = (false, 0),
                    (false, true) if row >= 2 => (open, row) = (true, 0),
                    _ => {}
                }
                prop_assert_eq!(state.admission.is_open(), open);
            }
        }
    }
}
