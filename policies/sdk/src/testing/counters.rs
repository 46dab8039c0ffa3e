//! Counters and buckets, in the simplest implementation.

use std::collections::HashMap;

/// The counters, and the simulated time.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Seconds since the start of the host.
    now: f64,
    /// Values, and when they expire.
    counters: HashMap<String, (u64, f64)>,
    /// The level of each bucket, and when it was updated.
    buckets: HashMap<String, (f64, f64)>,
}

impl Counters {
    pub(super) fn wait(&mut self, seconds: f64) {
        self.now += seconds;
    }

    /// Seconds since the start of the host.
    pub(super) fn now(&self) -> f64 {
        self.now
    }

    pub(super) fn add(&mut self, name: &str, amount: u64, seconds: u32) -> u64 {
        let now = self.now;
        let fresh = (0, now + f64::from(seconds));
        let counter = self.counters.entry(name.to_owned()).or_insert(fresh);
        if counter.1 <= now {
            *counter = fresh;
        }
        counter.0 = counter.0.saturating_add(amount);
        counter.0
    }

    pub(super) fn value(&self, name: &str) -> u64 {
        let counter = self.counters.get(name);
        counter.map_or(0, |&(value, ends)| if ends > self.now { value } else { 0 })
    }

    pub(super) fn rate_limit(&mut self, key: &str, per_second: f64, burst: u32) -> bool {
        let full = f64::from(burst);
        let (level, at) = *self.buckets.get(key).unwrap_or(&(full, self.now));
        let filled = per_second.max(0.0) * (self.now - at);
        let level = (level + filled).min(full);
        // Rounding may leave slightly less than one token after many fractions.
        let is_within = level + 1e-9 >= 1.0;
        let left = if is_within { level - 1.0 } else { level };
        self.buckets.insert(key.to_owned(), (left, self.now));
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_expire_and_buckets_are_refilled() {
        let mut counters = Counters::default();
        assert_eq!(counters.add("a", 2, 10), 2);
        counters.wait(9.0);
        assert_eq!(counters.add("a", 1, 10), 3);
        counters.wait(1.0);
        assert_eq!(counters.value("a"), 0);
        let taken = |counters: &mut Counters| {
            let tries = (0..5).filter(|_| counters.rate_limit("b", 2.0, 3));
            tries.count()
        };
        assert_eq!(taken(&mut counters), 3);
        counters.wait(0.5);
        assert_eq!(taken(&mut counters), 1);
        assert!(!counters.rate_limit("c", 1.0, 0));
        assert!(counters.rate_limit("d", f64::NAN, 1));
        counters.wait(1e6);
        assert!(!counters.rate_limit("d", f64::NAN, 1));
    }
}
