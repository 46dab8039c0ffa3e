//! Which counts of a sender have been received.

/// Words of 64 counts.
const WORDS: usize = 64;

/// Counts behind the highest one that may still come: packets of several workers overtake each other.
const SPAN: u64 = WORDS as u64 * 64;

/// The counts of one sender: each is accepted once, and none that is far behind the highest.
#[derive(Debug)]
pub(crate) struct Window {
    highest: u64,
    /// A bit for each count of the last [`SPAN`], at the count modulo [`SPAN`].
    seen: [u64; WORDS],
}

impl Window {
    /// Whether this count, from 1, is new. Notes it.
    pub(crate) fn accepts(&mut self, count: u64) -> bool {
        if count == 0 || self.highest.saturating_sub(count) >= SPAN {
            return false;
        }
        if count > self.highest {
            let passed = (count - self.highest).min(SPAN);
            for later in (0..passed).map(|back| count - back) {
                self.seen[word(later)] &= !bit(later);
            }
            self.highest = count;
        }
        let is_new = self.seen[word(count)] & bit(count) == 0;
        self.seen[word(count)] |= bit(count);
        is_new
    }
}

impl Default for Window {
    fn default() -> Self {
        Self {
            highest: 0,
            seen: [0; WORDS],
        }
    }
}

fn word(count: u64) -> usize {
    (count / 64) as usize % WORDS
}

fn bit(count: u64) -> u64 {
    1 << (count % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_count_is_accepted_once(counts in proptest::collection::vec(0..3 * SPAN, 0..600)) {
            let mut window = Window::default();
            let (mut seen, mut highest) = (HashSet::new(), 0);
            for count in counts {
                let expected = count > 0 && count + SPAN > highest && !seen.contains(&count);
                prop_assert_eq!(window.accepts(count), expected, "{}", count);
                seen.insert(count);
                highest = highest.max(count);
            }
        }
    }

    #[test]
    fn the_last_count_is_one() {
        let mut window = Window::default();
        assert!(window.accepts(u64::MAX));
        assert!(!window.accepts(u64::MAX));
        assert!(window.accepts(u64::MAX - 1));
        assert!(!window.accepts(1));
    }
}
