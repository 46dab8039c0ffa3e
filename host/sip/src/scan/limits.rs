//! Limits of a message.

/// Limits of one message, checked before any work is spent on bytes beyond them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole message: start line, headers and body. No datagram is longer than the default.
    pub message_bytes: usize,
    /// Header lines; a folded header counts once. The same number of lines may be folds.
    pub header_lines: usize,
    /// Bytes of one header line with its name, folds and line end. A line of a response may be longer by what this host added to the Via of
    /// the request: otherwise the response to an accepted request could be too long.
    pub header_bytes: usize,
    /// Bytes of the request or status line without its line end. A longer request line is still parsed, and answered 414.
    pub start_line_bytes: usize,
}

impl Limits {
    /// No limits: for messages that this host has written or stored. Its own header fields may have taken a request beyond the limits of
    /// received messages.
    pub const NONE: Self = Self {
        message_bytes: usize::MAX,
        header_lines: usize::MAX,
        header_bytes: usize::MAX,
        start_line_bytes: usize::MAX,
    };

    /// The limits as the scanner applies them: offsets are kept in 32 bits and header positions in
    /// 16, so larger wishes are cut down to what those hold.
    pub(crate) fn effective(&self) -> Self {
        Self {
            message_bytes: self.message_bytes.min(MAX_MESSAGE_BYTES),
            header_lines: self.header_lines.min(MAX_HEADER_LINES),
            ..*self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 65_535,
            header_lines: 256,
            header_bytes: 8_192,
            start_line_bytes: 8_192,
        }
    }
}

const MAX_MESSAGE_BYTES: usize = 1 << 30;
const MAX_HEADER_LINES: usize = u16::MAX as usize - 1;
