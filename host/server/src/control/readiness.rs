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
        // What a tenant lacks is between it and the operator: the others' calls go through.
        let policy = self.registry.default_files();
        if policy.file().is_some() && policy.slot().current().is_none() {
            missing.push(match policy.failed() {
                Some(failed) => format!("policy: {}", failed.error),
                None => "policy: not loaded yet".into(),
            });
        }
        missing
    }
}
