//! What is to be done with a header that has come in part.

use crate::header::Header;

/// Most bytes of a header of version 2: those of its addresses, and of what a load balancer adds (TLVs), such as a certificate.
pub const LONGEST: usize = 4_096;

/// What is to be done with a header that begins with what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take this number of bytes, at least one: all of them belong to the header.
    Bytes(usize),
    /// Take this number of bytes at most, up to the end of a line.
    Line(usize),
    /// It is whole.
    Whole(Header),
}
