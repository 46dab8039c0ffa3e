//! Tests of loading and calling policies, correct and hostile ones.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod bounds;
mod cached;
mod clock;
mod composed;
mod counters;
mod deadline;
mod dispatcher;
mod edits;
mod failover;
mod flows;
mod forms;
mod forwarding;
mod fresh;
mod fuel;
mod guard;
mod hostile;
mod languages;
mod lineup;
mod logging;
mod mutated;
mod older;
mod peer;
mod permissions;
mod profile;
mod questions;
mod refusals;
mod request;
mod reuse;
mod rules;
mod scope;
mod settings;
mod sharing;
mod slot;
mod support;
mod tapes;
mod trusted;
mod verdicts;
