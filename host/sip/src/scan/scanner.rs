//! The pass itself.

use super::index::{Entry, Span, StartSpans};
use super::lines::{leading_line_ends, line_break, raw_header};
use super::{Fault, HeaderName, Index, Limits, LineEnd, ScanError, start_line};
use crate::cseq::{CSeq, content_length, max_forwards};
use crate::token;

/// What carries the message, which decides where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One datagram: without Content-Length the body is the rest (RFC 3261 §18.3).
    Datagram,
    /// A message that [`Framer`](crate::Framer) cut out of a stream: Content-Length must be there.
    Stream,
}

/// Reads one message into `index`.
///
/// # Errors
/// The first fault, with its place. The scan goes on behind it as far as it can, so `index` still
/// holds what could be read: start line, headers, numbers.
pub fn scan(
    bytes: &[u8],
    framing: Framing,
    limits: &Limits,
    index: &mut Index,
) -> Result<(), ScanError> {
    index.clear();
    let limits = limits.effective();
    let start = leading_line_ends(bytes.get(..limits.message_bytes).unwrap_or(bytes));
    let whole = bytes.get(start..).unwrap_or_default();
    let message = whole.get(..limits.message_bytes).unwrap_or(whole);
    index.message = Span::new(start, start + message.len());

    let mut scanner = Scanner {
        bytes: message,
        limits,
        index,
        fault: None,
    };
    if message.is_empty() {
        scanner.note(Fault::Empty, 0);
    } else {
        if message.len() < whole.len() {
            scanner.note(Fault::MessageTooLong, message.len());
        }
        scanner.message(framing);
    }
    scanner.fault.map_or(Ok(()), Err)
}

struct Scanner<'a, 'i> {
    /// From the start line to the end of what was received.
    bytes: &'a [u8],
    limits: Limits,
    index: &'i mut Index,
    fault: Option<ScanError>,
}

impl<'a> Scanner<'a, '_> {
    fn message(&mut self, framing: Framing) {
        let Some(headers) = self.start_line() else {
            return;
        };
        let body = self.headers(headers);
        self.numbers();
        self.required(framing);
        self.body(body);
    }

    /// Reads the first line; tells where the headers start.
    fn start_line(&mut self) -> Option<usize> {
        let limit = self.limits.start_line_bytes;
        let Some(first) = line_break(self.bytes, 0, None) else {
            let long = self.bytes.len() > limit;
            self.note(
                if long {
                    Fault::StartLineTooLong
                } else {
                    Fault::NotSip
                },
                0,
            );
            return None;
        };
        self.index.line_end = first.kind;
        if first.end > limit {
            self.note(Fault::StartLineTooLong, limit);
            return None;
        }
        if let Some(odd) = first.odd {
            self.note(Fault::LineEnd, odd);
        }

        let (spans, fault) = start_line::read(&self.bytes[..first.end]);
        self.index.start_line = spans;
        self.index.header_end = first.next as u32;
        if let Some(fault) = fault {
            self.note(fault, 0);
            if fault == Fault::NotSip {
                return None;
            }
        }
        if matches!(self.bytes.get(first.next), Some(b' ' | b'\t')) {
            let fault = match spans {
                StartSpans::Request { .. } => Fault::RequestLine,
                StartSpans::Response { .. } => Fault::StatusLine,
            };
            self.note(fault, first.next);
        }
        Some(first.next)
    }

    /// Reads the header lines from `at` on; tells where the body starts.
    fn headers(&mut self, mut at: usize) -> usize {
        loop {
            self.index.header_end = at as u32;
            let line = self.bytes.get(at..).unwrap_or_default();
            match line {
                [b'\n', ..] => {
                    self.expect(LineEnd::Lf, at);
                    return at + 1;
                }
                [b'\r', b'\n', ..] => {
                    self.expect(LineEnd::CrLf, at);
                    return at + 2;
                }
                _ => {}
            }
            if self.index.len() == self.limits.header_lines && !line.is_empty() {
                self.note(Fault::TooManyHeaders, at);
                return self.bytes.len();
            }
            let Some(next) = self.header(at) else {
                self.note(Fault::NoEmptyLine, at);
                return self.bytes.len();
            };
            at = next;
        }
    }

    /// Reads the header at `at`; tells where the next line starts, or `None` when the bytes stop
    /// before.
    fn header(&mut self, at: usize) -> Option<usize> {
        let raw = raw_header(self.bytes, at, self.index.line_end)?;
        let next = raw.end.next;
        if let Some(odd) = raw.end.odd {
            self.note(Fault::LineEnd, odd);
        }
        if next - at > self.limits.header_bytes {
            self.note(Fault::HeaderTooLong, at);
            return Some(next);
        }
        let Some(name_end) = raw.name_end else {
            self.note(Fault::HeaderLine, at);
            return Some(next);
        };

        let (value, cut) = token::trim(&self.bytes[raw.value..raw.end.end]);
        let start = raw.value + cut;
        let entry = Entry {
            name: HeaderName::of(&self.bytes[at..name_end]),
            line: Span::new(at, next),
            name_end: name_end as u32,
            value: Span::new(start, start + value.len()),
        };
        if self.index.push(entry) && entry.name.is_single() {
            self.note(Fault::Duplicate(entry.name), at);
        }
        Some(next)
    }

    fn numbers(&mut self) {
        if let Some((value, at)) = self.value(HeaderName::ContentLength) {
            self.index.numbers.content_length = content_length(value);
            if self.index.numbers.content_length.is_none() {
                self.note(Fault::ContentLength, at);
            }
        }
        if let Some((value, at)) = self.value(HeaderName::MaxForwards) {
            self.index.numbers.max_forwards = max_forwards(value);
            if self.index.numbers.max_forwards.is_none() {
                self.note(Fault::MaxForwards, at);
            }
        }
        if let Some((value, at)) = self.value(HeaderName::CSeq) {
            match CSeq::parse(value) {
                Some(cseq) => self.cseq(cseq, at, value.len()),
                None => self.note(Fault::CSeq, at),
            }
        }
    }

    fn cseq(&mut self, cseq: CSeq<'_>, at: usize, length: usize) {
        // The method is the last thing in the value.
        let method = Span::new(at + length - cseq.method.len(), at + length);
        self.index.numbers.cseq = Some((cseq.number, method));
        if let StartSpans::Request { method, .. } = self.index.start_line
            && method.of(self.bytes) != cseq.method
        {
            self.note(Fault::CSeqMethod, at);
        }
    }

    /// A stateless proxy sends responses back by Via alone; a request must be answerable.
    fn required(&mut self, framing: Framing) {
        const OF_REQUESTS: [HeaderName; 5] = [
            HeaderName::Via,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
            HeaderName::CSeq,
        ];
        let names = match self.index.start_line {
            StartSpans::Request { .. } => &OF_REQUESTS[..],
            StartSpans::Response { .. } => &OF_REQUESTS[..1],
        };
        let end = self.index.header_end as usize;
        for &name in names {
            if self.index.first(name).is_none() {
                self.note(Fault::Missing(name), end);
            }
        }
        if framing == Framing::Stream && self.index.first(HeaderName::ContentLength).is_none() {
            self.note(Fault::Missing(HeaderName::ContentLength), end);
        }
    }

    /// Cuts off what is behind Content-Length.
    fn body(&mut self, start: usize) {
        let received = self.bytes.len() - start;
        let declared = self.index.numbers.content_length;
        let length = declared.map_or(received, |declared| declared as usize);
        if length > received {
            self.note(Fault::BodyTooShort, self.bytes.len());
        }
        let length = length.min(received);
        let message = self.index.message.range().start;
        self.index.body = Span::new(start, start + length);
        self.index.message = Span::new(message, message + start + length);
    }

    /// The value of the first header of this name, and where it stands.
    fn value(&self, name: HeaderName) -> Option<(&'a [u8], usize)> {
        let value = self.index.first(name)?.value;
        Some((value.of(self.bytes), value.range().start))
    }

    fn expect(&mut self, kind: LineEnd, at: usize) {
        if self.index.line_end != kind {
            self.note(Fault::LineEnd, at);
        }
    }

    /// Keeps the first fault.
    fn note(&mut self, fault: Fault, offset: usize) {
        self.fault.get_or_insert(ScanError { fault, offset });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, StartLine};
    use super::*;

    const REQUIRED: &str =
        "Via: SIP/2.0/UDP a\r\nFrom: b\r\nTo: c\r\nCall-ID: d\r\nCSeq: 1 OPTIONS\r\n";

    fn request(headers: &str, body: &str) -> String {
        format!("OPTIONS sip:e SIP/2.0\r\n{REQUIRED}{headers}\r\n{body}")
    }

    fn read(bytes: &[u8], framing: Framing) -> (Result<(), ScanError>, Index) {
        let mut index = Index::default();
        let result = scan(bytes, framing, &Limits::default(), &mut index);
        (result, index)
    }

    fn fault(text: &str) -> Option<Fault> {
        let (result, _) = read(text.as_bytes(), Framing::Datagram);
        result.err().map(|error| error.fault)
    }

    fn header_fault(headers: &str) -> Option<Fault> {
        fault(&request(headers, ""))
    }

    #[test]
    fn a_request_is_read_in_full() {
        let text = request("m: <sip:f>\r\nl : 2\r\nX-New: \r\n", "hi");
        let (result, index) = read(text.as_bytes(), Framing::Datagram);
        assert_eq!(result, Ok(()));
        let message = Message::new(text.as_bytes(), &index);
        let StartLine::Request { method, uri, .. } = message.start_line() else {
            panic!("not a request");
        };
        assert_eq!((method, uri), (&b"OPTIONS"[..], &b"sip:e"[..]));
        assert_eq!(&text[message.uri_range().unwrap()], "sip:e");
        assert!(message.start_line().is_sip_2());
        assert_eq!(message.body(), b"hi");
        assert_eq!(&text[message.header_end()..], "\r\nhi");
        assert_eq!(message.content_length(), Some(2));
        assert_eq!(message.max_forwards(), None);
        assert_eq!(message.cseq().unwrap().number, 1);
        assert_eq!(message.fields().len(), 8);

        let contact = message.header(HeaderName::Contact).unwrap();
        assert_eq!(
            (contact.raw_name, contact.value),
            (&b"m"[..], &b"<sip:f>"[..])
        );
        assert_eq!(&text[contact.line], "m: <sip:f>\r\n");
        let length = message.by_name("content-length").next().unwrap();
        assert_eq!(
            (length.raw_name, &text[length.value_range]),
            (&b"l"[..], "2")
        );
        assert_eq!(message.by_name("x-nEW").next().unwrap().value, b"");
        assert_eq!(message.by_name("x-old").count(), 0);
    }

    #[test]
    fn a_response_needs_little() {
        let text = b"SIP/2.0 404 Not \xff Found\r\nv: SIP/2.0/UDP a\r\n\r\n";
        let (result, index) = read(text, Framing::Datagram);
        assert_eq!(result, Ok(()));
        let start = Message::new(text, &index).start_line();
        let StartLine::Response { code, reason, .. } = start else {
            panic!("not a response");
        };
        assert_eq!((code, reason), (404, &b"Not \xff Found"[..]));
        assert_eq!(fault("SIP/2.0 200\r\nv: a\r\n\r\n"), None);
        assert_eq!(
            fault("SIP/2.0 200 OK\r\n\r\n"),
            Some(Fault::Missing(HeaderName::Via))
        );
        for code in ["99", "4294967301", "700", "20x", "", "099"] {
            let text = format!("SIP/2.0 {code} OK\r\nv: a\r\n\r\n");
            assert_eq!(fault(&text), Some(Fault::StatusLine), "{code:?}");
        }
    }

    #[test]
    fn folds_belong_to_their_header() {
        let text = request("Subject: a\r\n\tb \r\n  c\r\nTo2: x\r\n", "");
        let (result, index) = read(text.as_bytes(), Framing::Datagram);
        assert_eq!(result, Ok(()));
        let message = Message::new(text.as_bytes(), &index);
        let subject = message.header(HeaderName::Subject).unwrap();
        assert_eq!(subject.value, b"a\r\n\tb \r\n  c");
        assert_eq!(&*subject.unfolded(), b"a b c");
        assert_eq!(message.by_name("To2").count(), 1);
    }

    #[test]
    fn line_ends_before_the_message_are_no_part_of_it() {
        let text = request("", "");
        let received = format!("\r\n\r\n\n{text}");
        let (result, index) = read(received.as_bytes(), Framing::Datagram);
        assert_eq!(result, Ok(()));
        assert_eq!(
            Message::new(received.as_bytes(), &index).bytes(),
            text.as_bytes()
        );
        assert_eq!(fault("\r\n\r\n"), Some(Fault::Empty));
        assert_eq!(fault(""), Some(Fault::Empty));
    }

    #[test]
    fn bare_line_feeds_are_read_when_there_is_nothing_else() {
        let text = request("Subject: a\r\n b\r\nl: 2\r\n", "").replace("\r\n", "\n") + "\r\n";
        let (result, index) = read(text.as_bytes(), Framing::Datagram);
        assert_eq!(result, Ok(()));
        let message = Message::new(text.as_bytes(), &index);
        assert_eq!(message.line_end(), LineEnd::Lf);
        assert_eq!(message.body(), b"\r\n");
        assert_eq!(
            &*message.header(HeaderName::Subject).unwrap().unfolded(),
            b"a b"
        );
    }

    #[test]
    fn mixed_line_ends_and_lone_returns_are_refused() {
        assert_eq!(
            header_fault("Subject: a\nRoute: <sip:x>\r\n"),
            Some(Fault::LineEnd)
        );
        assert_eq!(
            header_fault("Subject: a\rRoute: <sip:x>\r\n"),
            Some(Fault::LineEnd)
        );
        assert_eq!(header_fault("Subject: a\n b\r\n"), Some(Fault::LineEnd));
        assert_eq!(header_fault("Subject: a\r\r\n"), Some(Fault::LineEnd));
        let lf = request("", "").replace("\r\n", "\n");
        assert_eq!(fault(&lf.replace("\n\n", "\n\r\n")), Some(Fault::LineEnd));
        assert_eq!(
            fault(&request("", "").replace("\r\n\r\n", "\r\n\n")),
            Some(Fault::LineEnd)
        );
    }

    #[test]
    fn content_length_rules_the_body() {
        let (_, index) = read(
            request("l: 2\r\n", "hi and more").as_bytes(),
            Framing::Datagram,
        );
        let text = request("l: 2\r\n", "hi and more");
        let message = Message::new(text.as_bytes(), &index);
        assert_eq!(message.body(), b"hi");
        assert!(message.bytes().ends_with(b"\r\n\r\nhi"));
        assert_eq!(fault(&request("l: 3\r\n", "hi")), Some(Fault::BodyTooShort));
        assert_eq!(header_fault("l: -999\r\n"), Some(Fault::ContentLength));
        assert_eq!(header_fault("l:\r\n"), Some(Fault::ContentLength));
        assert_eq!(
            header_fault("l: 0\r\nContent-Length: 0\r\n"),
            Some(Fault::Duplicate(HeaderName::ContentLength))
        );

        let (result, _) = read(request("", "").as_bytes(), Framing::Stream);
        assert_eq!(
            result.unwrap_err().fault,
            Fault::Missing(HeaderName::ContentLength)
        );
        let (result, _) = read(request("l: 0\r\n", "").as_bytes(), Framing::Stream);
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn request_lines_keep_to_their_two_spaces() {
        let with = |line: &str| fault(&format!("{line}\r\n{REQUIRED}\r\n"));
        assert_eq!(with("OPTIONS sip:e SIP/7.0"), None);
        assert_eq!(with("OPTIONS sip:e sip/2.0"), None);
        assert_eq!(with("OPTIONS nobodyKnowsThisScheme:x SIP/2.0"), None);
        for line in [
            "OPTIONS  sip:e SIP/2.0",
            "OPTIONS sip:e  SIP/2.0",
            "OPTIONS sip:e SIP/2.0 ",
            "OPTIONS sip:e; lr SIP/2.0",
            "OPTIONS sip:e\tx SIP/2.0",
            "OPTIONS SIP/2.0",
            "OPTIONS  SIP/2.0",
            "OPTIONS sip:e SIP/2.0\r\n SIP/2.0",
        ] {
            assert_eq!(with(line), Some(Fault::RequestLine), "{line:?}");
        }
        for line in [
            "OPTIONS",
            "OPTIONS sip:e",
            "GET / HTTP/1.1",
            " OPTIONS sip:e SIP/2.0",
            "OPT/IONS sip:e SIP/2.0",
        ] {
            assert_eq!(with(line), Some(Fault::NotSip), "{line:?}");
        }
    }

    #[test]
    fn a_faulty_message_still_gives_what_a_reply_needs() {
        let text =
            request("Max-Forwards: 300\r\n", "").replace("OPTIONS sip:e", "OPTIONS  sip:e; lr");
        let (result, index) = read(text.as_bytes(), Framing::Datagram);
        assert_eq!(
            result,
            Err(ScanError {
                fault: Fault::RequestLine,
                offset: 0
            })
        );
        let message = Message::new(text.as_bytes(), &index);
        for name in [
            HeaderName::Via,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
        ] {
            assert!(message.header(name).is_some(), "{name:?}");
        }
        assert_eq!(message.cseq().unwrap().method, b"OPTIONS");
        assert!(matches!(
            message.start_line(),
            StartLine::Request {
                method: b"OPTIONS",
                uri: b"sip:e; lr",
                ..
            }
        ));
    }

    #[test]
    fn numbers_and_single_headers_are_checked() {
        assert_eq!(
            header_fault("Max-Forwards: 256\r\n"),
            Some(Fault::MaxForwards)
        );
        assert_eq!(header_fault("Max-Forwards: 0\r\n"), None);
        for header in ["f: x", "t: x", "i: x", "CSeq: 1 OPTIONS"] {
            let fault = header_fault(&format!("{header}\r\n"));
            assert!(
                matches!(fault, Some(Fault::Duplicate(_))),
                "{header}: {fault:?}"
            );
        }
        assert_eq!(
            header_fault("Via: x\r\nContact: a\r\nContact: b\r\nExpires: 1\r\nExpires: 2\r\n"),
            None
        );
        for line in REQUIRED.split_inclusive("\r\n") {
            let fault = fault(&request("", "").replace(line, ""));
            assert!(
                matches!(fault, Some(Fault::Missing(_))),
                "{line:?}: {fault:?}"
            );
        }
        let cseq = |value: &str| fault(&request("", "").replace("1 OPTIONS", value));
        assert_eq!(cseq("0009\r\n OPTIONS"), None);
        assert_eq!(cseq("2147483648 OPTIONS"), Some(Fault::CSeq));
        assert_eq!(cseq("1"), Some(Fault::CSeq));
        assert_eq!(cseq("1 INVITE"), Some(Fault::CSeqMethod));
        assert_eq!(cseq("1 options"), Some(Fault::CSeqMethod));
    }

    #[test]
    fn header_lines_need_a_name_and_a_colon() {
        for header in [
            "no colon here",
            ": x",
            "two words: x",
            "a\x01b: x",
            "Name\r\n : x",
        ] {
            assert_eq!(
                header_fault(&format!("{header}\r\n")),
                Some(Fault::HeaderLine),
                "{header:?}"
            );
        }
        assert_eq!(
            header_fault("Subject \t : x\r\nd\u{e9}: y\r\nextensionHeader-!.%*+_`'~: \u{5927}\r\n"),
            None
        );
    }

    #[test]
    fn a_message_that_stops_early_is_told() {
        let text = request("", "");
        assert_eq!(fault(&text[..text.len() - 2]), Some(Fault::NoEmptyLine));
        assert_eq!(fault(&text[..text.len() - 4]), Some(Fault::NoEmptyLine));
        assert_eq!(fault("OPTIONS sip:e SIP/2.0"), Some(Fault::NotSip));
    }

    #[test]
    fn limits_stop_the_work() {
        let limits = Limits {
            message_bytes: 200,
            header_lines: 7,
            header_bytes: 30,
            start_line_bytes: 25,
        };
        let check = |text: &str| {
            let mut index = Index::default();
            let result = scan(text.as_bytes(), Framing::Datagram, &limits, &mut index);
            (result.err().map(|error| error.fault), index.len())
        };
        assert_eq!(check(&request("X: 1\r\nX: 2\r\n", "")), (None, 7));
        assert_eq!(
            check(&request("X: 1\r\nX: 2\r\nX: 3\r\n", "")),
            (Some(Fault::TooManyHeaders), 7)
        );
        let long = format!("X: {}\r\n", "x".repeat(30));
        assert_eq!(check(&request(&long, "")), (Some(Fault::HeaderTooLong), 5));
        assert_eq!(
            check(&request("", &"x".repeat(200))),
            (Some(Fault::MessageTooLong), 5)
        );
        let start = request("", "").replace("sip:e", "sip:eeeeeeeeeeee");
        assert_eq!(check(&start), (Some(Fault::StartLineTooLong), 0));
    }

    #[test]
    fn a_used_index_keeps_its_memory() {
        let many = request(&"X: 1\r\n".repeat(100), "");
        let mut index = Index::default();
        let limits = Limits::default();
        assert_eq!(
            scan(many.as_bytes(), Framing::Datagram, &limits, &mut index),
            Ok(())
        );
        let before = (index.entries.as_ptr(), index.entries.capacity());
        for text in [&request("", ""), &many] {
            assert_eq!(
                scan(text.as_bytes(), Framing::Datagram, &limits, &mut index),
                Ok(())
            );
        }
        assert_eq!((index.entries.as_ptr(), index.entries.capacity()), before);
    }
}
