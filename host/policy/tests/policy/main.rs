//! Policies from their files to their verdicts, good and hostile.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod ambient;
mod bounds;
mod cached;
mod composed;
mod deadline;
mod forms;
mod fresh;
mod hostile;
mod interfaces;
mod lineup;
mod logging;
mod mutated;
mod older;
mod questions;
mod refusals;
mod scope;
mod sharing;
mod slot;
mod support;
