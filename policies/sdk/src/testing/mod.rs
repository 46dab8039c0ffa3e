//! A native host for unit tests, so that `cargo test` tests a policy without Wasm, sockets and database.
//!
//! The test defines the address groups and the request; [`Call::decide`] calls the policy and returns its verdict and its log lines.
//! Addresses match by Kamailio's rules, as in the real host.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     match allow_source_address_group() {
//!         Some(300) => relay_to(last_tag().unwrap_or_default()),
//!         Some(_) => relay(),
//!         None => pass(),
//!     }
//! }
//!
//! let host = Host::new()
//!     .address(200, "192.168.1.0/24", 0)
//!     .address(300, "10.8.203.139", 5060).tag("carrier-a");
//! let call = |source| host.request(Request::invite("sip:bob@example.com").from_source(source)).decide(decide).verdict;
//!
//! assert_eq!(call("192.168.1.20:40000"), relay());
//! assert_eq!(call("10.8.203.139:5060"), relay_to("carrier-a"));
//! assert_eq!(call("10.8.203.139:5070"), pass());
//! ```

use crate::standing::Standing;
use crate::{NextStep, Refusal, Verdict};

pub use self::callee::Callee;
pub use self::completed::Completed;
pub use self::effects::{Edit, Line};
pub use self::message::Request;
pub use self::outcome::Outcome;
pub use self::peer::Peer;
pub use self::settings::Setting;

pub(crate) mod answers;
mod asking;
mod call;
mod callee;
mod clock;
mod completed;
mod counters;
mod effects;
mod failed;
mod message;
mod outcome;
mod peer;
mod peers;
mod rules;
mod settings;
mod surroundings;
mod table;
mod world;

use std::sync::Arc;

use self::world::World;

/// The state of the host except the request: address table, trusted peers, allow and deny files, counters, settings, the time.
#[derive(Clone, Debug, Default)]
pub struct Host {
    world: World,
    last: Last,
}

/// The row added last, to which a tag applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    Address,
    Peer,
}

impl Host {
    /// A host whose address table is empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row to the address table: `address` with source port `port` (0: any port) belongs to `group`.
    ///
    /// `address` is a single address (`"10.8.203.139"`, `"2001:db8::7"`), a subnet (`"192.168.1.0/24"`), or a name, which only
    /// [`allow_address`](crate::permissions::allow_address) with the same text can match.
    ///
    /// # Panics
    /// If the real table could not contain the row: group 0, or a mask that is invalid for the address. Mask 0 is invalid here, because it
    /// means a single address in the real table.
    #[track_caller]
    pub fn address(mut self, group: u32, address: &str, port: u16) -> Self {
        if let Err(error) = self.world.table.push(group, address, port) {
            panic!("{error}");
        }
        self.last = Last::Address;
        self
    }

    /// Adds a row to the trusted peers: requests from `source` over `transport` (`any`, `udp`, `tcp`, `tls`, `sctp`, `ws`, `wss`).
    ///
    /// Rows match in the order in which they are added, as if each had a lower priority than the previous one.
    ///
    /// # Panics
    /// If there is no such transport.
    #[track_caller]
    pub fn trusted(mut self, source: &str, transport: &str) -> Self {
        if let Err(error) = self.world.peers.push(source, transport) {
            panic!("{error}");
        }
        self.last = Last::Peer;
        self
    }

    /// Sets the patterns of the peer added last: whether a From URI and a request URI match.
    ///
    /// # Panics
    /// If there is no peer yet.
    #[track_caller]
    pub fn when(mut self, fits: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Self {
        assert!(
            self.world.peers.fit_last(Arc::new(fits)),
            "when() must follow trusted(): there is no peer yet"
        );
        self
    }

    /// Adds a setting. The key is the path to the value, with dots between the names of tables.
    pub fn setting(mut self, key: &str, value: impl Into<Setting>) -> Self {
        self.world.settings.insert(key, value.into());
        self
    }

    /// Calls a policy's validation function for these settings.
    ///
    /// # Errors
    /// The error of the function.
    pub fn validate(&self, validate: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let request = Request::options("sip:nobody@invalid");
        call::with(self.world.clone(), request, validate).answer
    }

    /// Sets the clock: year, month, day, hour and minute in UTC. The default is the beginning of 1970.
    pub fn at(mut self, year: u16, month: u16, day: u16, hour: u16, minute: u16) -> Self {
        self.world.clock.set([year, month, day, hour, minute]);
        self
    }

    /// Defines a time zone that is this many seconds ahead of UTC. Without it, only `UTC` is known.
    pub fn zone(mut self, name: &str, offset: i32) -> Self {
        self.world.clock.add_zone(name, offset);
        self
    }

    /// Defines what the target with this name or URI does with requests: for [`Call::complete`].
    pub fn callee(mut self, place: &str, callee: Callee) -> Self {
        self.world.callees.push((place.to_owned(), callee));
        self
    }

    /// Defines a set of the dispatcher with these destinations that are up: SIP URIs. Every algorithm chooses them in this order.
    pub fn set<U: Into<String>>(mut self, set: u32, up: impl IntoIterator<Item = U>) -> Self {
        let up = up.into_iter().map(U::into).collect();
        self.world.sets.insert(set, up);
        self
    }

    /// Does not accept this name or URI as a target.
    pub fn refusing(mut self, place: &str, refusal: Refusal) -> Self {
        self.world.refused.push((place.to_owned(), refusal));
        self
    }

    /// Forbids all header changes, like a configuration without `headers`.
    pub fn keeping_headers(mut self) -> Self {
        self.world.keeps_headers = true;
        self
    }

    /// Sets the standing of all sources with the guard. The default is [`Standing::Observed`].
    pub fn standing(mut self, standing: Standing) -> Self {
        self.world.standing = standing;
        self
    }

    /// Advances the time of the clock, of counters and of rate limits by this many seconds. The time does not advance otherwise.
    pub fn wait(&self, seconds: f64) {
        self.world.counters().wait(seconds);
    }

    /// Defines the allow and deny files with this basename (`None` in a query means `permissions`): `allowed` decides for the two URIs of a
    /// query whether the files allow them.
    pub fn rules(
        mut self,
        basename: &str,
        allowed: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.world.rules.insert(basename, Arc::new(allowed));
        self
    }

    /// Sets the tag of the row added last.
    ///
    /// # Panics
    /// If there is no row yet.
    #[track_caller]
    pub fn tag(mut self, tag: &str) -> Self {
        let is_tagged = match self.last {
            Last::Nothing => false,
            Last::Address => self.world.table.tag_last(tag),
            Last::Peer => self.world.peers.tag_last(tag),
        };
        assert!(
            is_tagged,
            "tag() must follow address() or trusted(): there is no row to tag yet"
        );
        self
    }

    /// A call of the policy for `request` on this host.
    pub fn request(&self, request: Request) -> Call {
        Call {
            world: self.world.clone(),
            request,
        }
    }
}

/// A request that waits for the policy's decision.
#[derive(Clone, Debug)]
pub struct Call {
    world: World,
    request: Request,
}

impl Call {
    /// Calls the policy.
    ///
    /// # Panics
    /// If the policy panics, or returns a verdict that the real host would treat as a failure: a status code outside 300 to 699, a line
    /// break in a text, a header field that only the host may write.
    #[track_caller]
    pub fn decide(&self, policy: impl FnOnce() -> Verdict) -> Outcome {
        let ended = asking::decide(self.world.clone(), self.request.clone(), policy);
        Outcome {
            verdict: ended.answer,
            log: ended.log,
            edits: ended.edits,
            sets: ended.sets,
            reported: ended.reported,
            keeps_flow: ended.keeps_flow,
        }
    }

    /// Calls the policy, and plays the callees of the targets that its verdict names ([`Host::callee`]), until the sender has its final
    /// response.
    ///
    /// The times are those that the host would wait; the test does not wait. With weights, the heaviest target goes first.
    ///
    /// # Panics
    /// As [`Call::decide`]; if the verdict is [`pass`](crate::pass) or relays as routed; if a target has no callee.
    #[track_caller]
    pub fn complete(&self, policy: impl FnOnce() -> Verdict) -> Completed {
        completed::complete(&self.world, &self.request, policy, None)
    }

    /// The same for a policy with `on_failure`.
    ///
    /// # Panics
    /// As [`Call::complete`]; if a step is one that the real host would treat as a failure.
    #[track_caller]
    pub fn complete_with(
        &self,
        policy: impl FnOnce() -> Verdict,
        on_failure: impl Fn() -> NextStep,
    ) -> Completed {
        completed::complete(&self.world, &self.request, policy, Some(&on_failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;
    use crate::prelude::*;

    #[test]
    fn log_lines_keep_level_and_order() {
        let outcome = Host::new()
            .request(Request::options("sip:edge.example.com"))
            .decide(|| {
                log::warn!("{} {}", request::method(), request::uri());
                log::debug!("done");
                drop_request()
            });

        assert_eq!(
            outcome.log,
            [
                Line {
                    level: Level::Warn,
                    message: "OPTIONS sip:edge.example.com".into()
                },
                Line {
                    level: Level::Debug,
                    message: "done".into()
                },
            ]
        );
    }

    #[test]
    fn one_host_serves_many_calls() {
        let host = Host::new().address(7, "192.0.2.0/24", 0).tag("seven");
        let ask = |source: &str| {
            host.request(Request::invite("sip:bob@example.com").from_source(source))
                .decide(|| {
                    if allow_source_address(7) {
                        relay_to(last_tag().unwrap_or_default())
                    } else {
                        pass()
                    }
                })
                .verdict
        };

        assert_eq!(ask("192.0.2.77:5060"), relay_to("seven"));
        assert_eq!(ask("192.0.3.77:5060"), pass());
    }

    #[test]
    #[should_panic(
        expected = "the host refuses this verdict: status code 200 is not within 300 to 699"
    )]
    fn bad_verdicts_do_not_pass() {
        Host::new()
            .request(Request::invite("sip:bob@example.com"))
            .decide(|| reject(200, "OK"));
    }

    #[test]
    #[should_panic(expected = "group 0")]
    fn bad_rows_do_not_pass() {
        let _ = Host::new().address(0, "192.0.2.1", 0);
    }

    #[test]
    #[should_panic(expected = "there is no row to tag yet")]
    fn a_tag_needs_a_row() {
        let _ = Host::new().tag("lost");
    }
}
