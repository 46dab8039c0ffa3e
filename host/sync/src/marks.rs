//! Marks that end by themselves.

use std::sync::atomic::Ordering;

use crate::primitives::AtomicU64;

/// Marks on keys, each until a second. Any thread sets and reads them, without a lock.
///
/// A key is a hash, which chooses a slot; the other bits of the key distinguish it from other keys of the slot. A later mark takes the slot of an
/// earlier one, so the memory is fixed, and a mark may be lost. No key is marked that nobody has marked, except for two keys that agree in
/// all bits that are used.
#[derive(Debug)]
pub struct Marks {
    /// The upper half is the upper half of the key, the lower half the second at which the mark ends. 0: none.
    slots: Box<[AtomicU64]>,
}

const LOWER: u64 = 0xffff_ffff;

impl Marks {
    /// No marks, in this many slots; at least one.
    pub fn new(slots: usize) -> Self {
        let slots = (0..slots.max(1)).map(|_| AtomicU64::new(0));
        Self {
            slots: slots.collect(),
        }
    }

    /// Marks a key until this second.
    pub fn set(&self, key: u64, until: u32) {
        self.slot(key)
            .store(key & !LOWER | u64::from(until), Ordering::Relaxed);
    }

    /// Takes the mark of a key away.
    pub fn clear(&self, key: u64) {
        let slot = self.slot(key);
        let known = slot.load(Ordering::Relaxed);
        if known & !LOWER == key & !LOWER {
            // Another mark may have taken the slot meanwhile; it stays.
            let _stays = slot.compare_exchange(known, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether a key is marked at this second.
    #[inline]
    pub fn has(&self, key: u64, now: u32) -> bool {
        let known = self.slot(key).load(Ordering::Relaxed);
        known & !LOWER == key & !LOWER && known & LOWER > u64::from(now)
    }

    fn slot(&self, key: u64) -> &AtomicU64 {
        let number = (key & LOWER) as usize % self.slots.len();
        &self.slots[number]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ONE: u64 = 0xaaaa_aaaa_0000_0001;
    /// In the slot of `ONE`.
    const OTHER: u64 = 0xbbbb_bbbb_0000_0011;

    #[test]
    fn a_mark_ends_by_itself() {
        let marks = Marks::new(16);
        assert!(!marks.has(ONE, 0));
        marks.set(ONE, 30);
        assert!(marks.has(ONE, 0) && marks.has(ONE, 29));
        assert!(!marks.has(ONE, 30) && !marks.has(OTHER, 0));
    }

    #[test]
    fn a_later_mark_takes_the_slot() {
        let marks = Marks::new(16);
        marks.set(ONE, 30);
        marks.set(OTHER, 40);
        assert!(!marks.has(ONE, 1) && marks.has(OTHER, 39));
        marks.clear(ONE);
        assert!(marks.has(OTHER, 39));
        marks.clear(OTHER);
        assert!(!marks.has(OTHER, 0));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn no_key_is_marked_that_nobody_has_marked() {
        loom::model(|| {
            let marks = Arc::new(Marks::new(1));
            let (one, other, third) = (1 << 32, 2 << 32, 3 << 32);
            let marking = {
                let marks = Arc::clone(&marks);
                thread::spawn(move || marks.set(one, 9))
            };
            let clearing = {
                let marks = Arc::clone(&marks);
                thread::spawn(move || marks.clear(one))
            };
            marks.set(other, 5);
            assert!(!marks.has(third, 0));
            assert!(!marks.has(other, 5), "the end is that of the key");
            marking.join().expect("the thread ends");
            clearing.join().expect("the thread ends");
            // Clearing a key leaves the mark of the other one.
            assert!(marks.has(other, 4) || marks.has(one, 8) || !marks.has(one, 0));
        });
    }
}
