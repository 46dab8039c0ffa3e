//! The addresses of names that requests may be relayed to.

use std::net::IpAddr;

/// Whether requests may go to this address of a name. Whoever controls the DNS of the name must not be able to direct requests to this machine's
/// own services, to link-local hosts, or to groups. `localhost` and names below it mean this machine by definition (RFC 6761 §6.3).
pub fn usable(name: &str, ip: IpAddr) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_local = name == "localhost" || name.ends_with(".localhost");
    let ip = ip.to_canonical();
    !is_special(ip) || (is_local && ip.is_loopback())
}

/// Loopback, link-local, multicast, broadcast and unspecified addresses (RFC 6890).
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => {
            // `::127.0.0.1` is deprecated (RFC 4291 §2.5.5.1), but some systems still use it.
            let embedded = ip.to_ipv4().map(IpAddr::V4);
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
                || embedded.is_some_and(is_special)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_usable(name: &str, text: &str) -> bool {
        usable(name, text.parse().unwrap())
    }

    #[test]
    fn loopback_link_local_and_multicast_addresses_of_names_are_ignored() {
        for inside in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.1.75",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.1.1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_usable("gw.example.com", inside), "{inside}");
        }
        // Gateways commonly have private addresses.
        for fine in [
            "10.0.0.1",
            "192.168.1.1",
            "fd00::1",
            "2001:db8::1",
            "192.0.2.1",
        ] {
            assert!(is_usable("gw.example.com", fine), "{fine}");
        }
        assert!(is_usable("localhost", "::1") && is_usable("pbx.localhost.", "127.0.0.1"));
        assert!(!is_usable("notlocalhost", "127.0.0.1"));
        assert!(!is_usable("localhost", "169.254.1.1"));
    }
}
