//! What the patterns of one load may take together.

/// The default of [`PatternBudget`], in bytes.
pub const DEFAULT_PATTERN_MEMORY: usize = 64 << 20;

/// Tables of states that may turn out too large. Each takes some tens of milliseconds to find that out.
const MOST_FAILURES: u32 = 100;

/// What a pattern that is too large counts, in bytes: some milliseconds were spent to find that out.
const TOO_LARGE: usize = 256 << 10;

/// The memory, and the time to spend on faster matching, that the patterns of one load may still take.
#[derive(Debug)]
pub struct PatternBudget {
    limit: usize,
    left: usize,
    failures: u32,
}

impl PatternBudget {
    /// So many bytes of automata.
    pub fn new(bytes: usize) -> Self {
        Self {
            limit: bytes,
            left: bytes,
            failures: 0,
        }
    }

    /// The bytes of all patterns together.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes these bytes for a pattern; false if there are fewer left. No further pattern is looked at then: to find out what each takes
    /// is what takes time.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or_default();
        left.is_some()
    }

    /// Counts a pattern that is too large.
    pub(crate) fn note_too_large(&mut self) {
        self.left = self.left.saturating_sub(TOO_LARGE);
    }

    /// Whether nothing is left.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Takes these bytes for something that only makes matching faster; false if there are fewer left.
    pub(super) fn take_spare(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    pub(super) fn may_try(&self) -> bool {
        self.failures < MOST_FAILURES
    }

    pub(super) fn note_failure(&mut self) {
        self.failures += 1;
    }
}

impl Default for PatternBudget {
    fn default() -> Self {
        Self::new(DEFAULT_PATTERN_MEMORY)
    }
}
