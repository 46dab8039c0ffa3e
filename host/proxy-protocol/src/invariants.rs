//! What must hold for every stream, for property tests and for the fuzz target `proxy_protocol`.

use crate::{Header, HeaderError, LONGEST, Reader};

/// Reads a stream as a whole, byte by byte and in chunks, with the same result: `chunk` and the stream are the input. A header is never longer
/// than its bound, and what follows the header changes nothing.
pub fn stream(input: &[u8]) {
    let Some((&chunk, bytes)) = input.split_first() else {
        return;
    };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, 1), whole);
    assert_eq!(read(bytes, usize::from(chunk).max(1)), whole);
    let (taken, result) = whole;
    assert!(taken <= LONGEST);
    match result {
        Ok(Some(header)) => {
            let alone = read(&bytes[..taken], taken);
            assert_eq!(alone, (taken, Ok(Some(header))));
            let before = read(&bytes[..taken - 1], taken);
            assert_eq!(before, (taken - 1, Ok(None)));
        }
        Ok(None) => assert_eq!(taken, bytes.len()),
        Err(_) => {}
    }
}

/// How many bytes are taken from a stream that comes in chunks, and the result. Those of a stream that is refused depend on the chunks, and are
/// not counted.
fn read(bytes: &[u8], chunk: usize) -> (usize, Result<Option<Header>, HeaderError>) {
    let mut reader = Reader::default();
    let mut taken = 0;
    for part in bytes.chunks(chunk) {
        match reader.take(part) {
            Ok((count, None)) => {
                assert_eq!(count, part.len());
                taken += count;
            }
            Ok((count, Some(header))) => return (taken + count, Ok(Some(header))),
            Err(error) => return (0, Err(error)),
        }
    }
    (taken, Ok(None))
}

/// A header of version 2.
#[cfg(test)]
pub(crate) fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a short header");
    let mut header = crate::version2::SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend(length.to_be_bytes());
    header.extend(rest);
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_is_read_alike_in_all_pieces(
            chunk in 1_u8..60,
            command in prop::sample::select(vec![0x20_u8, 0x21, 0x22, 0x11]),
            family in prop::sample::select(vec![0_u8, 0x11, 0x12, 0x21, 0x31, 0x41]),
            rest in prop::collection::vec(any::<u8>(), 0..240),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = binary(command, family, &rest);
            stream(&[&[chunk], &bytes[..], &tail].concat());
        }

        #[test]
        fn a_line_is_read_alike_in_all_pieces(
            chunk in 1_u8..60,
            fields in "(TCP4|TCP6|UNKNOWN|UDP4)( [0-9a-f.:]{1,12}){0,5}",
            end in prop::sample::select(vec!["\r\n", "\n", "\r", ""]),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let line = format!("PROXY {fields}{end}");
            stream(&[&[chunk], line.as_bytes(), &tail].concat());
        }

        #[test]
        fn any_bytes_are_read_alike_in_all_pieces(input in prop::collection::vec(any::<u8>(), 0..200)) {
            stream(&input);
        }
    }
}
