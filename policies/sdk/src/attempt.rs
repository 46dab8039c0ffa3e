//! The results of targets.

/// The result of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The name of the next hop, or the URI.
    pub place: String,
    /// The received status code, or the one that the cause counts as.
    pub status: u16,
    /// Where the code comes from.
    pub cause: Cause,
    /// Milliseconds from the turn of the target to its result.
    pub milliseconds: u32,
}

/// Why a target has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It answered.
    Answered,
    /// It did not answer in time: 408.
    NoAnswer,
    /// It rang too long: 408.
    RangOut,
    /// It was cancelled, because another answer made its own needless.
    Cancelled,
    /// It could not be reached, or is the host itself: 503.
    Unreachable,
    /// Its name has no address: 503.
    Unresolved,
    /// The request must not be sent there, for example because it has been there already.
    Refused,
}
