//! The request that opens a connection, and its response (RFC 6455 §4.2, RFC 7118 §4).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use thiserror::Error;

/// Longest request, in bytes.
pub const LONGEST_REQUEST: usize = 8 << 10;

/// Most header fields of a request.
pub(crate) const MOST_FIELDS: usize = 64;

/// What follows the key of the client in the hash that the server answers with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Which connections are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The path of the request, such as `/`.
    pub path: String,
    /// Whose pages may connect. Empty: those of all. A client that is no browser sends no Origin, and is not refused for it.
    pub origins: Vec<Origin>,
    /// The values of Host that are accepted, in lower case: `HOST` with any port, or `HOST:PORT`. Empty: all.
    pub hosts: Vec<String>,
}

/// The origin of a page (RFC 6454): scheme, host and port, in lower case, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// The answer to received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The request has not arrived as a whole.
    NeedMore,
    /// The connection is open: the response is to be sent. The request had this many bytes; what follows it are frames.
    Open {
        /// The response.
        response: Vec<u8>,
        /// Bytes of the request.
        length: usize,
    },
    /// The connection is refused: the response is to be sent, and the connection closed.
    Refused {
        /// The response.
        response: Vec<u8>,
        /// The cause.
        refusal: Refusal,
    },
}

/// Why a connection is refused. The text is for the operator, and for whoever tries to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The bytes are no request of HTTP.
    #[error("this is no HTTP request: connect with WebSocket")]
    NotHttp,
    /// The request is longer than [`LONGEST_REQUEST`], or has too many fields.
    #[error("the request is too long")]
    TooLong,
    /// Another method than GET, another version than HTTP/1.1, or a field that is missing or there twice.
    #[error(
        "the request lacks what RFC 6455 section 4.1 demands: GET, HTTP/1.1, Host, Connection: Upgrade, Sec-WebSocket-Key"
    )]
    Malformed,
    /// The subprotocol `sip` is not offered (RFC 7118 §4).
    #[error("the client does not offer the subprotocol sip (Sec-WebSocket-Protocol)")]
    NoSip,
    /// The page is not of an origin that may connect.
    #[error("pages of this origin may not connect: see `origins` in [websocket]")]
    Origin,
    /// The Host is none of this host.
    #[error("this is no name of this host: see `hosts` in [websocket]")]
    Host,
    /// There is nothing at this path.
    #[error("there is nothing at this path: see `path` in [websocket]")]
    Path,
    /// A request that does not ask for WebSocket.
    #[error("only WebSocket is spoken here")]
    NoUpgrade,
    /// Another version of WebSocket than 13.
    #[error("only version 13 of WebSocket is spoken here")]
    Version,
    /// The request of a load balancer does not say for whom it is.
    #[error(
        "the load balancer does not say for whom it connects: see `forwarded-by` in [websocket]"
    )]
    NoClient,
}

impl Refusal {
    /// The status code of the response.
    pub fn code(self) -> u16 {
        match self {
            Self::NotHttp | Self::TooLong | Self::Malformed | Self::NoSip | Self::NoClient => 400,
            Self::Origin | Self::Host => 403,
            Self::Path => 404,
            Self::NoUpgrade | Self::Version => 426,
        }
    }

    /// The response.
    pub fn response(self) -> Vec<u8> {
        let phrase = match self.code() {
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            _ => "Upgrade Required",
        };
        let more = match self {
            Self::NoUpgrade => "Upgrade: websocket\r\n",
            Self::Version => "Sec-WebSocket-Version: 13\r\n",
            Self::NotHttp
            | Self::TooLong
            | Self::Malformed
            | Self::NoSip
            | Self::Origin
            | Self::Host
            | Self::Path
            | Self::NoClient => "",
        };
        let text = format!("{self}\n");
        format!(
            "HTTP/1.1 {} {phrase}\r\nConnection: close\r\n{more}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
            self.code(),
            text.len()
        )
        .into_bytes()
    }

    /// The label of a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotHttp => "not_http",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::NoSip => "no_sip",
            Self::Origin => "origin",
            Self::Host => "host",
            Self::Path => "path",
            Self::NoUpgrade => "no_upgrade",
            Self::Version => "version",
            Self::NoClient => "no_client",
        }
    }
}

impl Origin {
    /// Reads `https://HOST` or `https://HOST:PORT`; `None` for anything else. The port of the scheme may be written or not.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once("://")?;
        let default = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return None,
        };
        let authority = rest.strip_suffix(default).unwrap_or(rest);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let is_authority = !authority.is_empty() && authority.bytes().all(is_plain);
        is_authority.then(|| Self(format!("{scheme}://{authority}")))
    }
}

impl Rules {
    /// Reads the request that opens a connection.
    pub fn answer(&self, received: &[u8]) -> Answer {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let refused = |refusal: Refusal| Answer::Refused {
            response: refusal.response(),
            refusal,
        };
        match request.parse(received) {
            Ok(httparse::Status::Complete(length)) if length <= LONGEST_REQUEST => {
                match self.checked(&request) {
                    Ok(key) => Answer::Open {
                        response: accepted(key),
                        length,
                    },
                    Err(refusal) => refused(refusal),
                }
            }
            Ok(httparse::Status::Partial) if received.len() < LONGEST_REQUEST => Answer::NeedMore,
            Ok(_) | Err(httparse::Error::TooManyHeaders) => refused(Refusal::TooLong),
            Err(_) => refused(Refusal::NotHttp),
        }
    }

    /// The key of the client.
    fn checked<'r>(&self, request: &httparse::Request<'_, 'r>) -> Result<&'r [u8], Refusal> {
        if request.method != Some("GET") || request.version != Some(1) {
            return Err(Refusal::Malformed);
        }
        let target = request.path.unwrap_or_default();
        if target.split('?').next() != Some(self.path.as_str()) {
            return Err(Refusal::Path);
        }
        let host = one(request, "Host")?.ok_or(Refusal::Malformed)?;
        if !self.accepts_host(host) {
            return Err(Refusal::Host);
        }
        if !lists(request, "Upgrade", "websocket") {
            return Err(Refusal::NoUpgrade);
        }
        if one(request, "Sec-WebSocket-Version")? != Some(b"13") {
            return Err(Refusal::Version);
        }
        let key = one(request, "Sec-WebSocket-Key")?.ok_or(Refusal::Malformed)?;
        let is_key = STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
        if !is_key || !lists(request, "Connection", "Upgrade") {
            return Err(Refusal::Malformed);
        }
        if let Some(origin) = one(request, "Origin")?
            && !self.accepts_origin(origin)
        {
            return Err(Refusal::Origin);
        }
        match lists(request, "Sec-WebSocket-Protocol", "sip") {
            true => Ok(key),
            false => Err(Refusal::NoSip),
        }
    }

    fn accepts_host(&self, host: &[u8]) -> bool {
        let name = match host.iter().rposition(|byte| *byte == b':') {
            Some(colon) if !host.ends_with(b"]") => &host[..colon],
            _ => host,
        };
        let is = |own: &String| {
            [host, name]
                .iter()
                .any(|host| host.eq_ignore_ascii_case(own.as_bytes()))
        };
        self.hosts.is_empty() || self.hosts.iter().any(is)
    }

    fn accepts_origin(&self, origin: &[u8]) -> bool {
        let origin = std::str::from_utf8(origin).ok().and_then(Origin::parse);
        self.origins.is_empty() || origin.is_some_and(|origin| self.origins.contains(&origin))
    }
}

/// The value of a field that may occur once.
fn one<'r>(request: &httparse::Request<'_, 'r>, name: &str) -> Result<Option<&'r [u8]>, Refusal> {
    let fields = request.headers.iter();
    let mut values = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
    let value = values.next().map(|field| field.value.trim_ascii());
    match values.next() {
        Some(_) => Err(Refusal::Malformed),
        None => Ok(value),
    }
}

/// Whether a list in these fields has this word.
fn lists(request: &httparse::Request<'_, '_>, name: &str, word: &str) -> bool {
    let fields = request.headers.iter();
    let fields = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
    fields.into_iter().any(|field| {
        let mut words = field
            .value
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii);
        words.any(|own| own.eq_ignore_ascii_case(word.as_bytes()))
    })
}

fn accepted(key: &[u8]) -> Vec<u8> {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\
         Sec-WebSocket-Protocol: sip\r\n\r\n",
        STANDARD.encode(hash)
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            path: "/".into(),
            origins: Vec::new(),
            hosts: Vec::new(),
        }
    }

    fn strict() -> Rules {
        Rules {
            path: "/sip".into(),
            origins: vec![Origin::parse("https://phone.example.com").unwrap()],
            hosts: vec!["edge.example.com".into(), "other.example.com:8088".into()],
        }
    }

    /// The request of RFC 7118 §8.1, with the key of RFC 6455 §1.3.
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: edge.example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://phone.example.com\r\n\
         Sec-WebSocket-Protocol: chat, sip\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn refused(rules: &Rules, request: &str) -> Refusal {
        match rules.answer(request.as_bytes()) {
            Answer::Refused { response, refusal } => {
                let start = format!("HTTP/1.1 {} ", refusal.code());
                assert!(response.starts_with(start.as_bytes()));
                refusal
            }
            other @ (Answer::NeedMore | Answer::Open { .. }) => panic!("{other:?}: {request}"),
        }
    }

    #[test]
    fn a_request_is_answered_as_the_standards_say() {
        let with_frame = [REQUEST.as_bytes(), b"\x81\x80"].concat();
        let Answer::Open { response, length } = rules().answer(&with_frame) else {
            panic!("not open");
        };
        assert_eq!(length, REQUEST.len());
        assert_eq!(
            String::from_utf8(response).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
        );
    }

    #[test]
    fn a_request_in_parts_waits_for_its_end() {
        for end in 0..REQUEST.len() {
            let answer = rules().answer(&REQUEST.as_bytes()[..end]);
            assert_eq!(answer, Answer::NeedMore, "{end}");
        }
    }

    #[test]
    fn what_the_standards_demand_must_be_there() {
        let malformed = Refusal::Malformed;
        for (from, to, refusal) in [
            ("GET / ", "POST / ", malformed),
            ("HTTP/1.1", "HTTP/1.0", malformed),
            ("GET / ", "GET /other ", Refusal::Path),
            ("Host: edge.example.com\r\n", "", malformed),
            ("Host: ", "Host: a\r\nHost: ", malformed),
            ("Upgrade: websocket\r\n", "", Refusal::NoUpgrade),
            ("keep-alive, Upgrade", "keep-alive", malformed),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", malformed),
            ("dGhlIHNhbXBsZSBub25jZQ==", "?", malformed),
            ("Version: 13", "Version: 8", Refusal::Version),
            ("Sec-WebSocket-Version: 13\r\n", "", Refusal::Version),
            ("chat, sip", "chat", Refusal::NoSip),
            ("GET / HTTP/1.1", "OPTIONS sip:a SIP/2.0", Refusal::NotHttp),
        ] {
            let request = REQUEST.replacen(from, to, 1);
            assert_eq!(refused(&rules(), &request), refusal, "{request}");
        }
        let version = Refusal::Version.response();
        let version = String::from_utf8(version).unwrap();
        assert!(version.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    }

    #[test]
    fn origin_and_host_must_be_known() {
        let request = REQUEST.replacen("GET /", "GET /sip?v=1", 1);
        let is_open =
            |request: &str| matches!(strict().answer(request.as_bytes()), Answer::Open { .. });
        assert!(is_open(&request));
        assert!(is_open(&request.replace("https://phone", "HTTPS://Phone")));
        assert!(is_open(
            &request.replace("phone.example.com", "phone.example.com:443")
        ));
        assert!(is_open(
            &request.replace("Origin: https://phone.example.com\r\n", "")
        ));
        assert!(is_open(
            &request.replace("edge.example.com", "Edge.example.com:9")
        ));
        assert!(is_open(
            &request.replace("edge.example.com", "other.example.com:8088")
        ));
        for origin in [
            "http://phone.example.com",
            "https://phone.example.com:444",
            "https://phone.example.com.evil.example",
            "https://evil.example",
            "null",
        ] {
            let request = request.replace("https://phone.example.com", origin);
            assert_eq!(refused(&strict(), &request), Refusal::Origin);
        }
        for host in ["other.example.com", "evil.example", "edge.example.com.evil"] {
            let request = request.replace("Host: edge.example.com", &format!("Host: {host}"));
            assert_eq!(refused(&strict(), &request), Refusal::Host);
        }
        assert_eq!(refused(&strict(), REQUEST), Refusal::Path);
    }

    #[test]
    fn a_request_has_an_end() {
        let long = REQUEST.replacen(
            "Host",
            &format!("X: {}\r\nHost", "a".repeat(LONGEST_REQUEST)),
            1,
        );
        assert_eq!(refused(&rules(), &long), Refusal::TooLong);
        assert_eq!(
            refused(&rules(), &long[..LONGEST_REQUEST]),
            Refusal::TooLong
        );
        let many = REQUEST.replacen(
            "Host",
            &format!("{}Host", "X: y\r\n".repeat(MOST_FIELDS)),
            1,
        );
        assert_eq!(refused(&rules(), &many), Refusal::TooLong);
    }

    #[test]
    fn origins_are_those_of_pages() {
        for bad in [
            "",
            "phone.example.com",
            "https://",
            "https://a/b",
            "ftp://a",
            "https://a b",
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
        assert_eq!(Origin::parse("https://A:443"), Origin::parse("https://a"));
    }
}
