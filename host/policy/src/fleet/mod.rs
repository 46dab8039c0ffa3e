//! Counters and rate limits that the hosts of a fleet count together. A host answers at once, by what it has counted and what it has heard of the
//! others; the exchange of both is the business of others (`host/fleet`).

mod bucket;
mod counters;
mod footing;
mod tables;

pub use counters::{FleetCounters, FleetItem};
pub use tables::FleetTables;
