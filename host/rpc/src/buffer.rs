//! Where replies are written: a buffer that keeps no more than a client can take, and counts the rest.

use std::io;

use thiserror::Error;

/// A reply is larger than its client or transport can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the reply of {bytes} bytes is larger than {most}")]
pub struct TooLarge {
    /// How large the whole reply is, in bytes.
    pub bytes: usize,
    /// How large it may be.
    pub most: usize,
}

/// Bytes up to a limit; what comes behind it is only counted.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    total: usize,
    most: usize,
}

impl Buffer {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            total: 0,
            most,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len());
        if self.total <= self.most {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Everything that was pushed.
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

/// Never fails: what does not fit is counted.
impl io::Write for Buffer {
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
