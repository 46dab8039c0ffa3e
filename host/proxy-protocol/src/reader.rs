//! Takes a header from the beginning of a stream.

use crate::header::{Header, HeaderError};
use crate::step::Step;
use crate::{version1, version2};

/// Takes the header from the beginning of a stream, in as many pieces as it comes in.
#[derive(Debug, Default)]
pub struct Reader {
    received: Vec<u8>,
}

impl Reader {
    /// Takes bytes of the header from those that are available: returns how many, and the header if it is whole with them. All available bytes
    /// are taken while it is not.
    ///
    /// # Errors
    /// When the stream does not begin with a header. The reader is of no use afterwards.
    pub fn take(&mut self, available: &[u8]) -> Result<(usize, Option<Header>), HeaderError> {
        let mut taken = 0;
        loop {
            let rest = available.get(taken..).unwrap_or_default();
            let part = match step(&self.received)? {
                Step::Whole(header) => return Ok((taken, Some(header))),
                Step::Bytes(count) => rest.get(..count).unwrap_or(rest),
                Step::Line(most) => {
                    let rest = rest.get(..most).unwrap_or(rest);
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    end.map_or(rest, |end| &rest[..=end])
                }
            };
            if part.is_empty() {
                return Ok((taken, None));
            }
            self.received.extend_from_slice(part);
            taken += part.len();
        }
    }

    /// Whether nothing was received at all.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

fn step(received: &[u8]) -> Result<Step, HeaderError> {
    match received.first() {
        None => Ok(Step::Bytes(1)),
        Some(first) if *first == version1::START[0] => version1::step(received),
        Some(first) if *first == version2::SIGNATURE[0] => version2::step(received),
        Some(_) => Err(HeaderError::Missing),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::invariants::binary;
    use crate::step::LONGEST;

    fn read(bytes: &[u8]) -> Result<(usize, Option<Header>), HeaderError> {
        Reader::default().take(bytes)
    }

    fn client(source: &str, destination: &str) -> Header {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        Header::Client {
            source: addr(source),
            destination: addr(destination),
        }
    }

    #[test]
    fn lines_of_version_1_are_read() {
        let v4 = b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 5061\r\nOPTIONS";
        let header = client("198.51.100.7:40000", "192.0.2.1:5061");
        assert_eq!(read(v4), Ok((v4.len() - 7, Some(header))));
        let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n";
        let header = client("[2001:db8::7]:1", "[2001:db8::1]:65535");
        assert_eq!(read(v6), Ok((v6.len(), Some(header))));
        for own in [
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        ] {
            assert_eq!(
                read(own.as_bytes()),
                Ok((own.len(), Some(Header::Own))),
                "{own}"
            );
        }
    }

    #[test]
    fn lines_that_no_load_balancer_sends_are_refused() {
        for line in [
            "PROXY TCP4 198.51.100.7 192.0.2.1 40000\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 40000 5061 \r\n",
            "PROXY TCP4  198.51.100.7 192.0.2.1 40000 5061\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            "PROXY TCP6 198.51.100.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 198.51.100.7 192.0.2.1 1 2\n",
            "PROXY UDP4 198.51.100.7 192.0.2.1 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Err(HeaderError::Line), "{line:?}");
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat();
        assert_eq!(read(&endless), Err(HeaderError::Line));
        assert_eq!(read(b"PROXYTCP4"), Err(HeaderError::Missing));
        assert_eq!(read(b"PUBLISH sip:a"), Err(HeaderError::Missing));
    }

    #[test]
    fn headers_of_version_2_are_read() {
        let v4 = [198, 51, 100, 7, 192, 0, 2, 1, 0x9c, 0x40, 0x13, 0xc5];
        let header = client("198.51.100.7:40000", "192.0.2.1:5061");
        let tlv = [0x04, 0, 2, 0, 0];
        for rest in [&v4[..], &[&v4[..], &tlv].concat()] {
            let bytes = binary(0x21, 0x11, rest);
            let whole = Ok((bytes.len(), Some(header)));
            assert_eq!(read(&bytes), whole);
            assert_eq!(read(&[&bytes[..], b"\x16\x03\x01"].concat()), whole);
        }
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[15] = 7;
        v6[16..18].copy_from_slice(&[0x20, 0x01]);
        v6[31] = 1;
        v6[32..].copy_from_slice(&[0, 80, 1, 187]);
        let header = client("[2001::7]:80", "[2001::1]:443");
        assert_eq!(read(&binary(0x21, 0x21, &v6)), Ok((52, Some(header))));
    }

    #[test]
    fn a_connection_for_no_client_is_that_of_the_load_balancer() {
        let v4 = [198, 51, 100, 7, 192, 0, 2, 1, 0x9c, 0x40, 0x13, 0xc5];
        for (command, family, rest) in [
            (0x20, 0x00, &[][..]),
            // Whatever it says beside.
            (0x20, 0x11, &v4[..]),
            (0x20, 0xff, &v4[..]),
            (0x21, 0x00, &[]),
            (0x21, 0x01, &[]),
            (0x21, 0x12, &v4[..]),
            (0x21, 0x31, &[0; 216]),
        ] {
            let bytes = binary(command, family, rest);
            let own = Ok((bytes.len(), Some(Header::Own)));
            assert_eq!(read(&bytes), own, "{command:x} {family:x}");
        }
    }

    #[test]
    fn headers_of_version_2_against_the_rules_are_refused() {
        let v4 = [0; 12];
        for (bytes, error) in [
            (binary(0x31, 0x11, &v4), HeaderError::Version(3)),
            (binary(0x11, 0x11, &v4), HeaderError::Version(1)),
            (binary(0x22, 0x11, &v4), HeaderError::Command(2)),
            (binary(0x21, 0x41, &v4), HeaderError::Family(0x41)),
            (binary(0x21, 0x13, &v4), HeaderError::Family(0x13)),
            (binary(0x21, 0x11, &v4[1..]), HeaderError::TooShort(11)),
            (binary(0x21, 0x21, &[0; 35]), HeaderError::TooShort(35)),
            (
                binary(0x21, 0x11, &[0; LONGEST]),
                HeaderError::TooLong(LONGEST + 16),
            ),
            // A keep-alive of SIP, and a message.
            (b"\r\n\r\nOPTIONS sip:a".to_vec(), HeaderError::Missing),
            (b"OPTIONS sip:a SIP/2.0".to_vec(), HeaderError::Missing),
            (b"\x16\x03\x01".to_vec(), HeaderError::Missing),
        ] {
            assert_eq!(read(&bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_wrong_is_said_before_the_rest_has_come() {
        assert_eq!(read(b"X"), Err(HeaderError::Missing));
        assert_eq!(read(b"\r\n\r\n\r"), Err(HeaderError::Missing));
        let head = &binary(0x21, 0x11, &[0; LONGEST])[..16];
        assert_eq!(read(head), Err(HeaderError::TooLong(LONGEST + 16)));
        assert_eq!(read(b""), Ok((0, None)));
        assert_eq!(read(b"\r\n\r\n"), Ok((4, None)));
    }
}
