//! Determines the changes from the running tenants to the configured ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_config::TenantConfig;

/// The changes from the running tenants to the configured ones. A tenant whose configuration has not changed is in neither list.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes<'c> {
    /// Tenants to set up, in the order of the configuration.
    pub(crate) set_up: Vec<SetUp<'c>>,
    /// Names of tenants that run and are no longer configured, in their order.
    pub(crate) removed: Vec<String>,
}

/// A tenant to set up.
#[derive(Debug, PartialEq)]
pub(crate) struct SetUp<'c> {
    /// Its configuration.
    pub(crate) config: &'c Arc<TenantConfig>,
    /// What the tenant takes over from the running tenant of the same name; `None` for a new tenant. Generations and metrics are always
    /// taken over.
    pub(crate) carried: Option<Carried>,
}

/// What a changed tenant takes over from the running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Whether the counters of its policies keep their values. They are reset if their capacity changes, or which of
    /// them the fleet counts together.
    pub(crate) counters: bool,
    /// Whether the generations in use must accept the new settings first. A policy that comes from a file is loaded again with the new
    /// settings, and is checked then.
    pub(crate) asks_generations: bool,
}

/// Compares the configurations of running tenants, by name, with the wanted ones.
pub(crate) fn plan<'c>(
    running: &BTreeMap<&str, &TenantConfig>,
    wanted: &'c [Arc<TenantConfig>],
) -> Changes<'c> {
    let set_up = wanted.iter().filter_map(|config| {
        let before = running.get(config.name.as_str()).copied();
        step(before, config)
    });
    let names: BTreeSet<&str> = wanted.iter().map(|config| config.name.as_str()).collect();
    let gone = running.keys().filter(|name| !names.contains(*name));
    Changes {
        set_up: set_up.collect(),
        removed: gone.map(|name| (*name).to_owned()).collect(),
    }
}

/// The same for one tenant; `None` if its configuration has not changed.
pub(crate) fn step<'c>(
    running: Option<&TenantConfig>,
    config: &'c Arc<TenantConfig>,
) -> Option<SetUp<'c>> {
    let carried = match running {
        Some(running) if *running == **config => return None,
        Some(running) => Some(Carried {
            counters: running.seat.counters == config.seat.counters
                && running.seat.fleet_counters == config.seat.fleet_counters,
            asks_generations: running.seat.settings != config.seat.settings
                && config.seat.file.is_none(),
        }),
        None => None,
    };
    Some(SetUp { config, carried })
}

impl Changes<'_> {
    /// Names of tenants that do not run yet.
    pub(crate) fn added(&self) -> Vec<String> {
        self.names(|set_up| set_up.carried.is_none())
    }

    /// Names of tenants that run with another configuration.
    pub(crate) fn changed(&self) -> Vec<String> {
        self.names(|set_up| set_up.carried.is_some())
    }

    fn names(&self, is_meant: impl Fn(&SetUp<'_>) -> bool) -> Vec<String> {
        let meant = self.set_up.iter().filter(|set_up| is_meant(set_up));
        meant.map(|set_up| set_up.config.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_config::Config;

    use super::*;

    /// The tenants of a configuration with these sections.
    fn tenants(text: &str) -> Vec<Arc<TenantConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap().tenants
    }

    fn by_name(tenants: &[Arc<TenantConfig>]) -> BTreeMap<&str, &TenantConfig> {
        let named = tenants
            .iter()
            .map(|tenant| (tenant.name.as_str(), &**tenant));
        named.collect()
    }

    /// Returns what the tenant `a` takes over when its section changes from `before` to `after`.
    fn carried(before: &str, after: &str) -> Option<Carried> {
        const REDIS: &str = "[fleet.redis]\nurl = \"redis://192.0.2.60\"\n";
        let section = |text: &str| {
            tenants(&format!(
                "{REDIS}[tenants.a]\nsource-groups = [1]\n{text}\n"
            ))
        };
        let (before, after) = (section(before), section(after));
        let changes = plan(&by_name(&before), &after);
        assert_eq!(changes.removed, [""; 0]);
        let set_up = changes.set_up.first()?;
        Some(set_up.carried.expect("the tenant runs"))
    }

    #[test]
    fn each_tenant_is_added_changed_removed_or_left_alone() {
        let before = tenants(
            "[tenants.a]\nsource-groups = [1]\n[tenants.b]\nsource-groups = [2]\n\
             [tenants.c]\nsource-groups = [3]\n[tenants.d]\nsource-groups = [4]\n",
        );
        let after = tenants(
            "[tenants.e]\nsource-groups = [5]\n[tenants.b]\nsource-groups = [2, 6]\n\
             [tenants.a]\nsource-groups = [1]\n",
        );
        let changes = plan(&by_name(&before), &after);
        assert_eq!(changes.added(), ["e"]);
        assert_eq!(changes.changed(), ["b"]);
        assert_eq!(changes.removed, ["c", "d"]);
        assert_eq!(changes.set_up.len(), 2);
    }

    #[test]
    fn an_equal_configuration_changes_nothing() {
        let tenants = tenants(
            "[tenants.a]\nsource-groups = [1]\n[tenants.b]\nfile = \"b.wasm\"\nsource-groups = [2]\n",
        );
        assert_eq!(plan(&by_name(&tenants), &tenants), Changes::default());
    }

    #[test]
    fn a_tenant_that_was_removed_and_added_again_takes_nothing_over() {
        let wanted = tenants("[tenants.a]\nsource-groups = [1]\n");
        let changes = plan(&BTreeMap::new(), &wanted);
        assert_eq!(changes.set_up[0].carried, None);
    }

    #[test]
    fn counters_are_kept_unless_their_capacity_changes() {
        let counters = |before, after| carried(before, after).unwrap().counters;
        assert!(counters("log-rate = 5", "log-rate = 6"));
        assert!(!counters("", "counters = 7"));
        assert!(!counters("", "fleet-counters = [\"limit-\"]"));
    }

    #[test]
    fn generations_are_checked_against_new_settings_unless_the_tenant_has_a_file() {
        let asks = |before, after| carried(before, after).unwrap().asks_generations;
        assert!(asks(
            "settings = { open = true }",
            "settings = { open = false }"
        ));
        assert!(!asks("log-rate = 5", "log-rate = 6"));
        assert!(!asks(
            "file = \"a.wasm\"\nsettings = { open = true }",
            "file = \"a.wasm\"\nsettings = { open = false }"
        ));
        // The tenant no longer has a file, so the generation that came from it must accept the settings.
        assert!(asks("file = \"a.wasm\"", "settings = { open = true }"));
        assert_eq!(carried("log-rate = 5", "log-rate = 5"), None);
    }
}
