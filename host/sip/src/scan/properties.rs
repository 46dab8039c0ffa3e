//! Properties of the scanner over generated input.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Framing, HeaderName, Index, Limits, LineEnd, Message, StartLine, scan};
use crate::invariants;

proptest! {
    #[test]
    fn no_bytes_break_the_scanner(bytes in vec(any::<u8>(), 0..400)) {
        invariants::scanner(&bytes);
    }

    #[test]
    fn no_rubbish_that_looks_like_sip_breaks_the_scanner(parts in vec(fragment(), 0..30)) {
        invariants::scanner(&parts.concat());
    }

    #[test]
    fn no_damage_to_a_message_breaks_the_scanner(
        message in message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message.write();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        invariants::scanner(&bytes);
    }

    #[test]
    fn every_part_of_a_message_is_found(message in message()) {
        let bytes = message.write();
        invariants::scanner(&bytes);
        let mut index = Index::default();
        prop_assert_eq!(scan(&bytes, Framing::Datagram, &Limits::default(), &mut index), Ok(()));
        let read = Message::new(&bytes, &index);

        let start = StartLine::Request {
            method: message.method.as_bytes(),
            uri: message.uri.as_bytes(),
            version: b"SIP/2.0",
        };
        prop_assert_eq!(read.start_line(), start);
        prop_assert_eq!(read.line_end(), message.line_end);
        prop_assert_eq!(read.body(), &message.body[..]);
        let headers = message.headers();
        prop_assert_eq!(read.fields().len(), headers.len());
        for (field, header) in read.fields().zip(&headers) {
            prop_assert_eq!(field.raw_name, header.name.as_bytes());
            let value = header.lines.join(&b' ');
            prop_assert_eq!(&*field.unfolded(), &value[..]);
        }
    }

    #[test]
    fn names_find_what_a_plain_search_finds(message in message(), name in name()) {
        let bytes = message.write();
        let mut index = Index::default();
        prop_assert_eq!(scan(&bytes, Framing::Datagram, &Limits::default(), &mut index), Ok(()));
        let read = Message::new(&bytes, &index);
        let meaning = |name: &str| {
            let known = HeaderName::of(name.as_bytes());
            let name = if known == HeaderName::Other { name } else { known.as_str() };
            name.to_ascii_lowercase()
        };
        let found = read.by_name(&name).map(|field| field.line.start);
        let plain = read.fields().filter_map(|field| {
            let raw = std::str::from_utf8(field.raw_name).ok()?;
            (meaning(raw) == meaning(&name)).then_some(field.line.start)
        });
        prop_assert!(found.eq(plain));
    }
}

/// A request as a sender may write it.
#[derive(Clone, Debug)]
struct Written {
    method: String,
    uri: String,
    /// Further ones, among which the required ones stand.
    others: Vec<Header>,
    cseq: u32,
    content_length: bool,
    body: Vec<u8>,
    line_end: LineEnd,
    leading: usize,
}

#[derive(Clone, Debug)]
struct Header {
    name: String,
    before_colon: &'static str,
    /// One line, and more when the value is folded.
    lines: Vec<Vec<u8>>,
    fold: &'static str,
}

impl Written {
    fn headers(&self) -> Vec<Header> {
        let cseq = format!("{} {}", self.cseq, self.method);
        let mut required = vec![
            Header::plain("v", "SIP/2.0/UDP 192.0.2.1"),
            Header::plain("FROM", "<sip:a@example.com>;tag=1"),
            Header::plain("to", "<sip:b@example.com>"),
            Header::plain("Call-ID", "x"),
            Header::plain("CSeq", &cseq),
        ];
        if self.content_length {
            required.push(Header::plain("l", &self.body.len().to_string()));
        }
        let mut headers = self.others.clone();
        for (at, header) in required.into_iter().enumerate() {
            headers.insert((at * 2).min(headers.len()), header);
        }
        headers
    }

    fn write(&self) -> Vec<u8> {
        let end = self.line_end.as_bytes();
        let mut bytes = end.repeat(self.leading);
        bytes.extend(format!("{} {} SIP/2.0", self.method, self.uri).bytes());
        bytes.extend(end);
        for header in self.headers() {
            bytes.extend(format!("{}{}:", header.name, header.before_colon).bytes());
            let fold = [end, header.fold.as_bytes()].concat();
            bytes.extend(header.lines.join(&fold[..]));
            bytes.extend(end);
        }
        bytes.extend(end);
        bytes.extend(&self.body);
        bytes
    }
}

impl Header {
    fn plain(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            before_colon: "",
            lines: vec![value.as_bytes().to_vec()],
            fold: " ",
        }
    }
}

fn message() -> impl Strategy<Value = Written> {
    let line_end = prop_oneof![Just(LineEnd::CrLf), Just(LineEnd::Lf)];
    (
        "[A-Za-z!.%*_+`'~-]{1,12}",
        "(sips?|tel|urn):[!-~\u{e0}-\u{ff}]{1,40}",
        vec(header(), 0..12),
        0u32..1 << 31,
        any::<bool>(),
        vec(any::<u8>(), 0..60),
        line_end,
        0usize..3,
    )
        .prop_map(
            |(method, uri, others, cseq, content_length, body, line_end, leading)| Written {
                method,
                uri,
                others,
                cseq,
                content_length,
                body,
                line_end,
                leading,
            },
        )
}

fn header() -> impl Strategy<Value = Header> {
    let space = prop::sample::select(vec!["", "", "", " ", "\t", " \t "]);
    let fold = prop::sample::select(vec![" ", "\t", "   "]);
    // No line is space alone, so that the value's lines are as many as are read back.
    let line = vec(prop_oneof![8 => 0x21u8..=0x7e, 1 => 0x80u8..=0xff], 1..30);
    (name(), space, vec(line, 1..4), fold).prop_map(|(name, before_colon, lines, fold)| Header {
        name,
        before_colon,
        lines,
        fold,
    })
}

/// Names that a message may have more than once.
fn name() -> impl Strategy<Value = String> {
    let known = [
        "Via",
        "v",
        "VIA",
        "Contact",
        "m",
        "Route",
        "Subject",
        "s",
        "k",
        "Supported",
    ];
    prop_oneof![
        prop::sample::select(known.map(str::to_owned).to_vec()),
        "X-[A-Za-z0-9!.%*_+`'~-]{1,10}",
    ]
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"INVITE sip:a@b SIP/2.0\r\n",
        b"SIP/2.0 200 OK\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"Via: SIP/2.0/UDP a;branch=z9hG4bK1, ",
        b"v:",
        b"From: \"a\" <sip:a>;tag=1\r\n",
        b"To: b\r\n",
        b"i: 1\r\n",
        b"CSeq: 1 INVITE\r\n",
        b"l: 5\r\n",
        b"Max-Forwards: 70\r\n",
        b"\"",
        b"<sip:a;lr>,",
    ];
    prop_oneof![
        6 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..10),
    ]
}
