//! An array that grows without moving what it has.

/// A `Vec` doubles its memory when it is full, and copies everything: a pause of milliseconds with a million elements. This array gets
/// one more piece of about 64 KiB.
#[derive(Debug)]
pub(crate) struct Chunks<E> {
    /// All but the last one are full.
    chunks: Vec<Vec<E>>,
}

/// Most bytes of a chunk, unless one element has more.
const CHUNK_BYTES: usize = 64 << 10;

impl<E> Chunks<E> {
    /// Elements of a chunk, as a power of two: an index is shifted, not divided.
    const SHIFT: u32 = {
        let size = if size_of::<E>() == 0 {
            1
        } else {
            size_of::<E>()
        };
        let count = CHUNK_BYTES / size;
        if count == 0 { 0 } else { count.ilog2() }
    };

    pub(crate) fn len(&self) -> usize {
        let last = self.chunks.last();
        last.map_or(0, |last| {
            ((self.chunks.len() - 1) << Self::SHIFT) + last.len()
        })
    }

    pub(crate) fn push(&mut self, element: E) {
        match self.chunks.last_mut() {
            Some(last) if last.len() >> Self::SHIFT == 0 => last.push(element),
            Some(_) | None => {
                let mut chunk = Vec::with_capacity(1 << Self::SHIFT);
                chunk.push(element);
                self.chunks.push(chunk);
            }
        }
    }

    pub(crate) fn element(&self, index: u32) -> Option<&E> {
        let (chunk, place) = Self::place(index);
        self.chunks.get(chunk)?.get(place)
    }

    pub(crate) fn element_mut(&mut self, index: u32) -> Option<&mut E> {
        let (chunk, place) = Self::place(index);
        self.chunks.get_mut(chunk)?.get_mut(place)
    }

    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &E> {
        self.chunks.iter().flatten()
    }

    fn place(index: u32) -> (usize, usize) {
        let index = index as usize;
        let place = index & ((1 << Self::SHIFT) - 1);
        (index >> Self::SHIFT, place)
    }
}

impl<E> Default for Chunks<E> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_are() {
        let mut chunks = Chunks::default();
        chunks.push(0_u64);
        let first = std::ptr::from_ref(chunks.element(0).unwrap());
        for number in 1..100_000 {
            chunks.push(number);
        }
        assert_eq!(chunks.len(), 100_000);
        assert!(chunks.iter().copied().eq(0..100_000));
        for number in [0, 8_191, 8_192, 99_999] {
            assert_eq!(chunks.element(number), Some(&u64::from(number)));
        }
        assert_eq!(chunks.element(100_000), None);
        assert_eq!(std::ptr::from_ref(chunks.element(0).unwrap()), first);
    }

    #[test]
    fn an_element_larger_than_a_chunk_has_one_of_its_own() {
        let mut chunks = Chunks::default();
        for number in 0..3 {
            chunks.push([number; 100_000]);
        }
        let second = chunks.element_mut(1).unwrap();
        assert_eq!((second[0], chunks.len()), (1, 3));
    }
}
