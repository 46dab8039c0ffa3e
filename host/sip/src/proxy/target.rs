//! Where a policy sends a request.

use super::dialog::Dialog;

/// The target of a relayed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// According to Route and request URI, as far as the configuration permits, otherwise to the default next hop.
    AsRouted,
    /// To the next hop with this name.
    NextHop(&'a str),
    /// To the host, port and transport of this SIP URI, as far as the configuration permits. The request URI is unchanged.
    Uri(&'a str),
    /// Within this dialog: according to Route and request URI, as far as the configuration permits, otherwise to the opposite end of the
    /// dialog, at its address when the dialog began.
    Within(Dialog),
}
