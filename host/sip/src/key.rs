//! The seal key: it makes To-tags and branches of this host recognisable without state.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher24;
use siphasher::sip128;

use crate::steering::Steering;

/// A 16-byte secret and what is derived from it.
///
/// To-tags, their receipts, branches, branch seals, seals of ways back, of flows, of dialogs and of pings each have a key of their own, so that a
/// value of one kind says nothing about another. All hosts that share an address (a cluster) must share the key.
#[derive(Clone)]
pub(crate) struct Key {
    tag: SipHasher24,
    receipt: SipHasher24,
    branch: SipHasher24,
    seal: SipHasher24,
    origin: SipHasher24,
    flow: SipHasher24,
    dialog: sip128::SipHasher24,
    draw: SipHasher24,
    ping: SipHasher24,
    flow_ping: SipHasher24,
    steering: Steering,
}

/// The key for writing, and earlier keys that are still accepted.
#[derive(Debug)]
pub(crate) struct Keys {
    current: Key,
    earlier: Box<[Key]>,
}

impl Keys {
    /// `earlier` are previous secrets: values written with them are still accepted.
    pub(crate) fn new(current: &[u8; 16], earlier: &[[u8; 16]]) -> Self {
        Self {
            current: Key::new(current),
            earlier: earlier.iter().map(Key::new).collect(),
        }
    }

    /// The key for writing.
    pub(crate) fn current(&self) -> &Key {
        &self.current
    }

    /// All keys, the current one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.earlier)
    }
}

impl Key {
    pub(crate) fn new(secret: &[u8; 16]) -> Self {
        let root = SipHasher24::new_with_key(secret);
        let halves = |purpose: &[u8; 8]| {
            [0, 1].map(|n| {
                let mut hasher = root;
                hasher.write(purpose);
                hasher.write_u8(n);
                hasher.finish()
            })
        };
        let derive = |purpose: &[u8; 8]| {
            let [first, second] = halves(purpose);
            SipHasher24::new_with_keys(first, second)
        };
        let [first, second] = halves(b"dialog__");
        Self {
            tag: derive(b"to-tag__"),
            receipt: derive(b"receipt_"),
            branch: derive(b"branch__"),
            seal: derive(b"seal____"),
            origin: derive(b"origin__"),
            flow: derive(b"flow____"),
            dialog: sip128::SipHasher24::new_with_keys(first, second),
            draw: derive(b"draw____"),
            ping: derive(b"ping____"),
            flow_ping: derive(b"flowping"),
            steering: Steering::new(|counter| {
                let mut hasher = derive(b"steering");
                hasher.write_u8(counter);
                hasher.finish()
            }),
        }
    }

    /// The To-tag of our own replies (RFC 3261 §8.2.6.2).
    pub(crate) fn tag(&self, request: &Request<'_>) -> u64 {
        request.mac(self.tag)
    }

    /// The part of a To-tag that says where and in which period the reply was sent: whoever knows it has received the reply at this address then.
    pub(crate) fn receipt(&self, tag: u64, receiver: IpAddr, period: u32) -> u64 {
        let (upper, lower) = words_of(receiver);
        mac_of_numbers(self.receipt, [tag, upper, lower, period.into()])
    }

    /// The part of a branch that names the transaction (RFC 3261 §16.11).
    pub(crate) fn branch(&self, request: &Request<'_>) -> u64 {
        request.mac(self.branch)
    }

    /// The hash that names the owner of a transaction.
    pub(crate) fn steering(&self) -> &Steering {
        &self.steering
    }

    /// The part of a branch that proves that this host wrote it.
    pub(crate) fn seal(&self, transaction: u64) -> u64 {
        mac_of_numbers(self.seal, [transaction])
    }

    /// The same for a target other than the first.
    pub(crate) fn seal_of_target(&self, transaction: u64, number: u8) -> u64 {
        mac_of_numbers(self.seal, [transaction, number.into()])
    }

    /// The seal of the Via parameter that says where a request came in, with the address that its response goes to.
    pub(crate) fn origin(&self, numbers: [u64; 4], back_to: SocketAddr) -> u64 {
        let ip = match back_to.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; 50];
        let (words, address) = bytes.split_at_mut(32);
        for (word, number) in words.chunks_exact_mut(8).zip(numbers) {
            word.copy_from_slice(&number.to_le_bytes());
        }
        address[..16].copy_from_slice(&ip.octets());
        address[16..].copy_from_slice(&back_to.port().to_le_bytes());
        self.origin.hash(&bytes)
    }

    /// The seal of a flow token: over the values before it.
    pub(crate) fn flow(&self, values: &[u8]) -> u64 {
        self.flow.hash(values)
    }

    /// The seal of a ping with this number.
    pub(crate) fn ping(&self, number: u64) -> u64 {
        mac_of_numbers(self.ping, [number])
    }

    /// The seal of a ping with this number to a client at this address, in this period.
    pub(crate) fn flow_ping(&self, number: u64, client: SocketAddr, period: u32) -> u64 {
        let (upper, lower) = words_of(client.ip());
        let port_and_period = u64::from(period) << 16 | u64::from(client.port());
        mac_of_numbers(self.flow_ping, [number, upper, lower, port_and_period])
    }

    /// The number of a call in draws among the servers of a name.
    pub(crate) fn call(&self, call_id: &[u8]) -> u64 {
        self.draw.hash(call_id)
    }

    /// What the call with this number draws for a server.
    pub(crate) fn draw(&self, call: u64, service: u64) -> u64 {
        mac_of_numbers(self.draw, [call, service])
    }

    /// The seal of a dialog: over its Call-ID, the caller's tag, and the values beside the seal.
    pub(crate) fn dialog(&self, call_id: &[u8], tag: &[u8], written: &[u8]) -> u128 {
        let parts = [call_id, tag, written];
        let mut gathered = [0; GATHERED];
        let mut at = 0;
        for part in parts {
            let Some(place) = gathered.get_mut(at..at + part.len()) else {
                return self.dialog_in_pieces(parts);
            };
            place.copy_from_slice(part);
            at += part.len();
        }
        for part in parts {
            let Some(place) = gathered.get_mut(at..at + 4) else {
                return self.dialog_in_pieces(parts);
            };
            place.copy_from_slice(&(part.len() as u32).to_le_bytes());
            at += 4;
        }
        self.dialog.hash(&gathered[..at]).as_u128()
    }

    fn dialog_in_pieces(&self, parts: [&[u8]; 3]) -> u128 {
        use sip128::Hasher128;
        let mut hasher = self.dialog;
        for part in parts {
            hasher.write(part);
        }
        for part in parts {
            hasher.write(&(part.len() as u32).to_le_bytes());
        }
        hasher.finish128().as_u128()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// The values that identify a request.
pub(crate) struct Request<'a> {
    /// Sent-by of the top Via; host names have no case.
    pub(crate) sent_by: &'a [u8],
    /// The number of CSeq.
    pub(crate) cseq: u32,
    /// Further values, always in the same order.
    pub(crate) fields: &'a [&'a [u8]],
}

impl Request<'_> {
    /// The hash of all values with their lengths, so that moving bytes from one value to the next changes it.
    ///
    /// Values of usual size are copied together first: the hash is fast over one slice and slow over many.
    fn mac(&self, hasher: SipHasher24) -> u64 {
        let mut gathered = [0; GATHERED];
        match self.gather(&mut gathered) {
            Some(length) => hasher.hash(&gathered[..length]),
            None => self.mac_in_pieces(hasher),
        }
    }

    /// Copies all values into the buffer; returns their length, or `None` if they do not fit.
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

    /// CSeq and the lengths. Message lengths fit into 32 bits.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        let lengths = self.fields.iter().map(|field| field.len() as u32);
        [self.cseq, self.sent_by.len() as u32]
            .into_iter()
            .chain(lengths)
    }
}

/// Bytes that the values of a usual request take.
const GATHERED: usize = 256;

/// The bits of an address, the upper ones first.
fn words_of(ip: IpAddr) -> (u64, u64) {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bits = ip.to_bits();
    ((bits >> 64) as u64, bits as u64)
}

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
        let nowhere = SocketAddr::from(([0; 16], 0));
        assert_ne!(key.origin([0; 4], nowhere), key.seal.hash(&[0; 50]));
        assert_ne!(
            key.dialog(b"", b"", b"") as u64,
            key.origin([0; 4], nowhere)
        );
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
    fn a_way_back_is_its_address_and_port() {
        let key = Key::new(&SECRET);
        let seal = |addr: &str| key.origin([1, 2, 3, 4], addr.parse().unwrap());
        let all = [
            "192.0.2.1:5060",
            "192.0.2.1:5061",
            "192.0.2.2:5060",
            "[2001:db8::1]:5060",
        ]
        .map(seal);
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        assert_eq!(seal("[::ffff:192.0.2.1]:5060"), all[0]);
        let back_to = "192.0.2.1:5060".parse().unwrap();
        for numbers in [[0, 2, 3, 4], [1, 0, 3, 4], [1, 2, 0, 4], [1, 2, 3, 0]] {
            assert_ne!(key.origin(numbers, back_to), all[0]);
        }
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
        fn a_dialog_is_the_same_gathered_or_in_pieces_and_is_no_other(
            parts: [Vec<u8>; 3],
            long in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let key = Key::new(&SECRET);
            let [call_id, tag, written] = &parts;
            for call_id in [call_id, &long] {
                let seal = key.dialog(call_id, tag, written);
                prop_assert_eq!(seal, key.dialog_in_pieces([call_id, tag, written]));
                let longer = [call_id.as_slice(), b"x"].concat();
                prop_assert_ne!(seal, key.dialog(&longer, tag, written));
                let moved = [b"x", tag.as_slice()].concat();
                prop_assert_ne!(key.dialog(&longer, tag, written), key.dialog(call_id, &moved, written));
                prop_assert_ne!(seal, Key::new(&[0; 16]).dialog(call_id, tag, written));
            }
        }

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
