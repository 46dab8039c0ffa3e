//! For whom a load balancer that speaks HTTP connects: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Anybody can send such a field, and a load balancer adds its own value behind those that it has received. So the value that counts is the last one that
//! is not the address of a load balancer, and only if the connection comes from one.

use std::net::{IpAddr, SocketAddr};

use crate::handshake::{LONGEST_REQUEST, MOST_FIELDS, Refusal};

/// The field of a request in which load balancers say for whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedField {
    /// `X-Forwarded-For: 198.51.100.7, 192.0.2.10`
    XForwardedFor,
    /// `Forwarded: for=198.51.100.7;proto=https, for="[2001:db8::7]:4711"` (RFC 7239 §4)
    Forwarded,
}

impl ForwardedField {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        }
    }

    /// Reads the address of the client from a request that opens a connection; `None` while the request has not arrived as a whole.
    ///
    /// # Errors
    /// When the bytes are no request, or the field does not say for whom it is.
    pub fn client(
        self,
        received: &[u8],
        is_load_balancer: impl Fn(IpAddr) -> bool,
    ) -> Result<Option<IpAddr>, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(received) {
            Ok(httparse::Status::Complete(length)) if length <= LONGEST_REQUEST => {}
            Ok(httparse::Status::Partial) if received.len() < LONGEST_REQUEST => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
            Err(_) => return Err(Refusal::NotHttp),
        }
        let lines = request.headers.iter();
        let lines = lines.filter(|line| line.name.eq_ignore_ascii_case(self.name()));
        let mut clients = Vec::new();
        for line in lines {
            let text = std::str::from_utf8(line.value).map_err(|_| Refusal::NoClient)?;
            match self {
                Self::XForwardedFor => clients.extend(text.split(',').map(address)),
                Self::Forwarded => {
                    for element in split(text, ',').ok_or(Refusal::NoClient)? {
                        clients.push(of_element(element));
                    }
                }
            }
        }
        let mut first = None;
        for client in clients.into_iter().rev() {
            // A value that cannot be read hides those before it.
            let client = client.ok_or(Refusal::NoClient)?;
            first = Some(client);
            if !is_load_balancer(client) {
                break;
            }
        }
        first.map(Some).ok_or(Refusal::NoClient)
    }
}

/// The address in an element of `Forwarded`.
fn of_element(element: &str) -> Option<IpAddr> {
    let pairs = split(element, ';')?;
    let mut named = pairs.iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    let (value, None) = (named.next()?, named.next()) else {
        return None;
    };
    let value = value.trim();
    match value.strip_prefix('"') {
        Some(rest) => address(rest.strip_suffix('"')?),
        None => address(value),
    }
}

/// An address, with or without brackets and port. `unknown`, and what stands for a hidden address (RFC 7239 §6), are none.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ip = match bare {
        Some(bare) => bare.parse().ok(),
        None => text.parse::<IpAddr>().ok(),
    };
    let ip = ip.or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    ip.map(|ip| ip.to_canonical())
}

/// The parts between separators outside of quoted strings; `None` if a quoted string does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            letter if letter == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_load_balancer(ip: IpAddr) -> bool {
        ["192.0.2.10", "192.0.2.11"].contains(&ip.to_string().as_str())
    }

    /// The client of a request with these fields, as text.
    fn client(field: ForwardedField, lines: &str) -> Result<String, Refusal> {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        for end in 0..request.len() {
            let part = field.client(&request.as_bytes()[..end], is_load_balancer);
            assert_eq!(part, Ok(None), "{end}");
        }
        let client = field.client(request.as_bytes(), is_load_balancer);
        client.map(|ip| ip.expect("the request is whole").to_string())
    }

    #[test]
    fn the_last_address_that_is_no_load_balancer_is_the_client() {
        let is = |lines: &str| client(ForwardedField::XForwardedFor, lines);
        for (lines, expected) in [
            ("X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
            ("x-forwarded-for: 2001:db8::7\r\n", "2001:db8::7"),
            ("X-Forwarded-For: ::ffff:198.51.100.7\r\n", "198.51.100.7"),
            ("X-Forwarded-For: 198.51.100.7:4711\r\n", "198.51.100.7"),
            ("X-Forwarded-For: [2001:db8::7]:4711\r\n", "2001:db8::7"),
            // The client has claimed something.
            (
                "X-Forwarded-For: 10.0.0.1, 198.51.100.7\r\n",
                "198.51.100.7",
            ),
            (
                "X-Forwarded-For: nonsense, 198.51.100.7\r\n",
                "198.51.100.7",
            ),
            (
                "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 198.51.100.7\r\n",
                "198.51.100.7",
            ),
            // Two load balancers, one behind the other.
            (
                "X-Forwarded-For: 10.0.0.1, 198.51.100.7, 192.0.2.11\r\n",
                "198.51.100.7",
            ),
            ("X-Forwarded-For: 192.0.2.11\r\n", "192.0.2.11"),
            // The other field is that of anybody.
            (
                "Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 198.51.100.7\r\n",
                "198.51.100.7",
            ),
        ] {
            assert_eq!(is(lines), Ok(expected.to_owned()), "{lines}");
        }
        for lines in [
            "",
            "Forwarded: for=198.51.100.7\r\n",
            "X-Forwarded-For: \r\n",
            "X-Forwarded-For: 198.51.100.7,\r\n",
            "X-Forwarded-For: unknown\r\n",
            "X-Forwarded-For: 198.51.100.7, unknown\r\n",
            "X-Forwarded-For: 198.51.100.7, unknown, 192.0.2.11\r\n",
        ] {
            assert_eq!(is(lines), Err(Refusal::NoClient), "{lines}");
        }
    }

    #[test]
    fn the_standard_field_is_read_with_its_quotes() {
        let is = |value: &str| {
            client(
                ForwardedField::Forwarded,
                &format!("Forwarded: {value}\r\n"),
            )
        };
        for (value, expected) in [
            ("for=198.51.100.7", "198.51.100.7"),
            ("For=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            (
                "proto=https;for=198.51.100.7;by=203.0.113.43",
                "198.51.100.7",
            ),
            (
                "for=10.0.0.1, for=198.51.100.7, for=192.0.2.10",
                "198.51.100.7",
            ),
            ("for=\"a, b\", for=\"198.51.100.7:4711\"", "198.51.100.7"),
        ] {
            assert_eq!(is(value), Ok(expected.to_owned()), "{value}");
        }
        for value in [
            "for=unknown",
            "for=_hidden",
            "proto=https",
            "for=198.51.100.7;for=10.0.0.1",
            // A quote that the client has opened hides what the load balancer adds.
            "for=\", for=198.51.100.7",
            "for=\", for=\"[2001:db8::7]:4711\"",
            "for=\"198.51.100.7",
        ] {
            assert_eq!(is(value), Err(Refusal::NoClient), "{value}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let field = ForwardedField::XForwardedFor;
        let refused = |bytes: &[u8]| field.client(bytes, is_load_balancer);
        assert_eq!(refused(b"\x16\x03\x01\x02\x00"), Err(Refusal::NotHttp));
        let long = [
            b"GET / HTTP/1.1\r\nA: ".to_vec(),
            vec![b'a'; LONGEST_REQUEST],
        ]
        .concat();
        assert_eq!(refused(&long), Err(Refusal::TooLong));
    }

    proptest! {
        /// Whatever a client claims, what the load balancer adds behind it counts, or nothing.
        #[test]
        fn nobody_can_claim_another_address(claimed in "[ -~]{0,60}", is_standard: bool, is_own_line: bool) {
            let (field, added) = match is_standard {
                true => (ForwardedField::Forwarded, "for=198.51.100.7"),
                false => (ForwardedField::XForwardedFor, "198.51.100.7"),
            };
            let name = field.name();
            let lines = match is_own_line {
                true => format!("{name}: {claimed}\r\n{name}: {added}"),
                false => format!("{name}: {claimed}, {added}"),
            };
            let request = format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
            if let Ok(client) = field.client(request.as_bytes(), is_load_balancer) {
                prop_assert_eq!(client, Some("198.51.100.7".parse().unwrap()));
            }
        }
    }
}
