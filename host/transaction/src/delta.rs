//! A response as its difference to the request: most of its lines are copies (RFC 3261 §8.2.6.2).
//!
//! A retransmission of the request brings the copied lines back, so they need not be stored. A difference is a list of parts: a number of
//! bytes, these bytes, and then the beginning of a line of the request, as the number of the line and a length. A check sum of the response
//! comes first: a retransmission whose lines differ does not bring the response back.

/// Shorter beginnings are not worth their four bytes.
const SHORTEST: usize = 8;

/// Lines of the request that are looked at.
const MOST_LINES: usize = 32;

/// Appends the difference of a response to its request.
pub(crate) fn write(response: &[u8], request: &[u8], out: &mut Vec<u8>) {
    let mut lines = [&b""[..]; MOST_LINES];
    let mut count = 0;
    for (line, found) in lines.iter_mut().zip(header_lines(request)) {
        *line = found;
        count += 1;
    }
    let lines = &lines[..count];
    out.extend_from_slice(&check_sum(response).to_ne_bytes());
    // What was not written yet begins here.
    let mut written = 0;
    let mut at = 0;
    for line in header_lines(response) {
        if let Some((number, length)) = longest_beginning(line, lines) {
            write_number(at - written, out);
            out.extend_from_slice(&response[written..at]);
            out.push(number);
            write_number(length, out);
            written = at + length;
        }
        at += line.len();
    }
    write_number(response.len() - written, out);
    out.extend_from_slice(&response[written..]);
}

/// Appends the response of this difference to a copy of the request. Returns false if the copy differs in what the response has of it.
pub(crate) fn read(difference: &[u8], request: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let sum = apply(difference, request, out);
    sum == Some(check_sum(&out[start..]))
}

/// Appends what the difference describes. Returns the check sum that it must have.
fn apply(difference: &[u8], request: &[u8], out: &mut Vec<u8>) -> Option<u32> {
    let (sum, mut rest) = difference.split_first_chunk()?;
    loop {
        let length = read_number(&mut rest)?;
        let (bytes, behind) = rest.split_at_checked(length)?;
        out.extend_from_slice(bytes);
        rest = behind;
        let Some((number, behind)) = rest.split_first() else {
            return Some(u32::from_ne_bytes(*sum));
        };
        rest = behind;
        let line = header_lines(request).nth(usize::from(*number))?;
        out.extend_from_slice(line.get(..read_number(&mut rest)?)?);
    }
}

/// The lines of the header section, with their ends.
fn header_lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = message.split_inclusive(|byte| *byte == b'\n');
    lines.take_while(|line| !matches!(line, [b'\n'] | [b'\r', b'\n']))
}

/// The number of the line of the request with the longest beginning that this line has too, and its length.
fn longest_beginning(line: &[u8], lines: &[&[u8]]) -> Option<(u8, usize)> {
    // A sender may change the time in a retransmission (RFC 3261 §20.38).
    const TIMESTAMP: &[u8] = b"Timestamp";
    let is_changed =
        line.len() > TIMESTAMP.len() && line[..TIMESTAMP.len()].eq_ignore_ascii_case(TIMESTAMP);
    let mut best = None;
    for (number, other) in (0..).zip(lines) {
        let length = common_beginning(line, other);
        if length >= SHORTEST && best.is_none_or(|(_, longest)| length > longest) {
            best = Some((number, length));
        }
    }
    best.filter(|_| !is_changed)
}

fn common_beginning(one: &[u8], other: &[u8]) -> usize {
    const STEP: usize = 8;
    let steps = one.chunks_exact(STEP).zip(other.chunks_exact(STEP));
    let start = STEP * steps.take_while(|(one, other)| one == other).count();
    let bytes = one[start..].iter().zip(&other[start..]);
    start + bytes.take_while(|(one, other)| one == other).count()
}

/// A sum that changes with any change that a sender makes by mistake.
fn check_sum(bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, part: u64| (sum.rotate_left(5) ^ part).wrapping_mul(FACTOR);
    let (parts, rest) = bytes.as_chunks();
    let sum = parts.iter().fold(bytes.len() as u64, |sum, part| {
        mix(sum, u64::from_ne_bytes(*part))
    });
    let sum = rest
        .iter()
        .fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
    (sum >> 32) as u32
}

/// Writes seven bits in each byte, the lowest first.
fn write_number(mut number: usize, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: &str = "MESSAGE sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport\r\n\
        Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\n\
        Call-ID: 1\r\nCSeq: 1 MESSAGE\r\nTimestamp: 54\r\nContent-Length: 2\r\n\r\nhi";
    const RESPONSE: &str = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport=5060;received=192.0.2.1\r\n\
        Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>;tag=2\r\n\
        Call-ID: 1\r\nCSeq: 1 MESSAGE\r\nTimestamp: 54\r\nContent-Length: 0\r\n\r\n";

    fn difference(response: &str, request: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(response.as_bytes(), request.as_bytes(), &mut bytes);
        bytes
    }

    fn applied(difference: &[u8], request: &str) -> Option<String> {
        let mut out = b"before".to_vec();
        read(difference, request.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_response_is_much_shorter_beside_its_request() {
        let difference = difference(RESPONSE, REQUEST);
        assert!(
            difference.len() < RESPONSE.len() / 2,
            "{}",
            difference.len()
        );
        assert_eq!(
            applied(&difference, REQUEST),
            Some(format!("before{RESPONSE}"))
        );
    }

    #[test]
    fn a_request_that_differs_gives_the_same_response_or_none() {
        let difference = difference(RESPONSE, REQUEST);
        let later = REQUEST
            .replace("Timestamp: 54", "Timestamp: 54.5")
            .replace("hi", "ho");
        assert_eq!(
            applied(&difference, &later),
            Some(format!("before{RESPONSE}"))
        );
        for (from, to) in [
            ("tag=1", "tag=3"),
            ("Call-ID: 1\r\n", ""),
            ("z9hG4bK2", "z9"),
            ("Call-ID: 1", "Call-ID: 11"),
        ] {
            assert_eq!(
                applied(&difference, &REQUEST.replace(from, to)),
                None,
                "{from}"
            );
        }
    }

    /// Lines of few different bytes, so that many begin alike.
    fn message() -> impl Strategy<Value = String> {
        let line = prop::collection::vec(
            prop::sample::select(vec!["aaaaaaaa", "b", "aaaaaaaaaaaa", ": "]),
            0..12,
        );
        let line = line.prop_map(|parts| parts.concat() + "\r\n");
        let lines = prop::collection::vec(line, 0..40);
        (lines, ".*").prop_map(|(lines, body)| lines.concat() + "\r\n" + &body)
    }

    proptest! {
        #[test]
        fn every_response_comes_back(request in message(), response in message()) {
            let difference = difference(&response, &request);
            prop_assert_eq!(applied(&difference, &request), Some(format!("before{response}")));
        }

        #[test]
        fn any_bytes_are_refused_or_read(difference in any::<Vec<u8>>(), request in message()) {
            let mut out = Vec::new();
            read(&difference, request.as_bytes(), &mut out);
        }
    }
}
