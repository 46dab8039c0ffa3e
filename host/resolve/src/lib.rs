//! Where a name leads (RFC 3263): which DNS queries are asked, and what their answers mean. No sockets, no clocks, no tasks.
//!
//! A [`Plan`] begins with what a URI asks about its name ([`Lookup`](portcullis_sip::Lookup)). [`Plan::queries`] says what is to be asked now,
//! [`Plan::answer`] takes an answer, and [`Plan::found`] is the result once nothing is left to ask: [`Candidate`](portcullis_sip::Candidate)s in
//! groups, which the data path draws from for each call (RFC 2782).
//!
//! What a zone says is not trusted: the number of records is limited, a plan asks at most three rounds of queries, TTLs have a floor and a
//! ceiling, and addresses of this machine and of its links are left out ([`usable`]).

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod plan;
mod query;
#[cfg(test)]
mod tests;
mod usable;

pub use plan::{Families, Found, Plan, Settings, Step};
pub use query::{
    Answer, Kind, Naptr, Query, Records, Srv, TTL_FAILED, TTL_LEAST, TTL_MOST, TTL_NONE, ttl_of,
};
pub use usable::usable;
