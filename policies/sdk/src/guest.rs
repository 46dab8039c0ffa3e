//! The real host, seen from inside the sandbox. Public for `policy!` only.

use std::mem::ManuallyDrop;
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

use portcullis::policy::{dispatcher, flows, forwarding, guard, outcome, peer};

use crate::algorithm::Algorithm;
use crate::attempt::{Attempt, Cause};
use crate::flow::Flow;
use crate::level::Level;
use crate::name_kind::NameKind;
use crate::standing::{Offence, Standing};
use crate::target::{Place, Refusal, Target};
use crate::version::VERSION;

pub(crate) use portcullis::policy::clock::{local, now};
pub(crate) use portcullis::policy::counters::{add, rate_limit, value};
pub(crate) use portcullis::policy::edits::{add_header, remove_header};
pub(crate) use portcullis::policy::flows::{came_along, is_client, keep};
pub(crate) use portcullis::policy::forwarding::share;
pub(crate) use portcullis::policy::log::log;
pub(crate) use portcullis::policy::outcome::{
    contacts, header as response_header, memo, tries_left,
};
pub(crate) use portcullis::policy::peer::{
    cipher_suite, common_name, domains, fingerprint, has_certificate, is_secure, is_verified,
    issuer, listener, serial_number, server_name, speaks_for, subject, tls_version, valid_from,
    valid_until,
};
pub(crate) use portcullis::policy::permissions::{
    address_group, allow_address, allow_source_address, last_tag, source_address_group,
};
pub(crate) use portcullis::policy::request::{
    body_length, call_id, cseq_number, from_uri, header, headers, local_address, local_port,
    method, source_address, source_port, to_uri, transport, uri,
};

pub(crate) use portcullis::policy::rules::{
    allow_register, allow_register_include_port, allow_routing, allow_uri,
};
pub(crate) use portcullis::policy::settings::{boolean, integer, json, keys, number, text, texts};
pub(crate) use portcullis::policy::trusted::{
    allow_trusted, allow_trusted_address, count_trusted, count_trusted_address, tags,
};

wit_bindgen::generate!({
    path: "../../policy-wit",
    world: "routing-policy",
    pub_export_macro: true,
    default_bindings_module: "portcullis_sdk::guest",
    with: {
        "portcullis:policy/types@0.1.0": crate::wire,
        "portcullis:policy/log@0.1.0/level": crate::level::Level,
        "portcullis:policy/clock@0.1.0/local-time": crate::local_time::LocalTime,
    },
});

/// Bindings of another world. Its imports are the same.
macro_rules! world {
    ($(#[$doc:meta])* $module:ident, $world:literal) => {
        $(#[$doc])*
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../policy-wit",
                world: $world,
                pub_export_macro: true,
                default_bindings_module: "portcullis_sdk::guest",
                with: {
                    "portcullis:policy/types@0.1.0": crate::wire,
                    "portcullis:policy/permissions@0.1.0": super::portcullis::policy::permissions,
                    "portcullis:policy/request@0.1.0": super::portcullis::policy::request,
                    "portcullis:policy/log@0.1.0": super::portcullis::policy::log,
                    "portcullis:policy/trusted@0.1.0": super::portcullis::policy::trusted,
                    "portcullis:policy/rules@0.1.0": super::portcullis::policy::rules,
                    "portcullis:policy/counters@0.1.0": super::portcullis::policy::counters,
                    "portcullis:policy/settings@0.1.0": super::portcullis::policy::settings,
                    "portcullis:policy/clock@0.1.0": super::portcullis::policy::clock,
                    "portcullis:policy/edits@0.1.0": super::portcullis::policy::edits,
                    "portcullis:policy/forwarding@0.1.0": super::portcullis::policy::forwarding,
                    "portcullis:policy/outcome@0.1.0": super::portcullis::policy::outcome,
                    "portcullis:policy/dispatcher@0.1.0": super::portcullis::policy::dispatcher,
                    "portcullis:policy/peer@0.1.0": super::portcullis::policy::peer,
                    "portcullis:policy/guard@0.1.0": super::portcullis::policy::guard,
                    "portcullis:policy/flows@0.1.0": super::portcullis::policy::flows,
                },
            });
        }
    };
}

world!(
    /// The world of a policy that validates its settings.
    configured,
    "configured-policy"
);
world!(
    /// The world of a policy that is asked after failures.
    failover,
    "failover-policy"
);
world!(
    /// The world of a policy that does both.
    configured_failover,
    "configured-failover-policy"
);

/// The content of the custom section `portcullis-sdk`.
pub const SECTION: [u8; VERSION.len()] = match VERSION.as_bytes().first_chunk() {
    Some(bytes) => *bytes,
    None => unreachable!(),
};

pub(crate) fn add_target(target: &Target) -> Result<(), Refusal> {
    let milliseconds = |time: Option<Duration>| {
        let time = time?.as_millis();
        Some(u32::try_from(time).unwrap_or(u32::MAX))
    };
    let added = forwarding::add(&forwarding::Target {
        place: match &target.place {
            Place::NextHop(name) => forwarding::Place::NextHop(name.clone()),
            Place::Uri(uri) => forwarding::Place::Uri(uri.clone()),
        },
        rank: target.rank,
        weight: target.weight.unwrap_or(1),
        request_uri: target.request_uri.clone(),
        headers: target.headers.clone(),
        no_answer: milliseconds(target.no_answer),
        ring: milliseconds(target.ring),
    });
    added.map_err(refusal)
}

pub(crate) fn add_set(set: u32, algorithm: &Algorithm, limit: u8, rank: u8) -> Result<u8, Refusal> {
    let algorithm = match algorithm {
        Algorithm::CallId => dispatcher::Algorithm::CallId,
        Algorithm::FromUri => dispatcher::Algorithm::FromUri,
        Algorithm::ToUri => dispatcher::Algorithm::ToUri,
        Algorithm::RequestUri => dispatcher::Algorithm::RequestUri,
        Algorithm::RoundRobin => dispatcher::Algorithm::RoundRobin,
        Algorithm::AuthUser => dispatcher::Algorithm::AuthUser,
        Algorithm::Random => dispatcher::Algorithm::Random,
        Algorithm::Key(key) => dispatcher::Algorithm::Key(key.clone()),
        Algorithm::Priority => dispatcher::Algorithm::Priority,
        Algorithm::Weight => dispatcher::Algorithm::Weight,
        Algorithm::CallLoad => dispatcher::Algorithm::CallLoad,
        Algorithm::RelativeWeight => dispatcher::Algorithm::RelativeWeight,
        Algorithm::Parallel => dispatcher::Algorithm::Parallel,
        Algorithm::Latency => dispatcher::Algorithm::Latency,
        Algorithm::Srv => dispatcher::Algorithm::Srv,
    };
    dispatcher::add_set(set, &algorithm, limit, rank).map_err(refusal)
}

pub(crate) fn peer_names(kind: NameKind) -> Vec<String> {
    peer::names(match kind {
        NameKind::Uri => peer::NameKind::Uri,
        NameKind::Dns => peer::NameKind::Dns,
        NameKind::Address => peer::NameKind::Address,
        NameKind::Email => peer::NameKind::Email,
    })
}

pub(crate) fn source_standing() -> Standing {
    match guard::source_standing() {
        guard::Standing::Exempt => Standing::Exempt,
        guard::Standing::Observed => Standing::Observed,
        guard::Standing::Held => Standing::Held,
        guard::Standing::Banned => Standing::Banned,
    }
}

pub(crate) fn route() -> Flow {
    match flows::route() {
        flows::Flow::None => Flow::None,
        flows::Flow::Alive => Flow::Alive,
        flows::Flow::Gone => Flow::Gone,
        flows::Flow::Invalid => Flow::Invalid,
    }
}

pub(crate) fn report(offence: Offence) -> bool {
    guard::report(match offence {
        Offence::Guess => guard::Offence::Guess,
        Offence::Scan => guard::Offence::Scan,
    })
}

pub(crate) fn retry_on(codes: &[u16]) -> Result<(), Refusal> {
    forwarding::retry_on(codes).map_err(refusal)
}

pub(crate) fn set_memo(bytes: &[u8]) -> Result<(), Refusal> {
    forwarding::memo(bytes).map_err(refusal)
}

pub(crate) fn attempts() -> Vec<Attempt> {
    outcome::attempts().into_iter().map(attempt).collect()
}

pub(crate) fn best() -> Option<Attempt> {
    outcome::best().map(attempt)
}

fn attempt(attempt: outcome::Attempt) -> Attempt {
    Attempt {
        place: attempt.place,
        status: attempt.status,
        cause: match attempt.cause {
            outcome::Cause::Answered => Cause::Answered,
            outcome::Cause::NoAnswer => Cause::NoAnswer,
            outcome::Cause::RangOut => Cause::RangOut,
            outcome::Cause::Cancelled => Cause::Cancelled,
            outcome::Cause::Unreachable => Cause::Unreachable,
            outcome::Cause::Unresolved => Cause::Unresolved,
            outcome::Cause::Refused => Cause::Refused,
        },
        milliseconds: attempt.milliseconds,
    }
}

fn refusal(refusal: forwarding::Refusal) -> Refusal {
    match refusal {
        forwarding::Refusal::Unknown => Refusal::Unknown,
        forwarding::Refusal::NotPermitted => Refusal::NotPermitted,
        forwarding::Refusal::TooMany => Refusal::TooMany,
        forwarding::Refusal::BadValue => Refusal::BadValue,
    }
}

/// Calls the policy. The host sees a panic as a trap without a reason, so the panic message is logged first.
pub fn run<T>(policy: fn() -> T) -> T {
    panic::set_hook(Box::new(log_panic));
    policy()
}

/// Logs a panic. `format!` and `concat` would add a third to the machine code of a small policy: the formatting of numbers, padding, and the
/// messages of their own panics. Each part is appended by the same function, which is not inlined, for the same reason.
fn log_panic(panic: &PanicHookInfo<'_>) {
    // The call ends with the panic, so nothing frees the text.
    let mut line = ManuallyDrop::new(String::new());
    append(&mut line, "the policy panicked");
    if let Some(place) = panic.location() {
        append(&mut line, " at ");
        append(&mut line, place.file());
        for number in [place.line(), place.column()] {
            append(&mut line, ":");
            append_decimal(&mut line, number);
        }
    }
    append(&mut line, ": ");
    append(&mut line, panic.payload_as_str().unwrap_or_default());
    log(Level::Error, &line);
}

#[inline(never)]
fn append(line: &mut String, part: &str) {
    line.push_str(part);
}

/// Appends the number in decimal digits.
fn append_decimal(line: &mut String, number: u32) {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    if number >= 10 {
        append_decimal(line, number / 10);
    }
    append(line, DIGITS[(number % 10) as usize]);
}
