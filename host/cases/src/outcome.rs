//! What a call came to, in the terms of a file of cases.

use std::fmt;

use portcullis_policy::Offence;
use portcullis_records::replay::Answered;
use portcullis_records::{Change, Decided};
use portcullis_sip::standard_reason;
use serde::{Deserialize, Serialize};

/// The kind of a verdict, or of what `on-failure` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictName {
    /// `relay`
    Relay,
    /// `reject`
    Reject,
    /// `drop`
    Drop,
    /// `pass`
    Pass,
    /// `best`, of `on-failure`.
    Best,
    /// `answer`, of `on-failure`.
    Answer,
    /// `again`, of `on-failure`.
    Again,
    /// The call failed.
    Failure,
}

/// The result of one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The verdict.
    pub verdict: VerdictName,
    /// The status code of a response.
    pub status: Option<u16>,
    /// Its reason phrase, as it is sent.
    pub reason: Option<String>,
    /// Where the request goes: names of next hops or URIs, in the order in which the policy named them. Empty if the request goes where its
    /// own header fields lead.
    pub targets: Vec<String>,
    /// Header fields that are added to the response, or to the request that is relayed.
    pub headers: Vec<(String, String)>,
    /// Names of header fields that are removed from the request.
    pub removed: Vec<String>,
    /// What the policy has reported to the guard.
    pub reported: Option<&'static str>,
    /// Whether the policy treats the sender as a client that only its flow leads to.
    pub keeps_flow: bool,
    /// Kind and description of a failure.
    pub failure: Option<(String, String)>,
    /// The log lines, with their level.
    pub log: Vec<String>,
    /// Fuel of the call.
    pub fuel: Option<u64>,
}

impl VerdictName {
    /// The verdicts of `decide`.
    pub const OF_DECIDE: [Self; 4] = [Self::Relay, Self::Reject, Self::Drop, Self::Pass];

    /// The results of `on-failure`.
    pub const OF_FAILURE: [Self; 3] = [Self::Best, Self::Answer, Self::Again];

    /// The name in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Pass => "pass",
            Self::Best => "best",
            Self::Answer => "answer",
            Self::Again => "again",
            Self::Failure => "failure",
        }
    }
}

impl Outcome {
    /// The outcome of a call.
    pub fn of(answered: &Answered) -> Self {
        let mut outcome = Self {
            verdict: VerdictName::Drop,
            status: None,
            reason: None,
            targets: Vec::new(),
            headers: Vec::new(),
            removed: Vec::new(),
            reported: answered.wishes.report.map(Offence::as_str),
            keeps_flow: answered.wishes.keeps_flow,
            failure: None,
            log: answered.log.iter().map(ToString::to_string).collect(),
            fuel: answered.fuel,
        };
        for edit in &answered.edits {
            match edit {
                Change::Add(name, value) => outcome.headers.push((name.clone(), value.clone())),
                Change::Remove(name) => outcome.removed.push(name.clone()),
            }
        }
        for target in answered.forwarding.iter().flat_map(|said| &said.targets) {
            outcome.targets.push(target.place.to_string());
            outcome.headers.extend(target.headers.iter().cloned());
        }
        match &answered.decided {
            Decided::Relay(next_hop) => {
                outcome.verdict = VerdictName::Relay;
                outcome.targets.extend(next_hop.clone());
            }
            Decided::Reject {
                code,
                reason,
                headers,
            } => outcome.respond(VerdictName::Reject, *code, reason, headers),
            Decided::Answer {
                code,
                reason,
                headers,
            } => outcome.respond(VerdictName::Answer, *code, reason, headers),
            Decided::Drop => {}
            Decided::Pass => outcome.verdict = VerdictName::Pass,
            Decided::Best => outcome.verdict = VerdictName::Best,
            Decided::Again => outcome.verdict = VerdictName::Again,
            Decided::Failed { kind, text } => {
                outcome.verdict = VerdictName::Failure;
                outcome.failure = Some((kind.clone(), text.clone()));
            }
        }
        outcome
    }

    fn respond(
        &mut self,
        verdict: VerdictName,
        code: u16,
        reason: &str,
        headers: &[(String, String)],
    ) {
        self.verdict = verdict;
        self.status = Some(code);
        self.reason = Some(match reason {
            "" => standard_reason(code).to_owned(),
            reason => reason.to_owned(),
        });
        self.headers.extend(headers.iter().cloned());
    }

    /// The verdict, and its status if it has one: `reject 401`.
    pub fn label(&self) -> String {
        match self.status {
            Some(status) => format!("{} {status}", self.verdict.as_str()),
            None => self.verdict.as_str().to_owned(),
        }
    }
}

/// For people: `reject 401 Address not authorised`, `relay to carrier-a, carrier-b`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())?;
        if let Some(reason) = &self.reason {
            write!(f, " {reason}")?;
        }
        if let Some((_, text)) = &self.failure {
            write!(f, ": {text}")?;
        }
        if !self.targets.is_empty() {
            write!(f, " to {}", self.targets.join(", "))?;
        }
        Ok(())
    }
}
