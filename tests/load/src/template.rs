//! Requests made ahead: a request differs from the last one of its source only in the id in its branch and Call-ID, patched in place.

use std::net::SocketAddr;

use crate::plan::Mode;

/// What stands before the id in a branch. The first seven characters are RFC 3261's (§8.1.1.7).
pub(crate) const BRANCH: &[u8] = b"z9hG4bK-load-";
/// Hexadecimal digits of an id.
pub(crate) const ID_DIGITS: usize = 16;

const SDP: &str = "v=0\r\no=alice 2890844526 2890844526 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=audio 49170 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
                   a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

/// The request of one source.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    id_at: [usize; 2],
}

impl Template {
    /// The request that `source` sends to `target` in this mode.
    pub(crate) fn new(mode: Mode, source: SocketAddr, target: SocketAddr) -> Self {
        let text = match mode {
            Mode::Options => options(source, target),
            Mode::Reject | Mode::Relay | Mode::Echo => invite(source, target),
        };
        let id_at = [position(&text, 0), position(&text, 1)];
        Self {
            bytes: text.into_bytes(),
            id_at,
        }
    }

    /// The request with this id.
    pub(crate) fn with_id(&mut self, id: u64) -> &[u8] {
        let digits = digits(id);
        for at in self.id_at {
            self.bytes[at..at + ID_DIGITS].copy_from_slice(&digits);
        }
        &self.bytes
    }

    /// The id in a datagram that is one of this template's requests; none when any other byte differs.
    pub(crate) fn id_of(&self, bytes: &[u8]) -> Option<u64> {
        let [first, second] = self.id_at;
        let rest = second + ID_DIGITS;
        let same = bytes.len() == self.bytes.len()
            && bytes[..first] == self.bytes[..first]
            && bytes[first + ID_DIGITS..second] == self.bytes[first + ID_DIGITS..second]
            && bytes[rest..] == self.bytes[rest..]
            && bytes[first..first + ID_DIGITS] == bytes[second..rest];
        same.then(|| parse_id(&bytes[first..])).flatten()
    }
}

/// Reads the id that `bytes` start with.
pub(crate) fn parse_id(bytes: &[u8]) -> Option<u64> {
    let mut id = 0;
    for byte in bytes.get(..ID_DIGITS)? {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        id = id << 4 | u64::from(digit);
    }
    Some(id)
}

fn invite(source: SocketAddr, target: SocketAddr) -> String {
    format!(
        "INVITE sip:+4930123456@{target} SIP/2.0\r\n\
         {}To: <sip:+4930123456@{target}>\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:alice@{source}>\r\n\
         User-Agent: portcullis-load\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{SDP}",
        common(source),
        SDP.len()
    )
}

fn options(source: SocketAddr, target: SocketAddr) -> String {
    format!(
        "OPTIONS sip:{target} SIP/2.0\r\n\
         {}To: <sip:{target}>\r\n\
         CSeq: 1 OPTIONS\r\n\
         Contact: <sip:alice@{source}>\r\n\
         User-Agent: portcullis-load\r\n\
         Accept: application/sdp\r\n\
         Content-Length: 0\r\n\r\n",
        common(source)
    )
}

fn common(source: SocketAddr) -> String {
    let host = match source {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    let branch = String::from_utf8_lossy(BRANCH);
    let id = "#".repeat(ID_DIGITS);
    format!(
        "Via: SIP/2.0/UDP {source};branch={branch}{id};rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Alice\" <sip:alice@{host}>;tag=9fxced76sl\r\n\
         Call-ID: {id}@{host}\r\n"
    )
}

fn position(text: &str, nth: usize) -> usize {
    let placeholder = "#".repeat(ID_DIGITS);
    text.match_indices(&placeholder)
        .nth(nth)
        .map(|(at, _)| at)
        .expect("a request has its id in the branch and in Call-ID")
}

fn digits(id: u64) -> [u8; ID_DIGITS] {
    let mut digits = [0; ID_DIGITS];
    for (n, digit) in digits.iter_mut().enumerate() {
        let nibble = (id >> (4 * (ID_DIGITS - 1 - n))) & 15;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(mode: Mode) -> Template {
        Template::new(
            mode,
            "127.1.0.1:40000".parse().unwrap(),
            "127.0.0.1:5060".parse().unwrap(),
        )
    }

    #[test]
    fn a_request_is_whole_and_carries_its_id_twice() {
        for mode in [Mode::Reject, Mode::Options, Mode::Relay, Mode::Echo] {
            let mut template = template(mode);
            let text = String::from_utf8(template.with_id(0x1234_5678_9abc_def0).to_vec()).unwrap();
            assert!(!text.contains('#'), "{text}");
            assert!(text.contains(";branch=z9hG4bK-load-123456789abcdef0;rport\r\n"));
            assert!(text.contains("\r\nCall-ID: 123456789abcdef0@127.1.0.1\r\n"));
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        }
    }

    #[test]
    fn an_echo_is_recognised_and_an_altered_one_is_not() {
        let mut template = template(Mode::Echo);
        let mut sent = template.with_id(77).to_vec();
        template.with_id(78);
        assert_eq!(template.id_of(&sent), Some(77));
        for at in [0, sent.len() / 2, sent.len() - 1, template.id_at[1]] {
            sent[at] ^= 1;
            assert_eq!(template.id_of(&sent), None, "byte {at} differs");
            sent[at] ^= 1;
        }
        assert_eq!(template.id_of(&sent[1..]), None);
    }

    #[test]
    fn ids_survive_the_way_there_and_back() {
        for id in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(parse_id(&digits(id)), Some(id));
        }
        assert_eq!(parse_id(b"123"), None);
        assert_eq!(parse_id(b"12345678-abcdef0"), None);
    }
}
