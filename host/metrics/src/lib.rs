//! The counters of workers, each with one writer, and the labels of metrics.
//!
//! This crate is independent of exposition formats and readers.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod counters;
mod labels;

pub use counters::{
    BUCKETS, CallTimes, CodeCounts, ConnectionCounters, Counter, Counts, GuardCounters,
    HandshakeCounters, NamedCounts, ResponseTimes, Scale, Sums, TenantCounters, TenantCounts,
    TimeCounts, TransactionCounters, WireCounters, WorkerCounters,
};
pub use labels::{
    AttemptResult, FinalClass, HandoverResult, HandshakeResult, IcmpError, InDialog, Label, Lost,
    Method, Retransmission, Shed, Wire,
};
