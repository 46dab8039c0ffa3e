//! Load for SIP servers on one machine: many loopback sources, and exact counts of the responses.
//!
//! [`run`] executes a [`Plan`] and returns a [`Report`]. A closed loop measures the cost of a request; a fixed rate shows how requests are
//! affected by other activity. [`handshakes`] opens and closes connections, [`idle`] keeps them open, and [`probe`] measures single requests beside other load. [`Sink`] is the callee behind a server
//! under test, [`Echo`] the reference: the cost of UDP alone on this machine.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod answer;
mod books;
mod call;
mod connection;
mod crowd;
mod drive;
mod echo;
mod handshakes;
mod histogram;
mod idle;
mod inbox;
mod ledger;
mod open_files;
mod pacer;
mod plan;
mod probe;
mod sink;
mod socket;
mod sources;
mod tally;
mod template;
mod tls;
mod transport;
mod usage;
mod websocket;

pub use drive::run;
pub use echo::Echo;
pub use handshakes::{HandshakePlan, HandshakeReport, HandshakeWindow, handshakes};
pub use histogram::{Histogram, Latency};
pub use idle::{IdlePlan, IdleReport, idle};
pub use plan::{End, MAX_OUTSTANDING, MAX_TENANTS, Mode, Plan, Retransmit, T1, T2};
pub use probe::{ProbePlan, ProbeReport, probe};
pub use sink::Sink;
pub use tally::{Beside, Report, SetUp, Window};
pub use tls::TlsVersion;
pub use transport::Transport;
pub use usage::{Consumed, Usage, Watched};
