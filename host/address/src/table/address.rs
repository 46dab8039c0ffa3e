//! Addresses as numbers, for the search.

use std::fmt;

/// An IPv4 or IPv6 address as a number.
pub(super) trait Address: Copy + Ord + Default + fmt::Debug {
    /// Bits of an address.
    const WIDTH: u8;

    /// The first address of the network of this many bits around the address.
    fn first(self, bits: u8) -> Self;
    /// The last address of the network of this many bits around the address.
    fn last(self, bits: u8) -> Self;
    /// Distance from a lower address in units of 2^shift, but no more than `most`.
    fn steps_from(self, base: Self, shift: u8, most: u32) -> u32;
    /// How many bits the distance from a lower address has.
    fn bits_from(self, base: Self) -> u8;
}

impl Address for u32 {
    const WIDTH: u8 = 32;

    #[inline]
    fn first(self, bits: u8) -> Self {
        self & !open32(bits)
    }

    fn last(self, bits: u8) -> Self {
        self | open32(bits)
    }

    #[inline]
    fn steps_from(self, base: Self, shift: u8, most: u32) -> u32 {
        ((self - base) >> shift).min(most)
    }

    fn bits_from(self, base: Self) -> u8 {
        Self::WIDTH - (self - base).leading_zeros() as u8
    }
}

impl Address for u128 {
    const WIDTH: u8 = 128;

    #[inline]
    fn first(self, bits: u8) -> Self {
        self & !open128(bits)
    }

    fn last(self, bits: u8) -> Self {
        self | open128(bits)
    }

    #[inline]
    fn steps_from(self, base: Self, shift: u8, most: u32) -> u32 {
        ((self - base) >> shift).min(Self::from(most)) as u32
    }

    fn bits_from(self, base: Self) -> u8 {
        Self::WIDTH - (self - base).leading_zeros() as u8
    }
}

/// The bits of an address that a mask of this length leaves open.
#[inline]
fn open32(bits: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

#[inline]
fn open128(bits: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_first_and_last_addresses() {
        assert_eq!(
            (0x0a01_0203u32.first(24), 0x0a01_0203u32.last(24)),
            (0x0a01_0200, 0x0a01_02ff)
        );
        assert_eq!((7u32.first(1), 7u32.last(1)), (0, u32::MAX >> 1));
        assert_eq!((7u32.first(32), 7u32.last(32)), (7, 7));
        assert_eq!((7u128.first(1), 7u128.last(1)), (0, u128::MAX >> 1));
        assert_eq!((7u128.first(128), 7u128.last(128)), (7, 7));
    }

    #[test]
    fn distances_are_bounded() {
        assert_eq!(u32::MAX.steps_from(0, 4, 9), 9);
        assert_eq!(0x35u32.steps_from(0x05, 4, 9), 3);
        assert_eq!(u128::MAX.steps_from(0, 64, u32::MAX), u32::MAX);
        assert_eq!(0x35u128.steps_from(0x05, 4, 9), 3);
        assert_eq!(
            (5u32.bits_from(5), 6u32.bits_from(5), u32::MAX.bits_from(0)),
            (0, 1, 32)
        );
        assert_eq!(
            (
                5u128.bits_from(5),
                6u128.bits_from(5),
                u128::MAX.bits_from(0)
            ),
            (0, 1, 128)
        );
    }
}
