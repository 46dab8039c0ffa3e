//! Properties of every input, as assertions that property tests and fuzz targets share.
//!
//! Each function panics when its property does not hold.

mod relay;

use std::ops::Range;

use crate::frame::{Frame, FrameError, Framer};
use crate::list::values;
use crate::name_addr::NameAddr;
use crate::params::Params;
use crate::scan::{
    Fault, Field, Framing, HeaderName, Index, Limits, Message, ScanError, StartLine, scan,
};
use crate::uri::{Uri, is_readable_uri};
use crate::via::Via;

pub use relay::relay;

/// Scans `bytes` with every framing and reads every value.
pub fn scanner(bytes: &[u8]) {
    let narrow = Limits {
        message_bytes: 300,
        header_lines: 4,
        header_bytes: 60,
        start_line_bytes: 40,
    };
    let mut used = Index::default();
    for limits in [&Limits::default(), &narrow] {
        for framing in [Framing::Datagram, Framing::Stream] {
            let mut fresh = Index::default();
            let result = scan(bytes, framing, limits, &mut fresh);
            assert_eq!(result, scan(bytes, framing, limits, &mut used));
            let message = Message::new(bytes, &fresh);
            same(message, Message::new(bytes, &used));
            spans(bytes, message);
            match result {
                Ok(()) => whole(message, framing, limits),
                Err(error) => assert!(error.offset <= bytes.len(), "{error:?}"),
            }
            for field in message.fields() {
                readers(field.value);
            }
        }
    }
    readers(bytes);
}

/// Feeds a stream as a whole, byte by byte, and in chunks of this length; frames and error must be the same.
pub fn framer(stream: &[u8], chunk: usize) {
    let narrow = Limits {
        message_bytes: 200,
        start_line_bytes: 30,
        header_lines: 4,
        ..Limits::default()
    };
    for limits in [&Limits::default(), &narrow] {
        let whole = frames(stream, stream.len().max(1), limits);
        assert_eq!(whole, frames(stream, 1, limits));
        assert_eq!(whole, frames(stream, chunk.max(1), limits));
        for frame in &whole.frames {
            match frame {
                Framed::Message(bytes) => framed(bytes, limits),
                Framed::Oversized(head, _) => oversized(head, limits),
                Framed::Ping => {}
            }
        }
    }
}

/// Frames with their bytes, instead of the ranges, which depend on how the stream is split.
#[derive(Debug, PartialEq, Eq)]
struct Frames {
    frames: Vec<Framed>,
    error: Option<(ScanError, Vec<u8>)>,
    /// `None` after an error.
    pending: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
enum Framed {
    Message(Vec<u8>),
    Oversized(Vec<u8>, ScanError),
    Ping,
}

fn frames(stream: &[u8], chunk: usize, limits: &Limits) -> Frames {
    let mut framer = Framer::new(limits);
    let mut frames = Vec::new();
    for bytes in stream.chunks(chunk) {
        framer.push(bytes);
        loop {
            match framer.next() {
                Ok(Frame::Message(range)) => {
                    frames.push(Framed::Message(framer.bytes(range).to_vec()));
                }
                Ok(Frame::Oversized { head, error }) => {
                    let head = framer.bytes(head).to_vec();
                    assert!(error.offset <= head.len());
                    frames.push(Framed::Oversized(head, error));
                }
                Ok(Frame::Ping) => frames.push(Framed::Ping),
                Ok(Frame::NeedMore) => break,
                Err(FrameError { error, readable }) => {
                    let readable = framer.bytes(readable).to_vec();
                    assert!(error.offset <= readable.len());
                    return Frames {
                        frames,
                        error: Some((error, readable)),
                        pending: None,
                    };
                }
            }
        }
    }
    Frames {
        frames,
        error: None,
        pending: Some(framer.pending()),
    }
}

/// The scanner and the framer agree on where a message ends.
fn framed(bytes: &[u8], limits: &Limits) {
    let mut index = Index::default();
    let result = scan(bytes, Framing::Stream, limits, &mut index);
    let message = Message::new(bytes, &index);
    assert_eq!(message.bytes(), bytes, "{result:?}");
    if result.is_ok() {
        assert_eq!(
            message.content_length(),
            u32::try_from(message.body().len()).ok()
        );
    }
}

/// The head of an oversized message has the same kind, is within the limit, and has an empty line at its end and nowhere else.
fn oversized(head: &[u8], limits: &Limits) {
    assert!(head.len() <= limits.message_bytes);
    let mut index = Index::default();
    let result = scan(head, Framing::Stream, limits, &mut index);
    if matches!(result, Err(error) if error.fault == Fault::NotSip) {
        // Only a version longer than what a shortened start line keeps at its end is lost.
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.trim_ascii_end();
        let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        assert!(word.len() > 60, "{result:?}");
    }
    let lines = head.split_inclusive(|byte| *byte == b'\n');
    let empty = lines.filter(|line| matches!(*line, b"\n" | b"\r\n"));
    assert_eq!(empty.count(), 1);
    assert!(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"));
}

fn same(one: Message<'_>, two: Message<'_>) {
    assert_eq!(one.bytes(), two.bytes());
    assert_eq!(one.start_line(), two.start_line());
    assert!(one.fields().eq(two.fields()));
    assert_eq!(one.body(), two.body());
    assert_eq!(one.cseq(), two.cseq());
}

/// All spans lie in the message, in order, and fields are found by name.
fn spans(bytes: &[u8], message: Message<'_>) {
    assert!(message.bytes().len() <= bytes.len());
    assert!(message.header_end() <= message.bytes().len());
    assert!(message.bytes().ends_with(message.body()));
    let mut behind = 0;
    for field in message.fields() {
        field_spans(message, &field);
        assert!(behind <= field.line.start);
        behind = field.line.end;
        let namesakes = message.fields().filter(|other| other.name == field.name);
        assert!(message.headers(field.name).eq(namesakes));
        let name = String::from_utf8_lossy(field.raw_name);
        if name.as_bytes() == field.raw_name {
            assert!(message.by_name(&name).any(|other| other == field));
        }
    }
    assert!(behind <= message.header_end());
}

fn field_spans(message: Message<'_>, field: &Field<'_>) {
    let line = &message.bytes()[field.line.clone()];
    assert!(line.starts_with(field.raw_name) && line.ends_with(b"\n"));
    assert!(!field.raw_name.is_empty());
    assert_eq!(HeaderName::of(field.raw_name), field.name);
    assert_eq!(&message.bytes()[field.value_range.clone()], field.value);
    assert!(field.line.start <= field.value_range.start && field.value_range.end <= field.line.end);
    let is_space = |byte: Option<&u8>| byte.is_some_and(|byte| b" \t\r\n".contains(byte));
    assert!(!is_space(field.value.first()) && !is_space(field.value.last()));
    assert!(!field.unfolded().contains(&b'\n'));
    assert!(
        message
            .header(field.name)
            .is_some_and(|first| first.line.start <= field.line.start)
    );
}

/// A message without fault has all required fields, and scanning it again gives the same result.
fn whole(message: Message<'_>, framing: Framing, limits: &Limits) {
    let mut index = Index::default();
    assert_eq!(scan(message.bytes(), framing, limits, &mut index), Ok(()));
    same(message, Message::new(message.bytes(), &index));

    let end = message.line_end().as_bytes();
    assert!(message.bytes()[message.header_end()..].starts_with(end));
    assert_eq!(
        message.bytes().len(),
        message.header_end() + end.len() + message.body().len()
    );
    assert!(message.header(HeaderName::Via).is_some());
    let mut behind = None;
    for field in message.fields() {
        assert!(message.bytes()[field.line.clone()].ends_with(end));
        assert!(
            behind.is_none_or(|behind| behind == field.line.start),
            "no line is left out"
        );
        behind = Some(field.line.end);
    }
    assert_eq!(behind, Some(message.header_end()));
    if let StartLine::Request { method, uri, .. } = message.start_line() {
        assert!(!uri.is_empty());
        assert_eq!(message.cseq().map(|cseq| cseq.method), Some(method));
    }
    if let Some(length) = message.content_length() {
        assert_eq!(message.body().len(), length as usize);
    }
}

/// No value reader panics, and its spans lie in the value.
fn readers(value: &[u8]) {
    let within =
        |range: &Range<usize>| assert!(range.start <= range.end && range.end <= value.len());
    let params = |params: &Params<'_>| params.clone().for_each(|param| within(&param.range));
    if let Ok(via) = Via::parse(value) {
        within(&via.range);
        within(&via.sent_by);
        params(&via.params);
        assert!(
            via.next
                .is_none_or(|next| via.range.end < next && next <= value.len())
        );
        let _ = (via.received(), via.rport(), via.rfc3261_branch());
    }
    if let Ok(address) = NameAddr::parse(value) {
        assert_eq!(&value[address.uri_range.clone()], address.uri);
        params(&address.params);
        let _ = address.tag();
    }
    if let Ok(party) = NameAddr::of_party(value) {
        assert!(is_readable_uri(party.uri) && !party.uri.contains(&0));
    }
    if let Ok(uri) = Uri::parse(value) {
        within(&uri.host_range);
        params(&uri.params);
        let _ = (uri.known_transport(), uri.is_loose_router());
    }
    let mut behind = 0;
    for part in values(value) {
        assert_eq!(&value[part.range.clone()], part.bytes);
        assert!(behind <= part.range.start);
        behind = part.range.end;
    }
}
