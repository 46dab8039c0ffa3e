//! Hosts routing policies: loads WebAssembly files that keep the contract of `policy-wit`, and asks them about requests.
//!
//! - [`Runtime`] is the engine of the process. It turns the bytes of a file into a [`Policy`], or says what is wrong with it.
//! - [`PolicySlot`] holds the policy that serves, and swaps it for all workers at once.
//! - [`Evaluator`] asks a policy about a request and gives a [`Verdict`] or a [`Failure`]. Each worker has one. Every call finds
//!   the policy in its first state: in a new sandbox from a pool, or in the last one with memory and globals put back.
//! - [`inspect`] tells what a file contains.
//!
//! Nothing that a policy does reaches beyond its call: it has no files, no clock and no network, its memory, time, stack and log
//! are limited ([`Limits`]), and whatever it answers is checked.

#![forbid(unsafe_code)]

pub use contract::{WIT, WORLD, embed};
pub use digest::Digest;
pub use evaluator::{Evaluator, KEPT};
pub use failure::{Failure, FailureKind, Refused};
pub use inspect::{Export, Import, Inspection, Kind, Producer, inspect};
pub use limits::Limits;
pub use load::{LoadError, LoadProblem};
pub use policy::Policy;
pub use runtime::{Allocation, PoolUse, Runtime, RuntimeError};
pub use scope::Scope;
pub use slot::{
    Candidate, Failed, Generation, Lineup, Mode, NoGeneration, PolicySlot, Reload, Share,
    SlotReader, Stats, Trial, VerdictKind,
};
pub use verdict::{
    InvalidVerdict, MAX_HEADER_VALUE, MAX_HEADERS, MAX_NAME, MAX_REASON, Rejection, Verdict,
};
pub use view::{Contact, PlainUri, RequestView};

mod call;
mod component;
mod contract;
mod digest;
mod direct;
mod engine;
mod evaluator;
mod failure;
mod inspect;
mod limits;
mod load;
mod policy;
mod questions;
mod runtime;
mod sandbox;
mod scope;
mod slot;
mod text;
mod verdict;
mod view;
