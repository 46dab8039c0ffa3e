//! Metrics of the address table, the trusted peers, the rules and the cache of names.

use std::fmt;

use portcullis_address::DatabaseState;
use portcullis_dataplane::shared::Shared;
use portcullis_rollout::resolve::Dns;

use super::Page;
use crate::exposition::process::seconds;

impl Page<'_, '_> {
    /// The servers of the database.
    fn servers(&mut self, shared: &Shared) -> fmt::Result {
        let status = shared.addresses.database().connections().servers();
        let named: Vec<_> = status
            .servers
            .iter()
            .map(|one| one.url.to_string())
            .collect();
        let used = named.iter().zip(&status.servers);
        self.gauges(
            "database_server_used",
            "1 for the server of the database that is in use, 0 for the others",
            "server",
            used.clone()
                .map(|(url, one)| (url.as_str(), u64::from(one.is_used))),
        )?;
        self.gauges(
            "database_server_failed",
            "1 for a server of the database that did not serve at the last try, 0 for the others",
            "server",
            used.map(|(url, one)| (url.as_str(), u64::from(one.trouble.is_some()))),
        )?;
        self.counter(
            "database_server_changes",
            "Changes of the server of the database that is in use",
            status.changes,
        )?;
        self.counter(
            "database_retries",
            "Writes repeated after a conflict or the failure of a server",
            status.retries,
        )?;
        self.gauge(
            "database_older",
            "1 while the database has an older state than the one in use, or is another one, and nothing is read from it",
            u64::from(status.older.is_some()),
        )
    }

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
            "1 if the database answered the last query, 0 otherwise",
            is_up,
        )?;
        self.servers(shared)?;
        let snapshot = shared.addresses.current();
        let counts = snapshot.counts;
        let kinds = [
            ("host", counts.hosts),
            ("subnet", counts.subnets),
            ("domain", counts.domains),
        ];
        self.gauges(
            "address_rows",
            "Active rows of the address table",
            "kind",
            kinds,
        )?;
        self.gauge(
            "address_skipped_rows",
            "Invalid rows of the address table",
            counts.skipped,
        )?;
        self.gauge(
            "address_generation",
            "Generation of the address table; 0 before the first load",
            snapshot.generation,
        )?;
        self.gauge(
            "address_memory_bytes",
            "Memory of the address table",
            snapshot.table.memory_bytes() as u64,
        )?;
        let loaded = seconds(snapshot.loaded_at);
        self.gauge(
            "address_loaded_timestamp_seconds",
            "Load time of the address table since the Unix epoch",
            loaded,
        )
    }

    pub(super) fn names(&mut self, dns: &Dns) -> fmt::Result {
        let counts = dns.counts();
        let results = [
            ("found", counts.found),
            ("none", counts.none),
            ("failed", counts.failed),
        ];
        self.family(
            "dns_queries",
            "Queries to name servers by result",
            "result",
            results,
        )?;
        self.gauge(
            "dns_cache_entries",
            "Queries in the cache of names",
            dns.entries() as u64,
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
            "Active rows of the table of trusted peers",
            part.table.rows().len() as u64,
        )?;
        self.gauge(
            "trusted_skipped_rows",
            "Invalid rows of the table of trusted peers",
            part.skipped,
        )?;
        self.gauge(
            "trusted_generation",
            "Generation of the trusted peers; 0 before the first load",
            part.generation,
        )?;
        self.gauge(
            "trusted_loaded_timestamp_seconds",
            "Load time of the trusted peers since the Unix epoch",
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
            "Active lines of the allow and deny files",
            part.rules.len() as u64,
        )?;
        self.gauge(
            "rules_skipped_lines",
            "Invalid lines of the allow and deny files",
            part.skipped,
        )?;
        self.gauge(
            "rules_generation",
            "Generation of the rules; 0 before the first load",
            part.generation,
        )?;
        self.gauge(
            "rules_loaded_timestamp_seconds",
            "Load time of the rules since the Unix epoch",
            seconds(part.loaded_at),
        )
    }
}
