//! The addresses that connections come from: one address has too few ports for many.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

/// This number of consecutive addresses for connections to this target. IPv6 sources share one.
///
/// # Errors
/// If there is none, they are of another family than the target, or they leave this machine.
pub(crate) fn consecutive(first: IpAddr, count: usize, target: SocketAddr) -> Result<Vec<IpAddr>> {
    ensure!(count > 0, "--sources must be at least 1");
    ensure!(
        target.is_ipv4() == first.is_ipv4(),
        "source {first} and target {target} must be of one address family"
    );
    let all: Vec<IpAddr> = (0..count as u32)
        .map(|nth| match first {
            IpAddr::V4(first) => IpAddr::V4(u32::from(first).wrapping_add(nth).into()),
            IpAddr::V6(first) => IpAddr::V6(first),
        })
        .collect();
    for address in all.iter().chain([&target.ip()]) {
        ensure!(
            address.is_loopback(),
            "{address} is no loopback address: this generator is made for 127.0.0.0/8 and ::1 only"
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stay_on_this_machine() {
        let target = "127.0.0.1:5061".parse().unwrap();
        let from = |first: &str, count| consecutive(first.parse().unwrap(), count, target);
        assert_eq!(from("127.1.0.255", 2).unwrap()[1].to_string(), "127.1.1.0");
        for (first, count) in [
            ("127.255.255.255", 2),
            ("192.0.2.1", 1),
            ("::1", 1),
            ("127.0.0.1", 0),
        ] {
            from(first, count).unwrap_err();
        }
    }
}
