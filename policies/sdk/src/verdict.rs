//! The verdict of a policy.

/// The decision on one request.
///
/// Made by [`relay`], [`relay_to`], [`reject`], [`drop_request`] and [`pass`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict does nothing unless the policy returns it"]
pub enum Verdict {
    /// Relay to the next hop with this name in the host's configuration or, with `None`, as the message is routed.
    Relay(Option<String>),
    /// Respond with a final status.
    Reject(Rejection),
    /// Drop the request; the sender gets no response.
    Drop,
    /// No decision: the next policy decides.
    Pass,
}

/// A final response to the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code, 300 to 699.
    pub code: u16,
    /// The reason phrase, without line breaks; empty for the standard phrase of the code.
    pub reason: String,
    /// Header fields to add to the response.
    pub headers: Vec<Header>,
}

/// A header field of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The name, a token (RFC 3261 §25.1).
    pub name: String,
    /// The value, without line breaks.
    pub value: String,
}

impl Verdict {
    /// Adds a header field to the response: Contact to a 302, Retry-After to a 503.
    ///
    /// Header fields that the host writes itself (Via, From, To, Call-ID, CSeq, Content-Length, Record-Route, …) are refused: the host
    /// treats the verdict as a failure of the policy, and [`testing`](crate::testing) panics.
    ///
    /// ```
    /// use portcullis_sdk::prelude::*;
    ///
    /// let moved = reject(302, "Moved Temporarily").header("Contact", "<sip:bob@192.0.2.7>");
    /// ```
    ///
    /// # Panics
    /// If the verdict is not a [`reject`]: use [`edits`](crate::edits) for a relayed request.
    #[track_caller]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let Self::Reject(rejection) = &mut self else {
            panic!(
                "header() is for reject() only: other verdicts have no response to add header fields to"
            );
        };
        rejection.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
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
    #[should_panic(expected = "header() is for reject() only")]
    fn header_needs_a_reject() {
        let _ = relay().header("X-Why", "never");
    }
}
