//! The numbers of a message: CSeq, Max-Forwards, Content-Length.

use crate::token::{is_space, is_token, skip_space};

/// A CSeq value (RFC 3261 §20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Below 2³¹ (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// As it stands on the wire; methods are compared with their case.
    pub method: &'a [u8],
}

impl<'a> CSeq<'a> {
    /// Reads a trimmed value; `None` when it is not a number below 2³¹, space, and a method.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let digits_end = value.iter().position(|&byte| is_space(byte))?;
        let number = number(value.get(..digits_end)?, MAX_CSEQ)?;
        let method = value.get(skip_space(value, digits_end)..)?;
        is_token(method).then_some(Self { number, method })
    }
}

/// Reads a trimmed Max-Forwards value, 0 to 255 (RFC 3261 §20.22).
pub fn max_forwards(value: &[u8]) -> Option<u8> {
    number(value, u8::MAX.into()).and_then(|hops| u8::try_from(hops).ok())
}

/// Reads a trimmed Content-Length value in bytes, 0 to 2³¹−1 (RFC 3261 §20.14).
pub fn content_length(value: &[u8]) -> Option<u32> {
    number(value, MAX_CONTENT_LENGTH)
}

/// Reads digits, leading zeros among them (RFC 4475 §3.1.1.1), up to `max`.
pub(crate) fn number(digits: &[u8], max: u32) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        let number = number.checked_mul(10)?.checked_add(digit)?;
        (number <= max).then_some(number)
    })
}

const MAX_CSEQ: u32 = (1 << 31) - 1;
const MAX_CONTENT_LENGTH: u32 = (1 << 31) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cseq_takes_zeros_and_folds_before_the_method() {
        let cseq = CSeq::parse(b"0009\r\n INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method), (9, &b"INVITE"[..]));
        let cseq = CSeq::parse(b"2147483647 !interesting-Method0123456789_*+`.%indeed'~").unwrap();
        assert_eq!(cseq.number, 2_147_483_647);
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
            "2147483648 INVITE",
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
        assert_eq!(max_forwards(b"256"), None);
        assert_eq!(max_forwards(b"300"), None);
        assert_eq!(max_forwards(b""), None);
        assert_eq!(content_length(b"2147483647"), Some(2_147_483_647));
        assert_eq!(content_length(b"2147483648"), None);
        assert_eq!(content_length(b"-999"), None);
        assert_eq!(content_length(b"+1"), None);
        assert_eq!(content_length(b"1 2"), None);
        assert_eq!(content_length(b"99999999999999999999999999"), None);
    }
}
