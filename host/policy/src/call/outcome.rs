//! Answers of the interface `outcome`.

use serde_json::json;

use crate::failed_attempts::{Attempt, FailedAttempts};
use crate::tape::{Answer, SideEffect};

use super::Call;

impl Call {
    /// `outcome.attempts`
    pub(crate) fn attempts(&mut self) -> Vec<Attempt> {
        self.outcome("outcome.attempts", |failed| failed.attempts.clone())
    }

    /// `outcome.best`
    pub(crate) fn best(&mut self) -> Option<Attempt> {
        self.outcome("outcome.best", |failed| failed.best().cloned())
    }

    /// `outcome.header`
    pub(crate) fn response_header(&mut self, name: &str) -> Option<String> {
        let arguments = || json!([name]);
        let none = SideEffect::None;
        self.answered("outcome.header", none, arguments, |call| {
            call.failed().and_then(|failed| failed.header(name))
        })
    }

    /// `outcome.contacts`
    pub(crate) fn contacts(&mut self) -> Vec<String> {
        self.outcome("outcome.contacts", FailedAttempts::contacts)
    }

    /// `outcome.tries-left`
    pub(crate) fn tries_left(&mut self) -> u8 {
        self.outcome("outcome.tries-left", |failed| failed.tries_left)
    }

    /// `outcome.memo`
    pub(crate) fn memo(&mut self) -> Vec<u8> {
        self.outcome("outcome.memo", |failed| failed.memo.clone())
    }

    /// What the call of `on-failure` is about; `None` in other calls.
    pub(crate) fn failed(&self) -> Option<&FailedAttempts> {
        self.failed.as_deref()
    }

    fn outcome<T: Answer + Default>(
        &mut self,
        function: &'static str,
        read: impl FnOnce(&FailedAttempts) -> T,
    ) -> T {
        let arguments = || json!([]);
        self.answered(function, SideEffect::None, arguments, |call| {
            call.failed().map(read).unwrap_or_default()
        })
    }
}
