//! Request line and status line (RFC 3261 §7.1, §7.2).

use memchr::{memchr, memrchr};

use super::Fault;
use super::index::{Span, StartSpans};
use crate::token::is_token;
use crate::words::find_end;

/// Parses a start line, which begins at offset 0 of the message. With a fault, the spans hold the
/// parts that could be parsed.
pub(super) fn read(line: &[u8]) -> (StartSpans, Option<Fault>) {
    if line.get(..4).is_some_and(begins_version) {
        return status_line(line);
    }
    request_line(line)
}

/// Whether this is a start line of any SIP version, even with a fault.
pub(crate) fn is_sip(line: &[u8]) -> bool {
    read(line).1 != Some(Fault::NotSip)
}

/// Whether the start of a line can be that of a SIP start line: a method and a space, or `SIP/`.
pub(crate) fn may_become_sip(line: &[u8]) -> bool {
    let method = memchr(b' ', line).and_then(|end| line.get(..end));
    line.get(..4).is_some_and(begins_version) || method.is_some_and(is_token)
}

fn request_line(line: &[u8]) -> (StartSpans, Option<Fault>) {
    match strict_request_line(line) {
        Some(spans) => (spans, None),
        None => loose_request_line(line),
    }
}

/// By the grammar.
fn strict_request_line(line: &[u8]) -> Option<StartSpans> {
    let method_end = find_end(line, DEL)?;
    let uri = method_end + 1;
    let uri_end = uri + find_end(line.get(uri..)?, DEL)?;
    let version = line.get(uri_end..)?.strip_prefix(b" ")?;
    let strict = line.get(method_end) == Some(&b' ')
        && uri < uri_end
        && is_token(line.get(..method_end)?)
        && version.get(..4).is_some_and(begins_version)
        && find_end(version, DEL).is_none();
    strict.then(|| StartSpans::Request {
        method: Span::new(0, method_end),
        uri: Span::new(uri, uri_end),
        version: Span::new(uri_end + 1, line.len()),
    })
}

/// With misplaced space: the parts are recognisable, so that the request can be refused with a reply.
#[cold]
fn loose_request_line(line: &[u8]) -> (StartSpans, Option<Fault>) {
    let trimmed = line.trim_ascii_end();
    let (Some(method_end), Some(uri_end)) = (memchr(b' ', trimmed), memrchr(b' ', trimmed)) else {
        return (StartSpans::default(), Some(Fault::NotSip));
    };
    let method = &trimmed[..method_end];
    let version = &trimmed[uri_end + 1..];
    if !is_token(method) || !version.get(..4).is_some_and(begins_version) {
        return (StartSpans::default(), Some(Fault::NotSip));
    }

    let between = trimmed.get(method_end + 1..uri_end).unwrap_or_default();
    let uri = between.trim_ascii();
    let uri_start = method_end + 1 + (between.len() - between.trim_ascii_start().len());
    let spans = StartSpans::Request {
        method: Span::new(0, method_end),
        uri: Span::new(uri_start, uri_start + uri.len()),
        version: Span::new(uri_end + 1, trimmed.len()),
    };
    (spans, Some(Fault::RequestLine))
}

/// The reason phrase may be absent together with the space before it; some senders leave it out.
fn status_line(line: &[u8]) -> (StartSpans, Option<Fault>) {
    let version_end = memchr(b' ', line).unwrap_or(line.len());
    let rest = line.get(version_end + 1..).unwrap_or_default();
    let code_length = memchr(b' ', rest).unwrap_or(rest.len());
    let code = status_code(&rest[..code_length]);
    let reason = line.len().min(version_end + 1 + code_length + 1);
    let spans = StartSpans::Response {
        version: Span::new(0, version_end),
        code: code.unwrap_or(0),
        reason: Span::new(reason, line.len()),
    };
    (spans, code.is_none().then_some(Fault::StatusLine))
}

fn status_code(digits: &[u8]) -> Option<u16> {
    let [
        hundreds @ b'1'..=b'6',
        tens @ b'0'..=b'9',
        ones @ b'0'..=b'9',
    ] = digits
    else {
        return None;
    };
    Some(u16::from(hundreds - b'0') * 100 + u16::from(tens - b'0') * 10 + u16::from(ones - b'0'))
}

fn begins_version(bytes: &[u8]) -> bool {
    bytes.eq_ignore_ascii_case(b"SIP/")
}

const DEL: u8 = 0x7f;
