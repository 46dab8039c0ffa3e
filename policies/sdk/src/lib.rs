//! The SDK for routing policies of Portcullis.
//!
//! A policy is one function. Portcullis calls it for every SIP request that needs a decision, each time in a fresh sandbox, and carries out
//! the verdict that it returns:
//!
//! ```
//! use portcullis_sdk::prelude::*;
//!
//! policy!(decide);
//!
//! fn decide() -> Verdict {
//!     if allow_source_address(200) {
//!         log::info!("Coming from address group 200");
//!         relay()
//!     } else if allow_source_address(250) {
//!         log::info!("Coming from address group 250");
//!         relay()
//!     } else {
//!         reject(401, "Address not authorised")
//!     }
//! }
//! ```
//!
//! The crate around it is a library of type `cdylib`:
//!
//! ```toml
//! [package]
//! name = "my-policy"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! portcullis-sdk = { path = "../portcullis/policies/sdk" }
//! ```
//!
//! `portcullis policy new my-policy` writes all this, with a copy of this crate, and `portcullis policy build` compiles it to
//! `my-policy.wasm`. `cargo add --git URL portcullis-sdk` follows a repository instead.
//!
//! # What a policy can query and do
//! - [`permissions`]: is the sender in an address group? The functions of Kamailio's module with that name.
//! - [`trusted`]: is the sender a trusted peer? The table `trusted` of the same module.
//! - [`rules`]: do allow and deny files permit this pair of URIs? Who may call whom, who may register what.
//! - [`request`]: method, URIs, header fields, source and transport of the request.
//! - [`peer`]: the connection that the request came over, and what TLS has proved about its peer.
//! - [`guard`]: what the host's guard knows of the source of the request, and evidence against the source.
//! - [`flows`]: phones behind NAT and browsers, which can be reached only over the flow that they opened.
//! - [`uri`]: user, host and port of a URI.
//! - [`counters`]: counters and rate limits, shared by all calls.
//! - [`settings`]: values that the operator's configuration passes to this policy.
//! - [`clock`]: the time of day.
//! - [`edits`]: header fields to add and to remove when the request is relayed.
//! - [`log`]: lines in the host's log.
//! - [`outcome`]: what became of the targets of a request, after they have failed.
//!
//! # What a policy can return
//! [`relay`], [`relay_to`] a named next hop, [`reject`], [`drop_request`] or [`pass`] to the next policy: a [`Verdict`].
//!
//! A request can have several targets, one after the other ([`Verdict::or`], [`in_turn`]) or at once ([`Verdict::and`], [`fork`]):
//! `relay_to("carrier-a").or("carrier-b").within(Duration::from_secs(4))`. When all of them have failed, a second function of the policy can
//! answer or name more targets: [`policy!`] with `on_failure`, which returns a [`NextStep`].
//!
//! There is no source of random numbers, no file, no network, and no state except [`counters`]: everything that a policy stores is gone
//! after the call. A panic ends the call; the host logs the panic message and responds as configured (503 by default).
//!
//! # Testing a policy
//! The same source compiles natively, where [`testing`] replaces the host, so that `cargo test` is enough:
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//! # fn decide() -> Verdict {
//! #     if allow_source_address(200) {
//! #         log::info!("Coming from address group 200");
//! #         return relay();
//! #     }
//! #     reject(401, "Address not authorised")
//! # }
//!
//! let host = Host::new().address(200, "192.168.1.0/24", 5060);
//!
//! let known = host
//!     .request(Request::invite("sip:bob@example.com").from_source("192.168.1.7:5060"))
//!     .decide(decide);
//! assert_eq!(known.verdict, relay());
//! assert_eq!(known.messages(), ["Coming from address group 200"]);
//!
//! let unknown = host
//!     .request(Request::invite("sip:bob@example.com").from_source("203.0.113.9:5060"))
//!     .decide(decide);
//! assert_eq!(unknown.verdict, reject(401, "Address not authorised"));
//! ```

#![deny(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub use forwarding::Forwarding;
pub use next_step::{NextStep, again, answer, best_answer};
pub use response::{Header, Rejection};
pub use target::{Place, Refusal, Target};
pub use verdict::{
    Verdict, drop_request, fork, in_turn, pass, reject, relay, relay_to, relay_to_uri,
};
pub use version::VERSION;

pub mod clock;
pub mod counters;
pub mod dispatcher;
pub mod edits;
pub mod flows;
pub mod guard;
pub mod log;
pub mod outcome;
pub mod peer;
pub mod permissions;
pub mod request;
pub mod rules;
pub mod settings;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod trusted;
pub mod uri;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod exports;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(target_arch = "wasm32")]
use guest as host;
#[cfg(not(target_arch = "wasm32"))]
use testing::answers as host;

mod algorithm;
mod attempt;
mod flow;
mod forwarding;
#[cfg(any(target_arch = "wasm32", test))]
#[allow(unsafe_code)]
mod heap;
mod level;
mod local_time;
mod name_kind;
mod next_step;
mod policy;
mod response;
mod standing;
mod target;
mod verdict;
mod version;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod wire;

/// Everything that a policy usually needs.
pub mod prelude {
    pub use crate::permissions::{
        allow_address, allow_address_group, allow_source_address, allow_source_address_group,
        last_tag,
    };
    pub use crate::rules::{allow_register, allow_register_include_port, allow_routing, allow_uri};
    pub use crate::trusted::{
        allow_trusted, allow_trusted_address, count_trusted, count_trusted_address,
    };
    pub use crate::{
        NextStep, Target, Verdict, again, answer, best_answer, clock, counters, drop_request,
        edits, flows, fork, guard, in_turn, log, outcome, pass, peer, policy, reject, relay,
        relay_to, relay_to_uri, request, rules, settings, trusted, uri,
    };
}
