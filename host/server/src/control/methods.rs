//! The methods of the control port: those of Kamailio that its operators and tools call, and our own.

use std::path::Path;

use portcullis_address::{DatabaseState, Snapshot};
use serde::Serialize;
use serde_json::{Value, json};

use super::Control;
use super::dump::{Domains, Hosts, Subnets};
use super::rpc::{Call, Fault, success};
use crate::address_task::counts;
use crate::policy_files::Outcome;
use crate::shared::Bound;
use crate::time::rfc3339;

const METHODS: [&str; 11] = [
    "address.reload",
    "core.uptime",
    "core.version",
    "permissions.addressDump",
    "permissions.addressReload",
    "permissions.domainDump",
    "permissions.subnetDump",
    "policy.reload",
    "policy.status",
    "portcullis.status",
    "system.listMethods",
];

impl Control {
    /// Does what the call asks for: the body of the answer.
    pub(super) async fn execute(&self, call: &Call) -> Result<Vec<u8>, Fault> {
        let id = &call.id;
        match call.method.as_str() {
            "permissions.addressReload" => {
                self.reload_addresses().await?;
                render(id, &"Reload OK")
            }
            "permissions.addressDump" => {
                self.dump(id, |id, table| render(id, &Hosts(&table.table)))
                    .await
            }
            "permissions.subnetDump" => {
                self.dump(id, |id, table| render(id, &Subnets(&table.table)))
                    .await
            }
            "permissions.domainDump" => {
                self.dump(id, |id, table| render(id, &Domains(&table.table)))
                    .await
            }
            "address.reload" => render(id, &self.reload_addresses().await?),
            "policy.reload" => render(id, &self.reload_policy().await?),
            "policy.status" => render(id, &self.policy_status()),
            "portcullis.status" => render(id, &self.status()),
            "core.version" => render(id, &version()),
            "core.uptime" => render(id, &self.uptime()),
            "system.listMethods" => render(id, &METHODS),
            _ => Err(Fault::new(500, "Method Not Found")),
        }
    }

    /// Renders a table on a thread where it may take its time: it can have millions of rows.
    async fn dump(
        &self,
        id: &Value,
        render: impl FnOnce(&Value, &Snapshot) -> Result<Vec<u8>, Fault> + Send + 'static,
    ) -> Result<Vec<u8>, Fault> {
        let (id, snapshot) = (id.clone(), self.shared.addresses.current());
        let rendered = tokio::task::spawn_blocking(move || render(&id, &snapshot));
        rendered
            .await
            .unwrap_or_else(|error| Err(Fault::new(500, "Dump failed.").because(error)))
    }

    async fn reload_addresses(&self) -> Result<Value, Fault> {
        let reloaded = self.shared.addresses.reload().await;
        let report = reloaded.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        let mut answer = table_status(&report.snapshot);
        answer["status"] = "Reload OK".into();
        Ok(answer)
    }

    async fn reload_policy(&self) -> Result<Value, Fault> {
        let reloaded = self.policy.reload().await;
        let outcome = reloaded.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        let id = outcome.id();
        Ok(json!({
            "status": match outcome {
                Outcome::Published(_) => "Reload OK",
                Outcome::Unchanged(_) => "Reload OK, nothing new",
            },
            "file": self.policy.file(),
            "generation": id.generation,
            "digest": format!("sha256:{}", id.digest),
        }))
    }

    fn policy_status(&self) -> Value {
        let generation = self.shared.policy.current();
        let generation = generation.as_deref();
        let failed = self.policy.failed();
        let pool = self.policy.runtime().pool_use();
        let (loads, failures) = self.policy.counts();
        json!({
            "file": self.policy.file(),
            "name": generation.map(|generation| generation.policy.name()),
            "generation": generation.map(|generation| generation.number),
            "digest": generation.map(|generation| format!("sha256:{}", generation.policy.digest())),
            "loaded_at": generation.map(|generation| rfc3339(generation.loaded_at)),
            "loads": loads,
            "failed_loads": failures,
            "live_generations": self.shared.policy.live_generations(),
            "sandboxes": format!("{} of {}", pool.live, pool.size),
            "error": failed.as_ref().map(|failed| failed.error.as_str()),
            "error_at": failed.as_ref().map(|failed| rfc3339(failed.at)),
        })
    }

    fn status(&self) -> Value {
        let missing = self.missing();
        let listen: Vec<_> = self.shared.listen.iter().map(Bound::to_string).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "ready": missing.is_empty(),
            "missing": missing,
            "started_at": rfc3339(self.shared.started),
            "workers": self.shared.counters.len(),
            "listen": listen,
            "addresses": self.address_status(),
            "policy": self.policy_status(),
        })
    }

    fn address_status(&self) -> Value {
        let status = self.shared.addresses.status();
        let mut answer = table_status(&self.shared.addresses.current());
        let database = self.shared.addresses.database();
        answer["database"] = database.url().to_string().into();
        answer["address_file"] = database.address_file().map(Path::to_string_lossy).into();
        answer["changes_seen_by"] = status.changes_seen_by.map(|by| by.to_string()).into();
        answer["loads"] = status.loads.into();
        answer["failed_loads"] = status.failures.into();
        answer["error"] = status.last_error.map(|error| error.to_string()).into();
        answer["database_down_since"] = match status.database {
            DatabaseState::Down { since } => rfc3339(since).into(),
            DatabaseState::Up | DatabaseState::Unknown => Value::Null,
        };
        answer
    }

    /// As Kamailio tells it, with times in RFC 3339.
    fn uptime(&self) -> Value {
        let now = std::time::SystemTime::now();
        let up = now.duration_since(self.shared.started).unwrap_or_default();
        json!({
            "now": rfc3339(now),
            "up_since": rfc3339(self.shared.started),
            "uptime": up.as_secs(),
        })
    }
}

/// What one load of the table brought, with the rows that need somebody's attention.
fn table_status(snapshot: &Snapshot) -> Value {
    json!({
        "generation": snapshot.generation,
        "rows": counts(&snapshot.table),
        "hosts": snapshot.counts.hosts,
        "subnets": snapshot.counts.subnets,
        "domains": snapshot.counts.domains,
        "skipped": snapshot.counts.skipped,
        "warned": snapshot.counts.warned,
        "errors": lines(&snapshot.errors),
        "warnings": lines(&snapshot.warnings),
        "loaded_at": rfc3339(snapshot.loaded_at),
        "took_ms": u64::try_from(snapshot.took.as_millis()).unwrap_or(u64::MAX),
        "memory_bytes": snapshot.table.memory_bytes(),
    })
}

fn lines(findings: &[impl std::fmt::Display]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

fn version() -> String {
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("portcullis {} ({arch}/{os})", env!("CARGO_PKG_VERSION"))
}

fn render(id: &Value, result: &impl Serialize) -> Result<Vec<u8>, Fault> {
    success(id, result)
        .map_err(|error| Fault::new(500, "Internal error creating rpc").because(error))
}
