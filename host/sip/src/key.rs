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

    /// For the To-tag of our own replies (RFC 3261 §8.2.6.2).
    pub(crate) fn tag(&self) -> Mac {
        Mac(self.tag)
    }

    /// For the part of a branch that names the transaction (RFC 3261 §16.11).
    pub(crate) fn branch(&self) -> Mac {
        Mac(self.branch)
    }

    /// For the part of a branch that shows that the branch is ours.
    pub(crate) fn seal(&self) -> Mac {
        Mac(self.seal)
    }

    /// For the Via parameter that says where a request came in.
    pub(crate) fn origin(&self) -> Mac {
        Mac(self.origin)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// A message authentication code over a fixed sequence of fields.
pub(crate) struct Mac(SipHasher24);

impl Mac {
    /// Adds a field. Its length goes in as well, so that bytes can't move from one field to the next unseen.
    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.write(bytes);
        // No message is longer than 32 bits can tell.
        self.0.write_u32(bytes.len() as u32);
        self
    }

    /// Adds a name that is compared without regard to case, such as a host.
    pub(crate) fn name(mut self, bytes: &[u8]) -> Self {
        let mut buffer = [0; 64];
        for chunk in bytes.chunks(buffer.len()) {
            let lower = &mut buffer[..chunk.len()];
            lower.copy_from_slice(chunk);
            lower.make_ascii_lowercase();
            self.0.write(lower);
        }
        self.0.write_u32(bytes.len() as u32);
        self
    }

    /// Adds a number.
    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.write_u64(number);
        self
    }

    pub(crate) fn finish(self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 16] = *b"0123456789abcdef";

    #[test]
    fn one_purpose_says_nothing_about_another() {
        let key = Key::new(&SECRET);
        let all = [key.tag(), key.branch(), key.seal(), key.origin()]
            .map(|mac| mac.field(b"same").finish());
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }

    #[test]
    fn the_secret_decides() {
        let mut other = SECRET;
        other[15] ^= 1;
        let value = |secret| Key::new(secret).tag().field(b"x").finish();
        assert_eq!(value(&SECRET), value(&SECRET));
        assert_ne!(value(&SECRET), value(&other));
    }

    #[test]
    fn bytes_do_not_move_between_fields() {
        let key = Key::new(&SECRET);
        let ab = key.tag().field(b"ab").field(b"c").finish();
        let bc = key.tag().field(b"a").field(b"bc").finish();
        assert_ne!(ab, bc);
        assert_ne!(key.tag().field(b"").finish(), key.tag().finish());
    }

    #[test]
    fn names_are_equal_in_any_case_and_of_any_length() {
        let key = Key::new(&SECRET);
        let long = "Host-".repeat(40);
        let of = |name: &str| key.branch().name(name.as_bytes()).finish();
        assert_eq!(of(&long), of(&long.to_ascii_uppercase()));
        assert_ne!(of(&long), of(&long[1..]));
        let plain = key
            .branch()
            .field(long.to_ascii_lowercase().as_bytes())
            .finish();
        assert_eq!(of(&long), plain, "a name is the field of its lower case");
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", Key::new(&SECRET)), "Key(secret)");
    }
}
