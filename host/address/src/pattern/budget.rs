//! Limit of the memory of the patterns of one load.

/// The default of [`PatternBudget`], in bytes.
pub const DEFAULT_PATTERN_MEMORY: usize = 64 << 20;

/// Most tables of states that may turn out to be too large. Each takes some tens of milliseconds to build before it is given up.
const MOST_FAILURES: u32 = 100;

/// What a pattern that is too large is charged, in bytes, because it took some milliseconds to find that out.
const TOO_LARGE: usize = 256 << 10;

/// The memory, and the time to spend on faster matching, that is left for the patterns of one load.
#[derive(Debug)]
pub struct PatternBudget {
    limit: usize,
    left: usize,
    failures: u32,
}

impl PatternBudget {
    /// Creates a budget of this many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            limit: bytes,
            left: bytes,
            failures: 0,
        }
    }

    /// Returns the limit for all patterns together, in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes memory for a pattern. Returns false if there is not enough left; then no further pattern is compiled, because determining the
    /// size of a pattern takes time.
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

    /// Takes memory that only makes matching faster. Returns false if there is not enough left.
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
