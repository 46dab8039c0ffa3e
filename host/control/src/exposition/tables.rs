//! Address table, trusted peers and rules: what serves, and how loading it has fared.

use std::fmt;

use portcullis_address::DatabaseState;
use portcullis_dataplane::shared::Shared;

use super::{Page, seconds};

impl Page<'_, '_> {
    pub(super) fn table(&mut self, shared: &Shared) -> fmt::Result {
        let status = shared.addresses.status();
        let results = [("ok", status.loads), ("failed", status.failures)];
        self.family(
            "address_reloads",
            "Loads of the address table",
            "result",
            results,
        )?;
        let is_up = u64::from(!matches!(status.database, DatabaseState::Down { .. }));
        self.gauge(
            "database_up",
            "1 unless the database did not answer when it was last asked",
            is_up,
        )?;
        let snapshot = shared.addresses.current();
        let counts = snapshot.counts;
        let kinds = [
            ("host", counts.hosts),
            ("subnet", counts.subnets),
            ("domain", counts.domains),
        ];
        self.gauges(
            "address_rows",
            "Rows of the address table that serve",
            "kind",
            kinds,
        )?;
        self.gauge(
            "address_skipped_rows",
            "Rows that can't be used",
            counts.skipped,
        )?;
        self.gauge(
            "address_generation",
            "Number of the table that serves; 0 before the first",
            snapshot.generation,
        )?;
        self.gauge(
            "address_memory_bytes",
            "Memory of the table that serves",
            snapshot.table.memory_bytes() as u64,
        )?;
        let loaded = seconds(snapshot.loaded_at);
        self.gauge(
            "address_loaded_timestamp_seconds",
            "When the table was loaded, since 1970",
            loaded,
        )
    }

    pub(super) fn trusted(&mut self, shared: &Shared) -> fmt::Result {
        let status = shared.addresses.status().trusted;
        let part = &shared.addresses.current().trusted;
        let results = [("ok", status.loads), ("failed", status.failures)];
        self.family(
            "trusted_reloads",
            "Loads of the table of trusted peers",
            "result",
            results,
        )?;
        self.gauge(
            "trusted_rows",
            "Rows of the table of trusted peers that serve",
            part.table.rows().len() as u64,
        )?;
        self.gauge(
            "trusted_skipped_rows",
            "Trusted rows that can't be used",
            part.skipped,
        )?;
        self.gauge(
            "trusted_generation",
            "Number of the trusted peers that serve; 0 before the first",
            part.generation,
        )?;
        self.gauge(
            "trusted_loaded_timestamp_seconds",
            "When the trusted peers were loaded, since 1970",
            seconds(part.loaded_at),
        )
    }

    pub(super) fn rules(&mut self, shared: &Shared) -> fmt::Result {
        let status = shared.addresses.status().rules;
        let part = &shared.addresses.current().rules;
        let results = [("ok", status.loads), ("failed", status.failures)];
        self.family(
            "rules_reloads",
            "Loads of the allow and deny files",
            "result",
            results,
        )?;
        self.gauge(
            "rules_lines",
            "Lines of the allow and deny files that serve",
            part.rules.len() as u64,
        )?;
        self.gauge(
            "rules_skipped_lines",
            "Lines of the allow and deny files that can't be used",
            part.skipped,
        )?;
        self.gauge(
            "rules_generation",
            "Number of the rules that serve; 0 before the first",
            part.generation,
        )?;
        self.gauge(
            "rules_loaded_timestamp_seconds",
            "When the allow and deny files were read, since 1970",
            seconds(part.loaded_at),
        )
    }
}
