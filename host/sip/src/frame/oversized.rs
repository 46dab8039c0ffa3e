//! Reduces a header section above its limit to what a response needs: a shortened start line, and the header fields that a response copies
//! or that frame the message.

use std::ops::Range;

use memchr::memchr;

use super::lines::{Lines, Reduce};
use crate::scan::lines::name;
use crate::scan::{HeaderName, Limits, LineEnd};

/// Reduces `head` in place and returns how many bytes are left; `lines` then describes what is left. A section that is
/// [`Reduce::Whole`] keeps its empty line.
///
/// Header fields above their limit are removed like those that no response needs. The last field of a section that is [`Reduce::Begun`] may
/// continue: if it is too long, a line without a name replaces it, so that neither the rest of its line nor a fold is taken as a part of
/// the field before it.
pub(super) fn reduce(head: &mut [u8], lines: &mut Lines, limits: &Limits, reduce: Reduce) -> usize {
    let quarter = (limits.message_bytes / 4).max(TAIL);
    let longest_line = limits.start_line_bytes.min(quarter);
    let longest_field = limits.header_bytes.min(quarter);
    let Some(kind) = lines.kind else {
        lines.searched = shorten(head, longest_line);
        return lines.searched;
    };

    let line_end = kind.as_bytes().len();
    let end = match reduce {
        Reduce::Begun => head.len(),
        Reduce::Whole => head.len() - line_end,
    };
    let mut at = lines.first_end;
    let mut kept = shorten(&mut head[..at], longest_line);
    lines.first_end = kept;
    if at == end {
        // The next line now begins at the end of the start line.
        lines.start = kept;
    }
    while at < end {
        let field = at..field_end(&head[..end], at);
        at = field.end;
        let is_last = at == end && reduce == Reduce::Begun;
        let bytes = &head[field.clone()];
        let name = name(bytes).map(|(end, _)| HeaderName::of(&bytes[..end]));
        let is_short = bytes.len() <= longest_field;
        if is_short && (is_last || name.is_some_and(is_needed)) {
            if is_last {
                lines.start -= field.start - kept;
            }
            kept = shift(head, field, kept);
            continue;
        }
        let is_whole_line = bytes.ends_with(b"\n");
        let is_length = match name {
            Some(name) => name == HeaderName::ContentLength,
            // The colon may not have arrived yet.
            None => HeaderName::of(bytes.trim_ascii_end()) == HeaderName::ContentLength,
        };
        lines.has_lost_length |= is_length;
        if is_last {
            // What is left of the field: the end of its line, as far as received.
            let rest = match (is_whole_line, kind, bytes.last()) {
                (true, LineEnd::CrLf, _) => 2,
                (true, LineEnd::Lf, _) | (false, _, Some(b'\r')) => 1,
                (false, ..) => 0,
            };
            lines.start = kept;
            head[kept] = NAMELESS;
            kept = shift(head, end - rest..end, kept + 1);
            if is_whole_line {
                lines.start = kept;
            }
        }
    }
    let kept = shift(head, end..head.len(), kept);
    lines.searched = kept;
    kept
}

/// Bytes kept at the end of a shortened start line: more than the version of a request line.
const TAIL: usize = 64;

/// A line that begins with this byte has no name.
const NAMELESS: u8 = b':';

/// Removes the middle of a line that is longer than this, and white space before its end; returns its new length. The scan skips white
/// space there, so that the version is what precedes it.
fn shorten(line: &mut [u8], longest: usize) -> usize {
    let length = line.len();
    if length <= longest + TAIL {
        return length;
    }
    let content = line.trim_ascii_end().len();
    // One blank is kept of a line that may continue.
    let line_end = match &line[content..] {
        [.., b'\r', b'\n'] => 2,
        [] => 0,
        _ => 1,
    };
    let tail = content.saturating_sub(TAIL);
    let kept = match tail > longest {
        true => shift(line, tail..content, longest),
        false => content,
    };
    shift(line, length - line_end..length, kept)
}

/// Moves bytes to an earlier position; returns their end.
fn shift(bytes: &mut [u8], from: Range<usize>, to: usize) -> usize {
    let length = from.len();
    bytes.copy_within(from, to);
    to + length
}

/// The end of the header field that begins at `at`, with its folds; the end of the bytes if more may follow.
fn field_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at;
    while let Some(line_feed) = memchr(b'\n', &bytes[end..]) {
        end += line_feed + 1;
        if !matches!(bytes.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
    bytes.len()
}

/// Whether a response copies this field from its request, or the field determines the next message boundary.
fn is_needed(name: HeaderName) -> bool {
    use HeaderName::{CSeq, CallId, ContentLength, From, To, Via};
    matches!(name, Via | From | To | CallId | CSeq | ContentLength)
}
