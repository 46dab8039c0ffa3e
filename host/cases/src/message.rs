//! Requests of files and of fields.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use portcullis_request::Request;
use portcullis_sip::{Arrival, Fault, Framing, Index, Limits, scan};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Why a text is not a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The scanner refuses it.
    #[error("line {line}: {fault}")]
    Scan {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: Fault,
    },
    /// It is a response.
    #[error("line 1: a response; policies are called for requests")]
    Response,
}

/// The parts of a request. Whatever is left out has a value that makes the request valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MessageFields {
    /// The method; INVITE if it is left out.
    pub method: Option<String>,
    /// The request URI.
    pub uri: Option<String>,
    /// From: a URI, or a whole value with display name and tag.
    pub from: Option<String>,
    /// To, likewise; the request URI if it is left out.
    pub to: Option<String>,
    /// The value of Call-ID.
    pub call_id: Option<String>,
    /// Further header fields. A name that a request has anyway replaces that header field; an empty list removes it.
    #[serde(default)]
    pub headers: BTreeMap<String, Values>,
    /// The body.
    pub body: Option<String>,
}

/// One value or a list of values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(pub Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Values;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// Reads a request as an editor saves it or as it was received. In a text with bare LF, lines get CRLF, a missing empty line is added, and
/// Content-Length becomes the length of the body; a text whose head has CRLF is read as it is.
///
/// # Errors
/// What is wrong with it, and in which line.
pub fn read_message(bytes: &[u8], arrival: Arrival) -> Result<Request, MessageError> {
    let bytes = match has_bare_line_feed(bytes) {
        true => with_line_ends(bytes),
        false => bytes.to_vec(),
    };
    let mut index = Index::default();
    let framing = Framing::of(arrival.transport);
    if let Err(error) = scan(&bytes, framing, &Limits::default(), &mut index) {
        let before = bytes.get(..error.offset).unwrap_or(&bytes);
        return Err(MessageError::Scan {
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
            fault: error.fault,
        });
    }
    let request = Request {
        bytes,
        index,
        arrival,
    };
    match request.is_request() {
        true => Ok(request),
        false => Err(MessageError::Response),
    }
}

/// Whether a line of the head ends with LF alone.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let head = bytes.get(..head.unwrap_or(bytes.len())).unwrap_or(bytes);
    let mut before = b' ';
    head.iter().any(|&byte| {
        let is_bare = byte == b'\n' && before != b'\r';
        before = byte;
        is_bare
    })
}

fn with_line_ends(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // An editor may leave empty lines before the start line.
    let mut lines = lines.skip_while(|line| line.is_empty());
    let mut head = Vec::new();
    let mut is_length = false;
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let is_folded = line.first().is_some_and(|byte| b" \t".contains(byte));
        is_length = is_content_length(line) || is_length && is_folded;
        if !is_length {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
    }
    let lines: Vec<_> = lines.collect();
    let body = lines.join(&b"\r\n"[..]);
    head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    head.extend_from_slice(&body);
    head
}

fn is_content_length(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let name = name.trim_ascii();
    name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"l")
}

impl MessageFields {
    /// Whether no field is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes what these fields leave out from `defaults`.
    pub fn or(mut self, defaults: &Self) -> Self {
        for (name, values) in &defaults.headers {
            let is_set = |own: &String| own.eq_ignore_ascii_case(name);
            if !self.headers.keys().any(is_set) {
                self.headers.insert(name.clone(), values.clone());
            }
        }
        Self {
            method: self.method.or_else(|| defaults.method.clone()),
            uri: self.uri.or_else(|| defaults.uri.clone()),
            from: self.from.or_else(|| defaults.from.clone()),
            to: self.to.or_else(|| defaults.to.clone()),
            call_id: self.call_id.or_else(|| defaults.call_id.clone()),
            headers: self.headers,
            body: self.body.or_else(|| defaults.body.clone()),
        }
    }

    /// Writes the request. `number` makes its names unique within a file.
    pub fn write(&self, arrival: &Arrival, number: usize) -> Vec<u8> {
        let method = self.method.as_deref().unwrap_or("INVITE");
        let uri = self.uri.as_deref().unwrap_or("sip:bob@example.com");
        let source = arrival.source;
        let body = self.body.as_deref().unwrap_or_default();
        let own = [
            (
                "Via",
                format!(
                    "SIP/2.0/{} {source};branch=z9hG4bKcase{number};rport",
                    arrival.transport
                ),
            ),
            ("Max-Forwards", "70".to_owned()),
            (
                "From",
                party(
                    self.from.as_deref().unwrap_or("sip:alice@example.com"),
                    ";tag=case",
                ),
            ),
            ("To", party(self.to.as_deref().unwrap_or(uri), "")),
            (
                "Call-ID",
                match &self.call_id {
                    Some(id) => id.clone(),
                    None => format!("case{number}@{}", source.ip()),
                },
            ),
            ("CSeq", format!("1 {method}")),
            ("Contact", format!("<sip:alice@{source}>")),
        ];
        let is_given = |name: &str| {
            self.headers
                .keys()
                .any(|own| own.eq_ignore_ascii_case(name))
        };
        let mut text = format!("{method} {uri} SIP/2.0\r\n");
        for (name, value) in own {
            if !is_given(name) {
                let _infallible = write!(text, "{name}: {value}\r\n");
            }
        }
        for (name, values) in &self.headers {
            for value in &values.0 {
                let _infallible = write!(text, "{name}: {value}\r\n");
            }
        }
        if !body.is_empty() && !is_given("Content-Type") {
            text += "Content-Type: application/sdp\r\n";
        }
        if !is_given("Content-Length") {
            let _infallible = write!(text, "Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body;
        text.into_bytes()
    }
}

/// A URI in brackets with a parameter; a value with brackets is used as it is.
fn party(text: &str, parameter: &str) -> String {
    match text.contains('<') {
        true => text.to_owned(),
        false => format!("<{text}>{parameter}"),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sip::Transport;

    use super::*;

    fn arrival() -> Arrival {
        Arrival {
            source: "192.0.2.7:5070".parse().unwrap(),
            local: "192.0.2.9:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        }
    }

    #[test]
    fn messages_of_an_editor_are_read() {
        let head = "MESSAGE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\n\
                    To: <sip:b@b>\nCall-ID: x\nCSeq: 1 MESSAGE\nl: 99\n";
        let bare = read_message(head.as_bytes(), arrival()).unwrap();
        assert_eq!((&*bare.method(), bare.body_length()), ("MESSAGE", 0));
        let with_body = format!("\n{head}Subject: one\n two\n\nab\ncd\n");
        let read = read_message(with_body.as_bytes(), arrival()).unwrap();
        assert_eq!(read.message().body(), b"ab\r\ncd\r\n");
        assert_eq!(read.header("Subject").as_deref(), Some("one two"));
        // A message as it was received stays as it is.
        let wire = head.replace('\n', "\r\n").replace("l: 99", "l: 2") + "\r\na\n";
        let read = read_message(wire.as_bytes(), arrival()).unwrap();
        assert_eq!(read.bytes, wire.as_bytes());
    }

    #[test]
    fn errors_name_the_line() {
        let broken = "INVITE sip:bob@example.com SIP/2.0\nVia: SIP/2.0/UDP a\nno colon here\n";
        let error = read_message(broken.as_bytes(), arrival()).unwrap_err();
        assert!(error.to_string().starts_with("line 3: "), "{error}");
        let response = "SIP/2.0 200 OK\nVia: SIP/2.0/UDP a\n";
        let error = read_message(response.as_bytes(), arrival()).unwrap_err();
        assert_eq!(error, MessageError::Response);
        assert!(read_message(b"hello", arrival()).is_err());
    }

    #[test]
    fn fields_make_a_valid_request() {
        let fields: MessageFields = toml::from_str(
            "method = \"REGISTER\"\nfrom = '\"Ann\" <sip:ann@example.org>;tag=7'\nbody = \"abc\"\n[headers]\nx-a = [\"1\", \"2\"]\n\
             Contact = []\ncontent-type = \"text/plain\"",
        )
        .unwrap();
        let request = read_message(&fields.write(&arrival(), 3), arrival()).unwrap();
        assert_eq!(request.method(), "REGISTER");
        assert_eq!(request.from_uri(), "sip:ann@example.org");
        assert_eq!(request.to_uri(), "sip:bob@example.com");
        assert_eq!(request.call_id(), "case3@192.0.2.7");
        assert_eq!(request.header("Contact"), None);
        assert_eq!(request.body_length(), 3);
        let mut values = Vec::new();
        request.headers("X-A", |value| values.push(value.into_owned()));
        assert_eq!(values, ["1", "2"]);
    }
}
