//! The counts of a run, and its report.

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
    /// Requests that were sent again.
    pub(crate) resent: u64,
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Unexpected responses.
    pub(crate) unexpected: u64,
    /// Responses to a request that had been answered or given up before.
    pub(crate) repeated: u64,
    /// Datagrams that belong to no request.
    pub(crate) foreign: u64,
    /// Requests given up without a response.
    pub(crate) lost: u64,
    /// Requests that were sent once, and whose answer came after [`Plan::late`](crate::Plan::late).
    pub(crate) late: u64,
    codes: Vec<u64>,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Kind of request.
    pub mode: Mode,
    /// Requests of the whole run, warm-up included: `sent = answered + lost`.
    pub sent: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// First responses by status code; empty for an echo.
    pub codes: BTreeMap<u16, u64>,
    /// Unexpected first responses.
    pub unexpected: u64,
    /// Requests without a response.
    pub lost: u64,
    /// Requests that were sent once, and answered later than the plan permits.
    #[serde(default)]
    pub late: u64,
    /// Requests that were sent again because no response came in time, INVITE and BYE of calls each time.
    pub resent: u64,
    /// 200s to INVITE that the callee sent again because no ACK came in time, if this process runs it.
    #[serde(default)]
    pub repeated_answers: u64,
    /// Further responses to a request. A request that was sent again may have several.
    pub repeated: u64,
    /// Datagrams that belong to no request.
    pub foreign: u64,
    /// Requests that reached the callee, if this process runs it.
    pub relayed: Option<u64>,
    /// The measured window.
    pub window: Window,
    /// The counts of the further crowds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

/// Counts of a crowd that only adds load, for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Requests.
    pub sent: u64,
    /// Requests that were answered with any status.
    pub answered: u64,
}

/// The set-up of calls whose INVITE was sent once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SetUp {
    /// From the INVITE to the 180.
    pub ringing: Latency,
    /// From the INVITE to its 200.
    pub accepted: Latency,
}

/// The part of a run that is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its length.
    pub seconds: f64,
    /// Responses within it.
    pub answered: u64,
    /// Responses per second.
    pub per_second: f64,
    /// Latencies of requests that were sent once.
    pub latency: Latency,
    /// Set-up of calls; `None` for other requests.
    pub set_up: Option<SetUp>,
    /// Share of the window in which this generator was idle. Near 0, the generator limits the rate, and not the server.
    pub generator_idle: f64,
    /// CPU time and memory of the watched processes.
    pub server: Option<Usage>,
}

impl Tally {
    /// Records the first response to a request: its status code, and whether it is the expected one.
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
            late: self.late,
            resent: self.resent,
            repeated_answers: 0,
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
            late: 0,
            codes: vec![0; CODES],
        }
    }
}

impl Report {
    /// A description of wrong responses; `None` if every request had exactly one expected response and no datagram was lost.
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
