//! The proxies that a message passes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use crate::arrival::Transport;
use crate::host::Host;
use crate::proxy::{Clients, Local, Proxy, ProxyConfig};
use crate::routes::{Routes, RoutesBuilder};

/// A proxy under test.
pub(super) struct Edge {
    pub(super) proxy: Proxy,
    pub(super) routes: Routes,
    /// Where it listens.
    pub(super) local: SocketAddr,
    pub(super) local_v6: SocketAddr,
    pub(super) record_routes: bool,
    /// On its UDP sockets.
    pub(super) forces_rport: bool,
    /// On all of its sockets: peers have flow tokens.
    pub(super) has_clients: bool,
}

/// The addresses of the proxies under test, and the names that they have.
const ADDRESSES: [&str; 2] = ["198.51.100.1", "2001:db8::1"];
const NAMES: [&[u8]; 2] = [b"edge.example.com", b"nat.example.com"];

/// One that listens on IPv4 and IPv6, UDP and TCP, and records its route; and one behind NAT that answers to the source port, and whose
/// peers are clients.
pub(super) fn edges() -> &'static [Edge; 2] {
    static EDGES: OnceLock<[Edge; 2]> = OnceLock::new();
    EDGES.get_or_init(|| [edge(false), edge(true)])
}

/// Whether a host is one of the proxies under test.
pub(super) fn is_ours(host: Host<'_>) -> bool {
    let named = |name: &[u8]| NAMES.iter().any(|own| own.eq_ignore_ascii_case(name));
    match (host, host.ip()) {
        (_, Some(ip)) => ADDRESSES.contains(&ip.to_canonical().to_string().as_str()),
        (Host::Name(name), _) => named(name.strip_suffix(b".").unwrap_or(name)),
        _ => false,
    }
}

/// The proxy at all next hops.
pub(super) fn next_hop() -> &'static Proxy {
    static NEXT_HOP: OnceLock<Proxy> = OnceLock::new();
    NEXT_HOP.get_or_init(|| {
        let local = |transport, addr: &str| local(transport, addr, None);
        Proxy::new(ProxyConfig {
            locals: vec![
                local(Transport::Udp, "192.0.2.80:5080"),
                local(Transport::Tcp, "192.0.2.81:5060"),
                local(Transport::Udp, "[2001:db8::80]:5060"),
            ],
            aliases: Vec::new(),
            key: [2; 16],
            ..config()
        })
    })
}

fn edge(is_behind_nat: bool) -> Edge {
    let advertised = is_behind_nat.then_some(("nat.example.com", 5080));
    let transports = [Transport::Udp, Transport::Tcp];
    let on = |addr: SocketAddr| {
        transports.map(|transport| local(transport, &addr.to_string(), advertised))
    };
    let addrs = ADDRESSES.map(|ip| SocketAddr::new(ip.parse().expect("an address"), 5060));
    let [v4, v6] = addrs.map(on);
    let mut routes = RoutesBuilder::new();
    routes
        .owner("default")
        .default_hop("sip:192.0.2.80:5080")
        .and_then(|routes| routes.hop("tcp", "sip:192.0.2.81;transport=tcp"))
        .and_then(|routes| routes.hop("six", "sip:[2001:db8::80]"))
        .and_then(|routes| routes.domain("192.0.2.0/24:*"))
        .and_then(|routes| routes.domain("gw.example.net"))
        .expect("next hops and domains");
    let addresses = ["192.0.2.90", "2001:db8::90"].map(|ip| ip.parse().expect("an address"));
    let resolved: HashMap<String, Vec<IpAddr>> =
        HashMap::from([("gw.example.net".to_owned(), addresses.to_vec())]);
    let mut clients = Clients::default();
    if is_behind_nat {
        let sockets = addrs.map(|addr| transports.map(|transport| (transport, addr)));
        clients.sockets = sockets.concat();
    }
    Edge {
        proxy: Proxy::new(ProxyConfig {
            locals: [v4, v6].concat(),
            record_route: !is_behind_nat,
            clients,
            force_rport: if is_behind_nat {
                addrs.to_vec()
            } else {
                Vec::new()
            },
            ..config()
        }),
        routes: routes.build(&resolved),
        local: addrs[0],
        local_v6: addrs[1],
        record_routes: !is_behind_nat,
        forces_rport: is_behind_nat,
        has_clients: is_behind_nat,
    }
}

fn config() -> ProxyConfig {
    ProxyConfig {
        locals: Vec::new(),
        aliases: vec!["edge.example.com".to_owned()],
        key: [1; 16],
        earlier_keys: Vec::new(),
        dialog_minutes: 24 * 60,
        record_route: true,
        server_header: None,
        force_rport: Vec::new(),
        clients: Clients::default(),
    }
}

fn local(transport: Transport, addr: &str, advertised: Option<(&str, u16)>) -> Local {
    Local {
        transport,
        addr: addr.parse().expect("an address"),
        advertised: advertised.map(|(host, port)| (host.to_owned(), port)),
    }
}
