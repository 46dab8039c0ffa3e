//! STUN on the port of SIP: clients keep their binding of a NAT alive with it (RFC 5626 §3.5.2, RFC 8489).
//!
//! Only Binding requests are answered, without authentication. The answer is 12 or 24 bytes longer than the shortest request.

use std::net::{IpAddr, SocketAddr};

/// Bytes of the header of a STUN message (RFC 8489 §5).
const HEADER: usize = 20;

/// The value that no SIP message has in bytes 4 to 7.
const COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];

const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];
const FINGERPRINT: [u8; 2] = [0x80, 0x28];

/// Bytes of the attribute FINGERPRINT.
const FINGERPRINT_BYTES: usize = 8;

/// Attributes from here on may be ignored.
const OPTIONAL: u8 = 0x80;

/// Whether a datagram is a STUN message. The first byte of a SIP message is never 0 or 1.
pub fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0 | 1))
        && datagram.len() >= HEADER
        && datagram.len().is_multiple_of(4)
        && datagram.get(4..8) == Some(&COOKIE)
}

/// Writes the response to a Binding request from `source`, replacing the content of `out`. It has FINGERPRINT if the request has it. False, without
/// a response, for anything else: another message, one that is cut off, or one with an attribute that must be understood, as those of
/// authentication.
pub fn answer_binding(request: &[u8], source: SocketAddr, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some((header, mut attributes)) = request.split_at_checked(HEADER) else {
        return false;
    };
    let length = [header[2], header[3]];
    let is_whole = usize::from(u16::from_be_bytes(length)) == attributes.len();
    if !is_stun(request) || !request.starts_with(&BINDING_REQUEST) || !is_whole {
        return false;
    }
    let mut has_fingerprint = false;
    while let Some((head, rest)) = attributes.split_first_chunk::<4>() {
        let [first, second, length @ ..] = *head;
        if first < OPTIONAL {
            return false;
        }
        has_fingerprint |= [first, second] == FINGERPRINT;
        let padded = usize::from(u16::from_be_bytes(length)).next_multiple_of(4);
        let Some(rest) = rest.get(padded..) else {
            return false;
        };
        attributes = rest;
    }
    write(header, source, has_fingerprint, out);
    true
}

fn write(request: &[u8], source: SocketAddr, has_fingerprint: bool, out: &mut Vec<u8>) {
    let address = match source.ip() {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 16,
    };
    let value = 4 + address;
    let fingerprint = if has_fingerprint {
        FINGERPRINT_BYTES
    } else {
        0
    };
    out.extend_from_slice(&BINDING_SUCCESS);
    out.extend_from_slice(&((4 + value + fingerprint) as u16).to_be_bytes());
    // The cookie and the transaction id, which the address is hidden with (§14.2).
    let mask = &request[4..HEADER];
    out.extend_from_slice(mask);
    out.extend_from_slice(&XOR_MAPPED_ADDRESS);
    out.extend_from_slice(&(value as u16).to_be_bytes());
    out.extend_from_slice(&[0, if source.is_ipv4() { 1 } else { 2 }]);
    let hide = |bytes: &[u8], out: &mut Vec<u8>| {
        out.extend(bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    };
    hide(&source.port().to_be_bytes(), out);
    match source.ip() {
        IpAddr::V4(ip) => hide(&ip.octets(), out),
        IpAddr::V6(ip) => hide(&ip.octets(), out),
    }
    if has_fingerprint {
        let sum = crc32(out) ^ 0x5354_554e;
        out.extend_from_slice(&FINGERPRINT);
        out.extend_from_slice(&4_u16.to_be_bytes());
        out.extend_from_slice(&sum.to_be_bytes());
    }
}

/// The checksum of ITU V.42, which FINGERPRINT is made of (RFC 8489 §14.7).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        let bit = |sum: u32, _: u32| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        (0..8).fold(sum ^ u32::from(*byte), bit)
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Binding request with this transaction id and these attributes.
    fn request(id: [u8; 12], attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        [&BINDING_REQUEST, &length, &COOKIE[..], &id, attributes].concat()
    }

    fn answer(request: &[u8], source: &str) -> Option<Vec<u8>> {
        let mut out = b"left over".to_vec();
        answer_binding(request, source.parse().unwrap(), &mut out).then_some(out)
    }

    /// The example of RFC 5769 §2.2 and §2.3, without the attributes of authentication.
    #[test]
    fn the_address_is_hidden_as_in_the_example_of_the_standard() {
        let id = [
            0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
        ];
        let v4 = answer(&request(id, b""), "192.0.2.1:32853").unwrap();
        assert_eq!(v4[..4], [0x01, 0x01, 0x00, 0x0c]);
        assert_eq!(
            v4[HEADER..],
            [
                0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43
            ]
        );
        let v6 = answer(
            &request(id, b""),
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        )
        .unwrap();
        assert_eq!(v6.len(), 44);
        assert_eq!(
            v6[HEADER + 4..],
            [
                0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25,
                0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9
            ]
        );
    }

    #[test]
    fn a_checksum_is_written_if_the_request_has_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let asked = request([7; 12], &[0x80, 0x28, 0, 4, 1, 2, 3, 4]);
        let answer = answer(&asked, "192.0.2.1:5060").unwrap();
        assert_eq!(answer.len(), 40);
        let (before, sum) = answer.split_at(32);
        assert_eq!(sum[..4], [0x80, 0x28, 0, 4]);
        let sum = u32::from_be_bytes(sum[4..].try_into().unwrap());
        assert_eq!(sum ^ 0x5354_554e, crc32(before));
    }

    #[test]
    fn only_plain_binding_requests_are_answered() {
        let good = request([1; 12], b"");
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            bad
        };
        let software = request([1; 12], &[0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        assert!(answer(&software, "192.0.2.1:5060").is_some());
        for bad in [
            with(0, 1),
            with(1, 3),
            with(3, 4),
            with(4, 0),
            good[..19].to_vec(),
            [&good[..], &[0; 4]].concat(),
            // USERNAME has to be understood, and an attribute may not be longer than the message.
            request([1; 12], &[0x00, 0x06, 0, 4, b'a', b'b', b'c', b'd']),
            request([1; 12], &[0x80, 0x22, 0, 5, b'a', b'b', b'c', 0]),
            b"OPTIONS sip:a SIP/2.0\r\n\r\n".to_vec(),
        ] {
            assert_eq!(answer(&bad, "192.0.2.1:5060"), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_short_whatever_is_asked(bytes in prop::collection::vec(any::<u8>(), 0..80), source: SocketAddr, whole: bool) {
            let bytes = if whole { request([3; 12], &bytes) } else { bytes };
            let mut out = Vec::new();
            if answer_binding(&bytes, source, &mut out) {
                prop_assert!(is_stun(&bytes) && out.len() <= bytes.len() + 24);
            } else {
                prop_assert!(out.is_empty());
            }
        }
    }
}
