//! Synchronisation between workers and the control side: types whose correctness depends on the order of memory accesses.
//!
//! These types use neither sockets nor files, and time is a parameter. So [loom](https://docs.rs/loom) can run them in every order of accesses
//! that the memory model permits: `cargo xtask loom` runs the tests in the modules named `models`.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod breaker;
mod grace_period;
mod idle_sleep;
mod marks;
mod nap_clock;
mod primitives;
mod published;
mod retired;
mod single_flight;

pub use breaker::{Breaker, Tripped};
pub use grace_period::{GracePeriod, ReadSections};
pub use idle_sleep::{IdleSleep, Running, Work};
pub use marks::Marks;
pub use nap_clock::{Nap, NapClock};
#[cfg(not(all(test, loom)))]
pub use published::PublishedReader;
pub use published::{Change, Published};
pub use retired::Retired;
pub use single_flight::{Flight, SingleFlight};
