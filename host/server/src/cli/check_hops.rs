//! Whether a next hop is the host itself: every request to it would be answered 482.

use std::net::{IpAddr, SocketAddr};

use futures_util::future::join_all;
use portcullis_config::{Config, Host, NextHop, Socket};
use portcullis_rollout::resolve::Dns;
use portcullis_sip::{Candidate, Transport};

use super::findings::Finding;
use super::way::Way;

/// The names and addresses of this host.
struct Own {
    /// The sockets, with wildcard addresses expanded to every address of the machine.
    listen: Vec<Socket>,
    aliases: Vec<String>,
}

/// Findings about next hops that are, or may be, this host. Names are resolved as the host resolves them.
pub(super) async fn check(config: &Config, dns: &Dns) -> Vec<Finding> {
    let listen = config.listen.iter();
    let own = Own {
        listen: listen
            // What is wrong with an item is said elsewhere.
            .flat_map(|listen| Socket::of(listen).unwrap_or_default())
            .collect(),
        aliases: config.sip.aliases.clone(),
    };
    let relay = &config.relay;
    let default = relay
        .next_hop
        .iter()
        .map(|hop| ("next-hop".to_owned(), hop));
    let named = relay.next_hops.iter();
    let named = named.map(|(name, hop)| (format!("next-hops.{name}"), hop));
    let hops: Vec<_> = default.chain(named).collect();
    let ways = hops
        .iter()
        .map(|(_, hop)| async move { Way::of_hop(hop).found(dns).await });
    let found = join_all(ways).await;
    let all = hops.iter().zip(&found);
    all.filter_map(|((key, hop), found)| own.finding(key, hop, &found.candidates))
        .collect()
}

impl Own {
    /// `found`: where the next hop leads.
    fn finding(&self, key: &str, hop: &NextHop, found: &[Candidate]) -> Option<Finding> {
        const MEND: &str = "every request to it is answered 482: name another host";
        if let Host::Name(name) = &hop.host
            && self.is_named(name, hop.port_or_default())
        {
            return Some(Finding::Odd(format!(
                "{key} = \"{hop}\" has a name of this host (`advertise` or `aliases`); if it leads here, {MEND}"
            )));
        }
        let mut ours = found.iter().filter_map(|one| {
            let listen = self.socket(one.transport, one.ip(), one.addr.port())?;
            Some((one.addr, listen))
        });
        let (addr, listen) = ours.next()?;
        Some(match &hop.host {
            Host::Addr(_) => Finding::Skipped(format!(
                "{key} = \"{hop}\" is this host itself (`listen` has {listen}); {MEND}"
            )),
            Host::Name(_) => Finding::Odd(format!(
                "{key} = \"{hop}\" resolves to {addr}, where this host listens itself; {MEND}"
            )),
        })
    }

    /// The socket of this host that has or advertises this address.
    fn socket(&self, transport: Transport, ip: IpAddr, port: u16) -> Option<&Socket> {
        let addr = SocketAddr::new(ip.to_canonical(), port);
        self.listen.iter().find(|listen| {
            let is_advertised = listen.advertise.as_ref().is_some_and(|(host, port)| {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let ip = host.parse::<IpAddr>();
                ip.is_ok_and(|ip| SocketAddr::new(ip.to_canonical(), *port) == addr)
            });
            listen.transport == transport && (listen.addr == addr || is_advertised)
        })
    }

    fn is_named(&self, name: &str, port: u16) -> bool {
        let is_advertised = |listen: &Socket| {
            let advertised = listen.advertise.as_ref();
            advertised.is_some_and(|(host, own)| host.eq_ignore_ascii_case(name) && *own == port)
        };
        let is_alias = |alias: &String| match alias.rsplit_once(':') {
            Some((host, own)) => host.eq_ignore_ascii_case(name) && own == port.to_string(),
            None => {
                let is_ours = |listen: &Socket| listen.addr.port() == port;
                alias.eq_ignore_ascii_case(name) && self.listen.iter().any(is_ours)
            }
        };
        self.listen.iter().any(is_advertised) || self.aliases.iter().any(is_alias)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_config::Listen;

    use super::*;
    use crate::cli::database::block_on;

    fn own() -> Own {
        let listen = [
            "udp:192.0.2.1:5060",
            "tcp:192.0.2.1:5060",
            "udp:[2001:db8::1]:5070",
            "udp:10.0.0.1:5060 advertise 198.51.100.7:5062",
            "tcp:10.0.0.1:5060 advertise edge.example.com:5060",
        ];
        Own {
            listen: listen
                .map(|listen| Listen::parse(listen).unwrap_or_else(|bad| panic!("{}", bad.what)))
                .iter()
                .flat_map(|listen| Socket::of(listen).unwrap())
                .collect(),
            aliases: vec!["sip.example.net".into(), "old.example.net:5090".into()],
        }
    }

    /// `-`, `warning` or `error`.
    fn found(hop: &str) -> &'static str {
        let hop = NextHop::parse(hop).unwrap_or_else(|bad| panic!("{}", bad.what));
        let transport = hop.transport.unwrap_or(Transport::Udp);
        let at = |text: &str, port| {
            Candidate::plain(transport, SocketAddr::new(text.parse().unwrap(), port))
        };
        let port = hop.port_or_default();
        let found = match &hop.host {
            Host::Addr(ip) => vec![at(&ip.to_string(), port)],
            Host::Name(name) if name == "loop.example.com" => {
                vec![at("203.0.113.9", port), at("192.0.2.1", port)]
            }
            // An SRV record names another port.
            Host::Name(name) if name == "served.example.com" => vec![at("192.0.2.1", 5060)],
            Host::Name(_) => vec![at("203.0.113.9", port)],
        };
        match own().finding("next-hop", &hop, &found) {
            None => "-",
            Some(Finding::Good(text) | Finding::Wrong(text)) => panic!("{text}"),
            Some(Finding::Odd(_)) => "warning",
            Some(Finding::Skipped(text)) => {
                assert!(text.contains("482") && text.contains("listen"), "{text}");
                "error"
            }
        }
    }

    #[test]
    fn a_next_hop_that_is_the_host_is_found() {
        for (hop, expected) in [
            ("sip:192.0.2.1", "error"),
            ("sip:192.0.2.1:5060", "error"),
            ("sip:192.0.2.1:5060;transport=tcp", "error"),
            ("sip:[2001:db8::1]:5070", "error"),
            ("sip:198.51.100.7:5062", "error"),
            ("sip:192.0.2.1:5061", "-"),
            ("sip:192.0.2.2", "-"),
            ("sip:[2001:db8::1]", "-"),
            ("sip:[2001:db8::1]:5070;transport=tcp", "-"),
            ("sip:edge.example.com", "warning"),
            ("sip:edge.example.com:5080", "-"),
            ("sip:sip.example.net", "warning"),
            ("sip:old.example.net:5090", "warning"),
            ("sip:old.example.net", "-"),
            ("sip:loop.example.com", "warning"),
            ("sip:loop.example.com:5080", "-"),
            ("sip:served.example.com", "warning"),
            ("sip:served.example.com;transport=tls", "-"),
            ("sip:other.example.com", "-"),
        ] {
            assert_eq!(found(hop), expected, "{hop}");
        }
    }

    #[test]
    fn a_listener_for_every_address_has_those_of_the_machine() {
        let text = "listen = [\"udp:0.0.0.0:5060\"]\n[relay]\nnext-hop = \"sip:127.0.0.1\"\n";
        let config = Config::parse(text).unwrap();
        let found = block_on(check(&config, &Dns::new(&config.resolver))).unwrap();
        assert!(matches!(&found[..], [Finding::Skipped(_)]));
    }
}
