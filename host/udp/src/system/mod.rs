//! Batched receiving and sending on this system.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod name;
#[cfg(target_os = "linux")]
pub(crate) mod option;
mod packet;
#[cfg(target_os = "linux")]
mod reports;
// Tests also compile it on Linux, so that it keeps working.
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "tested, not used"))]
mod portable;
mod slot;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

#[cfg(target_os = "linux")]
pub(crate) use linux::{Incoming, Outgoing};
#[cfg(target_os = "linux")]
pub(crate) use name::{Name, socket_addr};
pub(crate) use packet::Packet;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{Incoming, Name, Outgoing, Reports, option, socket_addr};
#[cfg(target_os = "linux")]
pub(crate) use reports::Reports;
pub(crate) use slot::Slot;

/// Represents a source that is not an internet address. Port 0 marks that no response is possible.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
