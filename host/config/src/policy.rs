//! `[policy]`, and the keys that all policies share: the file, the limits, and the handling of failures.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_policy::{FailureKind, Limits, Mode, Reuse};
use serde_json::Value as Json;

use portcullis_signature::Signers;

use super::problem::Bad;
use super::section::{Section, Value};
use super::shape::Shape;
use super::value::{GIB, KIB, MIB, bytes, code, count, duration, one_of, phrase};

/// The operator's policies, and the default verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyConfig {
    /// Seat for requests of no tenant.
    pub seat: SeatConfig,
    /// Verdict on a request on which no policy decides.
    pub default: DefaultVerdict,
    /// Whether the signers of `seat` also apply to the policies of tenants stored in the database.
    pub signers_bind_stored: bool,
    /// `[policy.before]`: called for every request before any other policy.
    pub before: Option<SeatConfig>,
    /// `[policy.after]`: called for requests that the tenant's policy passes.
    pub after: Option<SeatConfig>,
    /// Handling of requests within an admitted dialog.
    pub in_dialog: InDialog,
    /// How long a seal is valid from the beginning of the dialog.
    pub in_dialog_lifetime: Duration,
    /// Cache of compiled code.
    pub cache: CacheConfig,
}

/// Cache of compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The directory; `None` means systemd's cache directory, or no cache if there is none.
    pub folder: Option<PathBuf>,
    /// Most bytes in the directory.
    pub bytes: u64,
}

/// Handling of requests within an admitted dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDialog {
    /// The request takes the path of its dialog, without a policy call.
    Follow,
    /// Policies are called as for any other request.
    Ask,
}

/// Configuration of one seat: the policy, its limits, and the handling of failures.
#[derive(Clone, Debug, PartialEq)]
pub struct SeatConfig {
    /// The policy file; `None`: no policy, or pushed policies.
    pub file: Option<PathBuf>,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// Settings for the interface `settings`: an object.
    pub settings: Json,
    /// For how many calls the memory of a policy is kept.
    pub reuse: Reuse,
    /// What a request gets if its policy call fails.
    pub failure: FailureRules,
    /// When the policy is taken out of service.
    pub breaker: BreakerConfig,
    /// Most counters and rate limits that the policy may keep.
    pub counters: usize,
    /// How the names of counters and rate limits begin that the hosts of a fleet count together.
    pub fleet_counters: Vec<String>,
    /// Number of generations that the database keeps, in addition to those in use.
    pub generations: u32,
    /// Most pushes per minute with the tenant's token; `None`: no limit.
    pub pushes: Option<u32>,
    /// Signers whose signatures are accepted.
    pub signers: Signers,
    /// Limits of one call and of the policy file.
    pub limits: Limits,
}

/// What a request gets if its policy call fails, by kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRules {
    /// Response for [`OnFailure::Reject`].
    pub answer: Answer,
    /// No policy has been loaded yet.
    pub load: OnFailure,
    /// A trap, or an exceeded limit of memory, stack or bytes passed.
    pub trap: OnFailure,
    /// An exceeded deadline.
    pub timeout: OnFailure,
    /// No free sandbox, or no CPU time left for the tenant.
    pub overload: OnFailure,
    /// An invalid verdict.
    pub bad_verdict: OnFailure,
}

/// What a request gets if its policy call fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The response [`FailureRules::answer`].
    #[default]
    Reject,
    /// This response.
    RejectWith(Answer),
    /// The default verdict.
    Default,
    /// The previous generation is called.
    LastGood,
}

/// When a failing policy is taken out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Number of failures; 0: never.
    pub failures: u32,
    /// Time within which the failures must occur.
    pub window: Duration,
    /// How long the policy is not called if there is no previous generation.
    pub pause: Duration,
}

/// Verdict on a request on which no policy decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultVerdict {
    /// The request is relayed.
    Relay,
    /// The request is answered.
    Reject(Answer),
    /// The request is dropped.
    Drop,
}

/// A final response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code, 300 to 699.
    pub code: u16,
    /// Reason phrase; empty: the standard phrase of the code.
    pub reason: String,
}

impl FailureRules {
    /// Returns what a request gets after a failure of this kind.
    pub fn of(&self, kind: FailureKind) -> &OnFailure {
        match kind {
            FailureKind::Timeout => &self.timeout,
            FailureKind::InvalidVerdict => &self.bad_verdict,
            FailureKind::Exhausted | FailureKind::Sandbox => &self.overload,
            FailureKind::Trap
            | FailureKind::Memory
            | FailureKind::Stack
            | FailureKind::HostCall => &self.trap,
        }
    }
}

impl Answer {
    /// Creates a response with the standard phrase of the code.
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
            signers_bind_stored: true,
            before: None,
            after: None,
            in_dialog: InDialog::Follow,
            in_dialog_lifetime: Duration::from_secs(24 * 60 * 60),
            cache: CacheConfig {
                folder: None,
                bytes: 2 * GIB,
            },
        }
    }
}

impl Default for SeatConfig {
    fn default() -> Self {
        Self {
            file: None,
            mode: Mode::Enforce,
            settings: Json::Object(serde_json::Map::new()),
            reuse: Reuse::Never,
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
            fleet_counters: Vec::new(),
            generations: 20,
            pushes: None,
            signers: Signers::default(),
            limits: Limits::default(),
        }
    }
}

/// Reads `[policy]`.
pub(super) fn read(mut section: Section<'_>, default: PolicyConfig) -> PolicyConfig {
    let mut seat = seat(&mut section, default.seat, Most(None));
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
    let answer = default_verdict(&mut section, &default.default);
    let operators = |section: Option<Section<'_>>| {
        section.map(|mut section| {
            let inherited = SeatConfig {
                failure: seat.failure.clone(),
                ..SeatConfig::default()
            };
            let seat = limited_seat(&mut section, inherited, &seat);
            section.finish();
            seat
        })
    };
    let signers_bind_stored =
        section.value("signers-bind-stored", default.signers_bind_stored, |v| {
            v.boolean()
        });
    let before = operators(section.present("before"));
    let after = operators(section.present("after"));
    let in_dialog = section.value("in-dialog", "follow".to_owned(), |v| {
        one_of(v, &["follow", "ask"])
    });
    let in_dialog_lifetime = section.value("in-dialog-lifetime", default.in_dialog_lifetime, |v| {
        duration(
            v,
            Duration::from_secs(60),
            Duration::from_secs(30 * 24 * 60 * 60),
        )
    });
    let cache = CacheConfig {
        folder: section
            .optional("cache", |value| Ok(PathBuf::from(value.text()?)))
            .filter(|folder| !folder.as_os_str().is_empty()),
        bytes: section.value("cache-size", default.cache.bytes, |v| {
            bytes(v, MIB, 1024 * GIB)
        }),
    };
    section.finish();
    PolicyConfig {
        seat,
        default: answer,
        signers_bind_stored,
        before,
        after,
        in_dialog: match in_dialog.as_str() {
            "ask" => InDialog::Ask,
            _ => InDialog::Follow,
        },
        in_dialog_lifetime,
        cache,
    }
}

/// Default of `pushes-per-minute`.
const PUSHES: u32 = 60;

/// Reads a seat whose limits are bounded by those of `operator`, the seat of `[policy]`, which are also their defaults.
pub(super) fn limited_seat(
    section: &mut Section<'_>,
    default: SeatConfig,
    operator: &SeatConfig,
) -> SeatConfig {
    let default = SeatConfig {
        counters: operator.counters,
        fleet_counters: operator.fleet_counters.clone(),
        generations: operator.generations,
        limits: operator.limits.clone(),
        ..default
    };
    let most = &operator.limits;
    let mut seat = seat(section, default, Most(Some(operator)));
    seat.pushes = match section.value("pushes-per-minute", PUSHES, |v| count(v, 0, 1_000_000)) {
        0 => None,
        most => Some(most),
    };
    let limits = &mut seat.limits;
    limits.memory_bytes = section.value("memory", most.memory_bytes, |v| {
        bytes(v, 64 * KIB, most.memory_bytes as u64).map_err(beyond)
    });
    limits.table_elements = section.value("table-elements", most.table_elements, |v| {
        count(v, 1, most.table_elements as u64).map_err(beyond)
    });
    limits.module_bytes = section.value("module", most.module_bytes, |v| {
        bytes(v, KIB, most.module_bytes as u64).map_err(beyond)
    });
    seat
}

/// Upper bounds of the limits of a policy: those of `[policy]`, or `None` for `[policy]` itself.
#[derive(Clone, Copy)]
struct Most<'o>(Option<&'o SeatConfig>);

impl Most<'_> {
    /// Reads a limit: up to that of the operator's seat, or up to `otherwise`.
    fn read<T, N>(
        self,
        of: impl Fn(&SeatConfig) -> N,
        otherwise: N,
        read: impl Fn(N) -> Result<T, Bad>,
    ) -> Result<T, Bad> {
        match self.0 {
            Some(operator) => read(of(operator)).map_err(beyond),
            None => read(otherwise),
        }
    }
}

/// Reads the limits that apply to a single call and do not depend on how the engine is configured.
fn call_limits(section: &mut Section<'_>, limits: &mut Limits, most: Most<'_>) {
    limits.deadline = section.value("deadline", limits.deadline, |v| {
        let longest = Duration::from_secs(10);
        most.read(
            |seat| seat.limits.deadline,
            longest,
            |most| duration(v, Duration::from_millis(1), most),
        )
    });
    limits.host_call_bytes = section.value("host-call", limits.host_call_bytes, |v| {
        let of = |seat: &SeatConfig| seat.limits.host_call_bytes as u64;
        most.read(of, 16 * MIB, |most| bytes(v, KIB, most))
    });
    limits.log_lines = section.value("log-lines", limits.log_lines, |v| {
        let of = |seat: &SeatConfig| seat.limits.log_lines.into();
        most.read(of, 1000, |most| count(v, 0, most))
    });
    limits.log_bytes = section.value("log-line", limits.log_bytes, |v| {
        let of = |seat: &SeatConfig| seat.limits.log_bytes as u64;
        most.read(of, 64 * KIB, |most| bytes(v, 16, most))
    });
}

/// Calls for which a sandbox may be kept without the permission of `[policy]`.
const FREE_REUSE: u32 = 1000;

/// For how many calls the memory of a policy is kept. `[policy]` must permit more than [`FREE_REUSE`].
fn reuse(value: Value<'_>, most: Most<'_>) -> Result<Reuse, Bad> {
    let wanted = match value.boolean() {
        Ok(reuse) => reuse.into(),
        Err(_) => Reuse::Calls(calls(value)?),
    };
    let free = Reuse::Calls(NonZeroU32::new(FREE_REUSE).unwrap_or(NonZeroU32::MIN));
    let allowed = most.0.is_none_or(|operator| wanted <= operator.reuse);
    match allowed || wanted <= free {
        true => Ok(wanted),
        false => {
            let needed = match wanted {
                Reuse::Calls(calls) => format!("\"{calls} calls\""),
                Reuse::Always | Reuse::Never => wanted.to_string(),
            };
            Err(Bad::new(
                "not allowed here",
                format!("write at most \"{free}\" (it needs `reuse = {needed}` in [policy])"),
            ))
        }
    }
}

/// Reads a number of calls: `1000 calls`.
fn calls(value: Value<'_>) -> Result<NonZeroU32, Bad> {
    const MEND: &str = "write true, false, or a number of calls: \"1000 calls\"";
    let shape = || Shape::Any(vec![Shape::Boolean, Shape::Calls]);
    let text = value
        .text()
        .map_err(|bad| Bad::new(bad.what, MEND).shaped(shape()))?;
    let digits = text
        .strip_suffix(" calls")
        .or_else(|| text.strip_suffix(" call"));
    let calls = digits.and_then(|digits| digits.parse().ok());
    calls.ok_or_else(|| Bad::new("not a number of calls", MEND))
}

/// Reads the keys that all seats have.
fn seat(section: &mut Section<'_>, default: SeatConfig, most: Most<'_>) -> SeatConfig {
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
        let key = portcullis_signature::public_key(value.text()?);
        key.ok_or_else(|| {
            Bad::new(
                "not an Ed25519 public key",
                "write its 32 bytes in Base64, as `portcullis policy keygen` prints them, or the text between the first and last line of \
                 `openssl pkey -pubout`",
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
                "a signature is required, but there are no signers",
                "add keys to the section `signers`",
            ),
        );
    }
    let mut limits = default.limits;
    call_limits(section, &mut limits, most);
    SeatConfig {
        file: file.filter(|file| !file.as_os_str().is_empty()),
        mode: if mode == "monitor" {
            Mode::Monitor
        } else {
            Mode::Enforce
        },
        settings: section.json("settings", default.settings),
        reuse: section.value("reuse", default.reuse, |v| reuse(v, most)),
        failure: failures(section.section("on-failure"), failure),
        breaker: breaker(section, default.breaker),
        counters: section.value("counters", default.counters, |v| {
            let of = |seat: &SeatConfig| seat.counters as u64;
            most.read(of, 10_000_000, |most| count(v, 1, most))
        }),
        fleet_counters: fleet_counters(section, default.fleet_counters),
        generations: section.value("generations", default.generations, |v| {
            let of = |seat: &SeatConfig| seat.generations.into();
            most.read(of, 1000, |most| count(v, 1, most))
        }),
        pushes: default.pushes,
        signers,
        limits,
    }
}

/// Most prefixes of one seat: each call compares its name with all of them.
const MOST_PREFIXES: usize = 16;

/// Why a seat that counts together cannot do so.
pub(super) fn lonely_counters(place: &str) -> Bad {
    let what =
        format!("`fleet-counters`{place} without a Redis through which hosts count together");
    Bad::new(
        what,
        "add `url` to [fleet.redis], or remove `fleet-counters`",
    )
}

fn fleet_counters(section: &mut Section<'_>, default: Vec<String>) -> Vec<String> {
    let prefixes = section.list("fleet-counters", default, |v| Ok(v.text()?.to_owned()));
    if prefixes.len() > MOST_PREFIXES {
        let what = format!("more than {MOST_PREFIXES} prefixes");
        let mend = "choose names of counters that begin alike";
        section.reject("fleet-counters", Bad::new(what, mend));
    }
    prefixes
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

/// `without_last_good` names the kind of failure after which no previous generation can be called.
fn on_failure(value: Value<'_>, without_last_good: Option<&str>) -> Result<OnFailure, Bad> {
    const MEND: &str =
        "write \"reject\", \"reject CODE\", \"reject CODE REASON\", \"default\" or \"last-good\"";
    let text = value.text()?;
    if text == "last-good"
        && let Some(kind) = without_last_good
    {
        let what = format!("\"last-good\" is not possible for `{kind}`");
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

/// Reads the three keys of the default verdict.
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
        mend: format!("{} (the limit of [policy] is the maximum)", bad.mend),
        shape: bad.shape.map(Shape::unlimited),
        ..bad
    }
}
