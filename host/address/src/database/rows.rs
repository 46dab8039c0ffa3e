//! Rows of the table of addresses, as they are stored.

use std::net::IpAddr;

use portcullis_database::Value;
use thiserror::Error;

use super::columns::fits;
use crate::row::{Place, Row, RowError, RowWarning};

/// The width of the columns `ip_addr` and `tag` in characters.
const IP_ADDR_WIDTH: usize = 50;
const TAG_WIDTH: usize = 64;

/// A row to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    /// Column `grp`.
    pub group: i64,
    /// Column `ip_addr`.
    pub ip_addr: String,
    /// Column `mask`.
    pub mask: i64,
    /// Column `port`.
    pub port: i64,
    /// Column `tag`.
    pub tag: Option<String>,
}

/// How many of the first bits of an address a row determines; all bits for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Of an IPv4 address.
    V4(u8),
    /// Of an IPv6 address.
    V6(u8),
}

/// A network whose bits differ from the mask beside it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the network {network} has mask {bits}, and the mask beside it is {mask}: remove one of them"
)]
pub struct MaskError {
    /// The network.
    pub network: String,
    /// Its bits.
    pub bits: i64,
    /// The mask.
    pub mask: i64,
}

/// A row as it is stored, whatever its columns contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// Column `id`.
    pub id: Option<String>,
    /// Column `grp`.
    pub group: Option<String>,
    /// Column `ip_addr`.
    pub ip_addr: Option<String>,
    /// Column `mask`.
    pub mask: Option<String>,
    /// Column `port`.
    pub port: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
}

impl NewRow {
    /// Makes a row of what a person writes: an address, a network as ADDRESS/BITS, or a name. Without a mask, an address is one host.
    ///
    /// # Errors
    /// If the bits of the network and the mask differ.
    pub fn of_words(
        group: i64,
        address: String,
        mask: Option<i64>,
        port: i64,
        tag: Option<String>,
    ) -> Result<Self, MaskError> {
        let (ip_addr, mask) = match (network(&address), mask) {
            (Some((_, bits)), Some(mask)) if bits != mask => {
                let network = address;
                return Err(MaskError {
                    network,
                    bits,
                    mask,
                });
            }
            (Some((ip, bits)), _) => (ip, bits),
            (None, Some(mask)) => (address, mask),
            (None, None) => {
                let is_v6 = matches!(bare(&address).parse(), Ok(IpAddr::V6(_)));
                (address, if is_v6 { 128 } else { 32 })
            }
        };
        Ok(Self {
            group,
            ip_addr,
            mask,
            port,
            tag,
        })
    }

    /// Checks that a load would use the row and that the table can store it. Returns the warning of a load, if there is one.
    ///
    /// # Errors
    /// If it is invalid. The error names the column.
    pub fn check(&self) -> Result<Option<RowWarning>, RowError> {
        let (_, warning) = self.row().validate()?;
        let tag = self.tag.as_deref().unwrap_or_default();
        fits("ip_addr", &self.ip_addr, IP_ADDR_WIDTH)?;
        fits("tag", tag, TAG_WIDTH)?;
        Ok(warning)
    }

    /// Returns the bits that the row determines; `None` for a name, which contains no source, and for a row that no load uses.
    pub fn prefix(&self) -> Option<Prefix> {
        let (valid, _) = self.row().validate().ok()?;
        match valid.place {
            Place::Host4(_) => Some(Prefix::V4(32)),
            Place::Host6(_) => Some(Prefix::V6(128)),
            Place::Subnet4(_, bits) => Some(Prefix::V4(bits)),
            Place::Subnet6(_, bits) => Some(Prefix::V6(bits)),
            Place::Name(_) => None,
        }
    }

    fn row(&self) -> Row<'_> {
        Row {
            id: 0,
            group: self.group,
            ip_addr: &self.ip_addr,
            mask: self.mask,
            port: self.port,
            tag: self.tag.as_deref(),
        }
    }

    /// Returns the columns in the order of an insertion.
    pub(super) fn values(&self) -> [Value<'_>; 5] {
        [
            self.group.into(),
            (&self.ip_addr).into(),
            self.mask.into(),
            self.port.into(),
            (&self.tag).into(),
        ]
    }
}

impl From<Row<'_>> for NewRow {
    fn from(row: Row<'_>) -> Self {
        Self {
            group: row.group,
            ip_addr: row.ip_addr.to_owned(),
            mask: row.mask,
            port: row.port,
            tag: row.tag.map(str::to_owned),
        }
    }
}

/// Returns a network in CIDR form as the columns of a row: its address, without brackets, and its bits. `None` for anything else, including
/// `/0`, because mask 0 is one host in Kamailio.
pub fn network(text: &str) -> Option<(String, i64)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = bare(ip);
    let most = match ip.parse().ok()? {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let bits = bits.parse().ok()?;
    (1..=most).contains(&bits).then(|| (ip.to_owned(), bits))
}

fn bare(ip: &str) -> &str {
    ip.trim_start_matches('[').trim_end_matches(']')
}
