//! The state that files describe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portcullis_address::{NewRow, NewTrusted};
use portcullis_dispatcher::NewDestination;
use portcullis_plan::{Kind, State};

use super::folder::{self, Content, Found};
use super::mistakes::Mistakes;
use super::policies::{self, PolicyFile};
use super::rows::{self, RowFile};
use super::tenants::{self, TenantFile};
use crate::cli::policy::{Connection, Verification};

/// What files describe. A kind without a file is `None`.
#[derive(Debug, Default)]
pub(super) struct Desired {
    pub(super) tenants: Option<Vec<TenantFile>>,
    pub(super) policies: Option<Vec<PolicyFile>>,
    pub(super) addresses: Option<Vec<NewRow>>,
    pub(super) trusted: Option<Vec<NewTrusted>>,
    pub(super) dispatcher: Option<Vec<NewDestination>>,
}

/// What was read.
pub(super) struct Read {
    pub(super) desired: Desired,
    /// Rows that may not mean what was intended.
    pub(super) warnings: Vec<String>,
}

/// Reads all files.
///
/// # Errors
/// Every error in the files.
pub(super) fn read(
    named: &[PathBuf],
    verification: &Verification,
    connection: &Connection,
) -> anyhow::Result<Read> {
    let mut mistakes = Mistakes::default();
    let layout = folder::find(named, &mut mistakes);
    let mut desired = Desired::default();
    for kind in layout.kinds {
        match kind {
            Kind::Tenant => drop(desired.tenants.get_or_insert_default()),
            Kind::Policy => drop(desired.policies.get_or_insert_default()),
            Kind::Address | Kind::Trusted | Kind::Dispatcher => {}
        }
    }
    let mut warnings = Vec::new();
    let mut described = BTreeMap::new();
    let mut policy_files = Vec::new();
    let mut peers = None;
    for Found { path, content } in layout.files {
        match content {
            Content::Tenant(name) => {
                let all = desired.tenants.get_or_insert_default();
                let Some(tenant) = tenants::read(name, &path, &mut mistakes) else {
                    continue;
                };
                match all.iter().find(|other| other.name == tenant.name) {
                    Some(other) => mistakes.add(format!(
                        "{}: the tenant is in {} already",
                        tenant.place, other.place
                    )),
                    None => all.push(tenant),
                }
            }
            Content::Policy(seat) => policy_files.push((seat, path)),
            Content::Policies => policies::describe(&path, &mut described, &mut mistakes),
            Content::Rows(kind, form) => {
                let name = path.display().to_string();
                let bytes = match std::fs::read(&path) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        mistakes.add(format!("cannot read {name}: {error}"));
                        continue;
                    }
                };
                let file = RowFile {
                    name: &name,
                    bytes: &bytes,
                    form,
                };
                let (mistakes, warnings) = (&mut mistakes, &mut warnings);
                match kind {
                    Kind::Address => {
                        let all = desired.addresses.get_or_insert_default();
                        all.extend(rows::addresses(&file, mistakes, warnings));
                    }
                    Kind::Trusted => {
                        let all: &mut Vec<_> = peers.get_or_insert_default();
                        all.extend(rows::trusted(&file, mistakes, warnings));
                    }
                    Kind::Dispatcher => {
                        let all = desired.dispatcher.get_or_insert_default();
                        all.extend(rows::dispatcher(&file, mistakes, warnings));
                    }
                    Kind::Tenant | Kind::Policy => {}
                }
            }
        }
    }
    if let Some(peers) = peers {
        rows::check_sources(&peers, &mut mistakes);
        desired.trusted = Some(peers.into_iter().map(|(_, peer)| peer).collect());
    }
    for (seat, path) in policy_files {
        policies::add_file(seat, path, &mut described, &mut mistakes);
    }
    if !described.is_empty() {
        let read = policies::read(described, verification, connection, &mut mistakes);
        desired.policies = Some(read);
    }
    if desired.is_empty() && mistakes.is_empty() {
        mistakes.add("the files describe nothing: `portcullis export -f DIR` writes the state of a host as such files");
    }
    mistakes.check()?;
    Ok(Read { desired, warnings })
}

impl Desired {
    /// The state for a plan. The items are in the order of the lists.
    pub(super) fn state(&self) -> State {
        let mut state = State::default();
        if let Some(tenants) = &self.tenants {
            let items = tenants.iter().map(|tenant| tenant.item.clone());
            state = state.with(Kind::Tenant, items.collect());
        }
        if let Some(policies) = &self.policies {
            let items = policies.iter().map(PolicyFile::item);
            state = state.with(Kind::Policy, items.collect());
        }
        if let Some(rows) = &self.addresses {
            state = state.with(Kind::Address, rows::of_new_rows(rows));
        }
        if let Some(rows) = &self.trusted {
            state = state.with(Kind::Trusted, rows::of_new_peers(rows));
        }
        if let Some(rows) = &self.dispatcher {
            state = state.with(Kind::Dispatcher, rows::of_new_destinations(rows));
        }
        state
    }

    fn is_empty(&self) -> bool {
        let Self {
            tenants,
            policies,
            addresses,
            trusted,
            dispatcher,
        } = self;
        tenants.is_none()
            && policies.is_none()
            && addresses.is_none()
            && trusted.is_none()
            && dispatcher.is_none()
    }
}
