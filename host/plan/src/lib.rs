//! The difference between the state that files describe and the state of a host, as a list of steps.
//!
//! - [`State`] has the items of each [`Kind`]: tenants, policies, and rows of the tables of addresses, trusted peers and the dispatcher;
//! - [`Plan::of`] compares two states. It is a pure function: it reads no files and asks no host.
//!
//! ```
//! use portcullis_plan::{Item, Kind, Plan, Prune, State};
//!
//! let row = |tag: &str| Item::new("200 192.0.2.1/32").with("tag", tag);
//! let desired = State::default().with(Kind::Address, vec![row("office")]);
//! let actual = State::default().with(Kind::Address, vec![row("old")]);
//! let plan = Plan::of(&desired, &actual, &Prune::Nothing)?;
//! assert_eq!(plan.steps.len(), 1);
//! assert!(Plan::of(&desired, &desired, &Prune::All)?.is_empty());
//! # Ok::<(), portcullis_plan::PruneError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod comparison;
mod kind;
mod plan;
mod state;

pub use kind::{Kind, UnknownKind};
pub use plan::{Action, FieldChange, Large, Plan, Prune, PruneError, Step, Tally};
pub use state::{Item, State};
