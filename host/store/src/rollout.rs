//! The rows of roll-outs.

/// A roll-out of a generation over all hosts, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRollout {
    /// The seat.
    pub seat: String,
    /// The generation.
    pub generation: u64,
    /// The generation that was active before.
    pub base: u64,
    /// The steps, as JSON.
    pub steps: String,
    /// The gates, as JSON.
    pub gates: String,
    /// The number of the current step, from 0.
    pub step: u64,
    /// When the step began, in milliseconds since 1970 by the clock of the database. The database sets it when the number of the step changes.
    pub step_at: i64,
    /// Mean duration of a call of the active generation in an earlier step, in nanoseconds.
    pub reference_ns: Option<u64>,
    /// 99th percentile of the same durations, in nanoseconds.
    pub reference_p99_ns: Option<u64>,
    /// The name of its state.
    pub state: String,
    /// Why it is in this state.
    pub why: String,
    /// Grows with each change; 0 before the first one.
    pub revision: u64,
    /// The author of the last change.
    pub changed_by: String,
    /// The time of the last change, as for `step_at`.
    pub changed_at: i64,
    /// The host that moves it; `None` if no host has begun to.
    pub leader: Option<String>,
    /// How much longer `leader` does, in milliseconds; negative if that is over.
    pub lead_ms: i64,
    /// The time of the query by the clock of the database.
    pub now: i64,
}
