//! `[policy]` and what every other policy has as well: its file, its limits, and what happens when it fails.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_policy::{FailureKind, Limits, Mode};
use serde_json::Value as Json;

use crate::signature::Signers;

use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{GIB, KIB, MIB, bytes, code, count, duration, one_of, phrase};

/// The operator's policies, and what happens without an opinion of theirs.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyConfig {
    /// The policy that decides on what no tenant claims.
    pub seat: SeatConfig,
    /// What happens to a request that no policy has an opinion on.
    pub default: DefaultVerdict,
    /// `[policy.before]`: asked about every request first.
    pub before: Option<SeatConfig>,
    /// `[policy.after]`: asked about requests that the tenant's policy has no opinion on.
    pub after: Option<SeatConfig>,
}

/// One policy, what it may use, and what happens without it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeatConfig {
    /// The file; none if there is none, or if policies are pushed.
    pub file: Option<PathBuf>,
    /// Whether its verdicts are carried out.
    pub mode: Mode,
    /// What it reads with the interface `settings`: an object.
    pub settings: Json,
    /// True if a policy's memory is kept from call to call.
    pub reuse: bool,
    /// What happens to a request that it fails on.
    pub failure: FailureRules,
    /// When it is taken out of service.
    pub breaker: BreakerConfig,
    /// The most counters and rate limits that it may keep.
    pub counters: usize,
    /// Generations that the database keeps, beside those that do something.
    pub generations: u32,
    /// Whose signatures count.
    pub signers: Signers,
    /// What one call may use, and the largest file.
    pub limits: Limits,
}

/// What happens to requests that a policy fails on, by how it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRules {
    /// The answer where nothing else is said.
    pub answer: Answer,
    /// No policy could be loaded yet.
    pub load: OnFailure,
    /// It trapped, or asked for more memory, stack or bytes than it may have.
    pub trap: OnFailure,
    /// It took too long.
    pub timeout: OnFailure,
    /// There was no sandbox or no time for it.
    pub overload: OnFailure,
    /// Its verdict breaks the rules.
    pub bad_verdict: OnFailure,
}

/// What happens to a request that a policy fails on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The answer of [`FailureRules::answer`].
    #[default]
    Reject,
    /// This answer.
    RejectWith(Answer),
    /// What happens to requests that no policy has an opinion on.
    Default,
    /// The generation that served before is asked.
    LastGood,
}

/// When a policy that fails is taken out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// This many failures; 0 for never.
    pub failures: u32,
    /// Within this time.
    pub window: Duration,
    /// How long it stays out when there is no generation to go back to.
    pub pause: Duration,
}

/// What happens to a request that no policy has an opinion on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultVerdict {
    /// It is sent on, as routed.
    Relay,
    /// It is answered.
    Reject(Answer),
    /// Nothing.
    Drop,
}

/// A final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code, 300 to 699.
    pub code: u16,
    /// The reason phrase; empty for the standard phrase of the code.
    pub reason: String,
}

impl FailureRules {
    /// What happens after a failure of this kind.
    pub fn of(&self, kind: FailureKind) -> &OnFailure {
        match kind {
            FailureKind::Timeout => &self.timeout,
            FailureKind::InvalidVerdict => &self.bad_verdict,
            FailureKind::Exhausted | FailureKind::Sandbox => &self.overload,
            _ => &self.trap,
        }
    }
}

impl Answer {
    /// This status with its standard phrase.
    pub fn new(code: u16) -> Self {
        Self {
            code,
            reason: String::new(),
        }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            seat: SeatConfig::default(),
            default: DefaultVerdict::Reject(Answer::new(403)),
            before: None,
            after: None,
        }
    }
}

impl Default for SeatConfig {
    fn default() -> Self {
        Self {
            file: None,
            mode: Mode::Enforce,
            settings: Json::Object(serde_json::Map::new()),
            reuse: false,
            failure: FailureRules {
                answer: Answer::new(503),
                load: OnFailure::Reject,
                trap: OnFailure::Reject,
                timeout: OnFailure::Reject,
                overload: OnFailure::Reject,
                bad_verdict: OnFailure::Reject,
            },
            breaker: BreakerConfig {
                failures: 0,
                window: Duration::from_secs(10),
                pause: Duration::from_secs(30),
            },
            counters: 10_000,
            generations: 20,
            signers: Signers::default(),
            limits: Limits::default(),
        }
    }
}

/// Reads `[policy]`.
pub(super) fn read(mut section: Section<'_>, default: PolicyConfig) -> PolicyConfig {
    let mut seat = seat(&mut section, default.seat);
    let limits = &mut seat.limits;
    limits.memory_bytes = section.value("memory", limits.memory_bytes, |v| bytes(v, 64 * KIB, GIB));
    limits.table_elements = section.value("table-elements", limits.table_elements, |v| {
        count(v, 1, 1_000_000)
    });
    limits.stack_bytes = section.value("stack", limits.stack_bytes, |v| bytes(v, 16 * KIB, MIB));
    limits.module_bytes = section.value("module", limits.module_bytes, |v| bytes(v, KIB, GIB));
    limits.instances = section.value("instances", limits.instances, |v| count(v, 1, 10_000));
    limits.compile_time = section.value("compile-time", limits.compile_time, |v| {
        duration(v, Duration::from_millis(100), Duration::from_secs(600))
    });
    limits.compile_bytes = section.value("compile-memory", limits.compile_bytes, |v| {
        bytes(v, 128 * MIB, 64 * GIB)
    });
    call_limits(&mut section, limits);
    let answer = default_verdict(&mut section, &default.default);
    let operators = |section: Option<Section<'_>>| {
        section.map(|mut section| {
            let inherited = SeatConfig {
                limits: seat.limits.clone(),
                failure: seat.failure.clone(),
                ..SeatConfig::default()
            };
            let seat = limited_seat(&mut section, inherited);
            section.finish();
            seat
        })
    };
    let before = operators(section.present("before"));
    let after = operators(section.present("after"));
    section.finish();
    PolicyConfig {
        seat,
        default: answer,
        before,
        after,
    }
}

/// Reads a policy with limits of its own, which are not above those of `default`: the engine is made for these.
pub(super) fn limited_seat(section: &mut Section<'_>, default: SeatConfig) -> SeatConfig {
    let mut seat = seat(section, default);
    let limits = &mut seat.limits;
    let (memory, table) = (limits.memory_bytes, limits.table_elements);
    let (module, most) = (limits.module_bytes, |n: usize| n as u64);
    limits.memory_bytes = section.value("memory", memory, |v| {
        bytes(v, 64 * KIB, most(memory)).map_err(beyond)
    });
    limits.table_elements = section.value("table-elements", table, |v| {
        count(v, 1, most(table)).map_err(beyond)
    });
    limits.module_bytes = section.value("module", module, |v| {
        bytes(v, KIB, most(module)).map_err(beyond)
    });
    call_limits(section, limits);
    seat
}

/// What goes for one call alone, whatever the engine is made for.
fn call_limits(section: &mut Section<'_>, limits: &mut Limits) {
    limits.deadline = section.value("deadline", limits.deadline, |v| {
        duration(v, Duration::from_millis(1), Duration::from_secs(10))
    });
    limits.host_call_bytes = section.value("host-call", limits.host_call_bytes, |v| {
        bytes(v, KIB, 16 * MIB)
    });
    limits.log_lines = section.value("log-lines", limits.log_lines, |v| count(v, 0, 1000));
    limits.log_bytes = section.value("log-line", limits.log_bytes, |v| bytes(v, 16, 64 * KIB));
}

/// Reads what every policy has.
fn seat(section: &mut Section<'_>, default: SeatConfig) -> SeatConfig {
    let file = section.optional("file", |value| Ok(PathBuf::from(value.text()?)));
    let mode = section.value("mode", default.mode.as_str().to_owned(), |v| {
        one_of(v, &["enforce", "monitor"])
    });
    let answer = Answer {
        code: section.value("failure-code", default.failure.answer.code, code),
        reason: section.value(
            "failure-reason",
            default.failure.answer.reason.clone(),
            phrase,
        ),
    };
    let failure = FailureRules {
        answer,
        ..default.failure
    };
    let keys = section.section("signers").entries(|_, value| {
        let key = crate::signature::public_key(value.text()?);
        key.ok_or_else(|| {
            Bad::new(
                "no Ed25519 public key",
                "write its 32 bytes in Base64, as `portcullis policy keygen` prints them, or what is between the lines that \
                 `openssl pkey -pubout` writes",
            )
        })
    });
    let is_signed = !keys.is_empty();
    let signers = Signers {
        required: section.value("require-signature", is_signed, |v| v.boolean()),
        keys,
    };
    if signers.required && !is_signed {
        section.reject(
            "require-signature",
            Bad::new(
                "nobody's signature counts",
                "name keys in the section `signers`",
            ),
        );
    }
    SeatConfig {
        file: file.filter(|file| !file.as_os_str().is_empty()),
        mode: if mode == "monitor" {
            Mode::Monitor
        } else {
            Mode::Enforce
        },
        settings: section.json("settings", default.settings),
        reuse: section.value("reuse", default.reuse, |v| v.boolean()),
        failure: failures(section.section("on-failure"), failure),
        breaker: breaker(section, default.breaker),
        counters: section.value("counters", default.counters, |v| count(v, 1, 10_000_000)),
        generations: section.value("generations", default.generations, |v| count(v, 1, 1000)),
        signers,
        limits: default.limits,
    }
}

fn failures(mut section: Section<'_>, default: FailureRules) -> FailureRules {
    let rules = FailureRules {
        load: section.value("load", default.load, |v| on_failure(v, Some("load"))),
        trap: section.value("trap", default.trap, |v| on_failure(v, None)),
        timeout: section.value("timeout", default.timeout, |v| on_failure(v, None)),
        overload: section.value("overload", default.overload, |v| {
            on_failure(v, Some("overload"))
        }),
        bad_verdict: section.value("bad-verdict", default.bad_verdict, |v| on_failure(v, None)),
        answer: default.answer,
    };
    section.finish();
    rules
}

/// `without_last_good` is the kind of failure after which there is nothing else to ask.
fn on_failure(value: Value<'_>, without_last_good: Option<&str>) -> Result<OnFailure, Bad> {
    const MEND: &str =
        "write \"reject\", \"reject CODE\", \"reject CODE REASON\", \"default\" or \"last-good\"";
    let text = value.text()?;
    if text == "last-good"
        && let Some(kind) = without_last_good
    {
        let what = format!("an older generation is no help after a failure of the kind `{kind}`");
        return Err(Bad::new(
            what,
            "write \"reject\", \"reject CODE\" or \"default\"",
        ));
    }
    let answer = match text {
        "reject" => return Ok(OnFailure::Reject),
        "default" => return Ok(OnFailure::Default),
        "last-good" => return Ok(OnFailure::LastGood),
        _ => text.strip_prefix("reject "),
    };
    let answer = answer.ok_or_else(|| Bad::new("not one of the choices", MEND))?;
    let (digits, reason) = answer.split_once(' ').unwrap_or((answer, ""));
    let code = digits.parse::<u16>().ok();
    let code = code.filter(|code| (300..=699).contains(code));
    if reason.chars().any(char::is_control) {
        return Err(Bad::new(
            "a line break or control character",
            "write it on one line",
        ));
    }
    Ok(OnFailure::RejectWith(Answer {
        code: code.ok_or_else(|| Bad::new("not a status code from 300 to 699", MEND))?,
        reason: reason.to_owned(),
    }))
}

fn breaker(section: &mut Section<'_>, default: BreakerConfig) -> BreakerConfig {
    let time = |v: Value<'_>| duration(v, Duration::from_secs(1), Duration::from_secs(3600));
    BreakerConfig {
        failures: section.value("breaker-failures", default.failures, |v| {
            count(v, 0, 1_000_000)
        }),
        window: section.value("breaker-window", default.window, time),
        pause: section.value("breaker-pause", default.pause, time),
    }
}

/// The three keys that make the default verdict.
pub(super) fn default_verdict(
    section: &mut Section<'_>,
    default: &DefaultVerdict,
) -> DefaultVerdict {
    let (word, answer) = match default {
        DefaultVerdict::Relay => ("relay", Answer::new(403)),
        DefaultVerdict::Drop => ("drop", Answer::new(403)),
        DefaultVerdict::Reject(answer) => ("reject", answer.clone()),
    };
    let kind = section.value("default", word.to_owned(), |v| {
        one_of(v, &["reject", "relay", "drop"])
    });
    let answer = Answer {
        code: section.value("default-code", answer.code, code),
        reason: section.value("default-reason", answer.reason, phrase),
    };
    match kind.as_str() {
        "relay" => DefaultVerdict::Relay,
        "drop" => DefaultVerdict::Drop,
        _ => DefaultVerdict::Reject(answer),
    }
}

fn beyond(bad: Bad) -> Bad {
    Bad {
        mend: format!("{} (the most is what [policy] has)", bad.mend),
        ..bad
    }
}
