//! SIP transactions and the response context of a stateful proxy (RFC 3261 §16, §17; RFC 6026), without sockets and clocks.
//!
//! [`Transactions`] has all transactions of a worker. Its inputs are facts with a time: received messages, decisions, requests that were
//! written, errors, timers. Its outputs are fetched: messages to send, and [events](Event) that ask the caller for something or say what
//! happened. Time is an argument of every call ([`Time`]), and nothing here is random.
//!
//! A request goes through these calls:
//!
//! 1. [`Transactions::receive`] finds no transaction for it. The caller has it checked for loops
//!    ([`Proxy::is_loop`](portcullis_sip::Proxy::is_loop)), and the policy decides. A rejection needs no transaction.
//! 2. [`Transactions::begin`] makes one, [`Transactions::plan`] names the targets in ranks.
//! 3. For each target whose turn has come, [`Event::Start`] asks for its request: the caller resolves the target, writes the request with
//!    [`Proxy::forward`](portcullis_sip::Proxy::forward), and passes it to [`Transactions::forward`]. If it says there that the target has
//!    further addresses, another [`Event::Start`] asks for the request to the next one when this one fails.
//! 4. Responses, CANCEL and ACK arrive through [`Transactions::receive`], timers through [`Transactions::expire`]. When all targets have
//!    failed, [`Event::Ask`] may ask for the next step.
//! 5. [`Event::Ended`] says how it ended. What remains is small: it absorbs retransmissions for 64·T1. A million of them take less than 300 MB,
//!    if responses have few lines that are not copies of lines of their requests.
//!
//! The four state machines of RFC 3261 §17 are plain values: [`ClientInvite`], [`ClientNonInvite`], [`ServerInvite`] and
//! [`ServerNonInvite`] know codes and times, but no messages. Messages are stored as they were received or sent. What this host makes itself is
//! written by `host/sip`.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod absorber;
mod best;
mod blocks;
mod branch;
mod buffers;
mod chunks;
mod client;
mod config;
mod context;
mod delta;
mod directory;
mod event;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod kept;
mod listed;
mod machine;
mod outbox;
mod plan;
mod server;
mod slab;
mod time;
mod timers;
mod tools;
mod transactions;
mod wheel;

#[cfg(test)]
mod misuse;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod testing;

pub use config::{Config, Trying};
pub use context::max_breadth;
pub use event::{Attempt, Cause, End, Event, Failure};
pub use listed::Listed;
pub use machine::{
    ClientInvite, ClientNonInvite, ClientTimer, OnAck, OnResponse, OnRetransmission, Repeat,
    ServerInvite, ServerNonInvite, ServerTimer,
};
pub use outbox::{Outbox, Outgoing, What};
pub use plan::{MOST_ADDRESSES, MOST_TARGETS, Plan, PlanError, StatusSet, Step, Target};
pub use slab::Id;
pub use time::Time;
pub use timers::Timers;
pub use transactions::{BeginError, Job, NameSlot, Receipt, Transactions, Usage};
