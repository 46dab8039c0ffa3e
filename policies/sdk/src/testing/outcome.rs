//! The result of a call.

use super::effects::{Edit, Line};
use crate::Verdict;
use crate::algorithm::Algorithm;
use crate::standing::Offence;

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The verdict of the policy.
    pub verdict: Verdict,
    /// The log lines of the policy, oldest first.
    pub log: Vec<Line>,
    /// The header changes, in order. They take effect only if the request is finally relayed.
    pub edits: Vec<Edit>,
    /// The sets of the dispatcher that were added, with the number of their destinations.
    pub sets: Vec<(u32, Algorithm, u8)>,
    /// What the policy has reported to the guard.
    pub reported: Option<Offence>,
    /// Whether the policy treats the sender as a client that only its flow leads to.
    pub keeps_flow: bool,
}

impl Outcome {
    /// The texts of the log lines, oldest first.
    pub fn messages(&self) -> Vec<&str> {
        self.log.iter().map(|line| line.message.as_str()).collect()
    }
}
