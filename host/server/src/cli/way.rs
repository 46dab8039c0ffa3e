//! Where a URI leads, as the host resolves it (RFC 3263).

use std::str::from_utf8;

use anyhow::{Context, anyhow};
use portcullis_config::{self as config, NextHop};
use portcullis_resolve::{Found, TTL_MOST};
use portcullis_rollout::resolve::Dns;
use portcullis_sip::{Candidate, Host, Lookup, Scheme, Sought, Transport, Uri};

/// What a URI says of its destination.
#[derive(Debug)]
pub(super) enum Way {
    /// An address: nothing is asked.
    Address(Candidate),
    /// A name.
    Name {
        lookup: Lookup,
        /// For addresses without SRV records: the URI's own, or UDP.
        transport: Transport,
        port: Option<u16>,
    },
}

impl Way {
    /// Reads a SIP URI, or a host with or without a port.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let has_scheme = ["sip:", "sips:"].iter().any(|scheme| {
            let start = text.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let whole = match has_scheme {
            true => text.to_owned(),
            false => format!("sip:{text}"),
        };
        let uri = Uri::parse(whole.as_bytes())
            .with_context(|| format!("{text}: write for example sip:example.com"))?;
        let transport = transport_of(&uri).map_err(|mend| anyhow!("{text}: {mend}"))?;
        let (port, used) = (uri.port, transport.unwrap_or(Transport::Udp));
        let host = match uri.maddr() {
            None => uri.host,
            Some(maddr) => {
                Host::parse(maddr).with_context(|| format!("{text}: maddr is not a host"))?
            }
        };
        let Host::Name(name) = host else {
            let ip = host.ip().context("neither a name nor an address")?;
            let port = port.unwrap_or_else(|| used.default_port());
            let addr = (ip, port).into();
            return Ok(Self::Address(Candidate::plain(used, addr)));
        };
        let name = from_utf8(name)?.to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        Ok(Self::Name {
            lookup: Lookup::of(name, port, transport),
            transport: used,
            port,
        })
    }

    /// The way to a next hop.
    pub(super) fn of_hop(hop: &NextHop) -> Self {
        let transport = hop.transport.unwrap_or(Transport::Udp);
        match &hop.host {
            config::Host::Addr(ip) => {
                let addr = (*ip, hop.port_or_default()).into();
                Self::Address(Candidate::plain(transport, addr))
            }
            config::Host::Name(name) => Self::Name {
                lookup: Lookup::of(name, hop.port, hop.transport),
                transport,
                port: hop.port,
            },
        }
    }

    /// Where it leads now.
    pub(super) async fn found(&self, dns: &Dns) -> Found {
        let (lookup, transport, port) = match self {
            Self::Address(candidate) => {
                return Found {
                    candidates: vec![*candidate],
                    ttl: TTL_MOST,
                    steps: Vec::new(),
                };
            }
            Self::Name {
                lookup,
                transport,
                port,
            } => (lookup, *transport, *port),
        };
        let mut found = dns.plan(lookup).await;
        if let (Sought::Addresses, Some(port)) = (lookup.sought, port) {
            for candidate in &mut found.candidates {
                candidate.addr.set_port(port);
                candidate.transport = transport;
            }
        }
        found
    }
}

/// The transport that the URI demands; `None`: any. The error says what to write instead.
fn transport_of(uri: &Uri<'_>) -> Result<Option<Transport>, &'static str> {
    let is_named = uri.transport().is_some();
    match (uri.scheme, uri.known_transport()) {
        (Scheme::Sip, Some(_)) if !is_named => Ok(None),
        (_, Some(Transport::Ws | Transport::Wss)) => {
            Err("only clients open connections of WebSocket: remove transport=ws")
        }
        (_, Some(transport)) => Ok(Some(transport)),
        (Scheme::Sip, None) => Err("write transport=udp, transport=tcp or transport=tls"),
        (Scheme::Sips, None) => Err("a sips URI leads over TLS: remove the transport"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_ask_what_their_uris_ask() {
        for (text, expected) in [
            ("sip:example.com", "example.com"),
            ("sips:example.com", "example.com (tls)"),
            (
                "sip:example.com:5070;transport=tcp",
                "example.com (addresses)",
            ),
        ] {
            let hop = NextHop::parse(text).unwrap_or_else(|bad| panic!("{}", bad.what));
            match Way::of_hop(&hop) {
                Way::Name { lookup, .. } => assert_eq!(lookup.to_string(), expected),
                Way::Address(candidate) => panic!("{text}: {candidate:?}"),
            }
        }
        let hop = NextHop::parse("sips:[2001:db8::1]").unwrap_or_else(|bad| panic!("{}", bad.what));
        assert!(matches!(
            Way::of_hop(&hop),
            Way::Address(one) if one.transport == Transport::Tls && one.addr.port() == 5061
        ));
    }

    #[test]
    fn uris_hosts_and_addresses_are_read() {
        for (text, expected) in [
            ("sip:bob@Example.com.", "example.com"),
            ("example.com", "example.com"),
            ("SIP:example.com;transport=TCP", "example.com (tcp)"),
            ("example.com:5070", "example.com (addresses)"),
            ("sip:x@a.example;maddr=b.example", "b.example"),
            ("sips:example.com", "example.com (tls)"),
            ("SIPS:ada@example.com;transport=tcp", "example.com (tls)"),
            ("sip:example.com;transport=tls", "example.com (tls)"),
            ("sips:example.com:5071", "example.com (addresses)"),
        ] {
            match Way::parse(text).unwrap() {
                Way::Name { lookup, .. } => assert_eq!(lookup.to_string(), expected),
                Way::Address(candidate) => panic!("{text}: {candidate:?}"),
            }
        }
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:5060"),
            ("sip:[2001:db8::1]:5070", "[2001:db8::1]:5070"),
            ("sips:192.0.2.1", "192.0.2.1:5061"),
            ("sip:192.0.2.1;transport=tls", "192.0.2.1:5061"),
        ] {
            match Way::parse(text).unwrap() {
                Way::Address(candidate) => {
                    assert_eq!(candidate.addr.to_string(), expected);
                    let is_secure = expected.ends_with(":5061");
                    assert_eq!(candidate.transport == Transport::Tls, is_secure, "{text}");
                }
                Way::Name { lookup, .. } => panic!("{text}: {lookup}"),
            }
        }
        for (bad, expected) in [
            ("sips:example.com;transport=udp", "remove the transport"),
            ("sip:example.com;transport=ws", "only clients open"),
            ("sip:example.com;transport=sctp", "write transport=udp"),
            ("sip:a b", "write for example"),
            ("", "write for example"),
        ] {
            let error = format!("{:#}", Way::parse(bad).unwrap_err());
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
