//! Overload control (RFC 7339, RFC 7415): what a server says about its load in the Via of the client that asked.
//!
//! A client asks with the parameters `oc` and `oc-algo` in its Via. The server writes values into the response: how many requests the client may send,
//! for how long, and a number that orders these messages. The values are for the previous hop alone (§5.6): a request is relayed without the parameters of
//! its client, and the Via of this host remembers what the client has offered.

use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::edit::write_decimal;
use crate::params::{Param, Params};
use crate::scan::{Field, HeaderName, Message};
use crate::via::Via;

/// What a server asks of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// How many requests the client may send.
    pub limit: Limit,
    /// How long, in milliseconds; 0 ends it at once, whatever the limit (§4.3, §5.7).
    pub validity: u32,
    /// Greater than in the messages of the server before (§4.4), in hundred-thousandths. `None` if the server has sent none.
    pub sequence: Option<u64>,
}

/// How many requests a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All but this percentage, 0 to 100 (RFC 7339 §7.1).
    Loss(u8),
    /// At most so many a second; 0: none (RFC 7415 §3.5.1).
    Rate(u32),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss(loss) => write!(f, "{loss} % fewer requests"),
            Self::Rate(rate) => write!(f, "at most {rate} requests a second"),
        }
    }
}

/// A class of algorithms (`oc-algo`, RFC 7339 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadAlgorithm {
    /// `loss` (RFC 7339 §7): a percentage of requests is kept back. Every client has it.
    Loss,
    /// `rate` (RFC 7415): so many requests a second are sent at most.
    Rate,
}

/// On which sides a host takes part, and with which algorithm it would rather. `None`: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverloadControl {
    /// As a client of its next hops.
    pub next_hops: Option<OverloadAlgorithm>,
    /// As a server of its clients.
    pub clients: Option<OverloadAlgorithm>,
}

/// Validity without the parameter, in milliseconds (§4.3).
const VALIDITY: u32 = 500;

/// The longest validity that is believed: a server that has ended must not be avoided for long.
const LONGEST_VALIDITY: u32 = 60_000;

/// Digits after the point of a sequence number (§9).
const DECIMALS: usize = 5;
const SCALE: u64 = 100_000;

impl Overload {
    /// What a response says in its top Via, which this host wrote into the request. `None` without a value, with one that cannot be read, or for an
    /// algorithm that this host does not know.
    pub fn of_response(response: Message<'_>) -> Option<Self> {
        let field = response.header(HeaderName::Via)?;
        let via = Via::parse_returned(field.value).ok()?;
        Self::of_params(&via.params)
    }

    fn of_params(params: &Params<'_>) -> Option<Self> {
        let validity = match params.named("oc-validity").map(|param| param.value) {
            None | Some(None) => u64::from(VALIDITY),
            Some(Some(validity)) => number(validity)?,
        };
        let sequence = match params.named("oc-seq") {
            None => None,
            Some(sequence) => Some(decimal(sequence.value?)?),
        };
        let limit = match validity {
            // It ends the control, whatever the other values are (§5.7).
            0 => Limit::Loss(0),
            _ => limit(params)?,
        };
        Some(Self {
            limit,
            validity: u32::try_from(validity)
                .unwrap_or(u32::MAX)
                .min(LONGEST_VALIDITY),
            sequence,
        })
    }

    /// Writes the parameters for a client that has asked.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (value, algorithm) = match self.limit {
            Limit::Loss(loss) => (loss.into(), OverloadAlgorithm::Loss),
            Limit::Rate(rate) => (rate, OverloadAlgorithm::Rate),
        };
        out.extend_from_slice(b";oc=");
        write_decimal(value, out);
        out.extend_from_slice(b";oc-algo=\"");
        out.extend_from_slice(algorithm.token());
        out.extend_from_slice(b"\";oc-validity=");
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

impl OverloadAlgorithm {
    fn token(self) -> &'static [u8] {
        match self {
            Self::Loss => b"loss",
            Self::Rate => b"rate",
        }
    }

    /// The parameters with which a client asks that prefers this algorithm; `loss` is always among those that it offers (§5.1). They follow those that
    /// this host writes into its Via.
    pub(crate) fn asks(self) -> &'static [u8] {
        match self {
            Self::Loss => b";oc;oc-algo=\"loss\"",
            Self::Rate => b";oc;oc-algo=\"rate,loss\"",
        }
    }
}

/// What `oc` means by the algorithm that the server has chosen; without one, that is `loss` (§4.2).
fn limit(params: &Params<'_>) -> Option<Limit> {
    let value = number(params.named("oc")?.value?)?;
    let algorithm = params.named("oc-algo").and_then(|param| param.value);
    let is = |wanted: OverloadAlgorithm| {
        algorithm.is_some_and(|name| unquoted(name).eq_ignore_ascii_case(wanted.token()))
    };
    if is(OverloadAlgorithm::Rate) {
        return Some(Limit::Rate(u32::try_from(value).unwrap_or(u32::MAX)));
    }
    if algorithm.is_some() && !is(OverloadAlgorithm::Loss) {
        return None;
    }
    let loss = u8::try_from(value).ok().filter(|loss| *loss <= 100)?;
    Some(Limit::Loss(loss))
}

/// Algorithms that a client has offered in its Via (§4.1, §4.2); none if it does not support overload control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    loss: bool,
    rate: bool,
}

impl Offer {
    /// What the sender of a request offers.
    pub fn of_request(request: Message<'_>) -> Self {
        let field = request.header(HeaderName::Via);
        let via = field.and_then(|field| Via::parse(field.value).ok());
        via.map(|via| Self::of_via(&via)).unwrap_or_default()
    }

    pub(crate) fn of_via(via: &Via<'_>) -> Self {
        if via.params.named("oc").is_none() {
            return Self::default();
        }
        let listed = via.params.named("oc-algo").and_then(|param| param.value);
        let Some(listed) = listed else {
            return Self {
                loss: true,
                rate: false,
            };
        };
        let has = |wanted: OverloadAlgorithm| {
            let mut names = unquoted(listed).split(|byte| *byte == b',');
            names.any(|name| name.trim_ascii().eq_ignore_ascii_case(wanted.token()))
        };
        Self {
            loss: has(OverloadAlgorithm::Loss),
            rate: has(OverloadAlgorithm::Rate),
        }
    }

    /// Whether there is anything that this host can use.
    pub fn is_some(self) -> bool {
        self.loss || self.rate
    }

    /// Whether the client has this algorithm.
    pub fn has(self, algorithm: OverloadAlgorithm) -> bool {
        match algorithm {
            OverloadAlgorithm::Loss => self.loss,
            OverloadAlgorithm::Rate => self.rate,
        }
    }

    /// Writes the offer of a client into the Via of this host, from where the response brings it back: `;o=` and the sum of 1 for `loss` and 2 for `rate`.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        if self.is_some() {
            out.extend_from_slice(b";o=");
            out.push(b'0' + u8::from(self.loss) + 2 * u8::from(self.rate));
        }
    }

    /// Reads what [`Offer::write`] has written.
    fn of_own(via: &Via<'_>) -> Self {
        match via.params.named("o").and_then(|param| param.value) {
            Some([digit @ b'1'..=b'3']) => Self {
                loss: digit & 1 != 0,
                rate: digit & 2 != 0,
            },
            Some(_) | None => Self::default(),
        }
    }
}

/// What this host asks of its clients now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    algorithm: OverloadAlgorithm,
    /// Percentage; 0 while the host is not overloaded.
    loss: u8,
    /// Requests per second of each client.
    rate: u32,
    sequence: u64,
}

/// How long clients obey the last response, in milliseconds: longer than the second until the next sequence number, because a client ignores a number that
/// it knows.
const ASKED_VALIDITY: u32 = 1_500;

impl Demand {
    pub(crate) fn loss(self) -> u8 {
        self.loss
    }

    /// 0 if nobody is asked by rate.
    pub(crate) fn rate(self) -> u32 {
        match self.algorithm {
            OverloadAlgorithm::Rate => self.rate,
            OverloadAlgorithm::Loss => 0,
        }
    }

    /// The demand for a client with this offer: one of its algorithms, and that there is nothing to keep back (`oc-validity=0`) while the host is not
    /// overloaded (§5.1). `None` if it has offered none of them.
    pub(crate) fn of(self, offer: Offer) -> Option<Overload> {
        let by_rate = self.algorithm == OverloadAlgorithm::Rate && offer.rate;
        if !by_rate && !offer.loss {
            return None;
        }
        let is_overloaded = self.loss > 0;
        Some(Overload {
            limit: match by_rate {
                true => Limit::Rate(if is_overloaded { self.rate } else { 0 }),
                false => Limit::Loss(self.loss),
            },
            validity: if is_overloaded { ASKED_VALIDITY } else { 0 },
            sequence: Some(self.sequence),
        })
    }
}

/// What this host asks of its clients, which all workers read.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The loss in the upper byte, and a sequence number below; 0 before the first one.
    loss: AtomicU64,
    rate: AtomicU32,
}

impl Asked {
    /// Two workers may read the rate before and the loss after a change: the next response has both.
    pub(crate) fn set(&self, loss: u8, rate: u32, sequence: u64) {
        self.rate.store(rate, Ordering::Relaxed);
        let number = u64::from(loss.min(100)) << 56 | sequence & SEQUENCE;
        self.loss.store(number, Ordering::Relaxed);
    }

    /// `None` before the first look at the load.
    #[inline]
    pub(crate) fn current(&self, algorithm: OverloadAlgorithm) -> Option<Demand> {
        let number = self.loss.load(Ordering::Relaxed);
        (number != 0).then(|| Demand {
            algorithm,
            loss: (number >> 56) as u8,
            rate: self.rate.load(Ordering::Relaxed),
            sequence: number & SEQUENCE,
        })
    }
}

const SEQUENCE: u64 = (1 << 56) - 1;

/// What becomes of overload control in the Vias of a message that is relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Feedback {
    /// The host takes no part in it: everything stays as it is.
    #[default]
    Untouched,
    /// Parameters that are for another hop are removed.
    Removed,
    /// The same, with the demand of this host for the previous hop, if that has offered the control.
    Given(Demand),
}

/// The Vias of a response on its way back.
pub(crate) struct Returning {
    feedback: Feedback,
    /// What the previous hop has offered.
    offer: Offer,
    /// Whether the next value is that of the previous hop.
    is_next: bool,
}

impl Returning {
    /// `ours` is the Via of this host.
    pub(crate) fn new(feedback: Feedback, ours: &Via<'_>) -> Self {
        Self {
            feedback,
            offer: match feedback {
                Feedback::Given(_) => Offer::of_own(ours),
                Feedback::Removed | Feedback::Untouched => Offer::default(),
            },
            is_next: true,
        }
    }

    /// Writes the values of a Via header field, from `at` in the field on. The first value that remains is that of the previous hop: it gets the parameters of
    /// this host in place of those that a server behind this host has written (§5.2). The others are those of hops before the previous one: what their
    /// clients have offered stays, because their servers have yet to answer it. What only a server writes is removed: their servers have not seen the
    /// response, so somebody else has written it. `bytes` is the message; it has been written up to `done`, which advances.
    pub(crate) fn write(
        &mut self,
        bytes: &[u8],
        field: &Field<'_>,
        mut at: usize,
        done: &mut usize,
        out: &mut Vec<u8>,
    ) {
        if self.feedback == Feedback::Untouched {
            return;
        }
        let mut write_up_to = |end: usize, resume: usize, out: &mut Vec<u8>| {
            out.extend_from_slice(bytes.get(*done..end).unwrap_or_default());
            *done = resume;
        };
        while let Some(text) = field.value.get(at..).filter(|text| !text.is_empty()) {
            let is_next = mem::take(&mut self.is_next);
            let Ok(via) = Via::parse_returned(text) else {
                return;
            };
            let base = field.value_range.start + at;
            for param in via.params.clone().filter(is_feedback) {
                let cut = match is_next {
                    true => param.range,
                    false => values_of(&param, text),
                };
                write_up_to(base + cut.start, base + cut.end, out);
            }
            if let Feedback::Given(demand) = self.feedback
                && is_next
                && let Some(overload) = demand.of(self.offer)
            {
                let end = base + via.range.end;
                write_up_to(end, end, out);
                overload.write(out);
            }
            match via.next {
                Some(next) => at += next,
                None => return,
            }
        }
    }
}

/// Whether this is one of the parameters of overload control.
pub(crate) fn is_feedback(param: &Param<'_>) -> bool {
    matches!(param.name.len(), 2 | 6 | 7 | 11)
        && ["oc", "oc-seq", "oc-algo", "oc-validity"]
            .iter()
            .any(|name| param.is(name))
}

/// The part of a parameter of overload control, in `via`, that only the server of the client writes whose Via it is (§4): the value of `oc`, and all of
/// `oc-validity` and `oc-seq`. Empty in `oc-algo`: the client lists its algorithms there.
fn values_of(param: &Param<'_>, via: &[u8]) -> Range<usize> {
    let Range { start, end } = param.range;
    if param.is("oc-algo") {
        return end..end;
    }
    if !param.is("oc") {
        return start..end;
    }
    let written = via.get(start..end).unwrap_or_default();
    let mut parts = written.split(|byte| *byte == b'=');
    let name = parts.next().unwrap_or_default().trim_ascii_end();
    start + name.len()..end
}

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

    fn with<R>(text: &str, read: impl FnOnce(Message<'_>) -> R) -> R {
        let mut index = Index::default();
        let limits = Limits::default();
        let _lacks_fields = scan(text.as_bytes(), Framing::Datagram, &limits, &mut index);
        read(Message::new(text.as_bytes(), &index))
    }

    fn said(params: &str) -> Option<(Limit, u32, Option<u64>)> {
        let text = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1{params}\r\n\r\n"
        );
        let overload = with(&text, Overload::of_response)?;
        Some((overload.limit, overload.validity, overload.sequence))
    }

    fn offered(params: &str) -> Offer {
        let text = format!(
            "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1{params}\r\n\r\n"
        );
        with(&text, Offer::of_request)
    }

    #[test]
    fn the_values_of_a_server_are_read() {
        let text = ";oc=20;oc-algo=\"loss\";oc-validity=1000;oc-seq=1282321615.782";
        let loss = Limit::Loss(20);
        assert_eq!(said(text), Some((loss, 1_000, Some(128_232_161_578_200))));
        // §4.3: 500 ms without the parameter or its value.
        assert_eq!(said(";oc=20;oc-algo=\"loss\""), Some((loss, 500, None)));
        assert_eq!(said(";oc=20;oc-validity"), Some((loss, 500, None)));
        let longest = said(";oc=5;oc-validity=9999999");
        assert_eq!(longest, Some((Limit::Loss(5), 60_000, None)));
        // RFC 7415 §4.
        let text = ";oc=150;oc-algo=\"rate\";oc-validity=1000;oc-seq=1282321615.782";
        let rate = Limit::Rate(150);
        assert_eq!(said(text), Some((rate, 1_000, Some(128_232_161_578_200))));
        let none = said(";oc=0;oc-algo=Rate");
        assert_eq!(none, Some((Limit::Rate(0), 500, None)));
    }

    /// §5.7: whatever the other values are, and without `oc` (§4.3).
    #[test]
    fn a_validity_of_0_ends_the_control() {
        for text in [
            ";OC=0;oc-validity=0;oc-seq=2",
            ";oc=150;oc-validity=0;oc-seq=2",
            ";oc=150;oc-algo=\"A\";oc-validity=0;oc-seq=2.0",
            ";oc;oc-algo=\"loss\";oc-validity=0;oc-seq=2",
            ";oc-validity=0;oc-seq=2",
        ] {
            let end = Some((Limit::Loss(0), 0, Some(200_000)));
            assert_eq!(said(text), end, "{text}");
        }
    }

    #[test]
    fn what_is_no_order_is_ignored() {
        for text in [
            "",
            ";oc",
            ";oc;oc-algo=\"rate,loss\"",
            ";oc=",
            ";oc=101",
            ";oc=-1",
            ";oc=20;oc-algo=\"A\"",
            ";oc=20;oc-algo=\"rate,loss\"",
            ";oc=20;oc-validity=x",
            ";oc=20;oc-seq=1.123456",
            ";oc=20;oc-seq=.",
            ";oc=99999999999999999999",
            ";oc-validity=700;oc-seq=1.0",
            ";doc=20",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (limit, value) in [
            (Limit::Loss(35), "35;oc-algo=\"loss\""),
            (Limit::Rate(400), "400;oc-algo=\"rate\""),
        ] {
            let overload = Overload {
                limit,
                validity: 500,
                sequence: Some(128_232_161_500_042),
            };
            let mut text = Vec::new();
            overload.write(&mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(
                text,
                format!(";oc={value};oc-validity=500;oc-seq=1282321615.00042")
            );
            assert_eq!(said(&text), Some((limit, 500, overload.sequence)));
        }
    }

    /// §4.1, §4.2.
    #[test]
    fn an_offer_is_what_the_client_lists() {
        let offer = |loss, rate| Offer { loss, rate };
        for (params, expected) in [
            ("", offer(false, false)),
            (";oc-algo=\"loss\"", offer(false, false)),
            (";oc", offer(true, false)),
            (";OC;oc-algo=\"loss\"", offer(true, false)),
            (";oc;oc-algo=loss", offer(true, false)),
            (";oc=7;oc-algo=\"A, Loss\"", offer(true, false)),
            (";oc;oc-algo=\"rate,loss\"", offer(true, true)),
            (";oc;oc-algo=\"rate\"", offer(false, true)),
            (";oc;oc-algo=\"A\"", offer(false, false)),
            (";oc;oc-algo=\"lossy,\"", offer(false, false)),
        ] {
            assert_eq!(offered(params), expected, "{params}");
            let mut own = b"SIP/2.0/UDP a;branch=z9hG4bK1".to_vec();
            expected.write(&mut own);
            let via = Via::parse(&own).unwrap();
            assert_eq!(Offer::of_own(&via), expected, "{params}");
        }
        for other in [";o", ";o=", ";o=0", ";o=4", ";o=11", ";o=x"] {
            let own = format!("SIP/2.0/UDP a{other}");
            let via = Via::parse(own.as_bytes()).unwrap();
            assert_eq!(Offer::of_own(&via), Offer::default(), "{other}");
        }
    }

    /// §5.1, §5.7: a client that supports it always gets a value, and the number rises.
    #[test]
    fn a_client_is_told_whether_the_host_is_overloaded() {
        let (loss, both) = (offered(";oc"), offered(";oc;oc-algo=\"loss,rate\""));
        let asked = Asked::default();
        assert_eq!(asked.current(OverloadAlgorithm::Loss), None);
        let told = |algorithm, offer| {
            let told = asked.current(algorithm)?.of(offer)?;
            Some((told.limit, told.validity, told.sequence))
        };
        let (by_loss, by_rate) = (OverloadAlgorithm::Loss, OverloadAlgorithm::Rate);
        asked.set(0, 90, 6);
        assert_eq!(told(by_loss, loss), Some((Limit::Loss(0), 0, Some(6))));
        assert_eq!(told(by_rate, both), Some((Limit::Rate(0), 0, Some(6))));
        asked.set(40, 90, 7);
        let kept_back = Some((Limit::Loss(40), 1_500, Some(7)));
        assert_eq!(told(by_loss, loss), kept_back);
        assert_eq!(told(by_loss, both), kept_back);
        assert_eq!(told(by_rate, loss), kept_back);
        assert_eq!(told(by_rate, both), Some((Limit::Rate(90), 1_500, Some(7))));
        for algorithm in [by_loss, by_rate] {
            assert_eq!(told(algorithm, Offer::default()), None);
        }
        assert_eq!(told(by_loss, offered(";oc;oc-algo=\"rate\"")), None);
    }

    /// What comes of these Vias behind that of this host.
    fn returned(feedback: Feedback, ours: &str, vias: &str) -> String {
        let text = format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP us{ours}\r\n{vias}\r\n\r\n");
        with(&text, |message| {
            let first = message.header(HeaderName::Via).unwrap();
            let own = Via::parse(first.value).unwrap();
            let mut returning = Returning::new(feedback, &own);
            let (mut done, mut out) = (first.line.end, Vec::new());
            for field in message.headers(HeaderName::Via).skip(1) {
                returning.write(text.as_bytes(), &field, 0, &mut done, &mut out);
            }
            out.extend_from_slice(&text.as_bytes()[done..text.len() - 4]);
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn a_response_has_values_for_the_previous_hop_only() {
        let asked = Asked::default();
        asked.set(40, 90, 700_000);
        let demand = asked.current(OverloadAlgorithm::Rate).unwrap();
        let given = Feedback::Given(demand);
        let plain = "Via: SIP/2.0/UDP a;branch=1 , SIP/2.0/TCP b\r\nVia: SIP/2.0/UDP c;x=\"oc\"";
        for ours in ["", ";o=1", ";o=3"] {
            assert_eq!(returned(Feedback::Untouched, ours, plain), plain);
            assert_eq!(returned(Feedback::Removed, ours, plain), plain);
        }
        assert_eq!(returned(given, "", plain), plain);
        let values = ";oc=40;oc-algo=\"loss\";oc-validity=1500;oc-seq=7.00000";
        let told = plain.replacen("branch=1", &format!("branch=1{values}"), 1);
        assert_eq!(returned(given, ";o=1", plain), told);
        let by_rate = told.replacen("40;oc-algo=\"loss\"", "90;oc-algo=\"rate\"", 1);
        assert_eq!(returned(given, ";o=3", plain), by_rate);
        // A server behind this host has written into them, by accident or on purpose.
        let spoilt = "Via: SIP/2.0/UDP a;oc=99;branch=1;oc-validity=60000;oc-seq=9.9;OC-ALGO=\"loss\" , SIP/2.0/TCP b;oc-seq=1\r\n\
                      Via: SIP/2.0/UDP c; oc-validity = 3;x=\"oc\"";
        assert_eq!(returned(Feedback::Untouched, ";o=1", spoilt), spoilt);
        assert_eq!(returned(Feedback::Removed, ";o=1", spoilt), plain);
        assert_eq!(returned(given, "", spoilt), plain);
        assert_eq!(returned(given, ";o=1", spoilt), told);
    }

    /// §4.1, §5.6: the previous hop may have left the offer of its own client where it was, and reads it there when the response comes back.
    #[test]
    fn the_offer_of_a_hop_before_the_previous_one_comes_back_without_values() {
        let asked = Asked::default();
        asked.set(40, 90, 700_000);
        let demand = asked.current(OverloadAlgorithm::Loss).unwrap();
        let previous = "Via: SIP/2.0/UDP a;branch=1";
        let offers = ", SIP/2.0/TCP b;oc;oc-algo=\"loss,rate\";branch=2\r\n\
                      Via: SIP/2.0/UDP c ; OC;x=\"oc=1\";oc-algo=\"loss\"";
        // Servers behind this host have written into them, by accident or on purpose.
        let spoilt = ", SIP/2.0/TCP b;oc=99;oc-algo=\"loss,rate\";oc-validity=60000;branch=2;oc-seq=9.9\r\n\
                      Via: SIP/2.0/UDP c ; OC = 7;x=\"oc=1\";oc-validity;oc-algo=\"loss\"";
        let values = ";oc=40;oc-algo=\"loss\";oc-validity=1500;oc-seq=7.00000";
        for others in [offers, spoilt] {
            let vias = format!("{previous}{others}");
            assert_eq!(
                returned(Feedback::Removed, ";o=1", &vias),
                format!("{previous}{offers}")
            );
            assert_eq!(
                returned(Feedback::Given(demand), ";o=1", &vias),
                format!("{previous}{values}{offers}")
            );
            assert_eq!(returned(Feedback::Untouched, ";o=1", &vias), vias);
        }
    }

    #[test]
    fn a_via_that_cannot_be_read_stays_as_it_is() {
        let vias = "Via: SIP/2.0/UDP a;x=\";oc=1\r\nVia: SIP/2.0/UDP b;oc=2";
        assert_eq!(
            returned(Feedback::Removed, ";o=1", vias),
            vias.replace("oc=2", "oc")
        );
    }
}
