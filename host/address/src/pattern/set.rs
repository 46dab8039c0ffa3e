//! Sets of bytes, and their notation for the engine.

use std::fmt::Write as _;

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(super) fn of(fits: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::default();
        for byte in 0..=u8::MAX {
            if fits(byte) {
                set.insert(byte);
            }
        }
        set
    }

    pub(super) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    pub(super) fn complement(self) -> Self {
        Self(self.0.map(|bits| !bits))
    }

    /// Writes the set as a class in the engine's syntax.
    pub(super) fn write(&self, out: &mut String) {
        if self.0 == [0; 4] {
            // Matches no byte.
            out.push_str(r"[^\x00-\xFF]");
            return;
        }
        out.push('[');
        let mut next = 0_u16;
        while let Some(first) = (next..256).find(|&byte| self.has(byte)) {
            let behind = (first..256).find(|&byte| !self.has(byte)).unwrap_or(256);
            let last = behind - 1;
            let _infallible = match first == last {
                true => write!(out, r"\x{first:02X}"),
                false => write!(out, r"\x{first:02X}-\x{last:02X}"),
            };
            next = behind;
        }
        out.push(']');
    }

    fn has(&self, byte: u16) -> bool {
        u8::try_from(byte).is_ok_and(|byte| self.contains(byte))
    }
}
