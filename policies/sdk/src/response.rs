//! Final responses to a request.

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
