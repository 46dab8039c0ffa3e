//! Answers of the interface `log`.

use tracing::Level;

use crate::log_line::LogLine;
use crate::text;

use super::Call;

/// The longest Call-ID in a log line, in bytes.
const MAX_CALL_ID: usize = 128;

impl Call {
    /// `log.log`
    pub(crate) fn log(&self, level: Level, message: &str) {
        let is_shown = !self.bounds.mute && enabled(level);
        let is_heard = is_shown || self.kept_log.is_some();
        if !is_heard || !self.log.take(self.bounds.log_lines) {
            return;
        }
        self.emit(
            level,
            is_shown,
            &text::shown(message, self.bounds.log_bytes),
        );
    }

    /// Logs and returns how many lines were dropped. Called once, at the end of the call.
    pub(crate) fn finish_log(&self) -> u32 {
        let dropped = self.log.dropped();
        if dropped > 0 {
            let message = format!("{dropped} more lines of this call dropped (key `log-lines`)");
            self.emit(Level::WARN, !self.bounds.mute, &message);
        }
        dropped
    }

    /// Keeps a line for the caller, if it wants it, and logs it, if it is shown.
    fn emit(&self, level: Level, is_shown: bool, message: &str) {
        if let Some(kept) = &self.kept_log {
            kept.borrow_mut().push(LogLine {
                level,
                text: message.to_owned(),
            });
        }
        if is_shown && self.scope.admits_line() {
            self.write(level, message);
        }
    }

    fn write(&self, level: Level, message: &str) {
        let call_id = self.request().call_id();
        let call_id = &*text::shown(&call_id, MAX_CALL_ID);
        let policy = &*self.policy;
        let tenant = Some(&*self.scope.tenant).filter(|tenant| !tenant.is_empty());
        let decision = self.decision.map(tracing::field::display);
        // Fields with `None` are omitted.
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
                    "log line of a policy"
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

/// Whether lines of this level are logged. Other lines do not count against the limit.
fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: "policy", Level::ERROR),
        Level::WARN => tracing::enabled!(target: "policy", Level::WARN),
        Level::INFO => tracing::enabled!(target: "policy", Level::INFO),
        _ => tracing::enabled!(target: "policy", Level::DEBUG),
    }
}
