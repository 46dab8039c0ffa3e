//! Edits of received bytes by splicing: bytes that are not edited are sent as received.

use std::io::Write;
use std::net::IpAddr;
use std::ops::Range;

/// Up to `MOST` edits of one message, in the order of their positions. Bytes are copied only by [`Edits::apply`].
pub(crate) struct Edits<'a, const MOST: usize> {
    list: [Edit<'a>; MOST],
    length: usize,
}

/// Replacement for the bytes that an edit removes.
#[derive(Clone, Copy)]
pub(crate) enum Text<'a> {
    /// Nothing: the bytes are removed.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A decimal number.
    Number(u32),
    /// These bytes and a decimal number.
    Labelled(&'a [u8], u32),
    /// These bytes and an address without brackets.
    Address(&'a [u8], IpAddr),
    /// The output of this writer.
    Written(&'a dyn Fn(&mut Vec<u8>)),
}

#[derive(Clone)]
struct Edit<'a> {
    place: Range<usize>,
    text: Text<'a>,
}

impl<'a, const MOST: usize> Edits<'a, MOST> {
    pub(crate) fn new() -> Self {
        const NONE: Edit<'_> = Edit {
            place: 0..0,
            text: Text::Nothing,
        };
        Self {
            list: [NONE; MOST],
            length: 0,
        }
    }

    /// Replaces the bytes `place` with `text`. Edits at the same position keep their order. Returns false, without an edit, when the
    /// list is full or `place` overlaps another edit.
    #[must_use]
    pub(crate) fn replace(&mut self, place: Range<usize>, text: Text<'a>) -> bool {
        // Most edits arrive in order; a policy can remove hundreds of lines in any order.
        let list = &self.list[..self.length];
        let at = match list.last() {
            Some(last) if last.place.start > place.start => {
                list.partition_point(|edit| edit.place.start <= place.start)
            }
            _ => self.length,
        };
        let free = self.length < MOST
            && (at == 0 || self.list[at - 1].place.end <= place.start)
            && (at == self.length || place.end <= self.list[at].place.start);
        if free {
            if at < self.length {
                self.list[at..=self.length].rotate_right(1);
            }
            self.list[at] = Edit { place, text };
            self.length += 1;
        }
        free
    }

    /// Inserts `text` before the byte at `at`.
    #[must_use]
    pub(crate) fn insert(&mut self, at: usize, text: Text<'a>) -> bool {
        self.replace(at..at, text)
    }

    /// Removes bytes.
    #[must_use]
    pub(crate) fn remove(&mut self, place: Range<usize>) -> bool {
        self.replace(place, Text::Nothing)
    }

    /// Whether there is an edit of exactly these bytes.
    pub(crate) fn has(&self, place: &Range<usize>) -> bool {
        let list = &self.list[..self.length];
        let first = list.partition_point(|edit| edit.place.start < place.start);
        let mut here = list[first..]
            .iter()
            .take_while(|edit| edit.place.start == place.start);
        here.any(|edit| edit.place == *place)
    }

    /// Appends `bytes` with these edits to `out`.
    pub(crate) fn apply(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut done = 0;
        for edit in &self.list[..self.length] {
            out.extend_from_slice(bytes.get(done..edit.place.start).unwrap_or_default());
            edit.text.write(out);
            done = edit.place.end;
        }
        out.extend_from_slice(bytes.get(done..).unwrap_or_default());
    }
}

impl Text<'_> {
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => {}
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Number(number) => write_decimal(number, out),
            Self::Labelled(label, number) => {
                out.extend_from_slice(label);
                write_decimal(number, out);
            }
            Self::Address(label, ip) => {
                out.extend_from_slice(label);
                write_ip(ip, out);
            }
            Self::Written(write) => write(out),
        }
    }
}

/// Writes a number in decimal.
pub(crate) fn write_decimal(number: u32, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let start = decimal(number, &mut digits);
    out.extend_from_slice(&digits[start..]);
}

/// Writes a number at the end of `digits`; returns its start.
fn decimal<const ROOM: usize>(mut number: u32, digits: &mut [u8; ROOM]) -> usize {
    let mut at = ROOM;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return at;
        }
    }
}

/// Writes a number as 16 hexadecimal digits in lower case.
pub(crate) fn write_hex(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; HEX_DIGITS];
    let (high, low) = digits.split_at_mut(HEX_DIGITS / 2);
    high.copy_from_slice(&hex_digits((number >> 32) as u32).to_be_bytes());
    low.copy_from_slice(&hex_digits(number as u32).to_be_bytes());
    out.extend_from_slice(&digits);
}

/// The eight digits of a number, computed together as the bytes of a larger number: every branch and tag needs them.
const fn hex_digits(number: u32) -> u64 {
    const EVERY: u64 = 0x0101_0101_0101_0101;
    let spread = number as u64;
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let above_nine = (nibbles + 6 * EVERY) >> 4 & EVERY;
    nibbles + b'0' as u64 * EVERY + above_nine * (b'a' - b'0' - 10) as u64
}

/// Number of digits that [`write_hex`] writes.
pub(crate) const HEX_DIGITS: usize = 16;

/// Reads the output of [`write_hex`], in upper or lower case.
pub(crate) fn read_hex(digits: &[u8]) -> Option<u64> {
    if digits.len() != HEX_DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |number, &digit| {
        Some(number << 4 | u64::from(char::from(digit).to_digit(16)?))
    })
}

/// Writes a number as eight hexadecimal digits in lower case.
pub(crate) fn write_short_hex(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&hex_digits(number).to_be_bytes());
}

/// Reads the output of [`write_short_hex`], in upper or lower case.
pub(crate) fn read_short_hex(digits: &[u8]) -> Option<u32> {
    if digits.len() != HEX_DIGITS / 2 {
        return None;
    }
    digits.iter().try_fold(0, |number, &digit| {
        Some(number << 4 | char::from(digit).to_digit(16)?)
    })
}

/// Writes an address, an IPv6 one without brackets, as `received` has it (RFC 5118 §4.5).
pub(crate) fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            let mut text = [b'.'; 15];
            let mut end = 0;
            for octet in ip.octets() {
                let mut digits = [0; 3];
                let start = decimal(octet.into(), &mut digits);
                for &digit in &digits[start..] {
                    text[end] = digit;
                    end += 1;
                }
                end += 1;
            }
            out.extend_from_slice(&text[..end - 1]);
        }
        IpAddr::V6(ip) => {
            // Writing to a `Vec` does not fail.
            let _always = write!(out, "{ip}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn applied(bytes: &[u8], edits: &Edits<'_, 8>) -> String {
        let mut out = Vec::new();
        edits.apply(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn edits_may_come_in_any_order() {
        let mut edits = Edits::new();
        assert!(edits.remove(7..8));
        assert!(edits.insert(2, Text::Bytes(b"<")));
        assert!(edits.insert(2, Text::Labelled(b"n=", 7)));
        assert!(edits.replace(3..5, Text::Number(42)));
        assert!(edits.insert(8, Text::Address(b";", "::1".parse().unwrap())));
        assert!(edits.insert(0, Text::Written(&|out| out.extend_from_slice(b"first "))));
        assert_eq!(applied(b"01234567", &edits), "first 01<n=724256;::1");
    }

    #[test]
    fn an_edit_within_another_is_refused() {
        let mut edits = Edits::new();
        assert!(edits.remove(2..6));
        for place in [3..4, 0..3, 5..8, 0..8, 4..4] {
            assert!(!edits.remove(place));
        }
        assert!(edits.remove(0..2));
        assert!(edits.remove(6..8));
        assert_eq!(applied(b"01234567", &edits), "");
    }

    #[test]
    fn a_full_list_takes_no_more() {
        let mut edits = Edits::<8>::new();
        for at in 0..8 {
            assert!(edits.insert(at, Text::Number(1)));
        }
        assert!(!edits.insert(0, Text::Number(1)));
    }

    #[test]
    fn numbers_and_addresses_are_written_as_the_standard_library_does() {
        for number in [0, 7, 10, 255, 65_535, u32::MAX] {
            let mut out = Vec::new();
            write_decimal(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
        for ip in [
            "0.0.0.0",
            "10.200.3.44",
            "255.255.255.255",
            "::",
            "2001:db8::9:1",
        ] {
            let mut out = Vec::new();
            write_ip(ip.parse().unwrap(), &mut out);
            assert_eq!(out, ip.as_bytes());
        }
    }

    #[test]
    fn only_sixteen_hexadecimal_digits_are_a_number() {
        assert_eq!(read_hex(b"00000000DeadBeef"), Some(0xdead_beef));
        for bad in [
            "",
            "0",
            "00000000deadbee",
            "00000000deadbeef0",
            "0000000+deadbeef",
            "0000000gdeadbeef",
        ] {
            assert_eq!(read_hex(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn hex_comes_back(number: u64) {
            let mut out = Vec::new();
            write_hex(number, &mut out);
            prop_assert_eq!(read_hex(&out), Some(number));
        }

        #[test]
        fn edits_equal_a_naive_rebuild(
            mut cuts in proptest::collection::vec(0_usize..100, 0..16),
            order in any::<u64>(),
        ) {
            cuts.sort_unstable();
            cuts.dedup();
            let bytes: Vec<u8> = (0..100).collect();
            let mut places: Vec<Range<usize>> =
                cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            let mut naive = bytes.clone();
            for place in places.iter().rev() {
                naive.splice(place.clone(), *b"new");
            }
            let turn = if places.is_empty() { 0 } else { order as usize % places.len() };
            places.rotate_left(turn);
            let mut edits = Edits::<8>::new();
            for place in places {
                prop_assert!(edits.replace(place, Text::Bytes(b"new")));
            }
            let mut out = Vec::new();
            edits.apply(&bytes, &mut out);
            prop_assert_eq!(out, naive);
        }
    }
}
