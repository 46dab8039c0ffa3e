//! The numbers of a message: CSeq, Max-Forwards, Content-Length.

use crate::token::{is_space, is_token, skip_space};

/// A CSeq value (RFC 3261 §20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Below 2³¹ by RFC 3261 §8.1.1.5. Some senders use values up to 2³²−1, and a proxy only compares the number.
    pub number: u32,
    /// As received; methods are compared case-sensitively.
    pub method: &'a [u8],
}

impl<'a> CSeq<'a> {
    /// Reads a trimmed value; `None` when it is not a number below 2³², space, and a method.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let digits_end = value.iter().position(|&byte| is_space(byte))?;
        let number = number(value.get(..digits_end)?, u32::MAX)?;
        let method = value.get(skip_space(value, digits_end)..)?;
        is_token(method).then_some(Self { number, method })
    }
}

/// Reads a trimmed Max-Forwards value. RFC 3261 §20.22 allows 0 to 255; a larger value, up to 2³²−1, counts as `MAX_FORWARDS` plus one, so
/// that it is sent as `MAX_FORWARDS`: Kamailio's `mf_process_maxfwd_header` lowers it likewise.
pub fn max_forwards(value: &[u8]) -> Option<u8> {
    let hops = number(value, u32::MAX)?;
    Some(u8::try_from(hops).unwrap_or(MAX_FORWARDS + 1))
}

/// The Max-Forwards of a request without the header (RFC 3261 §16.6(3)), or with a larger value than the header may have.
pub(crate) const MAX_FORWARDS: u8 = 70;

/// Reads a trimmed Content-Length value in bytes, 0 to 2³¹−1 (RFC 3261 §20.14).
pub fn content_length(value: &[u8]) -> Option<u32> {
    number(value, MAX_CONTENT_LENGTH)
}

/// Reads digits, including leading zeros (RFC 4475 §3.1.1.1), up to `max`.
pub(crate) fn number(digits: &[u8], max: u32) -> Option<u32> {
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    digits.iter().try_fold(0u32, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        let number = number.checked_mul(10)?.checked_add(digit)?;
        (number <= max).then_some(number)
    })
}

const MAX_CONTENT_LENGTH: u32 = (1 << 31) - 1;

/// Bounds leading zeros, so that a line of zeros costs little.
const MOST_DIGITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cseq_takes_zeros_and_folds_before_the_method() {
        let cseq = CSeq::parse(b"0009\r\n INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method), (9, &b"INVITE"[..]));
        let cseq = CSeq::parse(b"2147483647 !interesting-Method0123456789_*+`.%indeed'~").unwrap();
        assert_eq!(cseq.number, 2_147_483_647);
        assert_eq!(CSeq::parse(b"4294967295 NOTIFY").unwrap().number, u32::MAX);
    }

    #[test]
    fn cseq_refuses_what_no_proxy_can_compare() {
        for value in [
            "",
            "1",
            "1 ",
            " INVITE",
            "INVITE 1",
            "1INVITE",
            "-1 INVITE",
            "4294967296 INVITE",
            "36893488147419103232 REGISTER",
            "1 INVITE INVITE",
            "1 IN/VITE",
        ] {
            assert_eq!(CSeq::parse(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn numbers_keep_to_their_ranges() {
        assert_eq!(max_forwards(b"0068"), Some(68));
        assert_eq!(max_forwards(b"255"), Some(255));
        assert_eq!(max_forwards(b"256"), Some(71));
        assert_eq!(max_forwards(b"4294967295"), Some(71));
        assert_eq!(max_forwards(b"4294967296"), None);
        assert_eq!(max_forwards(b"-1"), None);
        assert_eq!(max_forwards("0".repeat(65).as_bytes()), None);
        assert_eq!(max_forwards(b""), None);
        assert_eq!(content_length(b"2147483647"), Some(2_147_483_647));
        assert_eq!(content_length(b"2147483648"), None);
        assert_eq!(content_length(b"-999"), None);
        assert_eq!(content_length(b"+1"), None);
        assert_eq!(content_length(b"1 2"), None);
        assert_eq!(content_length(b"99999999999999999999999999"), None);
    }
}
