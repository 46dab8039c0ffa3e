//! Where a policy sends a request.

use super::dialog::Dialog;

/// The target of a relayed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Where Route and request URI say, as far as the configuration permits, else to the default next hop.
    AsRouted,
    /// To the next hop of this name.
    NextHop(&'a str),
    /// Within this dialog: where Route and request URI say, as far as the configuration permits, else to the end of the dialog
    /// that the request is not from, where it was when the dialog began.
    Within(Dialog),
}
