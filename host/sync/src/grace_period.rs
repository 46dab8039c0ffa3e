//! Grace periods as in read-copy-update (RCU): when every reader has seen what was published.

use std::sync::atomic::Ordering;

use crate::primitives::{AtomicU64, fence};

/// Waits for the read sections that were running when it began.
///
/// A section that begins later reads everything that was published before the grace period. When the period is over, no section uses
/// what it replaced.
#[derive(Debug)]
pub struct GracePeriod<'r> {
    /// The readers whose section has not ended yet, each with the number of that section.
    running: Vec<(&'r ReadSections, u64)>,
}

/// The read sections of one thread. Other threads wait for their ends with a [`GracePeriod`].
#[derive(Debug, Default)]
pub struct ReadSections {
    /// Number of starts and ends so far; odd during a section. The reader is the only writer.
    changes: AtomicU64,
}

impl<'r> GracePeriod<'r> {
    /// Begins after a publication; the sections that run now are waited for.
    pub fn begin(readers: impl IntoIterator<Item = &'r ReadSections>) -> Self {
        // Pairs with the fence in `ReadSections::begin`. One of the two fences is first. If it is this one, the section reads what
        // was published; if it is the other, this thread sees that the section has begun.
        fence(Ordering::SeqCst);
        let readers = readers.into_iter().map(|reader| (reader, reader.changes()));
        Self {
            running: readers.filter(|(_, changes)| changes % 2 == 1).collect(),
        }
    }

    /// Whether all of these sections have ended.
    pub fn is_over(&mut self) -> bool {
        self.running
            .retain(|(reader, changes)| reader.changes() == *changes);
        self.running.is_empty()
    }
}

impl ReadSections {
    /// Begins a section: what is read from now on is in use until its end. Only the reader may call this, outside of a section.
    #[inline]
    pub fn begin(&self) {
        self.change();
        // See `GracePeriod::begin`. An access with `SeqCst` would not do: the reads of the section need not be ordered after it.
        fence(Ordering::SeqCst);
    }

    /// Ends the section: nothing that it read is in use any more.
    #[inline]
    pub fn end(&self) {
        self.change();
    }

    /// Both changes are releases: whoever sees one knows that all earlier sections are over.
    #[inline]
    fn change(&self) {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes
            .store(changes.wrapping_add(1), Ordering::Release);
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_period_waits_for_sections_that_run_and_for_no_others() {
        let readers: [ReadSections; 3] = Default::default();
        readers[0].begin();
        readers[1].begin();
        readers[1].end();
        let mut period = GracePeriod::begin(&readers);
        assert!(!period.is_over());
        readers[1].begin();
        readers[2].begin();
        assert!(!period.is_over());
        readers[0].end();
        readers[0].begin();
        assert!(period.is_over(), "the section that runs now is a later one");
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// Two versions of some state, and the number of the current one.
    #[derive(Default)]
    struct Published {
        versions: [UnsafeCell<()>; 2],
        current: AtomicUsize,
        readers: [ReadSections; 2],
    }

    impl Published {
        /// Reads the current version. loom fails the model if the version is reclaimed meanwhile.
        fn read(&self, reader: usize) -> usize {
            let reader = &self.readers[reader];
            reader.begin();
            let current = self.current.load(Ordering::Relaxed);
            self.versions[current].with(|_| ());
            reader.end();
            current
        }

        fn replace(&self) {
            self.current.store(1, Ordering::Relaxed);
            let mut period = GracePeriod::begin(&self.readers);
            while !period.is_over() {
                thread::yield_now();
            }
            // Nobody may read it now: this is a write.
            self.versions[0].with_mut(|_| ());
        }
    }

    /// With so many sections of each reader while a value is replaced.
    fn check(sections: &'static [usize]) {
        loom::model(move || {
            let published = Arc::new(Published::default());
            let readers = (0..).zip(sections).map(|(reader, times)| {
                let published = Arc::clone(&published);
                thread::spawn(move || {
                    let seen = (0..*times).map(|_| published.read(reader));
                    seen.collect::<Vec<_>>()
                })
            });
            let readers: Vec<_> = readers.collect();
            published.replace();
            for reader in readers {
                let seen = reader.join().expect("the reader ends");
                assert!(seen.is_sorted(), "no section sees an older version");
            }
        });
    }

    #[test]
    fn after_a_grace_period_no_section_reads_what_was_replaced() {
        check(&[2]);
    }

    #[test]
    fn a_grace_period_is_that_of_all_readers() {
        check(&[1, 1]);
    }
}
