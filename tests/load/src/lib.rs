//! Load for SIP servers over UDP on one machine: many loopback sources, exact books on what came back.
//!
//! [`run`] carries a [`Plan`] out and gives a [`Report`]. A closed loop measures what a request costs; a fixed rate shows what happens to
//! requests while something else is going on. [`Sink`] is the callee behind a server under test, [`Echo`] the yardstick: what UDP alone
//! costs on this machine.

#![forbid(unsafe_code)]

mod answer;
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
pub use plan::{End, MAX_OUTSTANDING, MAX_TENANTS, Mode, Plan};
pub use sink::Sink;
pub use tally::{Beside, Report, Window};
pub use usage::{Consumed, Usage, Watched};
