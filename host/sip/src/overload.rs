//! Overload control (RFC 7339): what a server says about its load in the Via of the client that asked.
//!
//! A client asks with the parameters `oc` and `oc-algo="loss"` in its Via. The server writes values into the response: the share of requests that the
//! client should keep back, for how long, and a number that orders these messages.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::edit::write_decimal;
use crate::params::Params;
use crate::scan::{HeaderName, Message};
use crate::via::Via;

/// What a server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Percentage of requests to keep back, 0 to 100 (§4.1).
    pub loss: u8,
    /// How long, in milliseconds; 0 ends it at once (§4.3).
    pub validity: u32,
    /// Greater than in the messages of the server before (§4.4), in hundred-thousandths. `None` if the server has sent none.
    pub sequence: Option<u64>,
}

/// Validity without the parameter, in milliseconds (§4.3).
const VALIDITY: u32 = 500;

/// The longest validity that is believed: a server that has ended must not be avoided for long.
const LONGEST_VALIDITY: u32 = 60_000;

/// Digits after the point of a sequence number (§4.4).
const DECIMALS: usize = 5;
const SCALE: u64 = 100_000;

/// Parameters with which a client asks. They follow those that this host writes into its Via.
pub(crate) const ASKS: &[u8] = b";oc;oc-algo=\"loss\"";

impl Overload {
    /// What a response says in its top Via, which this host wrote into the request. `None` without a value, with one that cannot be read, or for an
    /// algorithm other than `loss`.
    pub fn of_response(response: Message<'_>) -> Option<Self> {
        let field = response.header(HeaderName::Via)?;
        let via = Via::parse_returned(field.value).ok()?;
        Self::of_params(&via.params)
    }

    /// Whether the client that has sent a request asks for such values.
    pub fn is_asked_for(request: Message<'_>) -> bool {
        let field = request.header(HeaderName::Via);
        let via = field.and_then(|field| Via::parse(field.value).ok());
        via.is_some_and(|via| via.params.named("oc").is_some())
    }

    fn of_params(params: &Params<'_>) -> Option<Self> {
        let loss = number(params.named("oc")?.value?)?;
        let algorithm = params.named("oc-algo").and_then(|param| param.value);
        if algorithm.is_some_and(|algorithm| !unquoted(algorithm).eq_ignore_ascii_case(b"loss")) {
            return None;
        }
        let validity = match params.named("oc-validity") {
            None => u64::from(VALIDITY),
            Some(validity) => number(validity.value?)?,
        };
        let sequence = match params.named("oc-seq") {
            None => None,
            Some(sequence) => Some(decimal(sequence.value?)?),
        };
        Some(Self {
            loss: u8::try_from(loss).ok().filter(|loss| *loss <= 100)?,
            validity: u32::try_from(validity)
                .unwrap_or(u32::MAX)
                .min(LONGEST_VALIDITY),
            sequence,
        })
    }

    /// Writes the parameters for a client that has asked.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b";oc=");
        write_decimal(self.loss.into(), out);
        out.extend_from_slice(b";oc-algo=\"loss\";oc-validity=");
        write_decimal(self.validity, out);
        let Some(sequence) = self.sequence else {
            return;
        };
        let whole = u32::try_from(sequence / SCALE).unwrap_or(u32::MAX);
        out.extend_from_slice(b";oc-seq=");
        write_decimal(whole, out);
        out.push(b'.');
        let mut digit = SCALE;
        while digit > 1 {
            digit /= 10;
            out.push(b'0' + (sequence / digit % 10) as u8);
        }
    }
}

/// What this host asks of its clients, which all workers read: the loss in the upper byte, and a sequence number below.
#[derive(Debug, Default)]
pub(crate) struct Asked(AtomicU64);

/// How long clients keep requests back after the last response that asks for it, in milliseconds: longer than the second until the next sequence
/// number, because a client ignores a number that it knows.
const ASKED_VALIDITY: u32 = 1_500;

impl Asked {
    pub(crate) fn set(&self, loss: u8, sequence: u64) {
        let number = match loss {
            0 => 0,
            loss => u64::from(loss.min(100)) << 56 | sequence & SEQUENCE,
        };
        self.0.store(number, Ordering::Relaxed);
    }

    /// `None` while the host is not overloaded.
    #[inline]
    pub(crate) fn current(&self) -> Option<Overload> {
        let number = self.0.load(Ordering::Relaxed);
        (number != 0).then_some(Overload {
            loss: (number >> 56) as u8,
            validity: ASKED_VALIDITY,
            sequence: Some(number & SEQUENCE),
        })
    }
}

const SEQUENCE: u64 = (1 << 56) - 1;

fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

fn number(digits: &[u8]) -> Option<u64> {
    const MOST_DIGITS: usize = 12;
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(number * 10 + digit)
    })
}

/// `123.45` in hundred-thousandths; the part after the point may be absent.
fn decimal(text: &[u8]) -> Option<u64> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b"0"[..]),
    };
    if fraction.len() > DECIMALS {
        return None;
    }
    let scale = 10_u64.pow((DECIMALS - fraction.len()) as u32);
    Some(number(whole)? * SCALE + number(fraction)? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Framing, Index, Limits, scan};

    fn said(params: &str) -> Option<(u8, u32, Option<u64>)> {
        let text = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1{params}\r\n\r\n"
        );
        let mut index = Index::default();
        let limits = Limits::default();
        scan(text.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
        let overload = Overload::of_response(Message::new(text.as_bytes(), &index))?;
        Some((overload.loss, overload.validity, overload.sequence))
    }

    #[test]
    fn the_values_of_a_server_are_read() {
        let text = ";oc=20;oc-algo=\"loss\";oc-validity=1000;oc-seq=1282321615.782";
        assert_eq!(said(text), Some((20, 1_000, Some(128_232_161_578_200))));
        // §4.3: 500 ms without the parameter; 0 ends the control.
        assert_eq!(said(";oc=20;oc-algo=\"loss\""), Some((20, 500, None)));
        assert_eq!(
            said(";OC=0;oc-validity=0;oc-seq=2"),
            Some((0, 0, Some(200_000)))
        );
        assert_eq!(said(";oc=5;oc-validity=9999999"), Some((5, 60_000, None)));
    }

    #[test]
    fn what_is_no_order_is_ignored() {
        for text in [
            "",
            ";oc",
            ";oc=",
            ";oc=101",
            ";oc=-1",
            ";oc=20;oc-algo=\"rate\"",
            ";oc=20;oc-validity=x",
            ";oc=20;oc-seq=1.123456",
            ";oc=20;oc-seq=.",
            ";oc=99999999999999999999",
            ";doc=20",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let overload = Overload {
            loss: 35,
            validity: 500,
            sequence: Some(128_232_161_500_042),
        };
        let mut text = Vec::new();
        overload.write(&mut text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            ";oc=35;oc-algo=\"loss\";oc-validity=500;oc-seq=1282321615.00042"
        );
        assert_eq!(said(&text), Some((35, 500, Some(128_232_161_500_042))));
    }

    #[test]
    fn a_host_asks_only_while_it_is_overloaded() {
        let asked = Asked::default();
        assert_eq!(asked.current(), None);
        asked.set(40, 7);
        let now = asked.current().unwrap();
        assert_eq!((now.loss, now.sequence), (40, Some(7)));
        asked.set(0, 8);
        assert_eq!(asked.current(), None);
    }
}
