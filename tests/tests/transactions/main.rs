//! Transactions on the wire: a scripted caller, the host, and scripted callees, through real sockets; and the same scenarios through Kamailio.
//!
//! The numbers are those of the list of scenarios in each file. A callee waits for a message, or for a number of copies of it, before it
//! answers, so that the order of events does not depend on the speed of the machine.

#![forbid(unsafe_code)]

mod call;
mod cancelling;
mod chain;
mod dialogs;
mod inviting;
mod loops;
mod loss;
mod other_methods;
mod patient;
mod restarts;
mod shared_address;
mod site;
mod streams;
mod takeovers;
mod targets;
mod tenants;
mod torn;
mod upgrades;
