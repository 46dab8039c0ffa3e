//! Whether the host can do its work, and what is missing if it can't.

use super::Control;

impl Control {
    /// What is missing, a line each; nothing if the host is ready. The sockets are bound before the control port answers.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let addresses = &self.shared.addresses;
        if addresses.current().generation == 0 {
            missing.push(match addresses.status().last_error {
                Some(error) => format!("address table: not loaded: {error}"),
                None => "address table: not loaded yet".into(),
            });
        }
        if self.policy.file().is_some() && self.shared.policy.current().is_none() {
            missing.push(match self.policy.failed() {
                Some(failed) => format!("policy: {}", failed.error),
                None => "policy: not loaded yet".into(),
            });
        }
        missing
    }
}
