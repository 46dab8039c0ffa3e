//! One row of the table: what each column may hold, and what it means.

mod finding;
mod ip_text;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use finding::Finding;
pub use finding::{RowError, RowWarning};
use ip_text::IpText;
pub(crate) use portcullis_database::shown;

/// Longest tag in bytes. Kamailio's column is far shorter; this limits what a changed schema can contain.
const LONGEST_TAG: usize = 65_534;

/// One row of the table `address`, not yet validated.
///
/// The numbers are wider than the columns, so that a value out of range can be named instead of wrapped.
///
/// The meaning is Kamailio's (`permissions/address.c`, `reload_address_insert`). Where Kamailio refuses the whole table
/// because of one row, this crate skips the row and names it. Where Kamailio silently reads something else than the
/// operator wrote, this crate skips the row, or keeps it and warns:
///
/// | column | value | Kamailio | here |
/// |---|---|---|---|
/// | `grp` | 0 or below | refuses the table | row skipped |
/// | `grp` | above 2³¹ | sees a negative number, refuses the table | read as it is |
/// | `ip_addr` | octet above 255 or absent | keeps the low 8 bits, or 0 (`300.1..1` is `44.1.0.1`) | row skipped |
/// | `ip_addr` | `010.0.0.1` | `10.0.0.1` | the same, with a warning |
/// | `ip_addr` | IPv6 group of more than four digits | keeps the last four (`12345::1` is `2345::1`) | row skipped |
/// | `ip_addr` | `10.0.0`, blanks, `a/24`, `a:port`, zone | a name that never matches | row skipped |
/// | `ip_addr` | `[2001:db8::1]` | the address | the address |
/// | `ip_addr` | `64:ff9b::192.0.2.1` | a name that never matches | the address, with a warning |
/// | `ip_addr` | `::ffff:192.0.2.1`, mask 0 or 97–128 | never equals an IPv4 source | the IPv4 address, with a warning |
/// | `ip_addr` | `::ffff:192.0.2.1`, any other mask | a name, or all of `::/32` | row skipped |
/// | `ip_addr` | a name | compared as text with what a script passes; no DNS | the same, with a warning |
/// | `mask` | 0 | a host | a host; a warning when the address is `0.0.0.0` or `::` |
/// | `mask` | above 32, IPv6: above 128, or negative | refuses the table | row skipped |
/// | `mask` | 32 on IPv6 (the column's default) | a /32 network | the same, with a warning |
/// | `port` | negative or above 65535 | stored as it is, never matches | row skipped |
/// | `tag` | NULL / empty | no tag / an empty tag | the same |
/// | `tag` | above 65,534 bytes (a changed schema) | kept | row skipped |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Column `id`: names the row in errors. 0 for a row that is not stored yet.
    pub id: i64,
    /// Column `grp`: 1 to 2³² − 1.
    pub group: i64,
    /// Column `ip_addr`: an IPv4 or IPv6 address, or a host name.
    pub ip_addr: &'a str,
    /// Column `mask`: prefix length in bits; 0 means one host.
    pub mask: i64,
    /// Column `port`: 0 means any.
    pub port: i64,
    /// Column `tag`: NULL and empty differ.
    pub tag: Option<&'a str>,
}

/// A row that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Valid<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) group: u32,
    pub(crate) port: u16,
    pub(crate) tag: Option<&'a str>,
}

/// What a row matches, which determines in which of Kamailio's three tables it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// One IPv4 address.
    Host4(Ipv4Addr),
    /// One IPv6 address.
    Host6(Ipv6Addr),
    /// An IPv4 network, 1 to 31 bits; the address may have host bits.
    Subnet4(Ipv4Addr, u8),
    /// An IPv6 network, 1 to 127 bits; the address may have host bits.
    Subnet6(Ipv6Addr, u8),
    /// A name, compared as text.
    Name(&'a str),
}

/// Returns the address that a text in a query stands for: the one that a row with this text in `ip_addr` would match. `None` if it can only
/// be a name. IPv6 is accepted with or without brackets, IPv4 with or without leading zeros.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse().ok().map(IpAddr::V6),
        None => text
            .parse()
            .ok()
            .or_else(|| ip_text::dotted_quad(text).map(IpAddr::V4)),
    }
}

impl<'a> Row<'a> {
    /// Validates the row.
    pub(crate) fn validate(self) -> Result<(Valid<'a>, Option<RowWarning>), RowError> {
        self.check()
            .map_err(|finding| finding.error(self.id))
            .map(|(valid, finding)| (valid, finding.map(|finding| finding.warning(self.id))))
    }

    fn check(self) -> Result<(Valid<'a>, Option<Finding>), Finding> {
        let group = self.checked_group()?;
        let port = self.checked_port()?;
        let tag = self.checked_tag()?;
        let (place, warning) = self.checked_place()?;
        let valid = Valid {
            place,
            group,
            port,
            tag,
        };
        Ok((valid, warning))
    }

    fn checked_group(self) -> Result<u32, Finding> {
        match u32::try_from(self.group) {
            Ok(group) if group > 0 => Ok(group),
            _ => Err(Finding::number(
                "grp",
                self.group,
                "is not a group",
                "use a group from 1 to 4294967295",
            )),
        }
    }

    fn checked_port(self) -> Result<u16, Finding> {
        u16::try_from(self.port).map_err(|_| {
            Finding::number(
                "port",
                self.port,
                "is not a port",
                "use 1 to 65535, or 0 for any port",
            )
        })
    }

    fn checked_tag(self) -> Result<Option<&'a str>, Finding> {
        match self.tag {
            Some(tag) if tag.len() > LONGEST_TAG => Err(Finding::text(
                "tag",
                tag,
                &format!("has {} bytes", tag.len()),
                &format!("use at most {LONGEST_TAG} bytes; Kamailio's column holds 64 characters"),
            )),
            tag => Ok(tag),
        }
    }

    fn checked_place(self) -> Result<(Place<'a>, Option<Finding>), Finding> {
        match ip_text::read(self.ip_addr)? {
            IpText::V4 { addr, padded } => {
                let place = self.place4(addr)?;
                let warning = match padded {
                    true => Some(padded_warning(self.ip_addr, addr)),
                    false => self.any_warning(IpAddr::V4(addr)),
                };
                Ok((place, warning))
            }
            IpText::V6 { addr, dotted } => match addr.to_ipv4_mapped() {
                Some(v4) => self.mapped(v4),
                None => self.place6(addr, dotted),
            },
            IpText::Name => Ok((
                Place::Name(self.ip_addr),
                Some(Finding::text(
                    "ip_addr",
                    self.ip_addr,
                    "is a name",
                    "it is compared as text with the name that a policy passes and never matches a source address; \
                     there is no DNS look-up: write an address if one is meant",
                )),
            )),
        }
    }

    fn place4(self, addr: Ipv4Addr) -> Result<Place<'a>, Finding> {
        match self.mask {
            0 | 32 => Ok(Place::Host4(addr)),
            1..=31 => Ok(Place::Subnet4(addr, self.mask as u8)),
            _ => Err(Finding::number(
                "mask",
                self.mask,
                "is not a mask of an IPv4 address",
                "use 1 to 32 bits, or 0 for one host",
            )),
        }
    }

    fn place6(self, addr: Ipv6Addr, dotted: bool) -> Result<(Place<'a>, Option<Finding>), Finding> {
        match self.mask {
            0 | 128 if dotted => Ok((Place::Host6(addr), Some(dotted_warning(self.ip_addr, addr)))),
            0 | 128 => Ok((Place::Host6(addr), self.any_warning(IpAddr::V6(addr)))),
            // The column's default, unless the address has the form of a network.
            32 => {
                let is_network = u128::from(addr) << 32 == 0;
                let warning = (!is_network).then(wide_warning);
                Ok((Place::Subnet6(addr, 32), warning))
            }
            1..=127 => Ok((
                Place::Subnet6(addr, self.mask as u8),
                dotted.then(|| dotted_warning(self.ip_addr, addr)),
            )),
            _ => Err(Finding::number(
                "mask",
                self.mask,
                "is not a mask of an IPv6 address",
                "use 1 to 128 bits, or 0 for one host",
            )),
        }
    }

    /// Sources that arrive as `::ffff:a.b.c.d` are looked up as IPv4, so such a row must be IPv4, too.
    fn mapped(self, addr: Ipv4Addr) -> Result<(Place<'a>, Option<Finding>), Finding> {
        let bits = match self.mask {
            0 => 32,
            96..=128 => self.mask - 96,
            _ => {
                return Err(Finding::text(
                    "ip_addr",
                    self.ip_addr,
                    &format!(
                        "is an IPv4 address in IPv6 form, and mask {} does not fit it",
                        self.mask
                    ),
                    &format!("write ip_addr {addr} and the mask in IPv4 bits"),
                ));
            }
        };
        let place = match bits {
            // The whole of IPv4: a mask that the plain form cannot express.
            0 => {
                return Err(Finding::number(
                    "mask",
                    self.mask,
                    "means every IPv4 address",
                    "use at least 1 bit: write 0.0.0.0 with mask 1 and 128.0.0.0 with mask 1 if all are meant",
                ));
            }
            32 => Place::Host4(addr),
            bits => Place::Subnet4(addr, bits as u8),
        };
        let warning = Finding::text(
            "ip_addr",
            self.ip_addr,
            "is an IPv4 address in IPv6 form",
            &format!("it is used as {addr}, mask {bits}: write it so"),
        );
        Ok((place, Some(warning)))
    }

    /// An operator who writes 0.0.0.0 with mask 0 means every address, but Kamailio's mask 0 is one host.
    fn any_warning(self, addr: IpAddr) -> Option<Finding> {
        (self.mask == 0 && addr.is_unspecified()).then(|| {
            Finding::number(
                "mask",
                0,
                &format!("is one host, so this row matches only {addr} itself"),
                "if every address is meant, write two rows with mask 1 (0.0.0.0 and 128.0.0.0, or :: and 8000::)",
            )
        })
    }
}

fn padded_warning(text: &str, addr: Ipv4Addr) -> Finding {
    Finding::text(
        "ip_addr",
        text,
        "has leading zeros",
        &format!("they are read as decimal, as Kamailio reads them: write {addr}"),
    )
}

fn dotted_warning(text: &str, addr: Ipv6Addr) -> Finding {
    Finding::text(
        "ip_addr",
        text,
        "ends in a dotted quad, which Kamailio takes for a name",
        &format!("it is used as {addr}: write it so"),
    )
}

fn wide_warning() -> Finding {
    Finding::number(
        "mask",
        32,
        "on an IPv6 address is a /32 network, as in Kamailio",
        "if one host is meant, write 128 or 0 (32 is the column's default, made for IPv4)",
    )
}

#[cfg(test)]
mod tests;
