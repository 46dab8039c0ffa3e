//! The buffer that replies are written into: it keeps bytes up to a limit and counts the rest.

use std::io;
use std::ops::ControlFlow;

use thiserror::Error;

/// A reply that is larger than its client or transport accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the reply of {bytes} bytes is larger than {most}")]
pub struct TooLarge {
    /// Size of the whole reply, in bytes.
    pub bytes: usize,
    /// The limit, in bytes.
    pub most: usize,
}

/// Accepts a part of a reply; returns whether to go on.
pub(crate) type Sink<'s> = dyn FnMut(Vec<u8>) -> ControlFlow<()> + 's;

/// Smallest size of a part of a reply, in bytes: a value is never split.
const PART: usize = 64 << 10;

/// Either bytes up to a limit, with the rest counted only, or parts of a reply, each passed on when it is full.
pub(crate) struct Buffer<'s> {
    bytes: Vec<u8>,
    total: usize,
    most: usize,
    sink: Option<&'s mut Sink<'s>>,
}

impl<'s> Buffer<'s> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            total: 0,
            most,
            sink: None,
        }
    }

    /// A buffer that passes parts of the reply on.
    pub(crate) fn in_parts(sink: &'s mut Sink<'s>) -> Self {
        Self {
            sink: Some(sink),
            ..Self::new(usize::MAX)
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len());
        if self.total <= self.most {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Passes a part on if it is full. Returns `Break` if it was refused.
    pub(crate) fn give(&mut self) -> ControlFlow<()> {
        match &mut self.sink {
            Some(sink) if self.bytes.len() >= PART => sink(std::mem::take(&mut self.bytes)),
            _ => ControlFlow::Continue(()),
        }
    }

    /// All bytes that were pushed.
    pub(crate) fn finish(self) -> Result<Vec<u8>, TooLarge> {
        if self.total <= self.most {
            return Ok(self.bytes);
        }
        Err(TooLarge {
            bytes: self.total,
            most: self.most,
        })
    }
}

/// Never fails: bytes above the limit are counted.
impl io::Write for Buffer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut buffer = Buffer::new(4);
        buffer.push(b"ab");
        buffer.push(b"cd");
        assert_eq!(buffer.bytes, b"abcd");
        buffer.push(b"e");
        buffer.push(&[0; 1000]);
        assert_eq!(
            buffer.finish(),
            Err(TooLarge {
                bytes: 1005,
                most: 4
            })
        );
        assert_eq!(Buffer::new(0).finish(), Ok(Vec::new()));
    }
}
