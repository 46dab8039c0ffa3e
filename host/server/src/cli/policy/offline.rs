//! What the commands that call a policy without a running host have in common: tables, settings and the scope of a seat.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use portcullis_address::Snapshot;
use portcullis_config::{Config, SeatConfig, TenantConfig};
use portcullis_dispatcher::Dispatcher;
use portcullis_policy::{Policy, Runtime, Scope, Settings};
use portcullis_records::replay;
use portcullis_rollout::resolve::{Dns, Resolver};
use portcullis_rollout::{address_task, compiler, scope_of};

use super::super::database::{block_on, is_absent};

/// The configuration, if there is a file.
pub(super) struct Surroundings {
    pub(super) config: Config,
    pub(super) file: Option<PathBuf>,
}

/// Tables, and where they come from.
pub(super) struct Tables {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) origin: String,
}

impl Surroundings {
    pub(super) fn new((config, file): (Config, Option<PathBuf>)) -> Self {
        Self { config, file }
    }

    /// Creates the engine of a command. It meters fuel, and its deadline is long.
    pub(super) fn runtime(&self) -> anyhow::Result<Runtime> {
        let runtime = replay::runtime(&self.config.policy.seat.limits)?;
        runtime.compile_with(compiler::for_a_command());
        Ok(runtime)
    }

    /// The configuration of a seat.
    pub(super) fn seat(&self, name: &str) -> anyhow::Result<&SeatConfig> {
        self.config.seat(name).with_context(|| {
            let tenants = self
                .config
                .tenants
                .iter()
                .map(|tenant| tenant.name.as_str());
            let all = ["default", "before", "after"].into_iter().chain(tenants);
            let all = all.collect::<Vec<_>>().join(", ");
            format!("the configuration has no seat {name}; there are {all}")
        })
    }

    /// What the policy of a seat may query and change. Without a configuration file, a policy may name any next hop.
    pub(super) fn scope(&self, seat: &str) -> anyhow::Result<Scope> {
        let relay = &self.config.relay;
        // Names are not resolved: whether a next hop exists does not depend on its addresses.
        let dns = Dns::new(&self.config.resolver);
        if let Some(tenant) = self.tenant(seat) {
            let routes = Resolver::of_tenant(relay, tenant, &dns)?.routes();
            return Ok(scope_of(tenant).with_routes(Arc::new(ArcSwap::from_pointee(routes))));
        }
        if self.file.is_none() {
            return Ok(Scope::operator());
        }
        let routes = Resolver::new(relay, &dns)?.routes();
        Ok(Scope::operator().with_routes(Arc::new(ArcSwap::from_pointee(routes))))
    }

    /// The sets of the dispatcher in the configuration; `None` without a configuration file, or if they are not to be used.
    pub(super) fn sets(&self, none: bool) -> anyhow::Result<Option<Arc<Dispatcher>>> {
        let Config {
            dispatcher,
            database,
            ..
        } = &self.config;
        let is_configured = dispatcher.file.is_some() || !is_absent(&database.database());
        if none || self.file.is_none() || !is_configured {
            return Ok(None);
        }
        let dispatcher = dispatcher.dispatcher(database);
        let loaded = block_on(async { dispatcher.reload().await.map(drop) })?;
        loaded.context("--no-tables does without the sets of the dispatcher")?;
        Ok(Some(Arc::new(dispatcher)))
    }

    fn tenant(&self, seat: &str) -> Option<&TenantConfig> {
        let mut tenants = self.config.tenants.iter();
        tenants
            .find(|tenant| tenant.name == seat)
            .map(|tenant| &**tenant)
    }

    /// Loads a policy within the limits of a seat.
    pub(super) fn load(
        &self,
        runtime: &Runtime,
        file: &Path,
        seat: &str,
        settings: &Arc<Settings>,
    ) -> anyhow::Result<Policy> {
        let bytes = read(file)?;
        let limits = &self.seat(seat)?.limits;
        // The deadline of the runtime is longer than that of the seat: a busy machine does not change the result.
        let limits = portcullis_policy::Limits {
            deadline: runtime.limits().deadline,
            ..limits.clone()
        };
        Ok(runtime.load_within(&name_of(file), &bytes, &limits, settings)?)
    }

    /// The settings that the arguments give: a TOML or JSON file, and `key=value`. Without any, those of the seat.
    pub(super) fn settings(&self, seat: &str, given: &[String]) -> anyhow::Result<Arc<Settings>> {
        Ok(Arc::new(Settings::new(self.settings_table(seat, given)?)))
    }

    /// The same as a table.
    pub(super) fn settings_table(
        &self,
        seat: &str,
        given: &[String],
    ) -> anyhow::Result<serde_json::Value> {
        let table = match given.iter().all(|word| is_pair(word)) {
            true => self.seat(seat)?.settings.clone(),
            false => serde_json::Value::Null,
        };
        with_given(table, given)
    }

    /// The tables of a file in the format of Kamailio's `address_file`, or of the configuration; empty ones if there are none.
    pub(super) fn tables(&self, address_file: Option<&Path>, none: bool) -> anyhow::Result<Tables> {
        let mut database = self.config.database.clone();
        let is_configured = self.file.is_some() && !is_absent(&database.database());
        if let Some(file) = address_file {
            database.address_file = Some(file.to_owned());
        } else if none || !is_configured {
            return Ok(Tables {
                snapshot: Arc::default(),
                origin: "none: all address groups are empty (--address-file FILE)".to_owned(),
            });
        }
        database.required = true;
        let book = block_on(async {
            let opened = address_task::open(&database, &self.config.permissions).await?;
            opened.whole()
        })?;
        let book = book.context("--no-tables does without the tables of the configuration")?;
        Ok(Tables {
            snapshot: book.current(),
            origin: address_task::summary(&book),
        })
    }
}

pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The name of a policy: that of its file.
pub(super) fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Whether an argument is `key=value` and not a file.
fn is_pair(word: &str) -> bool {
    let key = word.split_once('=').map(|(key, _)| key);
    let is_key = |key: &str| {
        let mut bytes = key.bytes();
        !key.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    key.is_some_and(is_key)
}

/// A table with what the arguments give: a TOML or JSON file replaces it, and `key=value` sets one value.
pub(super) fn with_given(
    mut table: serde_json::Value,
    given: &[String],
) -> anyhow::Result<serde_json::Value> {
    for word in given {
        match word.split_once('=').filter(|_| is_pair(word)) {
            Some((key, value)) => set(&mut table, key, value)?,
            None => table = read_settings(Path::new(word))?,
        }
    }
    Ok(table)
}

fn read_settings(file: &Path) -> anyhow::Result<serde_json::Value> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| {
        format!("--settings: cannot read {shown}; write key=value for one setting")
    })?;
    let table: serde_json::Value = match file.extension().is_some_and(|end| end == "json") {
        true => serde_json::from_str(&text).with_context(|| shown.to_string())?,
        false => toml::from_str(&text).with_context(|| shown.to_string())?,
    };
    match table.is_object() {
        true => Ok(table),
        false => bail!("{shown}: settings are a table of names and values, such as limit = 5"),
    }
}

/// Sets one value: a value of TOML (`5`, `true`, `["a", "b"]`), or else a text.
fn set(table: &mut serde_json::Value, key: &str, value: &str) -> anyhow::Result<()> {
    let parsed: Result<toml::Table, _> = toml::from_str(&format!("value = {value}"));
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    let value = match parsed {
        Some(value) => serde_json::to_value(value)?,
        None => value.into(),
    };
    let mut place = table;
    for name in key.split('.') {
        if !place.is_object() {
            *place = serde_json::Value::Object(serde_json::Map::new());
        }
        place = &mut place[name];
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_given_one_by_one() {
        let mut table = json!(null);
        for (key, value) in [
            ("rate", "5"),
            ("hours.monday", "[\"08:00-12:00\"]"),
            ("zone", "Europe/Berlin"),
            ("open", "true"),
            ("zone", "UTC"),
        ] {
            set(&mut table, key, value).unwrap();
        }
        let expected =
            json!({"rate": 5, "hours": {"monday": ["08:00-12:00"]}, "zone": "UTC", "open": true});
        assert_eq!(table, expected);
        for (word, expected) in [
            ("a.b=c", true),
            ("./a=b.toml", false),
            ("settings.toml", false),
        ] {
            assert_eq!(is_pair(word), expected, "{word}");
        }
    }
}
