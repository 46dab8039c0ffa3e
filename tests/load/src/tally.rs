//! What is counted in a run, and the report made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::Latency;
use crate::plan::Mode;
use crate::usage::Usage;

const CODES: usize = 700;

/// Counts of a whole run.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Requests, each counted once.
    pub(crate) sent: u64,
    /// Requests that were sent a further time.
    pub(crate) resent: u64,
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Answers that were not the expected one.
    pub(crate) unexpected: u64,
    /// Answers to a request that had been answered, or given up, before.
    pub(crate) repeated: u64,
    /// Datagrams that answer nothing that was asked.
    pub(crate) foreign: u64,
    /// Requests given up without an answer.
    pub(crate) lost: u64,
    codes: Vec<u64>,
}

/// A run's outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked.
    pub mode: Mode,
    /// Requests of the whole run, warm-up included: `sent = answered + lost`.
    pub sent: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// First answers by status code; empty for an echo.
    pub codes: BTreeMap<u16, u64>,
    /// First answers that were not the expected one.
    pub unexpected: u64,
    /// Requests without an answer.
    pub lost: u64,
    /// Requests that were sent again because no answer came in time (closed loop only).
    pub resent: u64,
    /// Further answers to a request; a request that was sent again may rightly have several.
    pub repeated: u64,
    /// Datagrams that answer nothing that was asked.
    pub foreign: u64,
    /// Requests that reached the callee (with a callee of our own).
    pub relayed: Option<u64>,
    /// The measured window.
    pub window: Window,
    /// What the crowds beside this one sent and got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

/// A crowd that is there as load only; counts of the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Requests.
    pub sent: u64,
    /// Requests that were answered, in whatever way.
    pub answered: u64,
}

/// The part of a run that is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its length.
    pub seconds: f64,
    /// Answers within it.
    pub answered: u64,
    /// Answers a second.
    pub per_second: f64,
    /// From sending to the answer, of requests sent once.
    pub latency: Latency,
    /// Share of the window in which this generator had nothing to do. Near 0 the generator, not the server, set the speed.
    pub generator_idle: f64,
    /// What the watched processes used.
    pub server: Option<Usage>,
}

impl Tally {
    /// Notes the first answer to a request: its status code, and whether that is the expected one.
    pub(crate) fn answer(&mut self, code: u16, expected: bool) {
        self.answered += 1;
        self.unexpected += u64::from(!expected);
        self.codes[usize::from(code).min(CODES - 1)] += 1;
    }

    /// The counts as a report.
    pub(crate) fn report(&self, mode: Mode, relayed: Option<u64>, window: Window) -> Report {
        let codes = (0..)
            .zip(&self.codes)
            .filter(|(code, n)| *code > 0 && **n > 0);
        Report {
            mode,
            sent: self.sent,
            answered: self.answered,
            codes: codes.map(|(code, n)| (code, *n)).collect(),
            unexpected: self.unexpected,
            lost: self.lost,
            resent: self.resent,
            repeated: self.repeated,
            foreign: self.foreign,
            relayed,
            window,
            beside: Vec::new(),
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            sent: 0,
            resent: 0,
            answered: 0,
            unexpected: 0,
            repeated: 0,
            foreign: 0,
            lost: 0,
            codes: vec![0; CODES],
        }
    }
}

impl Report {
    /// What is wrong with the answers, in words; none when every request had exactly one right answer and no datagram was lost.
    pub fn fault(&self) -> Option<String> {
        let Self {
            sent,
            unexpected,
            lost,
            resent,
            repeated,
            foreign,
            ..
        } = self;
        let faults = [
            (unexpected, "answered otherwise than expected"),
            (lost, "without a response"),
            (resent, "sent again"),
            (repeated, "answered twice"),
            (foreign, "datagrams that belong to no request"),
        ];
        let told: Vec<String> = faults
            .iter()
            .filter(|(count, _)| **count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!told.is_empty()).then(|| {
            let codes = &self.codes;
            format!(
                "of {sent} requests: {} (answers by code: {codes:?})",
                told.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_run_has_no_fault_and_any_deviation_is_one() {
        let mut tally = Tally {
            sent: 2,
            ..Tally::default()
        };
        tally.answer(401, true);
        tally.answer(401, true);
        let report = |tally: &Tally| tally.report(Mode::Reject, None, Window::default());
        assert_eq!(report(&tally).fault(), None);
        assert_eq!(report(&tally).codes, BTreeMap::from([(401, 2)]));

        tally.repeated = 1;
        let fault = report(&tally).fault().unwrap();
        assert!(fault.contains("1 answered twice"), "{fault}");
        tally.repeated = 0;
        tally.answer(503, false);
        let fault = report(&tally).fault().unwrap();
        assert!(fault.contains("503: 1"), "{fault}");
    }
}
