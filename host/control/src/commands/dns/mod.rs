//! `dns.…`: Kamailio's commands about its cache of DNS answers (`src/core/dns_cache.c`).

mod clear;
mod entry;
mod lookup;
mod memory;
mod view;

pub(crate) use clear::Clear;
pub use clear::Cleared;
pub use entry::{DnsEntry, DnsRecord};
pub(crate) use lookup::LookUp;
pub(crate) use memory::Memory;
pub(crate) use view::View;
