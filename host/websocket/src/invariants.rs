//! What must hold for every stream, for property tests and for the fuzz target `websocket`.

use crate::{Close, Decoder, Event, ForwardedField};

/// Most bytes of a message.
const MOST: usize = 1_000;

/// Decodes a stream as a whole, byte by byte and in chunks, with the same result: `chunk` and the stream are the input.
pub fn stream(input: &[u8]) {
    let Some((&chunk, bytes)) = input.split_first() else {
        return;
    };
    let whole = decoded(bytes, bytes.len().max(1));
    assert_eq!(decoded(bytes, 1), whole);
    assert_eq!(decoded(bytes, usize::from(chunk).max(1)), whole);
    for seen in &whole.0 {
        assert!(seen.len() <= MOST + 1);
    }
}

/// Most bytes of a request that is read in all its parts.
const MOST_REQUEST: usize = 300;

/// Looks for the client in a request as it arrives byte by byte: what its beginning says, it says as a whole.
pub fn request(input: &[u8]) {
    let input = &input[..input.len().min(MOST_REQUEST)];
    for field in [ForwardedField::XForwardedFor, ForwardedField::Forwarded] {
        let whole = field.client(input, |ip| ip.is_loopback());
        let parts = (0..input.len()).map(|end| field.client(&input[..end], |ip| ip.is_loopback()));
        if let Some(early) = parts.into_iter().find(|part| *part != Ok(None)) {
            assert_eq!(early, whole);
        }
    }
}

/// The events as bytes that begin with their kind, and the error that ended them.
fn decoded(bytes: &[u8], chunk: usize) -> (Vec<Vec<u8>>, Option<Close>) {
    let mut decoder = Decoder::new(MOST);
    let mut seen = Vec::new();
    for part in bytes.chunks(chunk) {
        decoder.space().extend_from_slice(part);
        loop {
            match decoder.next_event() {
                Ok(Event::NeedMore) => break,
                Ok(Event::Message(message)) => seen.push([b"m", message].concat()),
                Ok(Event::Ping(payload)) => seen.push([b"i", payload].concat()),
                Ok(Event::Pong) => seen.push(b"o".to_vec()),
                Ok(Event::Close) => {
                    seen.push(b"c".to_vec());
                    return (seen, None);
                }
                Err(close) => return (seen, Some(close)),
            }
        }
    }
    (seen, None)
}

/// A frame as a client sends it.
#[cfg(test)]
pub(crate) fn masked(is_last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0xf4, 0x00, 0x9b];
    let mut frame = vec![(u8::from(is_last) << 7) | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0xfe);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    let mask = mask.iter().cycle();
    frame.extend(payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stream_is_decoded_alike_in_all_pieces(
            chunk in 1_u8..20,
            frames in prop::collection::vec((any::<bool>(), prop::sample::select(vec![0_u8, 1, 2, 8, 9, 10, 3]), prop::collection::vec(any::<u8>(), 0..300)), 0..6),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let frames = frames.iter().map(|(is_last, opcode, payload)| masked(*is_last, *opcode, payload));
            let bytes: Vec<u8> = frames.flatten().chain(tail).collect();
            stream(&[&[chunk], &bytes[..]].concat());
        }

        #[test]
        fn a_request_says_for_whom_it_is_as_soon_as_it_is_whole(
            fields in "(X-Forwarded-For: [ -~]{0,20}\r\n|Forwarded: (for=)?[ -~]{0,20}\r\n|[ -~]{0,9}\r\n){0,4}",
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
            request(&[head.as_bytes(), &rest[..]].concat());
            request(&rest);
        }

        #[test]
        fn any_bytes_are_decoded_alike_in_all_pieces(input in prop::collection::vec(any::<u8>(), 0..200)) {
            stream(&input);
        }
    }
}
