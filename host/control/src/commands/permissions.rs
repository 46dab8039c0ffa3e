//! `permissions.…`: the module's commands with its messages and codes (`src/modules/permissions/rpc.c`).
//!
//! Names, order and spelling of absent tags in the dumps are Kamailio's.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Rows, RowsForm, Value, value_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reply::Table;
use super::{FromCall, Procedure, ReloadStatus, not_reloaded};
use crate::Control;
use crate::caller::Caller;

/// Sizes of Kamailio's buffers in bytes: a base name, without the longer suffix and the final NUL, and a URI.
const LONGEST_BASENAME: usize = 128 - 6 - 1;
const LONGEST_URI: usize = 1024;

/// `permissions.addressReload`.
#[derive(Debug)]
pub(crate) struct AddressReload;

/// `permissions.addressDump`: all rows about single addresses.
#[derive(Debug)]
pub(crate) struct AddressDump;

/// `permissions.subnetDump`: all rows about networks.
#[derive(Debug)]
pub(crate) struct SubnetDump;

/// `permissions.domainDump`: all rows about names.
#[derive(Debug)]
pub(crate) struct DomainDump;

/// `permissions.trustedReload`.
#[derive(Debug)]
pub(crate) struct TrustedReload;

/// `permissions.trustedDump`: all rows about trusted peers.
#[derive(Debug)]
pub(crate) struct TrustedDump;

/// `permissions.testUri`.
#[derive(Debug)]
pub(crate) struct TestUri {
    basename: String,
    uri: String,
    contact: String,
}

/// `permissions.allowUri`, the same function as `permissions.testUri` in Kamailio too (`rpc_test_uri`).
#[derive(Debug)]
pub(crate) struct AllowUri(TestUri);

/// A row about an address or a name in a dump, with its bucket in Kamailio's hash table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Entry")]
pub struct Entry<T> {
    /// The bucket.
    pub table: u8,
    /// The group.
    pub group: u32,
    /// The row.
    pub item: T,
}

/// A row about a single address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostRow<'r> {
    /// The address.
    pub ip: Cow<'r, str>,
    /// The port; 0 for any.
    pub port: u16,
    /// The tag; `NULL` if there is none.
    pub tag: Cow<'r, str>,
}

/// A row about a network in a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubnetEntry<'r> {
    /// Its place in the table, from 0.
    pub id: u64,
    /// The group.
    pub group: u32,
    /// The row.
    pub item: SubnetRow<'r>,
}

/// A row about a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubnetRow<'r> {
    /// The network's address.
    pub ip: Cow<'r, str>,
    /// Its bits.
    pub mask: u8,
    /// The port; 0 for any.
    pub port: u16,
    /// The tag; empty if there is none.
    pub tag: Cow<'r, str>,
}

/// A row about a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainRow<'r> {
    /// The name.
    pub domain_name: Cow<'r, str>,
    /// The port; 0 for any.
    pub port: u16,
    /// The tag; `NULL` if there is none.
    pub tag: Cow<'r, str>,
}

/// A trusted peer in a dump, with its bucket in Kamailio's hash table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedEntry<'r> {
    /// The bucket.
    pub table: u8,
    /// The row.
    pub item: TrustedRow<'r>,
}

/// A trusted peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedRow<'r> {
    /// The source address.
    pub ip: Cow<'r, str>,
    /// The number of the transport in Kamailio.
    pub proto: u8,
    /// The pattern for the From URI; `NULL` if there is none.
    pub pattern: Cow<'r, str>,
    /// The pattern for the request URI; `NULL` if there is none.
    pub ruri_pattern: Cow<'r, str>,
    /// The tag; `NULL` if there is none.
    pub tag: Cow<'r, str>,
    /// Rows with a higher priority are tried first.
    pub priority: i64,
}

/// The result of the allow and deny files for a URI and a Contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Permission {
    /// Allowed.
    Allowed,
    /// Denied.
    Denied,
}

impl FromCall for AddressReload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for AddressReload {
    type Reply = ReloadStatus;

    async fn execute(self, control: &Control, _: &Caller) -> Result<ReloadStatus, Fault> {
        let reloaded = control.shared.addresses.reload().await;
        reloaded.map_err(not_reloaded)?;
        Ok(ReloadStatus::Ok)
    }
}

impl FromCall for AddressDump {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for AddressDump {
    type Reply = Table<Entry<HostRow<'static>>>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let snapshot = control.shared.addresses.current();
        Ok(Table::new(Rows::new(RowsForm::Each, move |write| {
            for row in snapshot.table.hosts() {
                write(row_of(&Entry {
                    table: row.bucket,
                    group: row.group,
                    item: HostRow {
                        ip: row.ip.to_string().into(),
                        port: row.port,
                        tag: tag_or_null(row.tag),
                    },
                }))?;
            }
            ControlFlow::Continue(())
        })))
    }
}

impl FromCall for SubnetDump {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for SubnetDump {
    type Reply = Table<SubnetEntry<'static>>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let snapshot = control.shared.addresses.current();
        Ok(Table::new(Rows::new(RowsForm::Each, move |write| {
            for (id, row) in (0..).zip(snapshot.table.subnets()) {
                write(row_of(&SubnetEntry {
                    id,
                    group: row.group,
                    item: SubnetRow {
                        ip: row.ip.to_string().into(),
                        mask: row.mask,
                        port: row.port,
                        tag: row.tag.unwrap_or_default().into(),
                    },
                }))?;
            }
            ControlFlow::Continue(())
        })))
    }
}

impl FromCall for DomainDump {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for DomainDump {
    type Reply = Table<Entry<DomainRow<'static>>>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let snapshot = control.shared.addresses.current();
        Ok(Table::new(Rows::new(RowsForm::Repeated, move |write| {
            for row in snapshot.table.domains() {
                write(row_of(&Entry {
                    table: row.bucket,
                    group: row.group,
                    item: DomainRow {
                        domain_name: row.name.into(),
                        port: row.port,
                        tag: tag_or_null(row.tag),
                    },
                }))?;
            }
            ControlFlow::Continue(())
        })))
    }
}

impl FromCall for TrustedReload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for TrustedReload {
    type Reply = ReloadStatus;

    async fn execute(self, control: &Control, _: &Caller) -> Result<ReloadStatus, Fault> {
        let reloaded = control.shared.addresses.reload_trusted().await;
        reloaded.map_err(not_reloaded)?;
        Ok(ReloadStatus::Ok)
    }
}

impl FromCall for TrustedDump {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for TrustedDump {
    type Reply = Table<TrustedEntry<'static>>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let snapshot = control.shared.addresses.current();
        Ok(Table::new(Rows::new(RowsForm::Repeated, move |write| {
            for row in snapshot.trusted.table.rows() {
                write(row_of(&TrustedEntry {
                    table: row.bucket,
                    item: TrustedRow {
                        ip: row.source.into(),
                        proto: row.proto.number(),
                        pattern: row.from.unwrap_or("NULL").into(),
                        ruri_pattern: row.ruri.unwrap_or("NULL").into(),
                        tag: tag_or_null(row.tag),
                        priority: row.priority.into(),
                    },
                }))?;
            }
            ControlFlow::Continue(())
        })))
    }
}

impl FromCall for TestUri {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let texts = call.texts()?;
        let [basename, uri, contact, ..] = texts[..] else {
            let text = "Not enough parameters (basename, URI and contact)";
            return Err(Fault::new(500, text));
        };
        let too_long = match () {
            () if basename.len() > LONGEST_BASENAME => "Basename is too long",
            () if contact.len() > LONGEST_URI => "Contact is too long",
            () if uri.len() > LONGEST_URI => "URI is too long",
            () => "",
        };
        if !too_long.is_empty() {
            return Err(Fault::new(500, too_long));
        }
        Ok(Self {
            basename: basename.to_owned(),
            uri: uri.to_owned(),
            contact: contact.to_owned(),
        })
    }
}

impl Procedure for TestUri {
    type Reply = Permission;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Permission, Fault> {
        let rules = &control.shared.addresses.current().rules.rules;
        Ok(match rules.test(&self.basename, &self.uri, &self.contact) {
            true => Permission::Allowed,
            false => Permission::Denied,
        })
    }
}

impl FromCall for AllowUri {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        TestUri::from_call(call).map(Self)
    }
}

impl Procedure for AllowUri {
    type Reply = Permission;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Permission, Fault> {
        self.0.execute(control, caller).await
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "Allowed",
            Self::Denied => "Denied",
        })
    }
}

/// Serialises a row for the protocols.
fn row_of(row: &impl Serialize) -> Value<'static> {
    value_of(row).unwrap_or(Value::Null)
}

/// Kamailio shows `NULL` for an absent and for an empty tag.
fn tag_or_null(tag: Option<&str>) -> Cow<'_, str> {
    tag.filter(|tag| !tag.is_empty()).unwrap_or("NULL").into()
}
