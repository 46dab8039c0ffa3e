//! How a policy call fails.

use std::time::Duration;

use thiserror::Error;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::text;
use crate::verdict::InvalidVerdict;

/// A call that brought no verdict. The policy's problem, never the process's: the next call starts in a new sandbox.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The code trapped: a panic, an access out of bounds, a division by zero.
    #[error("the policy trapped: {cause}{}", place(.function))]
    Trap {
        /// What happened.
        cause: String,
        /// The function that it happened in, if the file has names.
        function: Option<String>,
    },
    /// The call took longer than it may.
    #[error("the policy took longer than {} ms (key `deadline`){}", .deadline.as_millis(), place(.function))]
    Timeout {
        /// The time that it had.
        deadline: Duration,
        /// The function that was running, if the file has names.
        function: Option<String>,
    },
    /// The policy asked for more memory or table elements than it may have.
    #[error("the policy asked for {0}")]
    Memory(Refused),
    /// The stack is used up: endless recursion, as a rule.
    #[error("the policy used up its stack (key `stack`){}", place(.function))]
    Stack {
        /// The function that called one time too many, if the file has names.
        function: Option<String>,
    },
    /// The policy passed more bytes to the host in one call than it may.
    #[error("the policy passed more than {limit} bytes to the host at once (key `host-call`)")]
    HostCall {
        /// The bytes that it may pass.
        limit: usize,
    },
    /// The verdict breaks the rules of the contract.
    #[error("invalid verdict: {0}")]
    InvalidVerdict(#[from] InvalidVerdict),
    /// All sandboxes are in use.
    #[error("no sandbox is free: {0}")]
    Exhausted(String),
    /// The system refused what a sandbox needs.
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

/// A growth that the limits refuse.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// Linear memory.
    #[error("{wanted} bytes of memory, more than {limit} (key `memory`)")]
    Memory {
        /// The size that it would have grown to.
        wanted: usize,
        /// The size that it may have.
        limit: usize,
    },
    /// A table.
    #[error("{wanted} table elements, more than {limit} (key `table-elements`)")]
    Table {
        /// The size that it would have grown to.
        wanted: usize,
        /// The size that it may have.
        limit: usize,
    },
}

/// What a host function has against a call. It ends the policy like a trap.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum HostError {
    #[error("a text passed to the host is not UTF-8")]
    NotUtf8,
    #[error("string pointer/length out of bounds of memory")]
    StrayText,
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

/// What is needed to name a failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) deadline: Duration,
    pub(crate) host_call_bytes: usize,
}

/// How far a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The sandbox was being made; a start function may have run.
    Instantiate,
    /// `decide` ran, or its result was being read.
    Decide,
}

impl Failure {
    /// The kind, for counters.
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

    /// Reads what the runtime reports.
    #[cold]
    pub(crate) fn read(error: &wasmtime::Error, stage: Stage, terms: Terms) -> Self {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Self::Memory(*refused);
        }
        if let Some(invalid) = error.downcast_ref::<InvalidVerdict>() {
            return invalid.clone().into();
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return Self::from_trap(*trap, innermost(error), terms);
        }
        match error.downcast_ref::<HostError>() {
            Some(HostError::TooMuch) => {
                return Self::HostCall {
                    limit: terms.host_call_bytes,
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
        // The runtime has a type of its own for this, but keeps it private.
        if cause.contains("fuel allocated for hostcalls has been exhausted") {
            return Self::HostCall {
                limit: terms.host_call_bytes,
            };
        }
        if stage == Stage::Instantiate {
            return Self::Sandbox(cause);
        }
        // Under the policy's code it was an argument or a result of a host function, otherwise the verdict.
        match error.is::<WasmBacktrace>() {
            true => Self::Trap {
                cause,
                function: innermost(error),
            },
            false => InvalidVerdict::Unreadable(cause).into(),
        }
    }

    fn from_trap(trap: Trap, function: Option<String>, terms: Terms) -> Self {
        match trap {
            Trap::Interrupt => Self::Timeout {
                deadline: terms.deadline,
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
    /// Every kind, in the order of [`FailureKind::index`].
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

    /// The place of this kind in [`FailureKind::ALL`].
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

fn describe(trap: Trap) -> String {
    let cause = trap.to_string();
    let cause = cause.strip_prefix("wasm trap: ").unwrap_or(&cause);
    match trap {
        Trap::UnreachableCodeReached => format!("{cause} (a panic, as a rule)"),
        _ => cause.to_owned(),
    }
}

/// The function of the policy that failed: the innermost one that is not part of the panic machinery.
fn innermost(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
    let names = || {
        let named = frames.iter().filter_map(|frame| frame.func_name());
        named.map(|name| format!("{:#}", rustc_demangle::demangle(name)))
    };
    let own = names().find(|name| !is_machinery(name));
    let name = own.or_else(|| names().next())?;
    Some(text::shown(&name, 128).into_owned())
}

fn is_machinery(function: &str) -> bool {
    const PREFIXES: [&str; 5] = ["core::", "std::", "alloc::", "__rust", "rust_"];
    let function = function.trim_start_matches('<');
    PREFIXES.iter().any(|prefix| function.starts_with(prefix))
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
    fn kinds_know_their_place() {
        for (index, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }

    #[test]
    fn messages_name_the_key_to_turn() {
        let refused = Refused::Memory {
            wanted: 17 << 20,
            limit: 16 << 20,
        };

        assert_eq!(
            Failure::Memory(refused).to_string(),
            "the policy asked for 17825792 bytes of memory, more than 16777216 (key `memory`)"
        );
    }

    #[test]
    fn machinery_is_not_blamed() {
        assert!(is_machinery("core::panicking::panic_fmt"));
        assert!(is_machinery(
            "<alloc::string::String as core::fmt::Write>::write_str"
        ));
        assert!(!is_machinery("address_acl::decide"));
    }
}
