//! Metrics: what the workers count, and how it is shown.

mod counters;

pub use counters::{
    CodeCounts, ConnectionCounters, Counter, Counts, Label, Method, TimeCounts, VerdictKind, Wire,
    WireCounters, WorkerCounters,
};
