//! Metrics: what the workers count, and how it is shown.

mod counters;
mod exposition;
mod labels;

pub use counters::{
    CodeCounts, ConnectionCounters, Counter, Counts, Passes, TenantCounters, TimeCounts,
    WireCounters, WorkerCounters,
};
pub use exposition::{CONTENT_TYPE, Exposition};
pub use labels::{Label, Lost, Method, Shed, Wire};
