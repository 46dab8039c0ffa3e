//! Alerts that somebody has acknowledged.

use std::collections::HashMap;
use std::time::SystemTime;

use parking_lot::Mutex;

/// The alerts that have been acknowledged, by their ids, until they are over or the host ends.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(Mutex<HashMap<String, Acknowledgement>>);

/// Who acknowledged an alert, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) by: String,
    pub(crate) at: SystemTime,
}

impl Acknowledged {
    /// Notes that this alert has been acknowledged. The first acknowledgement stays.
    pub(crate) fn note(&self, id: &str, by: String) {
        let at = SystemTime::now();
        let mut all = self.0.lock();
        all.entry(id.to_owned())
            .or_insert(Acknowledgement { by, at });
    }

    /// Returns the acknowledgement of this alert.
    pub(crate) fn of(&self, id: &str) -> Option<Acknowledgement> {
        self.0.lock().get(id).cloned()
    }

    /// Forgets all alerts but these: they are over.
    pub(crate) fn keep_only(&self, is_current: impl Fn(&str) -> bool) {
        self.0.lock().retain(|id, _| is_current(id));
    }
}
