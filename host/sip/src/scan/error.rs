//! Faults of a message and their positions.

use thiserror::Error;

use super::HeaderName;

/// The first fault of a message and its position.
///
/// The scan continues after most faults, so that the index holds what a reply needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{fault} (at byte {offset})")]
pub struct ScanError {
    /// What is wrong.
    pub fault: Fault,
    /// Offset from the start of the start line; may be beyond the end of the message as it was cut.
    pub offset: usize,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// No bytes but line ends: a keep-alive or a probe, never answered.
    #[error("nothing but line ends")]
    Empty,
    /// The first line is neither a request line nor a status line of any SIP version.
    #[error("the first line is not a SIP request or status line")]
    NotSip,
    /// Request line with misplaced space or control characters (RFC 4475 §3.1.2.8–10).
    #[error("the request line is not METHOD SP URI SP VERSION")]
    RequestLine,
    /// Status line whose code is not a number from 100 to 699.
    #[error("the status line is not VERSION SP CODE SP REASON with a code from 100 to 699")]
    StatusLine,
    /// Start line above [`Limits::start_line_bytes`](super::Limits::start_line_bytes).
    #[error("the start line is longer than the limit")]
    StartLineTooLong,
    /// Message above [`Limits::message_bytes`](super::Limits::message_bytes).
    #[error("the message is longer than the limit")]
    MessageTooLong,
    /// One header above [`Limits::header_bytes`](super::Limits::header_bytes).
    #[error("a header line is longer than the limit")]
    HeaderTooLong,
    /// More headers, or more folds, than [`Limits::header_lines`](super::Limits::header_lines). Also a request with so many header fields that
    /// responses repeat that a response could exceed the limits: more than three quarters of the lines or bytes.
    #[error("more header lines than the limit")]
    TooManyHeaders,
    /// A CR without LF, or CRLF and bare LF in one message: peers would see different headers.
    #[error("a line has another line end than the first line")]
    LineEnd,
    /// A header line without a colon, without a name, or with space or controls in its name.
    #[error("a header line is not NAME: VALUE")]
    HeaderLine,
    /// The message stops before the empty line that ends the headers.
    #[error("no empty line after the headers")]
    NoEmptyLine,
    /// A header that this kind of message must have.
    #[error("{} is missing", .0.as_str())]
    Missing(HeaderName),
    /// A second header of a name that a message may have once.
    #[error("{} occurs twice", .0.as_str())]
    Duplicate(HeaderName),
    /// Content-Length that is not a number, is negative or above 2³¹−1.
    #[error("Content-Length is not a number from 0 to 2147483647")]
    ContentLength,
    /// The body is shorter than Content-Length says (RFC 3261 §18.3).
    #[error("the body is shorter than Content-Length")]
    BodyTooShort,
    /// Max-Forwards that is not a number, or none below 2³².
    #[error("Max-Forwards is not a number from 0 to 4294967295")]
    MaxForwards,
    /// CSeq that is not a number below 2³² and a method.
    #[error("CSeq is not a number below 4294967296 and a method")]
    CSeq,
    /// CSeq names another method than the request line (RFC 4475 §3.1.2.17).
    #[error("CSeq names another method than the request line")]
    CSeqMethod,
}

impl Fault {
    /// The status code of a reply to a message with this fault: 414 for a request line and 513 for anything else above its limit, 400 for
    /// all others.
    pub const fn code(self) -> u16 {
        match self {
            Self::StartLineTooLong => 414,
            Self::MessageTooLong | Self::HeaderTooLong | Self::TooManyHeaders => 513,
            Self::Empty
            | Self::NotSip
            | Self::RequestLine
            | Self::StatusLine
            | Self::LineEnd
            | Self::HeaderLine
            | Self::NoEmptyLine
            | Self::Missing(_)
            | Self::Duplicate(_)
            | Self::ContentLength
            | Self::BodyTooShort
            | Self::MaxForwards
            | Self::CSeq
            | Self::CSeqMethod => 400,
        }
    }

    /// A reason phrase that names the fault in a few words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "Empty Message",
            Self::NotSip => "Not SIP",
            Self::RequestLine => "Bad Request Line",
            Self::StatusLine => "Bad Status Line",
            Self::StartLineTooLong => "Request-URI Too Long",
            Self::MessageTooLong => "Message Too Large",
            Self::HeaderTooLong => "Header Too Long",
            Self::TooManyHeaders => "Too Many Headers",
            Self::LineEnd => "Bad Line End",
            Self::HeaderLine => "Bad Header Line",
            Self::NoEmptyLine => "Headers Not Ended",
            Self::Missing(name) => missing(name),
            Self::Duplicate(name) => duplicate(name),
            Self::ContentLength => "Bad Content-Length",
            Self::BodyTooShort => "Body Shorter Than Content-Length",
            Self::MaxForwards => "Bad Max-Forwards",
            Self::CSeq => "Bad CSeq",
            Self::CSeqMethod => "CSeq Method Does Not Match",
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other header fields are not mandatory"
)]
const fn missing(name: HeaderName) -> &'static str {
    match name {
        HeaderName::Via => "Missing Via",
        HeaderName::From => "Missing From",
        HeaderName::To => "Missing To",
        HeaderName::CallId => "Missing Call-ID",
        HeaderName::CSeq => "Missing CSeq",
        HeaderName::ContentLength => "Missing Content-Length",
        _ => "Missing Header",
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other header fields may occur more than once"
)]
const fn duplicate(name: HeaderName) -> &'static str {
    match name {
        HeaderName::From => "Two From Headers",
        HeaderName::To => "Two To Headers",
        HeaderName::CallId => "Two Call-ID Headers",
        HeaderName::CSeq => "Two CSeq Headers",
        HeaderName::MaxForwards => "Two Max-Forwards Headers",
        HeaderName::ContentLength => "Two Content-Length Headers",
        _ => "Duplicate Header",
    }
}
