//! Metrics of the audit in the database.

use std::fmt;

use super::Page;
use crate::audit::Audit;

impl Page<'_, '_> {
    pub(super) fn audit(&mut self, audit: &Audit) -> fmt::Result {
        let Some(stored) = audit.stored() else {
            return Ok(());
        };
        self.counter(
            "audit_stored",
            "Actions of operators and tenants stored in the database",
            stored.count(),
        )?;
        self.family(
            "audit_lost",
            "Actions not stored in the database, by reason: too many wait, a caller repeats what it may not do",
            "reason",
            stored.lost(),
        )?;
        self.gauge(
            "audit_waiting",
            "Actions that wait to be stored in the database",
            stored.waiting() as u64,
        )
    }
}
