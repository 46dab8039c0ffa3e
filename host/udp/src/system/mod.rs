//! How this system receives and sends batches.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) mod option;
// Compiled with the tests on Linux too, so that it does not rot.
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "tested, not used"))]
mod portable;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

#[cfg(target_os = "linux")]
pub(crate) use linux::{Incoming, Name, Outgoing};
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{Incoming, Name, Outgoing, option};

/// No address. A datagram without an internet address has nowhere to answer to: source port 0 says so.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
