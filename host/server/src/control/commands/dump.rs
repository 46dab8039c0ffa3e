//! The tables in the shapes of Kamailio's `permissions.addressDump`, `subnetDump`, `domainDump` and `trustedDump`: names, order and
//! spelling of absent tags are Kamailio's.

use std::sync::Arc;

use portcullis_address::Snapshot;
use portcullis_rpc::{Rows, RowsForm, Value};

/// All rows about single addresses.
pub(super) fn hosts(snapshot: Arc<Snapshot>) -> Rows {
    Rows::new(RowsForm::Each, move |write| {
        for row in snapshot.table.hosts() {
            let item = [
                ("ip", row.ip.to_string().into()),
                ("port", row.port.into()),
                ("tag", tag_or_null(row.tag).into()),
            ];
            write(entry(row.bucket, row.group, item.into()));
        }
    })
}

/// All rows about networks.
pub(super) fn subnets(snapshot: Arc<Snapshot>) -> Rows {
    Rows::new(RowsForm::Each, move |write| {
        for (id, row) in snapshot.table.subnets().enumerate() {
            let item = [
                ("ip", row.ip.to_string().into()),
                ("mask", row.mask.into()),
                ("port", row.port.into()),
                ("tag", row.tag.unwrap_or_default().into()),
            ];
            let subnet = [
                ("id", Value::from(id)),
                ("group", row.group.into()),
                ("item", item.into()),
            ];
            write(subnet.into());
        }
    })
}

/// All rows about names.
pub(super) fn domains(snapshot: Arc<Snapshot>) -> Rows {
    Rows::new(RowsForm::Repeated, move |write| {
        for row in snapshot.table.domains() {
            let item = [
                ("domain_name", row.name.into()),
                ("port", row.port.into()),
                ("tag", tag_or_null(row.tag).into()),
            ];
            write(entry(row.bucket, row.group, item.into()));
        }
    })
}

/// All rows about trusted peers.
pub(super) fn trusted(snapshot: Arc<Snapshot>) -> Rows {
    Rows::new(RowsForm::Repeated, move |write| {
        for row in snapshot.trusted.table.rows() {
            let item = [
                ("ip", row.source.into()),
                ("proto", row.proto.number().into()),
                ("pattern", row.from.unwrap_or("NULL").into()),
                ("ruri_pattern", row.ruri.unwrap_or("NULL").into()),
                ("tag", tag_or_null(row.tag).into()),
                ("priority", row.priority.into()),
            ];
            write([("table", row.bucket.into()), ("item", item.into())].into());
        }
    })
}

fn entry<'r>(bucket: u8, group: u32, item: Value<'r>) -> Value<'r> {
    [
        ("table", bucket.into()),
        ("group", group.into()),
        ("item", item),
    ]
    .into()
}

/// Kamailio shows neither an absent nor an empty tag.
fn tag_or_null(tag: Option<&str>) -> &str {
    tag.filter(|tag| !tag.is_empty()).unwrap_or("NULL")
}
