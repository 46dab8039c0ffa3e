//! Failures of policy calls.

use std::time::Duration;

use thiserror::Error;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::names;
use crate::text;
use crate::verdict::InvalidVerdict;

/// Why a call returned no verdict. Only the call is affected: the next call starts in a new sandbox.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The policy trapped: a panic, an access out of bounds, a division by zero.
    #[error("the policy trapped: {cause}{}", place(.function))]
    Trap {
        /// The kind of trap.
        cause: String,
        /// The function that trapped, if the file has a name section.
        function: Option<String>,
    },
    /// The call exceeded its deadline.
    #[error("the policy took longer than {} ms (key `deadline`){}", .deadline.as_millis(), place(.function))]
    Timeout {
        /// The deadline.
        deadline: Duration,
        /// The function that was running, if the file has a name section.
        function: Option<String>,
    },
    /// The policy exceeded its limit of memory or table elements.
    #[error("the policy asked for {0}")]
    Memory(Refused),
    /// The stack is exhausted, usually by unbounded recursion.
    #[error("the policy used up its stack (key `stack`){}", place(.function))]
    Stack {
        /// The function that was called last, if the file has a name section.
        function: Option<String>,
    },
    /// The policy passed too many bytes to a host function.
    #[error("the policy passed more than {limit} bytes to the host at once (key `host-call`)")]
    HostCall {
        /// The limit in bytes.
        limit: usize,
    },
    /// The verdict violates the rules of the contract.
    #[error("invalid verdict: {0}")]
    InvalidVerdict(#[from] InvalidVerdict),
    /// All sandboxes are in use.
    #[error("no sandbox is free: {0}")]
    Exhausted(String),
    /// The operating system refused resources for a sandbox.
    #[error("no sandbox could be made: {0}")]
    Sandbox(String),
}

/// The kinds of [`Failure`], for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// [`Failure::Trap`]
    Trap,
    /// [`Failure::Timeout`]
    Timeout,
    /// [`Failure::Memory`]
    Memory,
    /// [`Failure::Stack`]
    Stack,
    /// [`Failure::HostCall`]
    HostCall,
    /// [`Failure::InvalidVerdict`]
    InvalidVerdict,
    /// [`Failure::Exhausted`]
    Exhausted,
    /// [`Failure::Sandbox`]
    Sandbox,
}

/// A growth of memory or table that exceeds a limit.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// Linear memory.
    #[error("{wanted} bytes of memory, more than {limit} (key `memory`)")]
    Memory {
        /// The size after the growth.
        wanted: usize,
        /// The maximum size.
        limit: usize,
    },
    /// A table.
    #[error("{wanted} table elements, more than {limit} (key `table-elements`)")]
    Table {
        /// The size after the growth.
        wanted: usize,
        /// The maximum size.
        limit: usize,
    },
}

/// An invalid call of a host function. It ends the call of the policy like a trap.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum HostError {
    #[error("a text passed to the host is not UTF-8")]
    NotUtf8,
    #[error("string pointer/length out of bounds of memory")]
    StrayText,
    #[error("list pointer/length out of bounds of memory")]
    StrayList,
    #[error("too much data for one call")]
    TooMuch,
    #[error("unexpected discriminant: {0}")]
    Level(u32),
    #[error("pointer not aligned")]
    OddPointer,
    #[error("pointer out of bounds")]
    StrayPointer,
    #[error("realloc return: result not aligned")]
    OddMemory,
    #[error("realloc return: beyond end of memory")]
    StrayMemory,
    #[error("the module does not export cabi_realloc")]
    NoMemory,
}

/// The limits that the text of a failure names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReportedLimits {
    pub(crate) deadline: Duration,
    pub(crate) host_call_bytes: usize,
}

/// The stage of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Instantiation, including the start function.
    Instantiate,
    /// The call of the export, including the reading of its result.
    Decide,
}

impl Failure {
    /// The kind of the failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Trap { .. } => FailureKind::Trap,
            Self::Timeout { .. } => FailureKind::Timeout,
            Self::Memory(_) => FailureKind::Memory,
            Self::Stack { .. } => FailureKind::Stack,
            Self::HostCall { .. } => FailureKind::HostCall,
            Self::InvalidVerdict(_) => FailureKind::InvalidVerdict,
            Self::Exhausted(_) => FailureKind::Exhausted,
            Self::Sandbox(_) => FailureKind::Sandbox,
        }
    }

    /// Converts an error of the runtime.
    #[cold]
    pub(crate) fn read(error: &wasmtime::Error, stage: Stage, reported: ReportedLimits) -> Self {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Self::Memory(*refused);
        }
        if let Some(invalid) = error.downcast_ref::<InvalidVerdict>() {
            return invalid.clone().into();
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return Self::from_trap(*trap, innermost(error), reported);
        }
        match error.downcast_ref::<HostError>() {
            Some(HostError::TooMuch) => {
                return Self::HostCall {
                    limit: reported.host_call_bytes,
                };
            }
            Some(host) => {
                return Self::Trap {
                    cause: host.to_string(),
                    function: innermost(error),
                };
            }
            None => {}
        }
        if let Some(exhausted) = error.downcast_ref::<PoolConcurrencyLimitError>() {
            return Self::Exhausted(exhausted.to_string());
        }
        if error.is::<std::str::Utf8Error>() {
            return InvalidVerdict::NotUtf8.into();
        }
        let cause = error.root_cause().to_string();
        // wasmtime's type for this error is private.
        if cause.contains("fuel allocated for hostcalls has been exhausted") {
            return Self::HostCall {
                limit: reported.host_call_bytes,
            };
        }
        if stage == Stage::Instantiate {
            return Self::Sandbox(cause);
        }
        // With a backtrace, the error comes from an argument or result of a host function; without one, from the verdict.
        match error.is::<WasmBacktrace>() {
            true => Self::Trap {
                cause,
                function: innermost(error),
            },
            false => InvalidVerdict::Unreadable(cause).into(),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other traps are handled alike, and wasmtime adds more"
    )]
    fn from_trap(trap: Trap, function: Option<String>, reported: ReportedLimits) -> Self {
        match trap {
            Trap::Interrupt => Self::Timeout {
                deadline: reported.deadline,
                function,
            },
            Trap::StackOverflow => Self::Stack { function },
            trap => Self::Trap {
                cause: describe(trap),
                function,
            },
        }
    }
}

impl FailureKind {
    /// All kinds, in the order of [`FailureKind::index`].
    pub const ALL: [Self; 8] = [
        Self::Trap,
        Self::Timeout,
        Self::Memory,
        Self::Stack,
        Self::HostCall,
        Self::InvalidVerdict,
        Self::Exhausted,
        Self::Sandbox,
    ];

    /// The index of this kind in [`FailureKind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name of this kind in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::HostCall => "host_call",
            Self::InvalidVerdict => "invalid_verdict",
            Self::Exhausted => "exhausted",
            Self::Sandbox => "sandbox",
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other traps are described by their own text, and wasmtime adds more"
)]
fn describe(trap: Trap) -> String {
    let cause = trap.to_string();
    let cause = cause.strip_prefix("wasm trap: ").unwrap_or(&cause);
    match trap {
        Trap::UnreachableCodeReached => format!("{cause} (a panic, as a rule)"),
        _ => cause.to_owned(),
    }
}

/// The function that failed: the innermost frame that is not part of the language's panic handling.
fn innermost(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
    let names = || {
        let named = frames.iter().filter_map(|frame| frame.func_name());
        named.map(names::readable)
    };
    let own = names().find(|name| !names::is_panic_handling(name));
    let name = own.or_else(|| names().next())?;
    Some(text::shown(&name, 128).into_owned())
}

fn place(function: &Option<String>) -> String {
    function
        .as_ref()
        .map_or_else(String::new, |function| format!(" in {function}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_their_indices() {
        for (index, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }

    #[test]
    fn messages_name_the_configuration_key() {
        let refused = Refused::Memory {
            wanted: 17 << 20,
            limit: 16 << 20,
        };

        assert_eq!(
            Failure::Memory(refused).to_string(),
            "the policy asked for 17825792 bytes of memory, more than 16777216 (key `memory`)"
        );
    }
}
