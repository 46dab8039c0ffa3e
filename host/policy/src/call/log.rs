//! Lines that policies log.

use tracing::Level;

use crate::text;

use super::Call;

/// The longest Call-ID in a log line, in bytes.
const MAX_CALL_ID: usize = 128;

impl Call {
    /// `log`
    pub(crate) fn log(&self, level: Level, message: &str) {
        if self.bounds.mute || !enabled(level) || !self.log.take(self.bounds.log_lines) {
            return;
        }
        if !self.scope.admits_line() {
            return;
        }
        self.write(level, &text::shown(message, self.bounds.log_bytes));
    }

    /// Says how many lines were dropped, if any. Called once, when the call has ended.
    pub(crate) fn finish_log(&self) -> u32 {
        let dropped = self.log.dropped();
        if dropped > 0 && self.scope.admits_line() {
            let message = format!("{dropped} more lines of this call (key `log-lines`)");
            self.write(Level::WARN, &message);
        }
        dropped
    }

    fn write(&self, level: Level, message: &str) {
        let call_id = self.request().call_id();
        let call_id = &*text::shown(&call_id, MAX_CALL_ID);
        let policy = &*self.policy;
        let tenant = Some(&*self.scope.tenant).filter(|tenant| !tenant.is_empty());
        let decision = self.decision.map(tracing::field::display);
        // Fields that are none are left out.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "policy",
                    event = "policy_log",
                    tenant,
                    policy,
                    call_id,
                    decision,
                    text = message,
                    "A policy says:"
                )
            };
        }
        match level {
            Level::ERROR => line!(error),
            Level::WARN => line!(warn),
            Level::INFO => line!(info),
            _ => line!(debug),
        }
    }
}

/// Whether anybody reads lines of this level. Dropped ones do not count against the limit.
fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: "policy", Level::ERROR),
        Level::WARN => tracing::enabled!(target: "policy", Level::WARN),
        Level::INFO => tracing::enabled!(target: "policy", Level::INFO),
        _ => tracing::enabled!(target: "policy", Level::DEBUG),
    }
}
