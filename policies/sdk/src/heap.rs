//! The policy's heap: the rest of the memory that the module starts with, then blocks of pages that it requests.
//!
//! A general allocator requests memory pages with the first allocation. For the host, which gives every call a fresh sandbox, this means
//! changing page protections twice per call, which costs more than everything else that a small policy does. The bytes between the statics
//! and the end of the memory cost nothing, and a typical call needs a few hundred of them. They lie right behind the statics, so that a small
//! policy writes to a single page of the host's memory.
//!
//! Blocks for which that memory has no room come from [`SizeClasses`]. General allocators are made for programs that run for long: `talc` takes a
//! fifth of the machine code of a small policy, and the standard library's takes a third. A host keeps that code for each policy.
//!
//! This is the only unsafe code of the SDK, and it runs only inside the sandbox.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;

/// The largest alignment that the region serves.
const ALIGN: usize = 16;
/// Bytes of a page of memory.
const PAGE: usize = 64 * 1024;

#[cfg(target_arch = "wasm32")]
mod global {
    use std::arch::wasm32::memory_grow;

    use super::{Heap, PAGE, Pages, Region, SizeClasses};

    #[global_allocator]
    static HEAP: Heap<AfterStatics, SizeClasses<Memory>> =
        Heap::new(AfterStatics, SizeClasses::new(Memory));

    /// The memory of the module.
    struct Memory;

    impl Pages for Memory {
        fn add(&self, pages: usize) -> Option<*mut u8> {
            match memory_grow::<0>(pages) {
                usize::MAX => None,
                before => Some(std::ptr::without_provenance_mut(before * PAGE)),
            }
        }
    }

    unsafe extern "C" {
        /// The linker places these symbols behind the statics, aligned to 16 bytes, and at the end of the memory that the module starts with.
        /// Nothing else uses the bytes between them.
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
            end.wrapping_sub(start)
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
        let offset = aligned(self.used.get(), layout.align());
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

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(offset) = self.offset(block) {
            let is_last = offset + layout.size() == self.used.get();
            if size <= layout.size() || (is_last && self.take(offset, size)) {
                return block;
            }
        }

        // SAFETY: the caller promises that `size`, rounded up to the alignment, is a valid size.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both blocks have at least the smaller size and do not overlap. The old one is not used any more.
            unsafe {
                moved.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

/// The next multiple of a power of two. `next_multiple_of` would divide.
fn aligned(offset: usize, align: usize) -> usize {
    (offset + align - 1) & !(align - 1)
}

/// A source of memory pages.
trait Pages {
    /// Adds pages, and returns the address of the first one; `None` if there is no room. The pages are aligned to [`PAGE`].
    fn add(&self, pages: usize) -> Option<*mut u8>;
}

/// Allocates blocks and keeps lists of free ones. Up to [`PAGE`], the sizes of blocks are powers of two; above it, whole pages. A free block is
/// never joined with others, and what a block leaves free before it or behind it is given up: at the end of the call all memory returns to its
/// first state.
///
/// A block is aligned to its size, at most to [`PAGE`].
struct SizeClasses<P> {
    pages: P,
    /// The first free block of at least each power of two bytes, from [`ALIGN`] on. A free block begins with the address of the next one.
    free: [Cell<*mut u8>; SIZES],
    /// The bytes that have not been in any block yet.
    fresh: Cell<*mut u8>,
    end: Cell<*mut u8>,
}

/// Number of lists: up to 1 GiB.
const SIZES: usize = 27;

impl<P> SizeClasses<P> {
    const fn new(pages: P) -> Self {
        Self {
            pages,
            free: [const { Cell::new(ptr::null_mut()) }; SIZES],
            fresh: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
        }
    }

    /// The list of free blocks of at least so many bytes; `None` above 1 GiB.
    fn list(&self, power: u32) -> Option<&Cell<*mut u8>> {
        self.free.get((power - ALIGN.ilog2()) as usize)
    }
}

/// The size of the block for a layout; 0 if it is too large, or the alignment is above a page. A number and no `Option`, which would be returned
/// in memory.
#[inline(never)]
fn block_size(layout: Layout) -> usize {
    let bytes = layout.size().max(layout.align()).max(ALIGN);
    match bytes <= PAGE {
        true => bytes.next_power_of_two(),
        false if layout.align() > PAGE => 0,
        false => aligned(bytes, PAGE),
    }
}

impl<P: Pages> SizeClasses<P> {
    /// Returns a block of fresh bytes; null if there is no room for it.
    fn cut(&self, bytes: usize) -> *mut u8 {
        loop {
            let fresh = self.fresh.get();
            let skip = fresh.addr().wrapping_neg() & (bytes.min(PAGE) - 1);
            let room = self.end.get().addr() - fresh.addr();
            if skip + bytes <= room {
                let start = fresh.wrapping_add(skip);
                self.fresh.set(start.wrapping_add(bytes));
                return start;
            }

            let pages = (skip + bytes - room).div_ceil(PAGE);
            let Some(added) = self.pages.add(pages) else {
                return ptr::null_mut();
            };
            // If something else has added pages in between, the rest of the fresh bytes is given up.
            if added != self.end.get() {
                self.fresh.set(added);
            }
            self.end.set(added.wrapping_add(pages * PAGE));
        }
    }

    /// Adds a block to the list of free blocks that are at least so large.
    ///
    /// # Safety
    /// The block has at least 16 bytes, is aligned to 16, and nothing else uses it.
    unsafe fn put(&self, block: *mut u8, bytes: usize) {
        if let Some(list) = self.list(usize::BITS - 1 - bytes.leading_zeros()) {
            // SAFETY: the caller guarantees that a pointer fits.
            unsafe { block.cast::<*mut u8>().write(list.get()) };
            list.set(block);
        }
    }
}

// SAFETY: wasm32-unknown-unknown has a single thread; the tests use a heap from one thread only.
unsafe impl<P> Sync for SizeClasses<P> {}

// SAFETY: blocks do not overlap: each is cut from fresh bytes once, and afterwards it is either in use or in one list. A block has at least the
// size and the alignment of its layout: those of a list for n bytes have n or more, and those of more than a page are aligned to a page.
unsafe impl<P: Pages> GlobalAlloc for SizeClasses<P> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = block_size(layout);
        // Without a size, the power is that of all bits, which has no list.
        let Some(list) = self.list(usize::BITS - bytes.wrapping_sub(1).leading_zeros()) else {
            return ptr::null_mut();
        };
        let block = list.get();
        if block.is_null() {
            return self.cut(bytes);
        }
        // SAFETY: a free block begins with the address of the next one.
        list.set(unsafe { block.cast::<*mut u8>().read() });
        block
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees that the block is from `alloc` with this layout, and not used any more.
        unsafe { self.put(block, block_size(layout)) };
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;

    use super::*;

    /// Bytes of the region in these tests.
    const SIZE: usize = 16 * 1024;

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
        fn new(heap: &impl GlobalAlloc, size: usize, align: usize, mark: u8) -> Self {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: the size is not zero.
            let at = unsafe { heap.alloc(layout) };
            assert!(!at.is_null());
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
            // Miri compares slices at once; it would take seconds for a loop over the bytes of a page.
            assert!(bytes == vec![self.mark; size]);
        }

        fn resize(&mut self, heap: &impl GlobalAlloc, size: usize) {
            // SAFETY: the block is the heap's, and the size is not zero.
            self.at = unsafe { heap.realloc(self.at, self.layout, size) };
            self.check(size.min(self.layout.size()));
            self.layout = Layout::from_size_align(size, self.layout.align()).expect("a layout");
            self.fill();
        }

        fn free(self, heap: &impl GlobalAlloc) {
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
        use_at_random(&heap, || heap.used.set(0));
        let heap = Heap::new(Nothing, SizeClasses::new(Reserved::new(1024)));
        use_at_random(&heap, || {});
    }

    /// Allocates, resizes and frees blocks at random. Calls `when_empty` whenever there is no block.
    fn use_at_random(heap: &impl GlobalAlloc, when_empty: impl Fn()) {
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
                0 if !blocks.is_empty() => blocks.swap_remove(below(blocks.len())).free(heap),
                1 if !blocks.is_empty() => {
                    let index = below(blocks.len());
                    blocks[index].resize(heap, size);
                }
                _ if blocks.len() < 40 => {
                    let align = 1 << below(6);
                    blocks.push(Block::new(heap, size, align, step as u8));
                }
                _ => {}
            }
            if blocks.is_empty() {
                when_empty();
            }
        }
        for block in blocks {
            block.free(heap);
        }
    }
    /// Pages from the system's allocator.
    struct Reserved {
        start: *mut u8,
        pages: usize,
        added: Cell<usize>,
    }

    impl Reserved {
        fn new(pages: usize) -> Self {
            // SAFETY: the size is not zero.
            let start = unsafe { System.alloc_zeroed(Self::layout(pages)) };
            assert!(!start.is_null());
            let added = Cell::new(0);
            Self {
                start,
                pages,
                added,
            }
        }

        fn layout(pages: usize) -> Layout {
            Layout::from_size_align(pages * PAGE, PAGE).expect("a layout")
        }
    }

    impl Pages for Reserved {
        fn add(&self, pages: usize) -> Option<*mut u8> {
            let before = self.added.get();
            (before + pages <= self.pages).then(|| {
                self.added.set(before + pages);
                self.start.wrapping_add(before * PAGE)
            })
        }
    }

    impl Drop for Reserved {
        fn drop(&mut self) {
            // SAFETY: `new` has allocated the pages with this layout.
            unsafe { System.dealloc(self.start, Self::layout(self.pages)) };
        }
    }

    #[test]
    fn a_freed_block_serves_the_next_request_of_its_size() {
        let heap = SizeClasses::new(Reserved::new(1));
        let first = Block::new(&heap, 20, 1, 1);
        let second = Block::new(&heap, 32, 32, 2);
        let [first_at, second_at] = [first.at, second.at];
        assert_eq!(second_at.addr() - first_at.addr(), 32);
        first.free(&heap);
        second.free(&heap);

        let blocks = [17, 32, 32].map(|size| Block::new(&heap, size, 1, 3));
        assert_eq!(blocks[0].at, second_at);
        assert_eq!(blocks[1].at, first_at);
        assert_eq!(blocks[2].at, first_at.wrapping_add(64));
        for block in blocks {
            block.free(&heap);
        }
    }

    #[test]
    fn a_block_is_aligned_to_its_size() {
        let heap = SizeClasses::new(Reserved::new(1));
        let small = Block::new(&heap, 16, 1, 1);
        let large = Block::new(&heap, 1000, 1, 2);
        let next = Block::new(&heap, 16, 1, 3);
        assert_eq!(large.at.addr() - small.at.addr(), 1024);
        assert_eq!(next.at.addr() - small.at.addr(), 2048);
        assert_eq!(heap.fresh.get(), next.at.wrapping_add(16));
    }

    #[test]
    fn a_block_of_the_general_allocator_moves_when_its_size_changes() {
        let heap = Heap::new(Nothing, SizeClasses::new(Reserved::new(3)));
        let mut block = Block::new(&heap, 5, 1, 1);
        let at = block.at;
        block.resize(&heap, PAGE + 1);
        assert_ne!(block.at, at);
        assert_eq!(
            heap.general.pages.added.get(),
            3,
            "two pages follow the first"
        );
        block.resize(&heap, 1);
        assert_eq!(block.at, at);
    }

    /// A region without memory.
    struct Nothing;

    impl Region for Nothing {
        fn start(&self) -> *mut u8 {
            ptr::dangling_mut()
        }

        fn size(&self) -> usize {
            0
        }
    }

    #[test]
    fn a_free_block_of_many_pages_serves_only_what_fits() {
        let heap = SizeClasses::new(Reserved::new(20));
        let five = Block::new(&heap, 5 * PAGE, 1, 1);
        let at = five.at;
        five.free(&heap);
        let six = Block::new(&heap, 6 * PAGE, 1, 2);
        let five = Block::new(&heap, 5 * PAGE, 1, 3);
        let four = Block::new(&heap, 4 * PAGE, 1, 4);
        assert_eq!(
            four.at, at,
            "the only list that is certain to fit five pages is that of eight"
        );
        assert_eq!(heap.pages.added.get(), 16);
        for block in [six, five, four] {
            block.free(&heap);
        }
    }

    #[test]
    fn without_room_there_is_no_block() {
        let heap = SizeClasses::new(Reserved::new(2));
        let refused = |size, align| {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: the size is not zero.
            unsafe { heap.alloc(layout) }.is_null()
        };
        assert!(refused(2 * PAGE + 1, 1));
        assert!(refused(1, 2 * PAGE));
        assert!(refused(isize::MAX as usize, 1));
        assert!(!refused(PAGE, PAGE));
        assert!(!refused(1, 1));
        assert!(refused(PAGE, 1));
        assert!(!refused(PAGE / 2, 1));
    }
}
