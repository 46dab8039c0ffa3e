//! Pushed policies, tenants and the audit in the database, where every host on it finds them, also after a restart.
//!
//! - [`Store`] reads and writes them, in MySQL, MariaDB, PostgreSQL and SQLite. Its tables are `portcullis_artifact` (the files, each
//!   once), `portcullis_generation` (number, time, author and seat of each push), `portcullis_seat` (the role of each generation),
//!   `portcullis_tenant` (tenants, as the text of their section in a configuration file), `portcullis_audit` (actions of operators and
//!   tenants) and `portcullis_rollout` (roll-outs over all hosts). `portcullis db migrate` creates them; an SQLite file that the host creates has them from the start.
//! - [`Store::mark`] has a few numbers that are others after every change of a seat, also after a backup was restored: hosts poll it several times a second.
//! - [`Store::put_back`] stores a push again that such a backup does not have.
//!
//! This crate treats a policy as bytes; the caller validates it before it is stored.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod action;
mod artifact;
mod error;
mod rollout;
mod seat;
mod store;

pub use action::{Action, ActionBounds, ActionFilter, StoredAction};
pub use error::StoreError;
pub use portcullis_database::{Follower, Look, Looked};
pub use rollout::StoredRollout;
pub use seat::{Generation, Kept, NewGeneration, Seat, Trial};
pub use store::{MOST_NOTED, Mark, MarkWatch, OPEN, PutBack, Store, StoredTenant};
