//! Answers of the interface `clock`.

use crate::clock::LocalTime;

use super::Call;

impl Call {
    /// `clock.now`
    pub(crate) fn now(&mut self) -> u64 {
        self.moment().milliseconds()
    }

    /// `clock.local`
    pub(crate) fn local(&mut self, zone: &str) -> Option<LocalTime> {
        self.moment().local(zone)
    }
}
