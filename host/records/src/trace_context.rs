//! The context of a trace (W3C Trace Context): which trace a decision belongs to, and its span in that.
//!
//! The identifiers are functions of what is recorded, so that the data path and the export of records agree without a word.

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::record::{Kind, Record};

/// The trace of a decision, and its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    /// The span that the request came from.
    parent: Option<u64>,
    own: u64,
}

impl TraceContext {
    /// The context of a decision on a request with this `traceparent`, if it has one. Otherwise, all requests of a call are one trace.
    pub fn new(given: Option<&str>, call_id: &str, decision: &str) -> Self {
        let own = hash(&[b"span", decision.as_bytes()]) as u64;
        match given.and_then(parse) {
            Some((trace, parent)) => Self {
                trace,
                parent: Some(parent),
                own: own.max(1),
            },
            None => Self {
                trace: hash(&[b"trace", call_id.as_bytes()]).max(1),
                parent: None,
                own: own.max(1),
            },
        }
    }

    /// The context of a record. `header` names the field that carries the context of a trace.
    pub fn of_record(record: &Record, header: Option<&str>) -> Self {
        let message = record.request.as_deref().unwrap_or_default();
        let given = header.and_then(|name| header_of(message, name, name));
        let call_id = header_of(message, "Call-ID", "i").unwrap_or_default();
        let decision = Self::new(given, call_id, &record.id);
        match record.kind {
            Kind::Decision => decision,
            Kind::Failure => Self {
                parent: Some(decision.own),
                own: decision.child(usize::MAX - record.call),
                ..decision
            },
        }
    }

    /// The value of `traceparent` for requests that follow from the decision. The flag says that its span is recorded.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace, self.own)
    }

    /// The trace, in hexadecimal.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span of the decision, in hexadecimal.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.own)
    }

    /// The span that the request came from, in hexadecimal.
    pub fn parent_id(&self) -> Option<String> {
        self.parent.map(|parent| format!("{parent:016x}"))
    }

    /// The span of the policy call of this number, in hexadecimal.
    pub fn child_id(&self, number: usize) -> String {
        format!("{:016x}", self.child(number))
    }

    fn child(&self, number: usize) -> u64 {
        let child = hash(&[b"child", &self.own.to_be_bytes(), &number.to_be_bytes()]);
        (child as u64).max(1)
    }
}

/// Finds a header field in a message as text.
pub fn header_of<'m>(message: &'m str, name: &str, short: &str) -> Option<&'m str> {
    let lines = message.lines().skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, value)| {
            let found = found.trim_end();
            let is_it = found.eq_ignore_ascii_case(name) || found.eq_ignore_ascii_case(short);
            is_it.then(|| value.trim())
        })
}

/// Reads the trace and the span of a `traceparent` (W3C Trace Context §3.2).
fn parse(text: &str) -> Option<(u128, u64)> {
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !is_hex(version, 2) || version == "ff" || !is_hex(flags, 2) {
        return None;
    }
    // A later version may have more parts.
    if version == "00" && parts.next().is_some() {
        return None;
    }
    if !is_hex(trace, 32) || !is_hex(parent, 16) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok()?;
    let parent = u64::from_str_radix(parent, 16).ok()?;
    (trace != 0 && parent != 0).then_some((trace, parent))
}

/// The key is public: the identifiers protect nothing.
fn hash(parts: &[&[u8]]) -> u128 {
    use std::hash::Hasher;

    let mut hasher = SipHasher13::new();
    for part in parts {
        hasher.write(&part.len().to_be_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_given_trace_is_continued() {
        let context = TraceContext::new(Some(GIVEN), "a@b", "3fa9c0d1-2f");
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent_id().as_deref(), Some("00f067aa0ba902b7"));
        let next = context.traceparent();
        assert!(next.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        let onward = TraceContext::new(Some(&next), "a@b", "3fa9c0d1-30");
        assert_eq!(onward.parent_id(), Some(context.span_id()));
        assert_ne!(onward.span_id(), context.span_id());
    }

    #[test]
    fn a_call_is_one_trace_without_a_given_one() {
        let of = |given, call_id, decision| TraceContext::new(given, call_id, decision);
        let invite = of(None, "a@b", "1-1");
        let bye = of(None, "a@b", "1-2");
        assert_eq!(invite.trace_id(), bye.trace_id());
        assert_ne!(invite.span_id(), bye.span_id());
        assert_eq!(invite.parent_id(), None);
        assert_ne!(of(None, "c@d", "1-1").trace_id(), invite.trace_id());
        assert_ne!(invite.child_id(0), invite.child_id(1));
        for invalid in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(Some(invalid), "a@b", "1-1"), invite, "{invalid}");
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(of(Some(later), "a@b", "1-1").parent_id().is_some());
    }

    #[test]
    fn header_fields_are_found_in_any_spelling() {
        let message =
            "INVITE sip:a@b SIP/2.0\r\nVia: x\r\ni : a@b\r\nTraceParent: 00\r\n\r\nCall-ID: body";
        assert_eq!(header_of(message, "Call-ID", "i"), Some("a@b"));
        assert_eq!(header_of(message, "traceparent", "traceparent"), Some("00"));
        assert_eq!(header_of(message, "Subject", "s"), None);
    }
}
