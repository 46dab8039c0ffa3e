//! Policies from their files to their verdicts, good and hostile.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod bounds;
mod cached;
mod clock;
mod composed;
mod counters;
mod deadline;
mod edits;
mod forms;
mod fresh;
mod fuel;
mod hostile;
mod interfaces;
mod lineup;
mod logging;
mod mutated;
mod older;
mod questions;
mod refusals;
mod rules;
mod scope;
mod settings;
mod sharing;
mod slot;
mod support;
mod tapes;
mod trusted;
