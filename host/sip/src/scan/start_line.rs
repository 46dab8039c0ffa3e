//! Request line and status line (RFC 3261 §7.1, §7.2).

use memchr::{memchr, memrchr};

use super::Fault;
use super::index::{Span, StartSpans};
use crate::token::is_token;

/// Reads a start line, which begins at offset 0 of the message. With a fault the spans hold what
/// could be read.
pub(super) fn read(line: &[u8]) -> (StartSpans, Option<Fault>) {
    if line.get(..4).is_some_and(is_sip) {
        return status_line(line);
    }
    request_line(line)
}

fn request_line(line: &[u8]) -> (StartSpans, Option<Fault>) {
    let trimmed = line.trim_ascii_end();
    let (Some(method_end), Some(uri_end)) = (memchr(b' ', trimmed), memrchr(b' ', trimmed)) else {
        return (StartSpans::default(), Some(Fault::NotSip));
    };
    let method = &trimmed[..method_end];
    let version = &trimmed[uri_end + 1..];
    if !is_token(method) || !version.get(..4).is_some_and(is_sip) {
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
    let strict = trimmed.len() == line.len()
        && uri.len() == between.len()
        && !uri.is_empty()
        && line
            .iter()
            .filter(|&&byte| byte <= b' ' || byte == 0x7f)
            .count()
            == 2;
    (spans, (!strict).then_some(Fault::RequestLine))
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

fn is_sip(bytes: &[u8]) -> bool {
    bytes.eq_ignore_ascii_case(b"SIP/")
}
