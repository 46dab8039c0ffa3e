//! The environment that an import reads.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

/// Files, names and addresses that a kamailio.cfg refers to.
pub trait Surroundings {
    /// The text of a file. Bytes that are not UTF-8 (comments in old encodings) are replaced by U+FFFD.
    ///
    /// # Errors
    /// The error of the system.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The addresses of a network interface; `None` if there is no such interface.
    fn interface(&self, name: &str) -> Vec<IpAddr>;

    /// The addresses of a host name; `None` if it does not resolve.
    fn resolve(&self, name: &str) -> Vec<IpAddr>;

    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Surroundings for Machine {
    fn read(&self, path: &Path) -> io::Result<String> {
        let bytes = std::fs::read(path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn interface(&self, name: &str) -> Vec<IpAddr> {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let named = interfaces
            .into_iter()
            .filter(|interface| interface.name == name);
        // An address of the link means nothing without its interface.
        let is_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let addresses = named.map(|interface| interface.ip());
        addresses.filter(|ip| !is_local(ip)).collect()
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        let found = (name, 0).to_socket_addrs();
        let mut addresses: Vec<_> = found.into_iter().flatten().map(|addr| addr.ip()).collect();
        addresses.dedup();
        addresses
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
