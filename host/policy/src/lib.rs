//! Hosts routing policies: loads WebAssembly files that implement the contract of `policy-wit`, and calls them to decide on requests.
//!
//! - [`Runtime`] owns the WebAssembly engine of the process. It compiles the bytes of a file to a [`Policy`], or returns what is wrong with
//!   the file.
//! - [`PolicySlot`] holds the active policy and replaces it for all workers at once.
//! - [`Evaluator`] calls a policy for a request and returns a [`Verdict`] or a [`Failure`], and after the failure of all targets a
//!   [`NextStep`]. Each worker has one. Every call starts from the
//!   initial state of the policy: in a new sandbox from the pool, or in the previous sandbox with memory and globals restored.
//! - [`inspect`] reports what a file contains.
//!
//! A policy has no files and no network. Its memory, time, stack and log lines are limited ([`Limits`]), and every verdict is validated.
//!
//! The modules in their order, each of which uses only those before it:
//!
//! | modules | content |
//! |---|---|
//! | `limits`, `contract`, `verdict`, `next_step`, `forwarding`, `failed_attempts`, `failure`, `scope`, `standing`, `flow_state`, `wishes`, `host_state`, `tape`, `log_line`, `counters` with `fleet` | the terms of a call |
//! | `ticker`, `engine` | the wasmtime engine and the clock that ends calls |
//! | `problem`, `inspect`, `check` | what can be said about a file without compiling it |
//! | `call_count`, `bulk_memory`, `reset` | rewriting of modules before they are compiled, and the reset of their instances |
//! | `profile` | fuel by function |
//! | `guest`, `call` | the data of a store and the host functions: one file for each interface of the contract |
//! | `module`, `component`, `sandbox` | instances of both forms of a policy |
//! | `trial_run`, `reuse`, `policy` with `warm`, `compile`, `shared_code`, `code_cache`, `runtime` | loading |
//! | `idle_sandboxes`, `evaluator`, `slot` | serving |

#![deny(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub use call::hash_of_request;
pub use call_count::{CALL_COUNT, with_call_count};
pub use clock::Moment;
pub use code_cache::CodeCache;
pub use compile::{CompileFailure, Compiler, compile};
pub use contract::{Exports, WIT, WORLD, embed, embed_with};
pub use counters::Counters;
pub use decision::DecisionId;
pub use digest::Digest;
pub use edits::{Edit, Edits};
pub use engine::Target;
pub use evaluator::{Evaluator, KEPT};
pub use failed_attempts::{Attempt, Cause, FailedAttempts, MAX_CONTACTS, TriedTarget};
pub use failure::{Failure, FailureKind, Refused};
pub use fleet::{FleetCounters, FleetItem, FleetTables};
pub use flow_state::FlowState;
pub use forwarding::{
    ForwardTarget, Forwarding, MAX_CODES, MAX_MEMO, MAX_REQUEST_URI, MAX_TARGET_BYTES, MAX_TARGETS,
    Place, Refusal,
};
pub use host_state::{HostState, StatedHost};
pub use inspect::{Export, Import, Inspection, Kind, Producer, inspect};
pub use limits::Limits;
pub use log_line::LogLine;
pub use module::no_reset;
pub use next_step::NextStep;
pub use policy::{CodeOrigin, Policy};
pub use problem::{LoadError, LoadProblem, SettingsError};
pub use profile::{MarkError, Profile, ProfiledFunction, with_marks};
pub use reset::NoReset;
pub use reuse::Reuse;
pub use runtime::{Allocation, CodeCounts, PoolUse, Runtime, RuntimeError};
pub use scope::Scope;
pub use settings::Settings;
pub use slot::{
    Candidate, Durations, Failed, Generation, Lineup, Mode, NoGeneration, PolicySlot, Reload,
    Share, ShareKey, SlotReader, Stats, Trial, VerdictKind,
};
pub use standing::{Offence, Standing};
pub use tape::{Asked, Tape};
pub use verdict::{
    InvalidVerdict, MAX_HEADER_VALUE, MAX_HEADERS, MAX_NAME, MAX_REASON, Rejection, Verdict,
    may_be_edited,
};
pub use warm::WARM_POLICIES;
pub use wishes::Wishes;

mod added_functions;
mod bulk_memory;
mod call;
mod call_count;
mod check;
mod clock;
mod code_cache;
mod compile;
mod component;
mod contract;
mod counters;
mod decision;
mod digest;
mod edits;
mod engine;
mod evaluator;
mod failed_attempts;
mod failure;
mod fleet;
mod flow_state;
mod forwarding;
mod guest;
mod host_state;
mod idle_sandboxes;
mod inspect;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
#[cfg(test)]
mod lab;
mod limits;
mod log_line;
mod module;
mod names;
mod next_step;
mod panic;
mod policy;
mod problem;
mod profile;
mod reset;
mod reuse;
mod runtime;
mod sandbox;
pub mod scheduling;
mod scope;
mod settings;
mod shared_code;
mod slot;
mod standing;
mod tape;
mod text;
mod ticker;
mod trial_run;
mod verdict;
mod warm;
mod wishes;
