//! `[streams]`: connections over TCP, TLS and WebSocket.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::listen::Listen;
use super::problem::Bad;
use super::section::Section;
use super::value::{count, duration, network};

/// Connections over TCP, TLS and WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Most handshakes in progress, for each worker.
    pub handshakes: usize,
    /// Most of these from one IPv4 address, or one IPv6 /64.
    pub handshakes_per_address: usize,
    /// Time limit of a handshake.
    pub handshake: Duration,
    /// Most handshakes per second, for each worker, of one address that is not in the address table; 0: no limit.
    pub handshakes_per_second: u32,
    /// Load balancers, whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            handshakes: 256,
            handshakes_per_address: 64,
            handshake: Duration::from_secs(5),
            handshakes_per_second: 10,
            proxy_protocol: Vec::new(),
        }
    }
}

impl StreamsConfig {
    /// Whether connections from this address begin with a PROXY header.
    #[inline]
    pub fn is_load_balancer(&self, ip: IpAddr) -> bool {
        self.proxy_protocol.iter().any(|net| net.contains(&ip))
    }

    /// Reads `[streams]`.
    pub(super) fn read(mut section: Section<'_>, default: Self, listen: &[Listen]) -> Self {
        let read = Self {
            handshakes: section.value("handshakes", default.handshakes, |v| count(v, 1, 65_536)),
            handshakes_per_address: section.value(
                "handshakes-per-address",
                default.handshakes_per_address,
                |v| count(v, 1, 65_536),
            ),
            handshake: section.value("handshake", default.handshake, |v| {
                duration(v, Duration::from_millis(100), Duration::from_secs(60))
            }),
            handshakes_per_second: section.value(
                "handshakes-per-second",
                default.handshakes_per_second,
                |v| count(v, 0, 100_000),
            ),
            proxy_protocol: section.list("proxy-protocol", default.proxy_protocol, network),
        };
        let has_streams = listen.iter().any(|one| one.transport.is_reliable());
        if !read.proxy_protocol.is_empty() && !has_streams {
            let mend = "add one to `listen`, or remove the key: datagrams have no PROXY header";
            let bad = Bad::new("no tcp, tls, ws or wss address in `listen`", mend);
            section.reject("proxy-protocol", bad);
        }
        section.finish();
        read
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn load_balancers_are_addresses_and_networks() {
        let text = "[streams]\nproxy-protocol = [\"192.0.2.0/24\", \"2001:db8::7\"]\n";
        let streams = Config::parse(text).unwrap().streams;
        let is = |ip: &str| streams.is_load_balancer(ip.parse().unwrap());
        assert!(is("192.0.2.9") && is("2001:db8::7"));
        assert!(!is("192.0.3.9") && !is("2001:db8::8"));
        assert!(
            !Config::default()
                .streams
                .is_load_balancer([127, 0, 0, 1].into())
        );
    }

    #[test]
    fn load_balancers_need_an_address_of_a_stream_transport() {
        let text = "listen = [\"udp:127.0.0.1:5060\"]\n[streams]\nproxy-protocol = [\"192.0.2.0/24\", \"lb\"]\n";
        let problems = Config::parse(text).unwrap_err();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for (said, expected) in said.iter().zip([
            "3:18: streams.proxy-protocol = [\"192.0.2.0/24\", \"lb\"]: no tcp, tls, ws or wss address in `listen`; ",
            "3:35: streams.proxy-protocol[1] = \"lb\": not a network; ",
        ]) {
            assert!(said.starts_with(expected), "{said}");
        }
        assert_eq!(said.len(), 2);
    }
}
