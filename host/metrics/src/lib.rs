//! What workers count: numbers with one writer each, and the names of what they count.
//!
//! This crate does not know who reads the numbers, and in which form they are shown.

#![forbid(unsafe_code)]

mod counters;
mod labels;

pub use counters::{
    CodeCounts, ConnectionCounters, Counter, Counts, Passes, TenantCounters, TimeCounts,
    WireCounters, WorkerCounters,
};
pub use labels::{InDialog, Label, Lost, Method, Shed, Wire};
