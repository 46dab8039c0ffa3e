//! Tenants stored in the database, in addition to those of the configuration file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use portcullis_store::{Looked, Mark, Store, StoreError, StoredTenant};
use thiserror::Error;

use portcullis_config::{
    Config, Problem, SettingsTextError, TenantConfig, with_settings, without_secret,
};
use serde_json::{Map, Value as Json};

use crate::policy_files::PolicyFiles;

use super::known::Known;
use super::{Registry, RegistryError};

/// Why a tenant is not stored.
#[derive(Debug, Error)]
pub enum TenantError {
    /// The database refuses a read or write.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The host has no database.
    #[error("this host has no database for tenants: set `url` in [database]")]
    NoStore,
    /// The tenant is in the configuration file.
    #[error("the tenant {0} is in the configuration file: change it there")]
    InFile(String),
    /// The tenant does not exist.
    #[error("there is no tenant {0} in the database")]
    Unknown(String),
    /// The configuration of the tenant is invalid.
    #[error("{}", shown(.0))]
    Wrong(Vec<Problem>),
    /// Several tenants cannot be stored together: the name of each and what is wrong with it.
    #[error("{}", named(.0))]
    Together(Vec<(String, String)>),
    /// The settings cannot be stored.
    #[error(transparent)]
    Settings(#[from] SettingsTextError),
    /// The settings do not come back from the section as they were given.
    #[error(
        "the settings of the tenant {0} cannot be stored as TOML without a change: store the whole tenant"
    )]
    Altered(String),
    /// The settings are not those that the caller has seen.
    #[error(
        "the settings of the tenant {0} have changed since they were read: read them again, and use their ETag in If-Match"
    )]
    Changed(String),
    /// Others change the tenant all the time.
    #[error("the tenant {0} is being changed by others: try again")]
    Busy(String),
    /// The tenant cannot be set up.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A configuration, tenants that can be used together with its own, and what is wrong with others, by their names.
type Together = (Arc<Config>, Vec<Arc<TenantConfig>>, Vec<(String, String)>);

/// Most attempts to write the settings of a tenant that others change at the same time.
const TRIES: usize = 5;

impl Registry {
    /// Applies the tenants of this configuration together with those of the database.
    ///
    /// # Errors
    /// If a tenant of the file cannot be set up; then nothing changes. A stored tenant that cannot be used is logged.
    pub async fn apply_all(&self, config: &Arc<Config>) -> Result<(), RegistryError> {
        let _turn = self.directory.turn.lock().await;
        let rows = self.stored_rows().await;
        self.apply_rows(config, rows).await
    }

    /// The same with these stored tenants.
    async fn apply_rows(
        &self,
        config: &Arc<Config>,
        rows: Vec<StoredTenant>,
    ) -> Result<(), RegistryError> {
        let fresh = self.apply_with(config, rows).await?;
        self.load_all(fresh).await;
        Ok(())
    }

    /// Applies the stored tenants if they have changed, as this look at the database says, or one that is made now.
    pub(super) async fn sync_tenants(&self, looked: Option<&Looked>) {
        let Some(store) = self.directory.store() else {
            return;
        };
        let Some(config) = self.directory.base.lock().clone() else {
            return;
        };
        let seen = self.directory.known.lock().mark;
        // An error is logged where the stored policies are read, which are in the same database.
        match self.directory.mark(looked).await {
            Ok(mark) if mark != seen => {}
            Ok(_) | Err(_) => return,
        }
        let _turn = self.directory.turn.lock().await;
        let Ok(rows) = store.tenants().await else {
            return;
        };
        if !self.directory.is_due(&rows, Instant::now()) {
            return;
        }
        if let Err(error) = self.apply_rows(&config, rows).await {
            tracing::error!(event = "stored_tenants_not_applied", %error, "tenants of the database not applied");
        }
    }

    /// Stores a tenant for all hosts of the database, and applies it here. `text` is the content of its section.
    ///
    /// # Errors
    /// If the tenant cannot be used together with the others, or cannot be stored; then nothing changes.
    pub async fn put_tenant(&self, name: &str, text: &str, by: &str) -> Result<(), TenantError> {
        let store = self.store()?;
        let config = self.base(name)?;
        let tenant = Arc::new(self.parsed(&config, name, text)?);
        let checked = self.tenants.check(&config, &tenant).await;
        checked.map_err(RegistryError::from)?;
        let text = without_secret(text, tenant.token.as_ref());
        store.put_tenant(name, Some(&text), by).await?;
        tracing::info!(event = "tenant_stored", tenant = name, by, "tenant stored");
        Ok(self.apply_all(&config).await?)
    }

    /// Replaces the settings of a stored tenant for all hosts of the database, and applies them here. The rest of its section stays as it is.
    /// With `seen`, the stored settings must still be these.
    ///
    /// # Errors
    /// If the tenant is not in the database, or its policies in use refuse the settings, or they cannot be stored; then nothing changes.
    pub async fn put_settings(
        &self,
        name: &str,
        settings: &Map<String, Json>,
        seen: Option<&Json>,
        by: &str,
    ) -> Result<(), TenantError> {
        let store = self.store()?;
        let config = self.base(name)?;
        for _ in 0..TRIES {
            let row = self.stored_tenant(name).await?;
            let section = row.config.unwrap_or_default();
            let text = with_settings(&section, settings)?;
            let mut before = self.parsed(&config, name, &section)?;
            if seen.is_some_and(|seen| *seen != before.seat.settings) {
                return Err(TenantError::Changed(name.to_owned()));
            }
            let tenant = Arc::new(self.parsed(&config, name, &text)?);
            Arc::make_mut(&mut before.seat).settings = Json::Object(settings.clone());
            if before != *tenant {
                return Err(TenantError::Altered(name.to_owned()));
            }
            let checked = self.tenants.check(&config, &tenant).await;
            checked.map_err(RegistryError::from)?;
            if store.change_tenant(name, row.revision, &text, by).await? {
                tracing::info!(event = "tenant_stored", tenant = name, by, "tenant stored");
                return Ok(self.apply_all(&config).await?);
            }
        }
        Err(TenantError::Busy(name.to_owned()))
    }

    /// A section of a tenant, validated together with the other tenants.
    fn parsed(
        &self,
        config: &Config,
        name: &str,
        section: &str,
    ) -> Result<TenantConfig, TenantError> {
        let mut others = config.tenants.clone();
        {
            let known = self.directory.known.lock();
            let usable = known.usable.iter().filter(|tenant| tenant.name != name);
            others.extend(usable.cloned());
        }
        let tenant = config.parse_tenant(name, section, &others);
        tenant.map_err(TenantError::Wrong)
    }

    /// Removes a tenant from the database.
    ///
    /// # Errors
    /// If it does not exist, or cannot be removed.
    pub async fn remove_tenant(&self, name: &str, by: &str) -> Result<(), TenantError> {
        let store = self.store()?;
        let config = self.base(name)?;
        self.stored_tenant(name).await?;
        store.put_tenant(name, None, by).await?;
        tracing::info!(
            event = "tenant_removed",
            tenant = name,
            by,
            "tenant removed"
        );
        Ok(self.apply_all(&config).await?)
    }

    /// Stores these sections of tenants and removes these tenants for all hosts of the database, all of it or nothing, and applies the result here.
    /// So tenants can exchange what only one of them may have. Returns the names of all.
    ///
    /// # Errors
    /// If the tenants cannot be used together with the others, one to be removed does not exist, or they cannot be stored; then nothing changes.
    pub async fn change_tenants(
        &self,
        put: &BTreeMap<String, String>,
        remove: &[String],
        by: &str,
    ) -> Result<Vec<String>, TenantError> {
        let store = self.store()?;
        for name in remove {
            self.base(name)?;
            self.stored_tenant(name).await?;
        }
        let (config, tenants, wrong) = self.parsed_together(put, remove).await?;
        if !wrong.is_empty() {
            return Err(TenantError::Together(wrong));
        }
        let texts = tenants.iter().filter_map(|tenant| {
            let text = put.get(&tenant.name)?;
            Some((&*tenant.name, without_secret(text, tenant.token.as_ref())))
        });
        let texts: Vec<_> = texts.collect();
        let stays = texts.iter().map(|(name, text)| (*name, Some(&**text)));
        let goes = remove.iter().filter(|name| !put.contains_key(*name));
        let goes = goes.map(|name| (name.as_str(), None));
        let changes: Vec<_> = stays.chain(goes).collect();
        store.put_tenants(&changes, by).await?;
        for (name, config) in &changes {
            match config {
                Some(_) => {
                    tracing::info!(event = "tenant_stored", tenant = name, by, "tenant stored");
                }
                None => {
                    tracing::info!(
                        event = "tenant_removed",
                        tenant = name,
                        by,
                        "tenant removed"
                    );
                }
            }
        }
        let names = changes.iter().map(|(name, _)| (*name).to_owned());
        let names = names.collect();
        self.apply_all(&config).await?;
        Ok(names)
    }

    /// Returns a tenant as it is stored.
    ///
    /// # Errors
    /// If it is not in the database.
    pub async fn stored_tenant(&self, name: &str) -> Result<StoredTenant, TenantError> {
        let store = self.store()?;
        let rows = store.tenants().await?;
        let found = rows.into_iter().find(|row| row.name == name);
        let found = found.filter(|row| row.config.is_some());
        found.ok_or_else(|| TenantError::Unknown(name.to_owned()))
    }

    /// Returns all tenants of the database as they are stored, sorted by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn stored_tenants(&self) -> Result<Vec<StoredTenant>, TenantError> {
        let rows = self.store()?.tenants().await?;
        Ok(rows
            .into_iter()
            .filter(|row| row.config.is_some())
            .collect())
    }

    /// Checks whether these sections could be stored if these tenants were removed, together with the tenants that stay. Stores nothing.
    /// Returns what is wrong, with the names of the tenants.
    ///
    /// # Errors
    /// If the host has no database for tenants, or has not read its configuration yet.
    pub async fn check_tenants(
        &self,
        put: &BTreeMap<String, String>,
        remove: &[String],
    ) -> Result<Vec<(String, String)>, TenantError> {
        self.store()?;
        let (_, _, wrong) = self.parsed_together(put, remove).await?;
        Ok(wrong)
    }

    /// The configuration, these sections of tenants validated together with the tenants that stay, and what is wrong with others.
    async fn parsed_together(
        &self,
        put: &BTreeMap<String, String>,
        remove: &[String],
    ) -> Result<Together, TenantError> {
        let config = self.directory.base.lock().clone();
        let config = config.ok_or(TenantError::NoStore)?;
        let mut all = config.tenants.clone();
        {
            let known = self.directory.known.lock();
            let stays = |name: &String| !put.contains_key(name) && !remove.contains(name);
            let usable = known.usable.iter().filter(|tenant| stays(&tenant.name));
            all.extend(usable.cloned());
        }
        let (mut good, mut wrong) = (Vec::new(), Vec::new());
        for (name, section) in put {
            if config.tenants.iter().any(|tenant| tenant.name == *name) {
                let error = TenantError::InFile(name.clone()).to_string();
                wrong.push((name.clone(), error));
                continue;
            }
            let tenant = match config.parse_tenant(name, section, &all) {
                Ok(tenant) => Arc::new(tenant),
                Err(problems) => {
                    let problems = problems.iter();
                    wrong.extend(problems.map(|problem| (name.clone(), problem.to_string())));
                    continue;
                }
            };
            match self.tenants.check(&config, &tenant).await {
                Ok(()) => {
                    all.push(Arc::clone(&tenant));
                    good.push(tenant);
                }
                Err(error) => wrong.push((name.clone(), error.to_string())),
            }
        }
        Ok((config, good, wrong))
    }

    /// Whether a tenant comes from the database.
    pub fn is_stored(&self, name: &str) -> bool {
        let known = self.directory.known.lock();
        known.usable.iter().any(|tenant| tenant.name == name)
    }

    /// Returns the stored tenants that cannot be used, each with the reason.
    pub fn wrong_tenants(&self) -> Vec<(String, String)> {
        let known = self.directory.known.lock();
        known.wrong.clone().into_iter().collect()
    }

    fn store(&self) -> Result<&Store, TenantError> {
        self.directory.store().ok_or(TenantError::NoStore)
    }

    fn base(&self, name: &str) -> Result<Arc<Config>, TenantError> {
        let config = self.directory.base.lock().clone();
        let config = config.ok_or(TenantError::NoStore)?;
        match config.tenants.iter().any(|tenant| tenant.name == name) {
            true => Err(TenantError::InFile(name.to_owned())),
            false => Ok(config),
        }
    }

    /// Returns the stored tenants; while the database is unreachable, those read last.
    pub(super) async fn stored_rows(&self) -> Vec<StoredTenant> {
        let Some(store) = self.directory.store() else {
            return Vec::new();
        };
        match store.tenants().await {
            Ok(rows) => rows,
            Err(_) => self.directory.known.lock().rows.clone(),
        }
    }

    /// Applies the tenants of the file together with these, without loading their policies.
    pub(super) async fn apply_with(
        &self,
        config: &Arc<Config>,
        rows: Vec<StoredTenant>,
    ) -> Result<Vec<Arc<PolicyFiles>>, RegistryError> {
        let mut all = config.tenants.clone();
        let mut known = Known {
            mark: Some(Mark::of_tenants(&rows)),
            ..Known::default()
        };
        for row in &rows {
            let Some(text) = &row.config else {
                continue;
            };
            let usable = match all.iter().any(|tenant| tenant.name == row.name) {
                true => Err("the configuration file has a tenant of this name".to_owned()),
                false => config
                    .parse_tenant(&row.name, text, &all)
                    .map_err(|problems| shown(&problems)),
            };
            let usable = match usable.map(Arc::new) {
                Ok(tenant) => match self.tenants.check(config, &tenant).await {
                    Ok(()) => Ok(tenant),
                    Err(error) => Err(error.to_string()),
                },
                Err(error) => Err(error),
            };
            match usable {
                Ok(tenant) => {
                    all.push(Arc::clone(&tenant));
                    known.usable.push(tenant);
                }
                Err(error) => drop(known.wrong.insert(row.name.clone(), error)),
            }
        }
        known.rows = rows;
        let fresh = self.set_up(config, &all).await?;
        let mut last = self.directory.known.lock();
        for (name, error) in &known.wrong {
            if last.wrong.get(name) != Some(error) {
                tracing::error!(
                    event = "stored_tenant_unusable",
                    tenant = name,
                    error,
                    "tenant of the database cannot be used"
                );
            }
        }
        let older = last.older_in(&known.rows);
        if !older.is_empty() {
            tracing::error!(
                event = "tenants_older",
                tenants = older.join(", "),
                "the database has an older state of these tenants, as after a restore of a backup: it applies; store them again with `portcullis tenant put`"
            );
        }
        *last = known;
        drop(last);
        self.directory.applied();
        *self.directory.base.lock() = Some(Arc::clone(config));
        Ok(fresh)
    }
}

fn named(wrong: &[(String, String)]) -> String {
    let each = wrong
        .iter()
        .map(|(name, error)| format!("tenant {name}: {error}"));
    each.collect::<Vec<_>>().join("; ")
}

fn shown(problems: &[Problem]) -> String {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}
