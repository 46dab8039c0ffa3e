//! Whether this host and those that share its addresses can pass messages to each other.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use portcullis_config::{Config, RelayMode};

use super::findings::Finding;
use crate::seal_keys;

/// Findings about `peers-listen` and `peers`; none without.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let peers = &config.fleet.peers;
    let Some(listen) = peers.listen else {
        return Vec::new();
    };
    if let Err(error) = UdpSocket::bind(SocketAddr::new(listen.ip(), 0)) {
        return vec![Finding::Wrong(format!(
            "`peers-listen = \"{listen}\"`: {error}; write an address of this machine"
        ))];
    }
    let mut findings = Vec::new();
    let file = config.sip.key_file.clone().or_else(seal_keys::default_file);
    if file.is_none() {
        findings.push(Finding::Odd(
            "`peers-listen` without a key-file: no other host has the key of this process, and all packets are refused; set `key-file` in [sip], and \
             copy the file of another host"
                .to_owned(),
        ));
    }
    if is_public(listen.ip()) {
        findings.push(Finding::Odd(format!(
            "`peers-listen = \"{listen}\"` is a public address: what hosts pass to each other is sealed and not encrypted; use an internal network"
        )));
    }
    if config.relay.mode == RelayMode::Stateless {
        findings.push(Finding::Odd(
            "`peers-listen` with `mode = \"stateless\"` in [relay]: without transactions there is nothing to pass".to_owned(),
        ));
    }
    let is_reachable = |host: &&SocketAddr| host.is_ipv4() == listen.is_ipv4();
    if let Some(host) = peers.hosts.iter().find(|host| !is_reachable(host)) {
        findings.push(Finding::Wrong(format!(
            "`peers` names {host}, and nothing can be sent there from `peers-listen = \"{listen}\"`: write addresses of one family, IPv4 or IPv6"
        )));
    }
    let others = peers.hosts.iter().filter(|host| **host != listen).count();
    findings.push(match others {
        0 => Finding::Odd(
            "`peers-listen` is set, and `peers` names no other host: nothing is passed".to_owned(),
        ),
        _ => Finding::Good(format!(
            "passes messages of their transactions to other hosts: {others}, from {listen}"
        )),
    });
    findings
}

/// Whether an address is none of an internal network.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_two_families_are_wrong() {
        let text = "[fleet]\npeers-listen = \"127.0.0.1:5070\"\npeers = [\"127.0.0.2:5070\", \"[fd00::2]:5070\"]\n";
        let findings = check(&Config::parse(text).unwrap());
        let mut findings = findings.iter().map(Finding::as_json);
        let wrong = findings.find(|it| it["kind"] == "error").unwrap();
        let said = wrong["text"].as_str().unwrap();
        assert!(said.starts_with("`peers` names [fd00::2]:5070"), "{said}");
    }

    #[test]
    fn internal_networks_are_not_public() {
        for (ip, expected) in [
            ("10.1.2.3", false),
            ("172.31.0.1", false),
            ("192.168.0.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("8.8.8.8", true),
            ("fd00::1", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
