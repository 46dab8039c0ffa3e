//! The state of a host, read over its control port.

use std::collections::BTreeMap;

use portcullis_control::commands::Cell;
use portcullis_control::commands::address::{AddressRow, AddressRows};
use portcullis_control::commands::dispatcher::StoredGateway;
use portcullis_control::commands::policy::SeatStatus;
use portcullis_control::commands::tenant::{StoredTenant, StoredTenants};
use portcullis_control::commands::trusted::StoredPeer;
use portcullis_plan::{Item, Kind, State};

use super::desired::Desired;
use super::policies::{self, PolicyFile};
use super::{rows, tenants};
use crate::cli::client::Client;

/// Most rows and tenants of one reply.
const PAGE: &str = "10000";

/// What a host has of the kinds that files describe.
#[derive(Debug, Default)]
pub(super) struct Actual {
    pub(super) tenants: Vec<StoredTenant>,
    /// The states of the seats that files name, by name. A seat whose tenant does not exist is absent.
    pub(super) seats: BTreeMap<String, SeatStatus>,
    pub(super) addresses: Vec<AddressRow>,
    pub(super) trusted: Vec<StoredPeer>,
    pub(super) dispatcher: Vec<StoredGateway>,
}

/// Reads what files describe.
///
/// # Errors
/// If the host does not answer, or does not have a table.
pub(super) fn read(client: &Client, desired: &Desired) -> anyhow::Result<Actual> {
    let mut actual = Actual::default();
    if desired.tenants.is_some() {
        actual.tenants = tenants(client)?;
    }
    for PolicyFile { seat, .. } in desired.policies.iter().flatten() {
        if let Some(status) = seat_status(client, seat)? {
            actual.seats.insert(seat.clone(), status);
        }
    }
    if desired.addresses.is_some() {
        actual.addresses = addresses(client)?;
    }
    if desired.trusted.is_some() {
        actual.trusted = client.send("GET", "/v1/trusted", &[], None)?;
    }
    if desired.dispatcher.is_some() {
        actual.dispatcher = client.send("GET", "/v1/dispatcher/rows", &[], None)?;
    }
    Ok(actual)
}

/// All tenants of the database.
pub(super) fn tenants(client: &Client) -> anyhow::Result<Vec<StoredTenant>> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE)];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page: StoredTenants = client.send("GET", "/v1/stored-tenants", &query, None)?;
        all.extend(page.tenants);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// The state of a seat; `None` if there is no such seat.
pub(super) fn seat_status(client: &Client, seat: &str) -> anyhow::Result<Option<SeatStatus>> {
    client.find(&format!("/v1/policies/{seat}"))
}

/// All rows of the table of addresses.
pub(super) fn addresses(client: &Client) -> anyhow::Result<Vec<AddressRow>> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE)];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page: AddressRows = client.send("GET", "/v1/addresses", &query, None)?;
        anyhow::ensure!(
            page.is_writable,
            "the addresses of the host are in the file {}: edit it, or remove `file` of [address] in its configuration, and leave \
             addresses out of what is applied until then",
            page.source
        );
        all.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

impl Actual {
    /// The state for a plan, of the kinds that files describe. The items are in the order of the lists; those of seats in the order of
    /// their names.
    pub(super) fn state(&self, desired: &Desired) -> State {
        let mut state = State::default();
        for kind in desired.state().kinds() {
            let items = match kind {
                Kind::Tenant => self.tenants.iter().map(tenant_item).collect(),
                Kind::Policy => self.seats.values().filter_map(seat_item).collect(),
                Kind::Address => self.addresses.iter().map(address_item).collect(),
                Kind::Trusted => self.trusted.iter().map(trusted_item).collect(),
                Kind::Dispatcher => self.dispatcher.iter().map(dispatcher_item).collect(),
            };
            state = state.with(kind, items);
        }
        state
    }
}

fn tenant_item(tenant: &StoredTenant) -> Item {
    let text = tenant.config.as_deref().unwrap_or_default();
    let read = tenants::item(&tenant.name, text);
    read.unwrap_or_else(|_| tenants::unreadable(&tenant.name))
}

fn seat_item(seat: &SeatStatus) -> Option<Item> {
    let digest = seat.digest.as_deref()?;
    Some(policies::item(&seat.seat, digest))
}

fn address_item(row: &AddressRow) -> Item {
    let [group, mask, port] = [&row.group, &row.mask, &row.port].map(cell);
    rows::address_item([
        group.as_deref(),
        row.address.as_deref(),
        mask.as_deref(),
        port.as_deref(),
        row.tag.as_deref(),
    ])
}

fn trusted_item(row: &StoredPeer) -> Item {
    rows::trusted_item([
        row.source.as_deref(),
        row.proto.as_deref(),
        row.from_pattern.as_deref(),
        row.ruri_pattern.as_deref(),
        row.tag.as_deref(),
        cell(&row.priority).as_deref(),
    ])
}

fn dispatcher_item(row: &StoredGateway) -> Item {
    let [set, flags, priority] = [&row.set, &row.flags, &row.priority].map(cell);
    rows::dispatcher_item([
        set.as_deref(),
        row.uri.as_deref(),
        flags.as_deref(),
        priority.as_deref(),
        row.attrs.as_deref(),
        row.description.as_deref(),
    ])
}

/// The text of a column.
pub(super) fn cell(cell: &Option<Cell>) -> Option<String> {
    cell.as_ref().map(|cell| match cell {
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
    })
}
