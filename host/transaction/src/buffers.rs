//! Byte buffers that are used again, in a few sizes.

/// Capacities. A longer message gets a buffer of its own, which is not kept.
const SIZES: [usize; 4] = [256, 512, 1_024, 2_048];

/// Copies of messages: after the first minutes of traffic, none is allocated.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: [Vec<Vec<u8>>; SIZES.len()],
    /// Bytes of the free ones.
    kept: usize,
    /// Bytes of those in use.
    lent: usize,
}

/// Bytes that are kept in any case. Beyond it, as much is kept as is in use.
const KEPT: usize = 4 << 20;

impl Buffers {
    /// A copy of these bytes.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.with_room(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// An empty buffer for as many bytes.
    fn with_room(&mut self, length: usize) -> Vec<u8> {
        let class = SIZES.iter().position(|&size| length <= size);
        let free = class.and_then(|class| self.free[class].pop());
        self.kept -= free.as_ref().map_or(0, Vec::capacity);
        let buffer = free.unwrap_or_else(|| {
            let capacity = class.map_or(length, |class| SIZES[class]);
            Vec::with_capacity(capacity)
        });
        self.lent += buffer.capacity();
        buffer
    }

    /// Appends to a buffer of this pool.
    pub(crate) fn append(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        if buffer.len() + bytes.len() > buffer.capacity() {
            let mut longer = self.with_room(buffer.len() + bytes.len());
            longer.extend_from_slice(buffer);
            self.take_back(buffer);
            *buffer = longer;
        }
        buffer.extend_from_slice(bytes);
    }

    /// Takes a buffer back and leaves an empty one.
    pub(crate) fn take_back(&mut self, buffer: &mut Vec<u8>) {
        let mut buffer = std::mem::take(buffer);
        if buffer.capacity() == 0 {
            return;
        }
        let size = buffer.capacity();
        self.lent -= size;
        let class = SIZES.iter().position(|&class| class == size);
        let class = class.filter(|_| self.kept + size <= self.lent.max(KEPT));
        if let Some(class) = class {
            buffer.clear();
            self.kept += size;
            self.free[class].push(buffer);
        }
    }

    /// Replaces the content of a buffer of this pool.
    pub(crate) fn replace(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) {
        self.take_back(buffer);
        *buffer = self.copy(bytes);
    }

    /// Bytes of all buffers that are in use.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_what_fits_it() {
        let mut buffers = Buffers::default();
        let mut first = buffers.copy(&[1; 300]);
        let place = first.as_ptr();
        assert_eq!(buffers.lent(), 512);
        buffers.take_back(&mut first);
        assert_eq!((first.len(), buffers.lent()), (0, 0));
        let second = buffers.copy(&[2; 400]);
        assert_eq!((second.as_ptr(), &second[..]), (place, &[2; 400][..]));
    }

    #[test]
    fn a_long_message_gets_memory_that_is_not_kept() {
        let mut buffers = Buffers::default();
        let mut long = buffers.copy(&[1; 5_000]);
        assert_eq!((long.len(), buffers.lent()), (5_000, long.capacity()));
        buffers.take_back(&mut long);
        assert_eq!(buffers.lent(), 0);
        assert!(buffers.free.iter().all(Vec::is_empty));
    }

    #[test]
    fn a_buffer_that_grows_is_counted() {
        let mut buffers = Buffers::default();
        let mut buffer = Vec::new();
        for (length, lent) in [(200, 256), (250, 256), (1_800, 2_048), (2_250, 2_250)] {
            let more = length - buffer.len();
            buffers.append(&mut buffer, &vec![7; more]);
            assert_eq!((buffer.len(), buffers.lent()), (length, lent));
        }
        assert!(buffer.iter().all(|byte| *byte == 7));
        buffers.take_back(&mut buffer);
        assert_eq!(buffers.lent(), 0);
    }

    #[test]
    fn after_a_flood_most_memory_goes_back() {
        let mut buffers = Buffers::default();
        let mut flood: Vec<_> = (0..4_096).map(|_| buffers.copy(&[1; 2_000])).collect();
        assert_eq!(buffers.lent(), 8 << 20);
        for buffer in &mut flood {
            buffers.take_back(buffer);
        }
        assert_eq!((buffers.lent(), buffers.kept), (0, KEPT));
    }
}
