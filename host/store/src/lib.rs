//! Policies that were pushed, and which of them decide, in the database: every host on it gets them, and finds them again after a start.
//!
//! - [`Store`] reads and writes them, in MySQL, MariaDB and SQLite. Its tables are `portcullis_artifact` (the files, each once),
//!   `portcullis_generation` (what came when, from whom, to which seat) and `portcullis_seat` (which generation does what). They are
//!   made by `portcullis db migrate`, and with a file of SQLite that the host makes itself.
//! - [`Store::revision`] is a number that grows with every change of a seat: hosts look at it once a second.
//!
//! - Tenants are there as well, in `portcullis_tenant`, as the text of the section of a configuration file that they would be.
//!
//! A policy is bytes here: whether it can be used is for others to say before it is stored.

#![forbid(unsafe_code)]

mod error;
mod seat;
mod store;

pub use error::StoreError;
pub use seat::{Generation, Kept, NewGeneration, Seat, Trial};
pub use store::{Store, StoredTenant};
