//! Carries out a plan over the control port, step by step.

use anyhow::{anyhow, bail};
use portcullis_address::{NewRow, NewTrusted};
use portcullis_control::commands::Cell;
use portcullis_control::commands::address::{AddressRow, RowsWereChanged};
use portcullis_control::commands::policy::{PolicyInspection, Pushed};
use portcullis_control::commands::tenant::{
    TenantChanged, TenantsChanged, TenantsChecked, TenantsToCheck,
};
use portcullis_dispatcher::NewDestination;
use portcullis_plan::{Action, Kind, Plan, Step};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::actual::{Actual, cell};
use super::comparison::Comparison;
use super::desired::Desired;
use super::mistakes::Mistakes;
use super::tenants::TenantFile;
use crate::cli::client::{Client, NoAnswer};
use crate::cli::policy::not_everywhere;

/// Most changes of addresses in one transaction.
const TOGETHER: usize = 5_000;

/// So many bytes of sections are checked by one request.
const MOST_CHECKED: usize = 4 << 20;

/// The seat whose inspection of files is used: every host has it.
const ANY_SEAT: &str = "default";

/// Asks the host whether it would accept tenants and policies, before anything is changed.
///
/// # Errors
/// Every error that it finds.
pub(super) fn check(client: &Client, comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison {
        desired,
        actual,
        plan,
    } = comparison;
    let mut mistakes = Mistakes::default();
    check_tenants(client, desired, plan, &mut mistakes)?;
    for step in &plan.steps {
        if step.kind != Kind::Policy {
            continue;
        }
        let policies = desired.policies.as_deref().unwrap_or_default();
        let Some(policy) = wanted(&step.action).and_then(|at| policies.get(at)) else {
            continue;
        };
        let place = &policy.place;
        let status = actual.seats.get(&policy.seat);
        if let Some(file) = status.and_then(|status| status.file.as_deref()) {
            let seat = &policy.seat;
            mistakes.add(format!(
                "{place}: the seat {seat} follows the file {file} of the host: replace the file, or remove it from the configuration of the host"
            ));
            continue;
        }
        let tenants = desired.tenants.as_deref().unwrap_or_default();
        if status.is_none() && !tenants.iter().any(|tenant| tenant.name == policy.seat) {
            let seat = &policy.seat;
            mistakes.add(format!(
                "{place}: the host has no seat {seat}, and no tenant {seat} is created: seats are default, before, after and the tenants"
            ));
            continue;
        }
        let path = format!("/v1/policies/{ANY_SEAT}/inspect");
        let found = client.send::<PolicyInspection>("POST", &path, &[], Some(&policy.bytes));
        if let Err(error) = found {
            if error.is::<NoAnswer>() {
                return Err(error);
            }
            mistakes.add(format!("{place}: {error:#}"));
        }
    }
    mistakes.check()
}

fn check_tenants(
    client: &Client,
    desired: &Desired,
    plan: &Plan,
    mistakes: &mut Mistakes,
) -> anyhow::Result<()> {
    let files = desired.tenants.as_deref().unwrap_or_default();
    let steps = plan.steps.iter().filter(|step| step.kind == Kind::Tenant);
    // Those that change do not stand in each other's way.
    let names: Vec<_> = steps.clone().map(|step| step.key.clone()).collect();
    let mut asked = TenantsToCheck::default();
    let mut size = 0;
    for step in steps {
        let Some(tenant) = wanted(&step.action).and_then(|at| files.get(at)) else {
            continue;
        };
        size += tenant.text.len();
        asked.put.insert(tenant.name.clone(), tenant.text.clone());
        if size > MOST_CHECKED {
            check_some(client, std::mem::take(&mut asked), &names, files, mistakes)?;
            size = 0;
        }
    }
    check_some(client, asked, &names, files, mistakes)
}

/// Checks some of the tenants that change.
fn check_some(
    client: &Client,
    mut asked: TenantsToCheck,
    names: &[String],
    files: &[TenantFile],
    mistakes: &mut Mistakes,
) -> anyhow::Result<()> {
    if asked.put.is_empty() {
        return Ok(());
    }
    let others = names.iter().filter(|name| !asked.put.contains_key(*name));
    asked.remove = others.cloned().collect();
    let body = serde_json::to_vec(&asked)?;
    let path = "/v1/stored-tenants/check";
    let checked: TenantsChecked = client.send("POST", path, &[], Some(&body))?;
    for problem in checked.errors {
        let file = files.iter().find(|file| file.name == problem.name);
        let place = file.map_or(&problem.name, |file| &file.place);
        // A place in the section continues that of the file: FILE:LINE:COLUMN.
        let is_placed = problem
            .error
            .starts_with(|first: char| first.is_ascii_digit());
        let blank = if is_placed { "" } else { " " };
        mistakes.add(format!("{place}:{blank}{}", problem.error));
    }
    Ok(())
}

/// The position of the item that a step creates, or changes to.
fn wanted(action: &Action) -> Option<usize> {
    match action {
        Action::Create { desired } | Action::Change { desired, .. } => Some(*desired),
        Action::Prune { .. } => None,
    }
}

/// A plan that is being carried out.
pub(super) struct Execution<'p> {
    client: &'p Client,
    desired: &'p Desired,
    actual: &'p Actual,
    plan: &'p Plan,
    author: Option<String>,
    /// Names this execution in keys of requests, so that a request that a proxy repeats is carried out once.
    run: String,
    requests: u64,
    /// Which steps are done.
    done: Vec<bool>,
    /// The policies that are not in effect on all hosts, and on which not.
    behind: Vec<String>,
}

impl<'p> Execution<'p> {
    /// # Errors
    /// If the system has no random numbers.
    pub(super) fn new(
        client: &'p Client,
        desired: &'p Desired,
        actual: &'p Actual,
        plan: &'p Plan,
        author: Option<String>,
    ) -> anyhow::Result<Self> {
        let mut run = [0; 16];
        getrandom::fill(&mut run).map_err(|error| anyhow!("no random numbers: {error}"))?;
        Ok(Self {
            client,
            desired,
            actual,
            plan,
            author,
            run: hex::encode(run),
            requests: 0,
            done: vec![false; plan.steps.len()],
            behind: Vec::new(),
        })
    }

    /// Which steps are done.
    pub(super) fn done(&self) -> &[bool] {
        &self.done
    }

    /// The policies that were pushed and are not in effect on all hosts, and on which not: a line each.
    pub(super) fn behind(&self) -> &[String] {
        &self.behind
    }

    /// Carries out all steps, until one fails.
    ///
    /// # Errors
    /// The error of the step that failed, with its key.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        let plan = self.plan;
        self.put_tenants()?;
        let mut at = 0;
        while let Some(step) = plan.steps.get(at) {
            if self.is_done(at) {
                at += 1;
                continue;
            }
            if step.kind != Kind::Address {
                self.one(step).map_err(|error| error.context(named(step)))?;
                self.mark(at..at + 1);
                at += 1;
                continue;
            }
            let is_prune = |step: &Step| wanted(&step.action).is_none();
            let alike = plan
                .steps
                .iter()
                .skip(at)
                .take(TOGETHER)
                .take_while(|other| {
                    other.kind == Kind::Address && is_prune(other) == is_prune(step)
                });
            let steps: Vec<_> = alike.collect();
            self.change_addresses(&steps).map_err(|error| {
                let first = named(step);
                error.context(match steps.len() {
                    1 => first,
                    many => {
                        format!("{many} addresses in one transaction, the first of them {first}")
                    }
                })
            })?;
            self.mark(at..at + steps.len());
            at += steps.len();
        }
        Ok(())
    }

    /// Stores tenants. One that is refused because another one still has what it needs is tried again after the others. Those that need what others
    /// of them have are stored in one transaction, if need be together with the tenants that are removed.
    fn put_tenants(&mut self) -> anyhow::Result<()> {
        let plan = self.plan;
        let of_tenants = |is_prune: bool| {
            let steps = plan.steps.iter().enumerate();
            let steps = steps.filter(move |(_, step)| {
                step.kind == Kind::Tenant && wanted(&step.action).is_none() == is_prune
            });
            steps.collect::<Vec<_>>()
        };
        let removals = of_tenants(true);
        let mut open = of_tenants(false);
        while !open.is_empty() {
            let before = open.len();
            let mut refused = Vec::new();
            let mut first = None;
            for (at, step) in open {
                match self.one(step) {
                    Ok(()) => self.mark(at..at + 1),
                    Err(error) if error.is::<NoAnswer>() => {
                        return Err(error.context(named(step)));
                    }
                    Err(error) => {
                        first.get_or_insert_with(|| error.context(named(step)));
                        refused.push((at, step));
                    }
                }
            }
            open = refused;
            let Some(error) = first.filter(|_| open.len() == before) else {
                continue;
            };
            if open.len() == 1 && removals.is_empty() {
                return Err(error);
            }
            // They exchange what only one of them may have, or need what one has that is removed.
            let mut together = std::mem::take(&mut open);
            let changed = match self.change_tenants(&together) {
                Err(error) if error.is::<NoAnswer>() => Err(error),
                Err(_) if !removals.is_empty() => {
                    together.extend(&removals);
                    self.change_tenants(&together)
                }
                changed => changed,
            };
            changed.map_err(|error| {
                let names: Vec<_> = together.iter().map(|(_, step)| step.key.as_str()).collect();
                error.context(format!("tenants {} together", names.join(", ")))
            })?;
            for (at, _) in together {
                self.mark(at..at + 1);
            }
        }
        Ok(())
    }

    /// Stores and removes tenants in one transaction.
    fn change_tenants(&mut self, steps: &[(usize, &Step)]) -> anyhow::Result<()> {
        let files = self.desired.tenants.as_deref().unwrap_or_default();
        let mut changes = TenantsToCheck::default();
        for (_, step) in steps {
            match wanted(&step.action).and_then(|at| files.get(at)) {
                Some(tenant) => {
                    let (name, text) = (tenant.name.clone(), tenant.text.clone());
                    changes.put.insert(name, text);
                }
                None => changes.remove.push(step.key.clone()),
            }
        }
        let body = serde_json::to_vec(&changes)?;
        let path = "/v1/stored-tenants/changes";
        self.send::<TenantsChanged>("POST", path, &[], Some(&body))
            .map(drop)
    }

    fn is_done(&self, at: usize) -> bool {
        self.done.get(at).copied().unwrap_or_default()
    }

    fn mark(&mut self, steps: std::ops::Range<usize>) {
        for done in self.done.get_mut(steps).into_iter().flatten() {
            *done = true;
        }
    }

    /// Carries out one step that is not about addresses.
    fn one(&mut self, step: &Step) -> anyhow::Result<()> {
        let (desired, actual) = (self.desired, self.actual);
        match step.kind {
            Kind::Tenant => {
                let path = format!("/v1/tenants/{}", step.key);
                let files = desired.tenants.as_deref().unwrap_or_default();
                let text = wanted(&step.action).and_then(|at| files.get(at));
                let (method, body) = match text {
                    Some(tenant) => ("PUT", Some(tenant.text.as_bytes())),
                    None => ("DELETE", None),
                };
                self.send::<TenantChanged>(method, &path, &[], body)?;
            }
            Kind::Policy => self.push(step)?,
            Kind::Address => self.change_addresses(&[step])?,
            Kind::Trusted => {
                let all = desired.trusted.as_deref().unwrap_or_default();
                let new = wanted(&step.action).and_then(|at| all.get(at));
                let id = |at: usize| actual.trusted.get(at).map(|row| &row.id);
                self.change_row("/v1/trusted", step, new.map(peer), id)?;
            }
            Kind::Dispatcher => {
                let all = desired.dispatcher.as_deref().unwrap_or_default();
                let new = wanted(&step.action).and_then(|at| all.get(at));
                let id = |at: usize| actual.dispatcher.get(at).map(|row| &row.id);
                self.change_row("/v1/dispatcher/rows", step, new.map(destination), id)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, step: &Step) -> anyhow::Result<()> {
        let desired = self.desired;
        let all = desired.policies.as_deref().unwrap_or_default();
        let Some(policy) = wanted(&step.action).and_then(|at| all.get(at)) else {
            bail!("a policy is not removed from its seat");
        };
        let mut query = vec![
            ("name", policy.name.as_str()),
            ("arrival", "activate"),
            ("note", policy.note.as_str()),
        ];
        if !policy.signature.is_empty() {
            query.push(("signature", &policy.signature));
        }
        let path = format!("/v1/policies/{}", policy.seat);
        let pushed: Pushed = self.send("POST", &path, &query, Some(&policy.bytes))?;
        if let Some(warning) = pushed.warning {
            eprintln!(
                "warning: {}: {}",
                policy.seat,
                crate::cli::print::clean(&warning)
            );
        }
        if let Some(text) = not_everywhere(pushed.hosts.as_ref()) {
            self.behind.push(format!("{}: {text}", named(step)));
        }
        Ok(())
    }

    /// Adds, replaces or removes one row of a table.
    fn change_row<'a>(
        &mut self,
        table: &str,
        step: &Step,
        new: Option<Value>,
        id: impl Fn(usize) -> Option<&'a Option<Cell>>,
    ) -> anyhow::Result<()> {
        let body = new.map(|new| new.to_string());
        let body = body.as_deref().map(str::as_bytes);
        let (method, existing) = match &step.action {
            Action::Create { .. } => ("POST", None),
            Action::Change { actual, .. } => ("PUT", Some(*actual)),
            Action::Prune { actual } => ("DELETE", Some(*actual)),
        };
        let path = match existing {
            None => table.to_owned(),
            Some(at) => match id(at).and_then(cell) {
                Some(id) => format!("{table}/{id}"),
                None => bail!(
                    "the row has no id: the table is a view without ids, and can only be added to"
                ),
            },
        };
        self.send::<Value>(method, &path, &[], body).map(drop)
    }

    /// Changes addresses in one transaction.
    fn change_addresses(&mut self, steps: &[&Step]) -> anyhow::Result<()> {
        let rows = self.desired.addresses.as_deref().unwrap_or_default();
        let existing = &self.actual.addresses;
        let (mut add, mut replace, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            let read = |at: usize| -> anyhow::Result<&AddressRow> {
                let row = existing.get(at).filter(|row| row.id.is_some());
                row.ok_or_else(|| {
                    anyhow!(
                        "{}: the row has no id: the table is a view without ids, and can only be added to",
                        step.key
                    )
                })
            };
            match &step.action {
                Action::Create { desired } => add.extend(rows.get(*desired).map(address)),
                Action::Change {
                    desired, actual, ..
                } => {
                    let read = read(*actual)?;
                    let row = rows.get(*desired).map(address);
                    replace.push(json!({"read": read, "row": row}));
                }
                Action::Prune { actual } => remove.push(read(*actual)?),
            }
        }
        let body = json!({"add": add, "replace": replace, "remove": remove}).to_string();
        let path = "/v1/addresses/changes";
        let body = Some(body.as_bytes());
        self.send::<RowsWereChanged>("POST", path, &[], body)
            .map(drop)
    }

    fn send<T: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<T> {
        self.requests += 1;
        let key = format!("apply-{}-{}", self.run, self.requests);
        let mut query = query.to_vec();
        query.extend(self.author.as_deref().map(|author| ("author", author)));
        self.client.send_once(&key, method, path, &query, body)
    }
}

/// What is shown of a step that failed.
fn named(step: &Step) -> String {
    format!("{} {}", step.kind.noun(), step.key)
}

fn address(row: &NewRow) -> Value {
    json!({
        "group": row.group,
        "address": row.ip_addr,
        "mask": row.mask,
        "port": row.port,
        "tag": row.tag,
    })
}

fn peer(row: &NewTrusted) -> Value {
    json!({
        "source": row.source,
        "proto": row.proto,
        "from_pattern": row.from,
        "ruri_pattern": row.ruri,
        "tag": row.tag,
        "priority": row.priority,
    })
}

fn destination(row: &NewDestination) -> Value {
    json!({
        "set": row.setid,
        "uri": row.destination.trim(),
        "flags": row.flags,
        "priority": row.priority,
        "attrs": row.attrs,
        "description": row.description,
    })
}
