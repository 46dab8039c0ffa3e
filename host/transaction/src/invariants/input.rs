//! Values from the bytes of a fuzzer.

pub(super) struct Input<'i>(&'i [u8]);

impl<'i> Input<'i> {
    pub(super) fn new(bytes: &'i [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; `None` at the end.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte; 0 at the end.
    pub(super) fn number(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    /// The next two bytes as a number.
    pub(super) fn pair(&mut self) -> u16 {
        u16::from_be_bytes([self.number(), self.number()])
    }

    /// A length, in units of four bytes, and as many bytes.
    pub(super) fn piece(&mut self) -> &'i [u8] {
        let length = usize::from(self.number()) * 4;
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }
}
