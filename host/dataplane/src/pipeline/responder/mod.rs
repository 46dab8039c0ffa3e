//! The responses of the host itself.

pub(super) mod answers;
