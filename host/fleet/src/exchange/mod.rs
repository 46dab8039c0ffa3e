//! The exchange: a task of the control side that sends what this host has counted to Redis, and reads what the other hosts have counted.
//!
//! A part of the host takes part by implementing [`Shared`]. [`Exchange::run`] asks all parts for what has changed, stores it with one pipeline, and
//! passes on what the other hosts have stored. `ledger` decides what is sent and what the others have, without sockets and clocks; `store` has the one
//! script that reads and writes Redis; `link` has the connection.

mod ledger;
mod link;
mod options;
mod shared;
mod status;
mod store;
mod task;
mod trouble;

pub use options::{Credentials, Options, Place, Sentinel, TlsFiles};
pub use shared::{Change, Shared};
pub use status::{Health, Status};
pub use task::{Exchange, Found, probe};
pub use trouble::Trouble;
