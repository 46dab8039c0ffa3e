//! Kamailio's dispatcher: sets of destinations, and the choice among them.
//!
//! Operators keep the gateways that calls go to in the table `dispatcher` of Kamailio: a set, a URI, flags, a priority, attributes. This crate
//! reads that table from MySQL, MariaDB, PostgreSQL or SQLite, or from a file, reports invalid rows, and chooses as Kamailio would.
//!
//! - [`Set::choose`] is the choice, with an [`Algorithm`] and, for sticky choices, a [`hash`];
//! - [`State`] is the state of a destination, and what failures and answers make of it;
//! - [`Pings`] says which destinations are pinged, and [`Schedule`] when;
//! - [`Sets`] are all sets of one load: immutable, but for the states, which outlive it;
//! - [`Source`] reads and changes the rows where operators keep them;
//! - [`Dispatcher`] holds the current sets, reloads them, and watches for changes; [`Calls`] counts calls for the algorithm `call-load`.
//! - hosts of a fleet exchange how many calls each has ([`Dispatcher::share_loads`]).
//!
//! The choice and the states have no sockets and no clocks.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod algorithm;
mod attrs;
mod calls;
mod dispatcher;
mod error;
mod file;
mod hash;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod latency;
mod loading;
mod member;
mod pinged;
mod pings;
mod remembered;
mod row;
mod schedule;
mod set;
mod sets;
mod shared_loads;
mod source;
mod state;

pub use algorithm::{Algorithm, HashOf, UnknownAlgorithm};
pub use attrs::{AttrError, Attrs, is_from};
pub use calls::{CallKey, Calls, CountedCall};
pub use dispatcher::{Dispatcher, Rules, StateTarget, Status};
pub use error::DispatcherError;
pub use hash::{hash, hash_of_uri};
pub use latency::Latencies;
pub use member::{LastSign, Member, Runtime, Turned, next_hop_name, uri_of_name};
pub use pinged::Pinged;
pub use pings::{Codes, Pings, UnknownCode};
pub use remembered::{NotRemembered, Remembered};
pub use row::DispatcherRow;
pub use schedule::Schedule;
pub use set::{Chosen, MOST_CHOSEN, Question, Set};
pub use sets::Sets;
pub use shared_loads::Item;
pub use source::{NewDestination, Source, StoredDestination};
pub use state::{Admission, Sign, State, Thresholds, UnknownState};
