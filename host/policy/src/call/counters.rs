//! Answers of the interface `counters`.

use serde_json::json;

use crate::clock::Moment;
use crate::tape::SideEffect;

use super::Call;

impl Call {
    /// `counters.add`
    pub(crate) fn add(&mut self, name: &str, amount: u64, seconds: u32) -> u64 {
        let arguments = || json!([name, amount, seconds]);
        self.answered("counters.add", SideEffect::None, arguments, |call| {
            let now = call.steady();
            call.scope().counters().add(name, amount, seconds, now)
        })
    }

    /// `counters.value`
    pub(crate) fn value(&mut self, name: &str) -> u64 {
        let arguments = || json!([name]);
        self.answered("counters.value", SideEffect::None, arguments, |call| {
            let now = call.steady();
            call.scope().counters().value(name, now)
        })
    }

    /// `counters.rate-limit`
    pub(crate) fn rate_limit(&mut self, key: &str, per_second: f64, burst: u32) -> bool {
        let arguments = || json!([key, per_second, burst]);
        self.answered("counters.rate-limit", SideEffect::None, arguments, |call| {
            let now = call.steady();
            let counters = call.scope().counters();
            counters.rate_limit(key, per_second, burst, now)
        })
    }

    /// The monotonic time of the call.
    fn steady(&mut self) -> std::time::Instant {
        let Moment { steady, .. } = self.moment();
        steady
    }
}
