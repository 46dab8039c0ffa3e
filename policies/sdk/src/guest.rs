//! The real host, seen from inside the sandbox. Public for `policy!` only.

use std::panic::{self, PanicHookInfo};

use crate::level::Level;
use crate::version::VERSION;

pub(crate) use portcullis::policy::clock::{local, now};
pub(crate) use portcullis::policy::counters::{add, rate_limit, value};
pub(crate) use portcullis::policy::edits::{add_header, remove_header};
pub(crate) use portcullis::policy::log::log;
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
        "portcullis:policy/types@0.1.0": crate::verdict,
        "portcullis:policy/log@0.1.0/level": crate::level::Level,
        "portcullis:policy/clock@0.1.0/local-time": crate::local_time::LocalTime,
    },
});

/// The world of a policy that validates its settings. Its imports are the same.
pub mod configured {
    wit_bindgen::generate!({
        path: "../../policy-wit",
        world: "configured-policy",
        pub_export_macro: true,
        default_bindings_module: "portcullis_sdk::guest::configured",
        with: {
            "portcullis:policy/types@0.1.0": crate::verdict,
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
        },
    });
}

/// The content of the custom section `portcullis-sdk`.
pub const SECTION: [u8; VERSION.len()] = match VERSION.as_bytes().first_chunk() {
    Some(bytes) => *bytes,
    None => unreachable!(),
};

/// Calls the policy. The host sees a panic as a trap without a reason, so the panic message is logged first.
pub fn run<T>(policy: fn() -> T) -> T {
    panic::set_hook(Box::new(log_panic));
    policy()
}

/// Logs a panic. `format!` and `concat` would add a third to the machine code of a small policy: the formatting of numbers, padding, and the
/// messages of their own panics.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or_default();
    let line = match panic.location() {
        Some(place) => joined(&[
            "the policy panicked at ",
            place.file(),
            ":",
            &decimal(place.line()),
            ":",
            &decimal(place.column()),
            ": ",
            message,
        ]),
        None => joined(&["the policy panicked: ", message]),
    };
    log(Level::Error, &line);
}

fn joined(parts: &[&str]) -> String {
    let mut text = String::new();
    for part in parts {
        text.push_str(part);
    }
    text
}

/// The number in decimal digits.
fn decimal(number: u32) -> String {
    let mut digits = match number / 10 {
        0 => String::new(),
        tens => decimal(tens),
    };
    digits.push(char::from(b'0' + (number % 10) as u8));
    digits
}
