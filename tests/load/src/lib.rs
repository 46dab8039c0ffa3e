//! Load for SIP servers over UDP on one machine: many loopback sources, and exact counts of the responses.
//!
//! [`run`] executes a [`Plan`] and returns a [`Report`]. A closed loop measures the cost of a request; a fixed rate shows how requests are
//! affected by other activity. [`Sink`] is the callee behind a server under test, [`Echo`] the reference: the cost of UDP alone on this
//! machine.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod answer;
mod call;
mod crowd;
mod drive;
mod echo;
mod histogram;
mod ledger;
mod plan;
mod sink;
mod socket;
mod tally;
mod template;
mod usage;

pub use drive::run;
pub use echo::Echo;
pub use histogram::{Histogram, Latency};
pub use plan::{End, MAX_OUTSTANDING, MAX_TENANTS, Mode, Plan, Retransmit, T1, T2};
pub use sink::Sink;
pub use tally::{Beside, Report, SetUp, Window};
pub use usage::{Consumed, Usage, Watched};
