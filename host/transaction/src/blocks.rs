//! Byte strings in blocks of one size, for a million small ones: without a capacity to spare, and without an allocation each.

/// Byte strings by the number of their first block.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    pieces: Vec<Piece>,
    /// Pieces with room, the one to use next at the end.
    open: Vec<u32>,
    /// Pieces without memory.
    bare: Vec<u32>,
    /// Blocks in use.
    used: usize,
    /// Pieces with memory and no block in use.
    empty: usize,
}

/// Blocks that are allocated together, and given back together.
#[derive(Debug)]
struct Piece {
    /// Without memory as long as no block is in use.
    blocks: Vec<Block>,
    /// The first free block; they form a list.
    free: u32,
    used: usize,
}

/// A line of the processor's cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Block {
    /// The next block of the byte string, or the next free one of the piece.
    next: u32,
    bytes: [u8; BYTES],
}

const BYTES: usize = 60;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// Blocks of a piece, as a power of two: 64 KiB.
const SHIFT: u32 = 10;

/// Empty pieces that keep their memory in any case: 4 MiB. Beyond it, a fourth of what is in use is kept.
const KEPT: usize = 64;

impl Blocks {
    /// Stores these bytes and returns the number of the first block.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> u32 {
        let length = u32::try_from(bytes.len()).expect("a message has fewer than 2³² bytes");
        let mut first = Block {
            next: NONE,
            bytes: [0; BYTES],
        };
        let (head, rest) = bytes.split_at(bytes.len().min(BYTES - LENGTH));
        first.bytes[..LENGTH].copy_from_slice(&length.to_ne_bytes());
        first.bytes[LENGTH..LENGTH + head.len()].copy_from_slice(head);
        // From the last to the first one, because each has the number of the next one.
        for part in rest.chunks(BYTES).rev() {
            let mut block = Block {
                next: first.next,
                bytes: [0; BYTES],
            };
            block.bytes[..part.len()].copy_from_slice(part);
            first.next = self.insert(block);
        }
        self.insert(first)
    }

    /// Appends the stored bytes.
    pub(crate) fn read(&self, number: u32, out: &mut Vec<u8>) {
        let Some(mut block) = self.block(number) else {
            return;
        };
        let (length, mut bytes) = block.bytes.split_at(LENGTH);
        let length = <[u8; LENGTH]>::try_from(length).map_or(0, u32::from_ne_bytes);
        let mut left = length as usize;
        loop {
            let part = bytes.len().min(left);
            out.extend_from_slice(&bytes[..part]);
            left -= part;
            let Some(next) = self.block(block.next).filter(|_| left > 0) else {
                return;
            };
            block = next;
            bytes = &block.bytes;
        }
    }

    /// Removes the stored bytes.
    pub(crate) fn remove(&mut self, number: u32) {
        let mut next = number;
        while let Some(after) = self.free(next) {
            next = after;
        }
    }

    /// Bytes of the blocks in use.
    pub(crate) fn bytes(&self) -> usize {
        self.used * size_of::<Block>()
    }

    fn insert(&mut self, block: Block) -> u32 {
        self.used += 1;
        let open = self.open();
        let piece = &mut self.pieces[open as usize];
        if piece.used == 0 {
            match piece.blocks.capacity() {
                0 => piece.blocks.reserve_exact(1 << SHIFT),
                _ => self.empty -= 1,
            }
        }
        piece.used += 1;
        let place = match piece.blocks.get_mut(piece.free as usize) {
            Some(free) => {
                let place = piece.free;
                piece.free = free.next;
                *free = block;
                place
            }
            None => {
                piece.blocks.push(block);
                piece.blocks.len() as u32 - 1
            }
        };
        if piece.used == 1 << SHIFT {
            self.open.pop();
        }
        (open << SHIFT) | place
    }

    /// A piece with room: one without memory only if there is no other.
    fn open(&mut self) -> u32 {
        while let Some(&open) = self.open.last() {
            if self.pieces[open as usize].blocks.capacity() > 0 {
                return open;
            }
            self.open.pop();
            self.bare.push(open);
        }
        let bare = self.bare.pop().unwrap_or_else(|| {
            self.pieces.push(Piece::EMPTY);
            u32::try_from(self.pieces.len() - 1).expect("fewer than 2³² blocks")
        });
        self.open.push(bare);
        bare
    }

    /// Frees a block and returns the number of the next one of its byte string.
    fn free(&mut self, number: u32) -> Option<u32> {
        let (piece_number, place) = place(number);
        let piece = self.pieces.get_mut(piece_number)?;
        let block = piece.blocks.get_mut(place as usize)?;
        let next = std::mem::replace(&mut block.next, piece.free);
        piece.free = place;
        if piece.used == 1 << SHIFT {
            self.open.push(piece_number as u32);
        }
        piece.used -= 1;
        self.used -= 1;
        if piece.used == 0 {
            if self.empty >= KEPT.max((self.used >> SHIFT) / 4) {
                *piece = Piece::EMPTY;
            } else {
                self.empty += 1;
            }
        }
        Some(next)
    }

    fn block(&self, number: u32) -> Option<&Block> {
        let (piece, place) = place(number);
        self.pieces.get(piece)?.blocks.get(place as usize)
    }
}

impl Piece {
    const EMPTY: Self = Self {
        blocks: Vec::new(),
        free: NONE,
        used: 0,
    };
}

/// Bytes of the length, at the start of the first block.
const LENGTH: usize = size_of::<u32>();

fn place(number: u32) -> (usize, u32) {
    let place = number & ((1 << SHIFT) - 1);
    ((number >> SHIFT) as usize, place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn read(blocks: &Blocks, number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        blocks.read(number, &mut bytes);
        bytes
    }

    #[test]
    fn a_block_is_a_line_of_the_cache() {
        assert_eq!(size_of::<Block>(), 64);
    }

    #[test]
    fn after_a_flood_most_memory_goes_back() {
        let allocated = |blocks: &Blocks| {
            let pieces = blocks.pieces.iter();
            pieces.filter(|piece| piece.blocks.capacity() > 0).count()
        };
        let mut blocks = Blocks::default();
        let flood: Vec<_> = (0..200 << SHIFT).map(|_| blocks.store(b"x")).collect();
        assert_eq!((blocks.bytes(), allocated(&blocks)), (200 << 16, 200));
        for number in flood {
            blocks.remove(number);
        }
        assert_eq!((blocks.bytes(), allocated(&blocks)), (0, KEPT));
        let number = blocks.store(b"again");
        assert_eq!(read(&blocks, number), b"again");
        assert_eq!(allocated(&blocks), KEPT);
    }

    proptest! {
        #[test]
        fn what_was_stored_is_read_until_it_is_removed(
            steps in prop::collection::vec((0_usize..400, any::<bool>(), any::<u8>()), 0..400),
        ) {
            let mut blocks = Blocks::default();
            let mut model: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            for (length, removes, byte) in steps {
                let bytes: Vec<u8> = (0..length).map(|at| byte.wrapping_add(at as u8)).collect();
                let some = model.keys().nth(length % model.len().max(1)).copied();
                match some.filter(|_| removes) {
                    Some(number) => {
                        model.remove(&number);
                        blocks.remove(number);
                    }
                    None => {
                        let number = blocks.store(&bytes);
                        prop_assert_eq!(model.insert(number, bytes), None);
                    }
                }
                let needed = model.values().map(|bytes| (bytes.len() + LENGTH).div_ceil(BYTES).max(1));
                prop_assert_eq!(blocks.bytes(), needed.sum::<usize>() * size_of::<Block>());
            }
            for (number, bytes) in model {
                prop_assert_eq!(read(&blocks, number), bytes);
            }
        }
    }
}
