//! The policy's heap: the rest of the first memory page, then a general allocator.
//!
//! A general allocator requests memory pages with the first allocation. For the host, which gives every call a fresh sandbox, this means
//! changing page protections twice per call, which costs more than everything else that a small policy does. The bytes between the statics
//! and the end of the memory cost nothing, and a typical call needs a few hundred of them. They lie right behind the statics, so that a small
//! policy writes to a single page of the host's memory.
//!
//! The general allocator is `talc`. The standard library's takes a third of the machine code of a small policy, and a host keeps that code for
//! each policy.
//!
//! This is the only unsafe code of the SDK, and it runs only inside the sandbox.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// The largest size of the region in bytes.
const SIZE: usize = 16 * 1024;
/// The largest alignment that the region serves.
const ALIGN: usize = 16;

#[cfg(target_arch = "wasm32")]
mod global {
    use talc::cell::TalcSyncCell;
    use talc::wasm::{WasmBinning, WasmGrowAndClaim};

    use super::{Heap, Region, SIZE};

    #[global_allocator]
    static HEAP: Heap<AfterStatics, TalcSyncCell<WasmGrowAndClaim, WasmBinning>> =
        Heap::new(AfterStatics, TalcSyncCell::new_wasm(WasmGrowAndClaim));

    unsafe extern "C" {
        /// The linker places these symbols behind the statics, aligned to 16 bytes, and at the end of the memory that the module starts with.
        /// Nothing else uses the bytes between them: `talc` claims only pages that it requests itself.
        safe static __heap_base: u8;
        safe static __heap_end: u8;
    }

    /// The memory that the module starts with, behind its statics.
    struct AfterStatics;

    impl Region for AfterStatics {
        fn start(&self) -> *mut u8 {
            (&raw const __heap_base).cast_mut()
        }

        fn size(&self) -> usize {
            let [start, end] =
                [&raw const __heap_base, &raw const __heap_end].map(<*const u8>::addr);
            (end - start).min(SIZE)
        }
    }
}

/// Memory of a fixed place and size that belongs to one [`Heap`], aligned to [`ALIGN`].
trait Region {
    fn start(&self) -> *mut u8;
    fn size(&self) -> usize;
}

/// Allocates from the region by incrementing an offset, and frees only the last block. Other blocks come from `general`, so nothing
/// leaks in a sandbox that serves many calls.
struct Heap<R, G> {
    region: R,
    used: Cell<usize>,
    general: G,
}

// SAFETY: wasm32-unknown-unknown has a single thread; the tests use a heap from one thread only.
unsafe impl<R, G> Sync for Heap<R, G> {}

impl<R: Region, G> Heap<R, G> {
    const fn new(region: R, general: G) -> Self {
        Self {
            region,
            used: Cell::new(0),
            general,
        }
    }

    /// The offset of a block in the region; `None` if it belongs to the general allocator.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().wrapping_sub(self.region.start().addr());
        (offset < self.region.size()).then_some(offset)
    }

    /// Makes a block of `size` bytes at `offset` the last one; false if it does not fit.
    fn take(&self, offset: usize, size: usize) -> bool {
        let whole = self.region.size();
        let fits = size <= whole - offset.min(whole);
        if fits {
            self.used.set(offset + size);
        }
        fits
    }
}

// SAFETY: blocks of the region do not overlap: each begins at or after `used`, which is then moved to its end, and moved back only by the
// block that ends there. They are aligned like the region. All other blocks belong to the general allocator.
unsafe impl<R: Region, G: GlobalAlloc> GlobalAlloc for Heap<R, G> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let offset = self.used.get().next_multiple_of(layout.align());
        if layout.align() <= ALIGN && self.take(offset, layout.size()) {
            // SAFETY: `take` guarantees that the block ends within the region.
            return unsafe { self.region.start().add(offset) };
        }
        // SAFETY: the caller guarantees the same.
        unsafe { self.general.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(offset) if offset + layout.size() == self.used.get() => self.used.set(offset),
            Some(_) => {}
            // SAFETY: the block is not in the region, so it belongs to the general allocator.
            None => unsafe { self.general.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            // SAFETY: the block is not in the region, so it belongs to the general allocator.
            return unsafe { self.general.realloc(block, layout, size) };
        };
        let is_last = offset + layout.size() == self.used.get();
        if size <= layout.size() || (is_last && self.take(offset, size)) {
            return block;
        }

        // SAFETY: the caller promises that `size`, rounded up to the alignment, is a valid size.
        let grown = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !grown.is_null() {
            // SAFETY: the new block is larger than the old one, and does not overlap it.
            unsafe { grown.copy_from_nonoverlapping(block, layout.size()) };
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;

    /// A region from the system's allocator.
    struct Owned(*mut u8);

    impl Owned {
        const LAYOUT: Layout = match Layout::from_size_align(SIZE, ALIGN) {
            Ok(layout) => layout,
            Err(_) => panic!("not a layout"),
        };
    }

    impl Region for Owned {
        fn start(&self) -> *mut u8 {
            self.0
        }

        fn size(&self) -> usize {
            SIZE
        }
    }

    impl Drop for Owned {
        fn drop(&mut self) {
            // SAFETY: `heap` has allocated the region with this layout.
            unsafe { System.dealloc(self.0, Self::LAYOUT) };
        }
    }

    type TestHeap = Heap<Owned, System>;

    fn heap() -> TestHeap {
        // SAFETY: the size is not zero.
        let start = unsafe { System.alloc(Owned::LAYOUT) };
        assert!(!start.is_null());
        Heap::new(Owned(start), System)
    }

    /// A block with the bytes that were written to it.
    struct Block {
        at: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Block {
        fn new(heap: &TestHeap, size: usize, align: usize, mark: u8) -> Self {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: the size is not zero.
            let at = unsafe { heap.alloc(layout) };
            let block = Self { at, layout, mark };
            block.fill();
            block
        }

        fn fill(&self) {
            assert_eq!(self.at.addr() % self.layout.align(), 0);
            // SAFETY: the block is as long as its layout says.
            unsafe { self.at.write_bytes(self.mark, self.layout.size()) };
        }

        fn check(&self, size: usize) {
            // SAFETY: the block is at least this long, and written.
            let bytes = unsafe { std::slice::from_raw_parts(self.at, size) };
            assert!(bytes.iter().all(|byte| *byte == self.mark));
        }

        fn resize(&mut self, heap: &TestHeap, size: usize) {
            // SAFETY: the block is the heap's, and the size is not zero.
            self.at = unsafe { heap.realloc(self.at, self.layout, size) };
            self.check(size.min(self.layout.size()));
            self.layout = Layout::from_size_align(size, self.layout.align()).expect("a layout");
            self.fill();
        }

        fn free(self, heap: &TestHeap) {
            self.check(self.layout.size());
            // SAFETY: the block is the heap's.
            unsafe { heap.dealloc(self.at, self.layout) };
        }
    }

    #[test]
    fn small_blocks_come_from_the_region() {
        let heap = heap();
        let first = Block::new(&heap, 21, 1, 1);
        let second = Block::new(&heap, 8, 8, 2);

        assert_eq!(heap.offset(first.at), Some(0));
        assert_eq!(heap.offset(second.at), Some(24));
        second.free(&heap);
        assert_eq!(heap.used.get(), 24);
        first.free(&heap);
        assert_eq!(heap.used.get(), 24, "only the last block is freed");
    }

    #[test]
    fn a_block_that_does_not_fit_comes_from_the_general_allocator() {
        let heap = heap();
        let large = Block::new(&heap, SIZE + 1, 1, 1);
        let aligned = Block::new(&heap, 1, ALIGN * 2, 2);
        let all = Block::new(&heap, SIZE, 1, 3);
        let further = Block::new(&heap, 1, 1, 4);

        assert_eq!(heap.offset(large.at), None);
        assert_eq!(heap.offset(aligned.at), None);
        assert_eq!(heap.offset(all.at), Some(0));
        assert_eq!(heap.offset(further.at), None);
        for block in [large, aligned, all, further] {
            block.free(&heap);
        }
    }

    #[test]
    fn the_last_block_grows_where_it_is() {
        let heap = heap();
        let mut block = Block::new(&heap, 8, 1, 1);
        block.resize(&heap, SIZE);

        assert_eq!(heap.offset(block.at), Some(0));
        block.resize(&heap, SIZE + 1);
        assert_eq!(heap.offset(block.at), None, "the region is too small");
        block.free(&heap);
    }

    #[test]
    fn blocks_keep_their_bytes() {
        let heap = heap();
        let mut blocks: Vec<Block> = Vec::new();
        let mut random = 1_u64;
        let mut below = |limit: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % limit
        };

        // Miri takes seconds for a hundred steps.
        let steps = if cfg!(miri) { 300 } else { 20_000 };
        for step in 0..steps {
            let size = 1 + below(if step % 16 == 0 { 4 * SIZE } else { 200 });
            match below(3) {
                0 if !blocks.is_empty() => blocks.swap_remove(below(blocks.len())).free(&heap),
                1 if !blocks.is_empty() => {
                    let index = below(blocks.len());
                    blocks[index].resize(&heap, size);
                }
                _ if blocks.len() < 40 => {
                    let align = 1 << below(6);
                    blocks.push(Block::new(&heap, size, align, step as u8));
                }
                _ => {}
            }
            if blocks.is_empty() {
                heap.used.set(0);
            }
        }
        for block in blocks {
            block.free(&heap);
        }
    }
}
