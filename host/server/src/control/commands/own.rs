//! The commands that Kamailio does not have: `address.…`, `policy.…`, `portcullis.…`.

use portcullis_address::{DatabaseState, Snapshot};
use portcullis_rpc::{Call, Fault, Reply, Value};

use super::super::Control;
use crate::address_task::counts;
use crate::shared::Bound;
use crate::time::rfc3339;

type Members = Vec<(&'static str, Value<'static>)>;

impl Control {
    pub(super) async fn address_reload(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let mut answer: Members = vec![("status", "Reload OK".into())];
        answer.extend(self.reload_addresses().await?);
        Ok(Reply::One(Value::Struct(answer)))
    }

    pub(super) async fn own_trusted_reload(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let reloaded = self.shared.addresses.reload_trusted().await;
        reloaded.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        let mut answer: Members = vec![("status", "Reload OK".into())];
        answer.extend(self.trusted_part());
        Ok(Reply::One(Value::Struct(answer)))
    }

    pub(super) async fn rules_reload(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let reloaded = self.shared.addresses.reload_rules().await;
        reloaded.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        let mut answer: Members = vec![("status", "Reload OK".into())];
        answer.extend(self.rules_part());
        Ok(Reply::One(Value::Struct(answer)))
    }

    /// Loads the table: what it brought.
    pub(super) async fn reload_addresses(&self) -> Result<Members, Fault> {
        let reloaded = self.shared.addresses.reload().await;
        let report = reloaded.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        Ok(table_status(&report.snapshot))
    }

    pub(super) fn status(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let missing = self.missing();
        let listen: Vec<_> = self.shared.listen.iter().map(Bound::to_string).collect();
        let answer = [
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("pid", std::process::id().into()),
            ("ready", missing.is_empty().into()),
            ("missing", missing.into()),
            ("started_at", rfc3339(self.shared.started).into()),
            ("workers", self.shared.counters.len().into()),
            ("listen", listen.into()),
            ("control", self.listening.lines().into()),
            ("addresses", self.address_members()),
            ("trusted", self.trusted_members()),
            ("rules", self.rules_members()),
            ("policy", self.policy_members()),
            ("tenants", self.shared.tenants.load().named.len().into()),
            ("alerts", self.alerts()),
            ("records", self.records_members()),
        ];
        Ok(Reply::One(answer.into()))
    }

    fn records_members(&self) -> Value<'static> {
        let Some(records) = &self.shared.records else {
            return Value::Null;
        };
        let file = self.shared.config.records.file.as_ref();
        let told = records.told();
        let mut members: Members = vec![
            ("file", file.map(|file| file.display().to_string()).into()),
            ("written", told.written().into()),
        ];
        let lost = told.lost().map(|(reason, n)| {
            let name = match reason {
                "rate" => "beyond_rate",
                "queue" => "writer_too_slow",
                _ => "file_failed",
            };
            (name, n.into())
        });
        members.extend(lost);
        members.push(("error", told.error().map(str::to_owned).into()));
        Value::Struct(members)
    }

    fn address_members(&self) -> Value<'static> {
        let status = self.shared.addresses.status();
        let mut members = table_status(&self.shared.addresses.current());
        let down_since = match status.database {
            DatabaseState::Down { since } => rfc3339(since).into(),
            DatabaseState::Up | DatabaseState::Unknown => Value::Null,
        };
        let database = self.shared.addresses.database();
        let address_file = database.address_file();
        members.extend([
            ("database", database.url().to_string().into()),
            (
                "address_file",
                address_file.map(|file| file.display().to_string()).into(),
            ),
            (
                "changes_seen_by",
                status.changes_seen_by.map(|by| by.to_string()).into(),
            ),
            ("loads", status.loads.into()),
            ("failed_loads", status.failures.into()),
            (
                "error",
                status.last_error.map(|error| error.to_string()).into(),
            ),
            ("database_down_since", down_since),
        ]);
        Value::Struct(members)
    }
}

/// What one load of the table brought, with the rows that need somebody's attention.
fn table_status(snapshot: &Snapshot) -> Members {
    let took = u64::try_from(snapshot.took.as_millis()).unwrap_or(u64::MAX);
    vec![
        ("generation", snapshot.generation.into()),
        ("rows", counts(&snapshot.table).into()),
        ("hosts", snapshot.counts.hosts.into()),
        ("subnets", snapshot.counts.subnets.into()),
        ("domains", snapshot.counts.domains.into()),
        ("skipped", snapshot.counts.skipped.into()),
        ("warned", snapshot.counts.warned.into()),
        ("errors", lines(&snapshot.errors)),
        ("warnings", lines(&snapshot.warnings)),
        ("loaded_at", rfc3339(snapshot.loaded_at).into()),
        ("took_ms", took.into()),
        ("memory_bytes", snapshot.table.memory_bytes().into()),
    ]
}

/// A list of what was found, a line each.
pub(super) fn lines(findings: &[impl std::fmt::Display]) -> Value<'static> {
    Value::List(
        findings
            .iter()
            .map(|finding| finding.to_string().into())
            .collect(),
    )
}
