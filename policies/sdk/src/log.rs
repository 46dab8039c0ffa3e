//! Lines in the host's log (Kamailio: `xlog`): `log::error!`, `log::warn!`, `log::info!` and `log::debug!` take the arguments of
//! [`format!`].
//!
//! ```
//! use portcullis_sdk::prelude::*;
//!
//! # fn decide() -> Verdict {
//! log::info!("{} from {}", request::method(), request::source_address());
//! # relay()
//! # }
//! # use portcullis_sdk::testing::{Host, Request};
//! # let outcome = Host::new().request(Request::invite("sip:bob@example.com").from_source("192.0.2.1:5060")).decide(decide);
//! # assert_eq!(outcome.messages(), ["INVITE from 192.0.2.1"]);
//! ```
//!
//! The host adds the policy's name and the Call-ID to each line, truncates long lines, and limits their number per call.

use std::fmt;

use crate::host;

pub use crate::level::Level;
pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_warn as warn,
};

/// Writes one line. The macros of this module are more convenient.
///
/// Inlined, so that a policy whose lines are all literals has no code that formats.
#[inline(always)]
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    match message.as_str() {
        Some(literal) => host::log(level, literal),
        None => host::log(level, &formatted(message)),
    }
}

/// The formatted text. `to_string` would do, but it contains a panic with an error in its message, and code for that in every policy.
fn formatted(message: fmt::Arguments<'_>) -> String {
    let mut text = String::new();
    match fmt::write(&mut text, message) {
        Ok(()) => text,
        Err(fmt::Error) => panic!("a `Display` implementation failed"),
    }
}

/// Writes a line at level error, with the arguments of [`format!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Error, ::core::format_args!($($argument)+)) };
}

/// Writes a line at level warn, with the arguments of [`format!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Warn, ::core::format_args!($($argument)+)) };
}

/// Writes a line at level info, with the arguments of [`format!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Info, ::core::format_args!($($argument)+)) };
}

/// Writes a line at level debug, with the arguments of [`format!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($argument:tt)+) => { $crate::log::log($crate::log::Level::Debug, ::core::format_args!($($argument)+)) };
}
