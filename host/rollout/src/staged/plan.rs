//! The plan of a roll-out: its steps, and the gates that each step has to pass.

use std::fmt;
use std::time::Duration;

use portcullis_policy::{Share, Trial};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most steps of a plan.
const MOST_STEPS: usize = 16;

/// The longest time of a step.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// The plan of a roll-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps: at most one shadow, which is the first, then growing shares up to 100 %.
    steps: Vec<Step>,
    /// The gates.
    pub gates: Gates,
}

/// A step of a plan: a trial of the generation on all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredStep", into = "StoredStep")]
pub struct Step {
    /// The trial.
    pub trial: Trial,
    /// The shortest time of the step, in whole seconds.
    pub time: Duration,
}

/// What a step has to show before the next one begins. The counts are sums over all hosts since the step began there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredGates", into = "StoredGates")]
pub struct Gates {
    /// Failed calls of the candidate, as a part of its calls.
    pub max_failures: Share,
    /// Calls whose verdicts differ, as a part of those that were compared: all of a shadow, a sample in a canary step. `None`: nothing is compared
    /// in canary steps, and nothing counts in a shadow.
    pub max_differing: Option<Share>,
    /// Duration of a call of a canary, in the mean and of the slowest hundredth, compared with the active generation; `None`: not compared.
    pub max_latency: Option<Factor>,
    /// Calls of the candidate that a step needs.
    pub min_calls: u64,
}

/// A factor in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u32);

/// A step as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredStep {
    share: String,
    seconds: u64,
}

/// Gates as they are stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredGates {
    max_failures: String,
    max_differing: Option<String>,
    max_latency: Option<String>,
    min_calls: u64,
}

/// Why a plan is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The share of a step cannot be read.
    #[error(
        "`{0}` is not a step: write shadow, or a share such as 1%, with at most two decimal places"
    )]
    Step(String),
    /// The factor of the latency cannot be read.
    #[error("`{0}` is not a factor: write for example 2x or 1.5x, and off for no limit")]
    Factor(String),
    /// A gate cannot be read.
    #[error("`{0}` is not a share: write for example 0.1%, with at most two decimal places")]
    Gate(String),
    /// There are no steps, or too many.
    #[error("a plan has 1 to {MOST_STEPS} steps, and this one has {0}")]
    Count(usize),
    /// The steps do not grow.
    #[error(
        "the step {later} does not come after {earlier}: the shares of steps grow, and shadow can only be the first one"
    )]
    Order {
        /// A step.
        earlier: String,
        /// The next one.
        later: String,
    },
    /// The first share is nothing.
    #[error(
        "a step of 0% lets the candidate decide nothing: begin with shadow, or with a larger share"
    )]
    Nothing,
    /// The last step is not all dialogs.
    #[error(
        "the last step is {0}: end the plan with 100%, so that the generation is tried on all dialogs before it is activated"
    )]
    End(String),
    /// A step is too long.
    #[error("a step of {0:?} is too long: at most 30 days")]
    TooLong(Duration),
}

impl Plan {
    /// A plan of these steps.
    ///
    /// # Errors
    /// If the steps are not in order, or do not end with 100 %.
    pub fn new(steps: Vec<Step>, gates: Gates) -> Result<Self, PlanError> {
        if steps.is_empty() || steps.len() > MOST_STEPS {
            return Err(PlanError::Count(steps.len()));
        }
        if let Some(long) = steps.iter().find(|step| step.time > LONGEST) {
            return Err(PlanError::TooLong(long.time));
        }
        if steps.iter().any(|step| hundredths(step.trial) == Some(0)) {
            return Err(PlanError::Nothing);
        }
        for pair in steps.windows(2) {
            let (earlier, later) = (pair[0].trial, pair[1].trial);
            // `None` for a shadow is less than any share.
            if hundredths(earlier) >= hundredths(later) {
                return Err(PlanError::Order {
                    earlier: step_text(earlier),
                    later: step_text(later),
                });
            }
        }
        let last = steps[steps.len() - 1].trial;
        if last != Trial::Canary(Share::ALL) {
            return Err(PlanError::End(step_text(last)));
        }
        Ok(Self { steps, gates })
    }

    /// A plan of steps such as `shadow,1%,10%,100%`, each of this time.
    ///
    /// # Errors
    /// See [`Plan::new`]; also if a step cannot be read.
    pub fn parse(steps: &str, time: Duration, gates: Gates) -> Result<Self, PlanError> {
        let time = Duration::from_secs(time.as_secs());
        let steps = steps.split(',').map(|word| {
            let trial = parse_step(word.trim())?;
            Ok(Step { trial, time })
        });
        Self::new(steps.collect::<Result<_, _>>()?, gates)
    }

    /// The plan of stored columns.
    ///
    /// # Errors
    /// If they cannot be read, which another version may have written: says why.
    pub(crate) fn of_stored(steps: &str, gates: &str) -> Result<Self, String> {
        let steps = serde_json::from_str(steps).map_err(|error| format!("its steps: {error}"))?;
        let gates = serde_json::from_str(gates).map_err(|error| format!("its gates: {error}"))?;
        Self::new(steps, gates).map_err(|error| error.to_string())
    }

    /// The columns `steps` and `gates`.
    pub(crate) fn stored(&self) -> (String, String) {
        // Both are lists of numbers and texts, which can always be written.
        let steps = serde_json::to_string(&self.steps).unwrap_or_default();
        let gates = serde_json::to_string(&self.gates).unwrap_or_default();
        (steps, gates)
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            max_failures: Share::of_hundredths(10).unwrap_or(Share::ALL),
            max_differing: Share::of_hundredths(100),
            max_latency: Some(Factor(200)),
            min_calls: 100,
        }
    }
}

impl Gates {
    /// Reads the limit of a share.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse_share(text: &str) -> Result<Share, PlanError> {
        Share::parse(text).ok_or_else(|| PlanError::Gate(text.to_owned()))
    }

    /// Reads the limit of differing verdicts: a share, or `off`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse_differing(text: &str) -> Result<Option<Share>, PlanError> {
        match text {
            "off" => Ok(None),
            text => Self::parse_share(text).map(Some),
        }
    }

    /// Reads the limit of the latency: a factor, or `off`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse_latency(text: &str) -> Result<Option<Factor>, PlanError> {
        match text {
            "off" => Ok(None),
            text => Factor::parse(text).map(Some),
        }
    }
}

impl Factor {
    /// Reads a factor such as `2x` or `1.5x`, from 1x to 1000x.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let wrong = || PlanError::Factor(text.to_owned());
        let number = text.strip_suffix('x').ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || fraction.len() > 2 {
            return Err(wrong());
        }
        let whole: u32 = whole
            .parse()
            .ok()
            .filter(|whole| (1..=1000).contains(whole))
            .ok_or_else(wrong)?;
        let fraction: u32 = format!("{fraction:0<2}").parse().map_err(|_| wrong())?;
        Ok(Self(whole * 100 + fraction))
    }

    /// The factor in hundredths.
    pub fn hundredths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}x"),
            (whole, fraction) => write!(f, "{whole}.{fraction:02}x"),
        }
    }
}

impl From<Step> for StoredStep {
    fn from(step: Step) -> Self {
        Self {
            share: step_text(step.trial),
            seconds: step.time.as_secs(),
        }
    }
}

impl TryFrom<StoredStep> for Step {
    type Error = PlanError;

    fn try_from(stored: StoredStep) -> Result<Self, PlanError> {
        Ok(Self {
            trial: parse_step(&stored.share)?,
            time: Duration::from_secs(stored.seconds),
        })
    }
}

impl From<Gates> for StoredGates {
    fn from(gates: Gates) -> Self {
        Self {
            max_failures: gates.max_failures.to_string(),
            max_differing: gates.max_differing.map(|share| share.to_string()),
            max_latency: gates.max_latency.map(|factor| factor.to_string()),
            min_calls: gates.min_calls,
        }
    }
}

impl TryFrom<StoredGates> for Gates {
    type Error = PlanError;

    fn try_from(stored: StoredGates) -> Result<Self, PlanError> {
        let max_latency = stored.max_latency.as_deref().map(Factor::parse);
        let max_differing = stored.max_differing.as_deref().map(Self::parse_share);
        Ok(Self {
            max_failures: Self::parse_share(&stored.max_failures)?,
            max_differing: max_differing.transpose()?,
            max_latency: max_latency.transpose()?,
            min_calls: stored.min_calls,
        })
    }
}

/// The word for a step: `shadow`, or a share.
pub fn step_text(trial: Trial) -> String {
    match trial {
        Trial::Shadow => "shadow".to_owned(),
        Trial::Canary(share) => share.to_string(),
    }
}

fn parse_step(word: &str) -> Result<Trial, PlanError> {
    if word == "shadow" {
        return Ok(Trial::Shadow);
    }
    let share = Share::parse(word).ok_or_else(|| PlanError::Step(word.to_owned()))?;
    Ok(Trial::Canary(share))
}

fn hundredths(trial: Trial) -> Option<u16> {
    match trial {
        Trial::Shadow => None,
        Trial::Canary(share) => Some(share.hundredths()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn plan(steps: &str) -> Result<Plan, PlanError> {
        Plan::parse(steps, MINUTE, Gates::default())
    }

    #[test]
    fn a_plan_is_stored_and_read_again() {
        for steps in ["100%", "1%,10%,100%", "shadow, 0.25%, 50%, 100%"] {
            let plan = plan(steps).unwrap();
            let (stored, gates) = plan.stored();
            assert_eq!(Plan::of_stored(&stored, &gates).unwrap(), plan);
        }
        let (steps, gates) = plan("shadow,100%").unwrap().stored();
        assert_eq!(
            steps,
            r#"[{"share":"shadow","seconds":60},{"share":"100%","seconds":60}]"#
        );
        assert_eq!(
            gates,
            r#"{"max_failures":"0.10%","max_differing":"1%","max_latency":"2x","min_calls":100}"#
        );
        let open = Gates {
            max_differing: None,
            max_latency: None,
            ..Gates::default()
        };
        let (steps, stored) = Plan::parse("1%,100%", MINUTE, open).unwrap().stored();
        assert_eq!(Plan::of_stored(&steps, &stored).unwrap().gates, open);
        let refused = Plan::of_stored("[{\"share\":\"most\",\"seconds\":1}]", &gates).unwrap_err();
        assert!(refused.contains("`most` is not a step"), "{refused}");
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_told() {
        for (steps, expected) in [
            ("", "`` is not a step"),
            ("1%,all", "`all` is not a step"),
            ("0%,100%", "decide nothing"),
            ("10%,1%,100%", "the step 1% does not come after 10%"),
            ("1%,shadow,100%", "the step shadow does not come after 1%"),
            ("shadow,shadow,100%", "shadow can only be the first one"),
            ("1%,10%", "the last step is 10%"),
            ("shadow", "the last step is shadow"),
        ] {
            let refused = plan(steps).unwrap_err().to_string();
            assert!(refused.contains(expected), "{steps}: {refused}");
        }
        let shares: Vec<_> = (1..=17).map(|n| format!("{n}%")).collect();
        assert_eq!(plan(&shares.join(",")), Err(PlanError::Count(17)));
        let long = Plan::parse("100%", 2 * LONGEST, Gates::default());
        assert_eq!(long, Err(PlanError::TooLong(2 * LONGEST)));
    }

    #[test]
    fn factors_are_parsed_and_displayed() {
        for text in ["1x", "2x", "1.50x", "1000x"] {
            assert_eq!(Factor::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "2",
            "x",
            "0.5x",
            "1001x",
            "-1x",
            "2.x",
            "1.234x",
            "99999999999x",
        ] {
            assert!(Factor::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Gates::parse_latency("off"), Ok(None));
        assert_eq!(Gates::parse_differing("off"), Ok(None));
        assert_eq!(Gates::parse_differing("100%"), Ok(Some(Share::ALL)));
        assert!(Gates::parse_differing("none").is_err());
    }
}
