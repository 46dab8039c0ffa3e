//! The exchange: a task of the control side that sends what this host has counted to Redis, and reads what the other hosts have counted.
//!
//! A part of the host takes part by implementing [`Shared`].

mod shared;

pub use shared::{Change, Shared};
