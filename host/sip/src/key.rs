//! The key of this host: what makes its To-tags and branches recognisable without keeping state.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// A 16-byte secret and what is derived from it.
///
/// To-tags, branches, branch seals and connection seals each have a key of their own, so that a value of one kind says
/// nothing about another. All hosts that share an address (a cluster) must share the key.
#[derive(Clone)]
pub(crate) struct Key {
    tag: SipHasher24,
    branch: SipHasher24,
    seal: SipHasher24,
    origin: SipHasher24,
}

impl Key {
    pub(crate) fn new(secret: &[u8; 16]) -> Self {
        let root = SipHasher24::new_with_key(secret);
        let derive = |purpose: &[u8; 8]| {
            let half = |n: u8| {
                let mut hasher = root;
                hasher.write(purpose);
                hasher.write_u8(n);
                hasher.finish()
            };
            SipHasher24::new_with_keys(half(0), half(1))
        };
        Self {
            tag: derive(b"to-tag__"),
            branch: derive(b"branch__"),
            seal: derive(b"seal____"),
            origin: derive(b"origin__"),
        }
    }

    /// The To-tag of our own replies (RFC 3261 §8.2.6.2).
    pub(crate) fn tag(&self, request: &Request<'_>) -> u64 {
        request.mac(self.tag)
    }

    /// The part of a branch that names the transaction (RFC 3261 §16.11).
    pub(crate) fn branch(&self, request: &Request<'_>) -> u64 {
        request.mac(self.branch)
    }

    /// The part of a branch that shows that the branch is ours.
    pub(crate) fn seal(&self, transaction: u64) -> u64 {
        mac_of_numbers(self.seal, [transaction])
    }

    /// The seal of the Via parameter that says where a request came in.
    pub(crate) fn origin(&self, numbers: [u64; 4]) -> u64 {
        mac_of_numbers(self.origin, numbers)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// What tells a request from others.
pub(crate) struct Request<'a> {
    /// Sent-by of the top Via; host names have no case.
    pub(crate) sent_by: &'a [u8],
    /// The number of CSeq.
    pub(crate) cseq: u32,
    /// Whatever else counts, always in the same order.
    pub(crate) fields: &'a [&'a [u8]],
}

impl Request<'_> {
    /// The hash of all of it, with the lengths of its parts, so that bytes can't move from one part to the next unseen.
    ///
    /// A request of usual size is gathered first: the hash is fast over one piece and slow over many.
    fn mac(&self, hasher: SipHasher24) -> u64 {
        let mut gathered = [0; GATHERED];
        match self.gather(&mut gathered) {
            Some(length) => hasher.hash(&gathered[..length]),
            None => self.mac_in_pieces(hasher),
        }
    }

    /// Puts everything into the buffer; tells how long it is, or none if it does not fit.
    fn gather(&self, buffer: &mut [u8; GATHERED]) -> Option<usize> {
        let name = buffer.get_mut(..self.sent_by.len())?;
        name.copy_from_slice(self.sent_by);
        name.make_ascii_lowercase();
        let mut at = name.len();
        for field in self.fields {
            buffer.get_mut(at..at + field.len())?.copy_from_slice(field);
            at += field.len();
        }
        for number in self.numbers() {
            buffer
                .get_mut(at..at + 4)?
                .copy_from_slice(&number.to_le_bytes());
            at += 4;
        }
        Some(at)
    }

    fn mac_in_pieces(&self, mut hasher: SipHasher24) -> u64 {
        for byte in self.sent_by {
            hasher.write_u8(byte.to_ascii_lowercase());
        }
        for field in self.fields {
            hasher.write(field);
        }
        for number in self.numbers() {
            hasher.write_u32(number);
        }
        hasher.finish()
    }

    /// CSeq and the lengths. No message is longer than 32 bits can tell.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        let lengths = self.fields.iter().map(|field| field.len() as u32);
        [self.cseq, self.sent_by.len() as u32]
            .into_iter()
            .chain(lengths)
    }
}

/// What a request of usual size takes.
const GATHERED: usize = 256;

fn mac_of_numbers<const COUNT: usize>(mut hasher: SipHasher24, numbers: [u64; COUNT]) -> u64 {
    for number in numbers {
        hasher.write_u64(number);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: [u8; 16] = *b"0123456789abcdef";

    fn tag(sent_by: &str, cseq: u32, fields: &[&[u8]]) -> u64 {
        Key::new(&SECRET).tag(&Request {
            sent_by: sent_by.as_bytes(),
            cseq,
            fields,
        })
    }

    #[test]
    fn one_purpose_says_nothing_about_another() {
        let key = Key::new(&SECRET);
        let request = Request {
            sent_by: b"",
            cseq: 0,
            fields: &[],
        };
        // Both hash eight bytes of zeros.
        let all = [key.tag(&request), key.branch(&request), key.seal(0)];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        assert_ne!(key.origin([0; 4]), mac_of_numbers(key.seal, [0; 4]));
    }

    #[test]
    fn the_secret_decides() {
        let mut other = SECRET;
        other[15] ^= 1;
        let value = |secret| Key::new(secret).seal(1);
        assert_eq!(value(&SECRET), value(&SECRET));
        assert_ne!(value(&SECRET), value(&other));
    }

    #[test]
    fn bytes_do_not_move_between_parts() {
        let one = tag("a", 1, &[b"bc", b"d"]);
        assert_ne!(tag("a", 1, &[b"b", b"cd"]), one);
        assert_ne!(tag("ab", 1, &[b"c", b"d"]), one);
        assert_ne!(tag("a", 1, &[b"bc", b"d", b""]), one);
        assert_ne!(tag("a", 2, &[b"bc", b"d"]), one);
    }

    #[test]
    fn only_sent_by_has_no_case() {
        assert_eq!(
            tag("Host.Example", 1, &[b"x"]),
            tag("hOST.eXAMPLE", 1, &[b"x"])
        );
        assert_ne!(tag("host", 1, &[b"x"]), tag("host", 1, &[b"X"]));
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", Key::new(&SECRET)), "Key(secret)");
    }

    proptest! {
        #[test]
        fn gathered_or_in_pieces_is_the_same(
            sent_by in prop::collection::vec(any::<u8>(), 0..300),
            cseq: u32,
            fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6),
        ) {
            let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            let request = Request { sent_by: &sent_by, cseq, fields: &fields };
            let hasher = SipHasher24::new_with_key(&SECRET);
            prop_assert_eq!(request.mac(hasher), request.mac_in_pieces(hasher));
        }
    }
}
