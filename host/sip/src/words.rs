//! Searches eight bytes at a time, for short distances where a call of `memchr` would cost more.

use memchr::{memchr_iter, memchr2};

/// The first space, control character or `end` in `bytes`; DEL does not count as a control here.
#[inline]
pub(crate) fn find_end(bytes: &[u8], end: u8) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let ends = bytes_below(word ^ every_byte(end), 1) | bytes_below(word, b' ' + 1);
        if ends != 0 {
            return Some(at * 8 + ends.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|&byte| byte == end || byte <= b' ')?;
    Some(words.len() * 8 + at)
}

/// The first CR or LF. Lines are short as a rule, so the first words are looked at in place.
#[inline]
pub(crate) fn find_line_end(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words.iter().take(NEAR_WORDS) {
        let ends = bytes_below(u64::from_le_bytes(*word), b'\r' + 1);
        if ends != 0 {
            at += ends.trailing_zeros() as usize / 8;
            if matches!(bytes.get(at), Some(b'\r' | b'\n')) {
                return Some(at);
            }
            break;
        }
        at += 8;
    }
    memchr2(b'\r', b'\n', bytes.get(at..)?).map(|found| at + found)
}

/// The first of these bytes.
#[inline]
pub(crate) fn find_any<const COUNT: usize>(bytes: &[u8], any: [u8; COUNT]) -> Option<usize> {
    let is_any = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        let equal = |found, byte| found | bytes_below(word ^ every_byte(byte), 1);
        any.into_iter().fold(0, equal)
    };
    let place = |found: u64| found.trailing_zeros() as usize / 8;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, &word) in words.iter().enumerate() {
        let found = is_any(word);
        if found != 0 {
            return Some(at * 8 + place(found));
        }
    }
    // Of the last eight bytes, those examined before are known not to match.
    match bytes.last_chunk::<8>().map(|&last| is_any(last)) {
        Some(0) => None,
        Some(found) => Some(bytes.len() - 8 + place(found)),
        None => rest.iter().position(|byte| any.contains(byte)),
    }
}

/// Whether one of the bytes is a control character (DEL does not count as one here) or one of `any`.
#[inline]
pub(crate) fn has_control_or<const COUNT: usize>(bytes: &[u8], any: [u8; COUNT]) -> bool {
    let is_any = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        let equal = |found, byte| found | bytes_below(word ^ every_byte(byte), 1);
        any.into_iter().fold(bytes_below(word, b' '), equal)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let found = words.iter().fold(0, |found, &word| found | is_any(word));
    // The last eight bytes may overlap others.
    let last = match bytes.last_chunk::<8>() {
        Some(&last) => is_any(last) != 0,
        None => rest.iter().any(|byte| *byte < b' ' || any.contains(byte)),
    };
    found != 0 || last
}

/// Whether `byte` occurs more than `most` times. Nothing is counted if the text is too short for that.
#[inline]
pub(crate) fn has_more_than(most: usize, byte: u8, text: &[u8]) -> bool {
    text.len() > most && memchr_iter(byte, text).count() > most
}

/// Whether each of these bytes is one of `any`.
#[inline]
pub(crate) fn is_all_of<const COUNT: usize>(word: [u8; 8], any: [u8; COUNT]) -> bool {
    let word = u64::from_le_bytes(word);
    // The top bit of each byte that is not `byte`.
    let differs = |byte| {
        let other = word ^ every_byte(byte);
        ((other & every_byte(0x7f)) + every_byte(0x7f)) | other
    };
    let differ_from_all = |found, byte| found & differs(byte);
    any.into_iter().fold(every_byte(0x80), differ_from_all) == 0
}

/// The first byte that is neither CR nor LF.
pub(crate) fn find_other_than_line_end(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    let is_all_ends = |word: &&[u8; 8]| is_all_of(**word, *b"\r\n");
    let skipped = 8 * words.iter().take_while(is_all_ends).count();
    let rest = bytes.get(skipped..).unwrap_or_default();
    let other = rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    other.map(|at| skipped + at)
}

/// The top bit of each byte below `limit`, which is at most 128; only the lowest one is sure.
const fn bytes_below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(every_byte(limit)) & !word & every_byte(0x80)
}

const fn every_byte(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Values usually have 20 to 60 bytes; beyond that the vectors of `memchr` are faster.
const NEAR_WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_find_what_single_bytes_find(
            bytes in prop::collection::vec(prop_oneof![0x1eu8..=0x22, 0x38u8..=0x3c, any::<u8>()], 0..40),
            end in any::<u8>(),
        ) {
            let single = bytes.iter().position(|&byte| byte == end || byte <= b' ');
            prop_assert_eq!(find_end(&bytes, end), single);
        }

        #[test]
        fn line_ends_near_and_far_are_found(
            bytes in prop::collection::vec(prop_oneof![20 => 0x20u8..=0xff, 1 => 0x08u8..=0x0f], 0..120),
        ) {
            let single = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            prop_assert_eq!(find_line_end(&bytes), single);
        }

        #[test]
        fn controls_and_some_bytes_are_found(
            bytes in prop::collection::vec(prop_oneof![40 => 0x20u8..=0xff, 1 => any::<u8>()], 0..40),
            one in any::<u8>(),
        ) {
            let has = bytes.iter().any(|&byte| byte < b' ' || byte == one || byte == 0x7f);
            prop_assert_eq!(has_control_or(&bytes, [one, 0x7f]), has);
        }

        #[test]
        fn more_than_some_are_counted(text in prop::collection::vec(0x3au8..=0x3b, 0..40), most in 0..40_usize) {
            let count = text.iter().filter(|&&byte| byte == b';').count();
            prop_assert_eq!(has_more_than(most, b';', &text), count > most);
        }

        #[test]
        fn words_of_some_bytes_are_told(word in prop::array::uniform8(0x08u8..=0x21), end in any::<bool>()) {
            let any = if end { *b"\r\n\r\n" } else { *b" \t\r\n" };
            prop_assert_eq!(is_all_of(word, any), word.iter().all(|byte| any.contains(byte)));
        }

        #[test]
        fn the_end_of_line_ends_is_found(count in 0usize..40, rest in "[ -~]{0,9}") {
            let bytes = ["\r\n".repeat(count), rest].concat();
            let single = bytes.bytes().position(|byte| !matches!(byte, b'\r' | b'\n'));
            prop_assert_eq!(find_other_than_line_end(bytes.as_bytes()), single);
        }

        #[test]
        fn any_of_some_bytes_is_found(
            bytes in prop::collection::vec(prop_oneof![0x1eu8..=0x3f, any::<u8>()], 0..40),
            one in 0x1eu8..=0x3f,
            two in any::<u8>(),
        ) {
            let single = bytes.iter().position(|&byte| byte == one || byte == two);
            prop_assert_eq!(find_any(&bytes, [one, two]), single);
            prop_assert_eq!(find_any(&bytes, []), None);
        }
    }
}
