//! What a policy answers.

/// The decision on one request.
///
/// Made by [`relay`], [`relay_to`], [`reject`], [`drop_request`] and [`pass`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict does nothing unless the policy returns it"]
pub enum Verdict {
    /// Send the request on: to the next hop of this name in the host's configuration, or with none as the message is routed.
    Relay(Option<String>),
    /// Answer with a final status.
    Reject(Rejection),
    /// Do nothing; the sender gets no answer.
    Drop,
    /// No opinion: the next policy decides.
    Pass,
}

/// A final answer to the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code, 300 to 699.
    pub code: u16,
    /// The reason phrase, without line breaks; empty for the standard phrase of the code.
    pub reason: String,
    /// Header fields to add to the answer.
    pub headers: Vec<Header>,
}

/// A header field of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name, a token of RFC 3261 §25.1.
    pub name: String,
    /// The value, without line breaks.
    pub value: String,
}

impl Verdict {
    /// Adds a header field to the answer: Contact to a 302, Retry-After to a 503.
    ///
    /// Header fields that the host itself writes (Via, From, To, Call-ID, CSeq, Content-Length, Record-Route, …) are refused: the
    /// host treats the verdict as a failure of the policy, and [`testing`](crate::testing) panics.
    ///
    /// ```
    /// use portcullis_sdk::prelude::*;
    ///
    /// let moved = reject(302, "Moved Temporarily").header("Contact", "<sip:bob@192.0.2.7>");
    /// ```
    ///
    /// # Panics
    /// If the verdict is not a [`reject`]: a request that is sent on stays as it is.
    #[track_caller]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let Self::Reject(rejection) = &mut self else {
            panic!(
                "header() goes with reject() only: no other verdict has an answer to add header fields to"
            );
        };
        rejection.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }
}

/// Send the request on as the message is routed: after its Route header fields, then its request URI.
///
/// The host follows them only to next hops and domains that its configuration names, and otherwise sends the request to its
/// default next hop.
pub fn relay() -> Verdict {
    Verdict::Relay(None)
}

/// Send the request to the next hop of this name in the host's configuration.
///
/// A name that the configuration does not have is a failure of the policy.
pub fn relay_to(next_hop: impl Into<String>) -> Verdict {
    Verdict::Relay(Some(next_hop.into()))
}

/// Answer with this status code (300 to 699) and reason phrase (Kamailio: `sl_reply(code, reason)`, then `exit`).
///
/// An empty reason stands for the standard phrase of the code. An ACK is never answered: it is dropped.
pub fn reject(code: u16, reason: impl Into<String>) -> Verdict {
    Verdict::Reject(Rejection {
        code,
        reason: reason.into(),
        headers: Vec::new(),
    })
}

/// Do nothing; the sender gets no answer.
///
/// Over UDP the sender repeats the request; a [`reject`] is the cheaper way to be rid of it, unless the sender is a scanner.
pub fn drop_request() -> Verdict {
    Verdict::Drop
}

/// No opinion: the next policy decides, after the last one the default that the host's configuration names.
pub fn pass() -> Verdict {
    Verdict::Pass
}

#[cfg(test)]
mod tests {
    use super::*;

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
    #[should_panic(expected = "header() goes with reject() only")]
    fn header_needs_a_reject() {
        let _ = relay().header("X-Why", "never");
    }
}
