//! Hosts routing policies: loads WebAssembly files that keep the contract of `policy-wit`, and asks them about requests.
//!
//! - [`Runtime`] is the engine of the process. It turns the bytes of a file into a [`Policy`], or says what is wrong with it.
//! - [`PolicySlot`] holds the policy that serves, and swaps it for all workers at once.
//! - [`Evaluator`] asks a policy about a request and gives a [`Verdict`] or a [`Failure`]. Each worker has one. Every call finds
//!   the policy in its first state: in a new sandbox from a pool, or in the last one with memory and globals put back.
//! - [`inspect`] tells what a file contains.
//!
//! Nothing that a policy does reaches beyond its call: it has no files and no network, its memory, time, stack and log
//! are limited ([`Limits`]), and whatever it answers is checked.

#![deny(unsafe_code)]

pub use clock::Moment;
pub use code_cache::CodeCache;
pub use compile::{CompileFailure, Compiler, compile};
pub use contract::{WIT, WORLD, embed, embed_configured};
pub use counters::Counters;
pub use decision::DecisionId;
pub use digest::Digest;
pub use edits::{Edit, Edits};
pub use engine::Target;
pub use evaluator::{Evaluator, KEPT};
pub use failure::{Failure, FailureKind, Refused};
pub use inspect::{Export, Import, Inspection, Kind, Producer, inspect};
pub use limits::Limits;
pub use policy::{CodeOrigin, Policy};
pub use problem::{LoadError, LoadProblem, SettingsError};
pub use runtime::{Allocation, CodeCounts, PoolUse, Runtime, RuntimeError};
pub use scope::Scope;
pub use settings::Settings;
pub use slot::{
    Candidate, Failed, Generation, Lineup, Mode, NoGeneration, PolicySlot, Reload, Share, ShareKey,
    SlotReader, Stats, Trial, VerdictKind,
};
pub use tape::{Asked, Tape};
pub use verdict::{
    InvalidVerdict, MAX_HEADER_VALUE, MAX_HEADERS, MAX_NAME, MAX_REASON, Rejection, Verdict,
    may_be_edited,
};

mod abi;
mod bulk_memory;
mod call;
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
mod failure;
mod guest;
mod idle_sandboxes;
mod inspect;
mod interfaces;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod limits;
mod module;
mod panic;
mod policy;
mod problem;
mod reset;
mod runtime;
mod sandbox;
mod scope;
mod settings;
mod shared_code;
mod slot;
mod state;
mod tape;
mod text;
mod ticker;
mod time_slice;
mod trial_run;
mod verdict;
