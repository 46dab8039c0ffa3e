//! Roll-outs of a generation over all hosts of a database, step by step.
//!
//! [`Plan`] says which steps there are and what each has to show. [`Rollout::next`] says what follows from what the hosts have announced; it has
//! neither effects nor a clock. `deployments/rollouts.rs` reads and stores roll-outs, and the task in `registry/rollouts.rs` moves them.

mod machine;
mod plan;

pub use machine::{HostSeen, Next, Observed, Reference, Rollout, RolloutState, Tally, Wait};
pub use plan::{Factor, Gates, Plan, PlanError, Step, step_text};
