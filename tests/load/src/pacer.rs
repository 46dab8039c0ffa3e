//! How much may be sent at a moment.

/// Number of requests or handshakes that may be begun, evenly spaced.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    rate: Option<u64>,
    since_ns: u64,
    /// Number begun so far.
    pub(crate) sent: u64,
    /// Number after which none is begun any more.
    pub(crate) limit: u64,
}

impl Pacer {
    /// So many a second from this moment on; `None`: as many as the other side can take.
    pub(crate) fn new(rate: Option<u64>, since_ns: u64, limit: u64) -> Self {
        Self {
            rate,
            since_ns,
            sent: 0,
            limit,
        }
    }

    /// Whether the last one has been sent.
    pub(crate) fn spent(&self) -> bool {
        self.sent >= self.limit
    }

    /// Number that one of `callers` may send now, so that each gets its share.
    pub(crate) fn allowance(&self, now_ns: u64, callers: usize) -> u64 {
        let left = self.limit - self.sent;
        let Some(rate) = self.rate else {
            return left;
        };
        let elapsed_ns = u128::from(now_ns - self.since_ns);
        let due = (u128::from(rate) * elapsed_ns / 1_000_000_000) as u64;
        due.saturating_sub(self.sent)
            .div_ceil(callers as u64)
            .min(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_rate_allows_what_is_due_and_no_more() {
        let mut pacer = Pacer::new(Some(1000), 5_000_000_000, 20);
        assert_eq!(pacer.allowance(5_000_000_000, 4), 0);
        assert_eq!(pacer.allowance(5_008_000_000, 4), 2);
        pacer.sent = 8;
        assert_eq!(pacer.allowance(5_008_000_000, 4), 0);
        pacer.sent = 19;
        assert_eq!(pacer.allowance(9_000_000_000, 4), 1);
        pacer.sent = 20;
        assert!(pacer.spent());
        assert_eq!(pacer.allowance(9_000_000_000, 4), 0);
    }

    #[test]
    fn a_closed_loop_is_bounded_by_its_limit_only() {
        let mut pacer = Pacer::new(None, 0, 10);
        assert_eq!(pacer.allowance(0, 16), 10);
        pacer.sent = 4;
        assert_eq!(pacer.allowance(0, 16), 6);
        assert!(!Pacer::new(None, 0, u64::MAX).spent());
    }
}
