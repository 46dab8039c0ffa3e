//! The framer's state of the lines of a header section.

use crate::scan::start_line;
use crate::scan::{Fault, Limits, LineEnd};

/// How much of a header section is present when it is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduce {
    /// More will follow: the last header field may be incomplete.
    Begun,
    /// All of it, including the empty line.
    Whole,
}

/// State of the lines of a header section. Offsets count from the start of the message as it is after reductions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    /// The line end of the first line, when it is complete.
    pub(super) kind: Option<LineEnd>,
    /// The first line is long and incomplete, and begins like a SIP start line.
    pub(super) begins_sip: bool,
    /// Number of lines.
    pub(super) count: usize,
    /// End of the first line.
    pub(super) first_end: usize,
    /// Start of the incomplete line.
    pub(super) start: usize,
    /// Everything before this has been searched for line feeds.
    pub(super) searched: usize,
    /// The limit that the message is above.
    pub(super) fault: Option<Fault>,
    /// Bytes removed by reductions.
    pub(super) removed: usize,
    /// A reduction may have removed Content-Length.
    pub(super) has_lost_length: bool,
}

impl Lines {
    /// Notes that the header section is above the limit; returns the limit that the message exceeded first.
    pub(super) fn oversized(&mut self, limits: &Limits) -> Fault {
        let first_line = match self.kind {
            None => self.searched,
            Some(kind) => self.first_end - kind.as_bytes().len(),
        };
        *self
            .fault
            .get_or_insert(match first_line > limits.start_line_bytes {
                true => Fault::StartLineTooLong,
                false => Fault::MessageTooLong,
            })
    }

    /// Takes a line without its line feed; returns whether it is the empty line after the headers.
    pub(super) fn take(&mut self, line: &[u8], limits: &Limits) -> Result<bool, Fault> {
        let (content, kind) = match line.strip_suffix(b"\r") {
            Some(content) => (content, LineEnd::CrLf),
            None => (line, LineEnd::Lf),
        };
        let next = self.start + line.len() + 1;
        match self.kind {
            None => {
                self.first_end = next;
                self.first(content, kind, limits)?;
            }
            Some(first) if first != kind => return Err(Fault::LineEnd),
            Some(_) => {}
        }
        self.count += 1;
        // The start line, headers, as many folds, and the empty line.
        if self.count > limits.header_lines.saturating_mul(2).saturating_add(2) {
            self.fault.get_or_insert(Fault::TooManyHeaders);
        }
        self.start = next;
        self.searched = next;
        Ok(content.is_empty())
    }

    /// Refuses other protocols at their first line, before they fill the buffer. A start line above its limit is left to the scan: its
    /// message is framed and answered like any other.
    fn first(&mut self, content: &[u8], kind: LineEnd, limits: &Limits) -> Result<(), Fault> {
        self.kind = Some(kind);
        let is_long = content.len() > limits.start_line_bytes;
        if (is_long && !begins_sip(content, limits)) || !start_line::is_sip(content) {
            return Err(Fault::NotSip);
        }
        Ok(())
    }
}

/// Whether a line above its limit begins like a SIP start line, within the limit.
pub(super) fn begins_sip(line: &[u8], limits: &Limits) -> bool {
    let near = line.get(..limits.start_line_bytes).unwrap_or(line);
    start_line::may_become_sip(near)
}
