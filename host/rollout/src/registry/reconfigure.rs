//! Reads the configuration file again while the host runs, and applies its tenants, all or none.

use std::sync::Arc;

use thiserror::Error;

use portcullis_config::{Config, ConfigError};

use super::{Registry, RegistryError};

/// The tenants that have changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconfigured {
    /// New tenants.
    pub added: Vec<String>,
    /// Tenants with a changed configuration.
    pub changed: Vec<String>,
    /// Tenants that no longer exist.
    pub removed: Vec<String>,
    /// Sections other than the tenants that differ from the running configuration; they take effect at the next start.
    pub need_a_start: Vec<&'static str>,
}

/// Why the configuration was not applied.
#[derive(Debug, Error)]
pub enum ReconfigureError {
    /// The host has no configuration file.
    #[error("the host was started without a configuration file: there is nothing to read again")]
    NoFile,
    /// The file is invalid.
    #[error("{}", .0.lines().join("; "))]
    Config(#[from] ConfigError),
    /// The tenants cannot be set up.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Registry {
    /// Reads the configuration file again and applies its tenants.
    ///
    /// # Errors
    /// If the file cannot be used; then nothing changes.
    pub async fn reconfigure(&self) -> Result<Reconfigured, ReconfigureError> {
        let file = self.file.as_ref().ok_or(ReconfigureError::NoFile)?;
        let path = file.path.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&path)).await;
        let interrupted = |_| ReconfigureError::NoFile;
        let config = read.map_err(interrupted)??;
        let done = {
            let changes = self
                .tenants
                .plan(&config.tenants, |name| !self.is_stored(name));
            Reconfigured {
                added: changes.added(),
                changed: changes.changed(),
                need_a_start: other_sections(&file.running, &config),
                removed: changes.removed,
            }
        };
        self.apply_all(&Arc::new(config)).await?;
        tracing::info!(
            event = "tenants_reloaded",
            added = done.added.join(" "),
            changed = done.changed.join(" "),
            removed = done.removed.join(" "),
            "tenants reloaded from the configuration file"
        );
        if !done.need_a_start.is_empty() {
            tracing::warn!(
                event = "restart_required",
                sections = done.need_a_start.join(" "),
                "sections of the configuration file changed that need a restart"
            );
        }
        Ok(done)
    }
}

/// Returns the sections other than the tenants that differ.
fn other_sections(running: &Config, file: &Config) -> Vec<&'static str> {
    let sections = [
        ("workers", running.workers != file.workers),
        ("spread", running.spread != file.spread),
        ("listen", running.listen != file.listen),
        ("database", running.database != file.database),
        ("permissions", running.permissions != file.permissions),
        ("policy", running.policy != file.policy),
        ("relay", running.relay != file.relay),
        ("streams", running.streams != file.streams),
        ("tls", running.tls != file.tls),
        ("nat", running.nat != file.nat),
        ("websocket", running.websocket != file.websocket),
        ("control", running.control != file.control),
        ("records", running.records != file.records),
        ("log", running.log != file.log),
        ("sip", running.sip != file.sip),
    ];
    let different = sections.into_iter().filter(|(_, differs)| *differs);
    different.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn the_file_is_applied_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.toml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("[tenants.a]\nsource-groups = [1]\n[tenants.b]\nsource-groups = [2]\n");
        let config = Config::load(&path).unwrap();
        let (_never, stop) = watch::channel(false);
        let registry = Registry::new(&config, 1, stop).unwrap();
        let registry = registry.with_file(path.clone(), config.clone());
        registry.apply_all(&Arc::new(config.clone())).await.unwrap();
        let names = || {
            let tenants = registry.current().load();
            let names = tenants.named.iter().map(|tenant| tenant.name.to_string());
            names.collect::<Vec<_>>()
        };

        assert_eq!(
            registry.reconfigure().await.unwrap(),
            Reconfigured::default()
        );
        write(
            "workers = 3\n[tenants.a]\nsource-groups = [1, 3]\n[tenants.c]\nsource-groups = [2]\n",
        );
        let done = registry.reconfigure().await.unwrap();
        let expected = Reconfigured {
            added: vec!["c".into()],
            changed: vec!["a".into()],
            removed: vec!["b".into()],
            need_a_start: vec!["workers"],
        };
        assert_eq!(done, expected);
        assert_eq!(names(), ["a", "c"]);

        write("[tenants.d]\nsource-groups = [1]\n[tenants.e]\nsource-groups = [1]\n");
        let error = registry.reconfigure().await.unwrap_err().to_string();
        assert!(error.contains("the tenant d has the same"), "{error}");
        assert_eq!(names(), ["a", "c"]);
    }
}
