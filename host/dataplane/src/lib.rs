//! The data path: workers, transports, the pipeline of a message, and what it reads of tenants (seats, selector, budgets, breakers).
//!
//! [`worker::spawn`] starts a worker; `pipeline` decides on one message. What workers share ([`shared::Shared`]) is immutable and swapped
//! whole, or a counter. This crate knows neither SQL nor HTTP, and nobody who changes what it reads.

#![forbid(unsafe_code)]

pub mod notice_log;
pub mod notices;
pub mod pipeline;
pub mod shared;
pub mod tenants;
pub mod throttle;
pub mod trace;
pub mod transport;
pub mod worker;
