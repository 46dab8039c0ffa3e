//! The state that the receiving and the sending half of a stream connection share.

use std::cell::Cell;

use portcullis_websocket::Close;

#[derive(Debug, Default)]
pub(super) struct BothHalves {
    has_written: Cell<bool>,
    farewell: Cell<Option<Close>>,
}

impl BothHalves {
    /// Notes that the peer has taken something.
    pub(super) fn note_written(&self) {
        self.has_written.set(true);
    }

    /// Whether the peer has taken something since the last call.
    pub(super) fn take_written(&self) -> bool {
        self.has_written.replace(false)
    }

    /// Sets why the connection ends if the host ends it, for a peer that can be sent the reason; `None` if it has been sent already.
    pub(super) fn set_farewell(&self, close: Option<Close>) {
        self.farewell.set(close);
    }

    /// The reason to send to the peer when nothing else is to be sent.
    pub(super) fn take_farewell(&self) -> Option<Close> {
        self.farewell.take()
    }
}
