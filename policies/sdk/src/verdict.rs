//! The verdict of a policy.

use std::time::Duration;

use crate::forwarding::Forwarding;
use crate::response::{Header, Rejection};
use crate::target::Target;

/// The decision on one request.
///
/// Made by [`relay`], [`relay_to`], [`relay_to_uri`], [`fork`], [`in_turn`], [`reject`], [`drop_request`] and [`pass`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict does nothing unless the policy returns it"]
pub enum Verdict {
    /// Relay to the next hop with this name in the host's configuration or, with `None`, as the message is routed.
    Relay(Option<String>),
    /// Relay to targets.
    Forward(Forwarding),
    /// Respond with a final status.
    Reject(Rejection),
    /// Drop the request; the sender gets no response.
    Drop,
    /// No decision: the next policy decides.
    Pass,
}

impl Verdict {
    /// Adds a header field to the response: Contact to a 302, Retry-After to a 503. For a request that is relayed to targets, adds a header
    /// field for the target named last.
    ///
    /// Header fields that the host writes itself (Via, From, To, Call-ID, CSeq, Content-Length, Record-Route, …) are refused: the host
    /// treats the verdict as a failure of the policy, and [`testing`](crate::testing) panics.
    ///
    /// ```
    /// use portcullis_sdk::prelude::*;
    ///
    /// let moved = reject(302, "Moved Temporarily").header("Contact", "<sip:bob@192.0.2.7>");
    /// let marked = relay_to("carrier-a").header("X-Leg", "1").or("carrier-b").header("X-Leg", "2");
    /// ```
    ///
    /// # Panics
    /// If the verdict has neither a response nor a target: use [`edits`](crate::edits) for a request that is relayed as routed.
    #[track_caller]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        match &mut self {
            Self::Reject(rejection) => rejection.headers.push(Header {
                name: name.into(),
                value: value.into(),
            }),
            Self::Relay(Some(_)) | Self::Forward(_) => {
                return self.with_last(|target| target.header(name, value));
            }
            Self::Relay(None) | Self::Drop | Self::Pass => panic!(
                "header() is for reject() and for targets only: other verdicts have nothing to add header fields to"
            ),
        }
        self
    }
}

/// Targets: where a relayed request goes when the first place does not take it (Kamailio: `append_branch`, `t_set_fr`, `t_next_contacts`).
///
/// ```
/// use std::time::Duration;
///
/// use portcullis_sdk::prelude::*;
///
/// // One after the other, four seconds each for the first response.
/// let serial = relay_to("carrier-a").or("carrier-b").within(Duration::from_secs(4));
/// // Both at once, then the voicemail.
/// let parallel = relay_to("desk").and("mobile").or("voicemail");
/// // Three quarters of the requests to one carrier first, a quarter to the other.
/// let shared = relay_to("carrier-a").weight(3).and("carrier-b").weight(1);
/// ```
///
/// All of these methods but `memo` panic if the verdict names no target: they need [`relay_to`], [`relay_to_uri`], [`fork`] or [`in_turn`].
impl Verdict {
    /// If the targets so far fail, this one has its turn.
    #[track_caller]
    pub fn or(self, target: impl Into<Target>) -> Self {
        let mut forwarding = self.into_forwarding();
        forwarding.append(target.into());
        Self::Forward(forwarding)
    }

    /// This target has its turn together with the one named last.
    #[track_caller]
    pub fn and(self, target: impl Into<Target>) -> Self {
        let mut forwarding = self.into_forwarding();
        forwarding.join(target.into());
        Self::Forward(forwarding)
    }

    /// Time until the first response, 100 ms to 32 s, for all targets so far that have none of their own.
    #[track_caller]
    pub fn within(self, time: Duration) -> Self {
        self.with_each(|target| {
            target.no_answer.get_or_insert(time);
        })
    }

    /// Time until the final response to an INVITE, 1 s to 10 minutes, for all targets so far that have none of their own. Each response from
    /// 101 to 199 starts it again.
    #[track_caller]
    pub fn ring_for(self, time: Duration) -> Self {
        self.with_each(|target| {
            target.ring.get_or_insert(time);
        })
    }

    /// The weight of the target named last. With weights, one target of a rank is drawn, and the others follow it one by one; a target
    /// without a weight has 1.
    #[track_caller]
    pub fn weight(self, weight: u16) -> Self {
        self.with_last(|target| target.weight(weight))
    }

    /// The request URI for the target named last, in place of the received one.
    #[track_caller]
    pub fn request_uri(self, uri: impl Into<String>) -> Self {
        self.with_last(|target| target.request_uri(uri))
    }

    /// The codes after which the next targets have their turn: 300 to 599, or 3, 4 or 5 for a whole class. Without this call, 408 and 500 to
    /// 599. 401, 407, 487 and codes from 600 on never lead to another target. After a failure, [`again`](crate::again) may set other codes.
    #[track_caller]
    pub fn retry_on(self, codes: impl IntoIterator<Item = u16>) -> Self {
        let mut forwarding = self.into_targets();
        forwarding.retry_on = Some(codes.into_iter().collect());
        Self::Forward(forwarding)
    }

    /// Up to 256 bytes that [`outcome::memo`](crate::outcome::memo) returns after a failure. Also for a request that is relayed as routed:
    /// `relay().memo(bytes)`, as the last of the methods.
    #[track_caller]
    pub fn memo(self, bytes: impl Into<Vec<u8>>) -> Self {
        let mut forwarding = match self {
            Self::Relay(None) => Forwarding::as_routed(),
            Self::Forward(forwarding) => forwarding,
            Self::Relay(Some(_)) | Self::Reject(_) | Self::Drop | Self::Pass => {
                self.into_forwarding()
            }
        };
        forwarding.memo = Some(bytes.into());
        Self::Forward(forwarding)
    }

    #[track_caller]
    fn with_each(self, change: impl FnMut(&mut Target)) -> Self {
        let mut forwarding = self.into_forwarding();
        forwarding.targets.iter_mut().for_each(change);
        Self::Forward(forwarding)
    }

    #[track_caller]
    fn with_last(self, change: impl FnOnce(Target) -> Target) -> Self {
        let mut forwarding = self.into_forwarding();
        let last = forwarding.targets.pop();
        forwarding.targets.extend(last.map(change));
        Self::Forward(forwarding)
    }

    /// Returns the targets that the verdict names, or has the host take from a set.
    #[track_caller]
    pub(crate) fn into_targets(self) -> Forwarding {
        match self {
            Self::Forward(forwarding) if forwarding.is_of_set() => forwarding,
            Self::Forward(_) | Self::Relay(_) | Self::Reject(_) | Self::Drop | Self::Pass => {
                self.into_forwarding()
            }
        }
    }

    #[track_caller]
    pub(crate) fn into_forwarding(self) -> Forwarding {
        match self {
            Self::Relay(Some(name)) => Forwarding::fork([name]),
            Self::Forward(forwarding) if !forwarding.targets.is_empty() => forwarding,
            Self::Forward(_) | Self::Relay(None) | Self::Reject(_) | Self::Drop | Self::Pass => {
                panic!(
                    "this verdict names no target: begin with relay_to(), relay_to_uri(), fork() or in_turn()"
                )
            }
        }
    }
}

/// Relay the request as the message is routed: by its Route header fields, then its request URI.
///
/// The host follows them only to next hops and domains of its configuration. A Route to any other place is answered 403; a request whose
/// URI names no such place goes to the default next hop.
pub fn relay() -> Verdict {
    Verdict::Relay(None)
}

/// Relay the request to the next hop with this name in the host's configuration.
///
/// If the configuration has no next hop with this name, the request is answered 500.
pub fn relay_to(next_hop: impl Into<String>) -> Verdict {
    Verdict::Relay(Some(next_hop.into()))
}

/// Relay the request to the host, port and transport of a `sip` URI, which must be one of the next hops or domains of the host's
/// configuration (Kamailio: `$du`). The request URI stays as received unless [`Verdict::request_uri`] changes it.
pub fn relay_to_uri(uri: impl Into<String>) -> Verdict {
    Verdict::Forward(Forwarding::fork([Target::uri(uri)]))
}

/// Relay the request to all of these targets at once: the first one that accepts it gets the call, and the others are cancelled.
///
/// ```
/// use portcullis_sdk::prelude::*;
///
/// let verdict = fork(["desk", "mobile"]).or("voicemail");
/// ```
pub fn fork<T: Into<Target>>(targets: impl IntoIterator<Item = T>) -> Verdict {
    Verdict::Forward(Forwarding::fork(targets))
}

/// Relay the request to the first of these targets and, each time one fails, to the next: for lists that a setting names.
///
/// ```
/// use portcullis_sdk::prelude::*;
///
/// let carriers = vec!["carrier-a".to_owned(), "carrier-b".to_owned()];
/// assert_eq!(in_turn(&carriers), relay_to("carrier-a").or("carrier-b"));
/// ```
pub fn in_turn<T: Into<Target>>(targets: impl IntoIterator<Item = T>) -> Verdict {
    Verdict::Forward(Forwarding::in_turn(targets))
}

/// Respond with this status code (300 to 699) and reason phrase (Kamailio: `sl_reply(code, reason)`, then `exit`).
///
/// An empty reason means the standard phrase of the code. An ACK is never answered: it is dropped.
pub fn reject(code: u16, reason: impl Into<String>) -> Verdict {
    Verdict::Reject(Rejection {
        code,
        reason: reason.into(),
        headers: Vec::new(),
    })
}

/// Drop the request; the sender gets no response.
///
/// Over UDP the sender retransmits the request; a [`reject`] is the cheaper way to end that, unless the sender is a scanner.
pub fn drop_request() -> Verdict {
    Verdict::Drop
}

/// No decision: the next policy decides or, after the last one, the default of the host's configuration.
pub fn pass() -> Verdict {
    Verdict::Pass
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_further_turns_are_for_sets_too() {
        let verdict = Verdict::Forward(Forwarding::added()).retry_on([486]);
        let Verdict::Forward(forwarding) = &verdict else {
            panic!("a relay");
        };
        assert_eq!(forwarding.retry_on.as_deref(), Some(&[486][..]));
        assert!(matches!(crate::again(verdict), crate::NextStep::Again(_)));
    }

    #[test]
    #[should_panic(expected = "this verdict names no target")]
    fn a_set_has_no_further_targets() {
        let _ = Verdict::Forward(Forwarding::added()).or("voicemail");
    }

    #[test]
    fn headers_keep_their_order() {
        let Verdict::Reject(rejection) = reject(503, "")
            .header("Retry-After", "60")
            .header("X-Why", "full")
        else {
            panic!("a reject");
        };

        let headers: Vec<_> = rejection
            .headers
            .iter()
            .map(|header| (&*header.name, &*header.value))
            .collect();
        assert_eq!(headers, [("Retry-After", "60"), ("X-Why", "full")]);
    }

    #[test]
    #[should_panic(expected = "header() is for reject() and for targets only")]
    fn header_needs_a_reject_or_a_target() {
        let _ = relay().header("X-Why", "never");
    }

    #[test]
    #[should_panic(expected = "this verdict names no target")]
    fn targets_follow_a_target() {
        let _ = relay().or("carrier-b");
    }

    #[test]
    #[should_panic(expected = "this verdict names no target")]
    fn a_memo_is_no_target() {
        let _ = relay().memo("m").or("carrier-b");
    }

    #[test]
    fn a_request_that_is_relayed_as_routed_may_have_a_memo() {
        let Verdict::Forward(forwarding) = relay().memo("one").memo("two") else {
            panic!("a memo");
        };
        assert!(forwarding.targets.is_empty());
        assert_eq!(forwarding.memo.as_deref(), Some(&b"two"[..]));
    }

    fn targets(verdict: Verdict) -> Vec<Target> {
        verdict.into_forwarding().targets
    }

    #[test]
    fn ranks_follow_or_and_and() {
        let verdict = relay_to("a").and("b").or("c").or("d").and("e");
        let ranks: Vec<_> = targets(verdict).iter().map(|target| target.rank).collect();
        assert_eq!(ranks, [0, 0, 1, 2, 2]);
    }

    #[test]
    fn times_are_those_of_the_targets_before() {
        let [two, four] = [2, 4].map(Duration::from_secs);
        let verdict = relay_to("a")
            .within(two)
            .or("b")
            .and("c")
            .within(four)
            .or("d")
            .ring_for(two);
        let times: Vec<_> = targets(verdict)
            .iter()
            .map(|target| (target.no_answer, target.ring))
            .collect();
        let ring = Some(two);
        assert_eq!(
            times,
            [
                (Some(two), ring),
                (Some(four), ring),
                (Some(four), ring),
                (None, ring)
            ]
        );
    }

    #[test]
    fn weight_uri_and_header_are_those_of_the_last_target() {
        let verdict = relay_to("a")
            .weight(3)
            .and("b")
            .request_uri("sip:x@h")
            .header("X-A", "1");
        let forwarding = verdict.into_forwarding();
        assert!(forwarding.is_shared());
        let [a, b] = &forwarding.targets[..] else {
            panic!("two targets");
        };
        assert_eq!(
            (a.weight, a.request_uri.as_deref(), a.headers.len()),
            (Some(3), None, 0)
        );
        assert_eq!(
            (b.weight, b.request_uri.as_deref(), b.headers.len()),
            (None, Some("sip:x@h"), 1)
        );
        assert!(!relay_to("a").or("b").into_forwarding().is_shared());
    }
}
