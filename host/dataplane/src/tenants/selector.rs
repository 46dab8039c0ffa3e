//! Assigns each request to a tenant, by local socket, request URI host, From host or source group.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use portcullis_address::Table;
use portcullis_config::TenantConfig;
use portcullis_sip::{Host, NameAddr, Transport, Uri};

use portcullis_request::Request;

/// Finds the tenant of a request, as its index in a list.
///
/// The local socket takes precedence, then the host of the request URI, then the host of From, then the source's group. Of hosts, an exact
/// name takes precedence over `*.`, and a longer `*.` name over a shorter one; of groups, that of the first row that matches, in the order
/// of Kamailio's `allow_source_address_group`: single addresses before subnets.
#[derive(Debug, Default)]
pub struct Selector {
    local: HashMap<(Transport, SocketAddr), usize>,
    uri: Hosts,
    from: Hosts,
    groups: HashMap<u32, usize>,
}

/// Names and addresses, each with a tenant.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<Box<[u8]>, usize>,
    addresses: HashMap<IpAddr, usize>,
    /// Without `*.`
    below: HashMap<Box<[u8]>, usize>,
    /// The length of the longest name in `below`.
    longest_below: usize,
}

/// The longest host that [`Uri::parse`] accepts.
const LONGEST_NAME: usize = 255;

impl Selector {
    /// The selector of these tenants, which returns indices into their list. The configuration ensures that selectors are unique.
    pub fn new<'c>(tenants: impl IntoIterator<Item = &'c TenantConfig>) -> Self {
        let mut selector = Self::default();
        for (at, tenant) in tenants.into_iter().enumerate() {
            let claims = &tenant.selector;
            let local = claims
                .local
                .iter()
                .filter_map(|one| Some(((one.transport, one.addr()?), at)));
            selector.local.extend(local);
            claims
                .uri_domains
                .iter()
                .for_each(|host| selector.uri.add(host, at));
            claims
                .from_domains
                .iter()
                .for_each(|host| selector.from.add(host, at));
            selector
                .groups
                .extend(claims.source_groups.iter().map(|&group| (group, at)));
        }
        selector
    }

    /// The index of the request's tenant; `None` for the operator. The source's group is looked up in `table`.
    pub fn select(&self, request: &Request, table: &Table) -> Option<usize> {
        self.by_local(request)
            .or_else(|| self.uri.find(request.request_uri()))
            .or_else(|| self.by_from(request))
            .or_else(|| self.by_group(request, table))
    }

    fn by_local(&self, request: &Request) -> Option<usize> {
        if self.local.is_empty() {
            return None;
        }
        let arrival = &request.arrival;
        let local = (arrival.transport, arrival.local);
        self.local.get(&local).copied()
    }

    fn by_from(&self, request: &Request) -> Option<usize> {
        if self.from.is_empty() {
            return None;
        }
        let from = request.origin()?;
        self.from.find(NameAddr::of_party(from).ok()?.uri)
    }

    fn by_group(&self, request: &Request, table: &Table) -> Option<usize> {
        if self.groups.is_empty() {
            return None;
        }
        let source = request.arrival.source;
        let entries = table.lookup(source.ip());
        let first = entries.first(source.port())?;
        if let Some(&tenant) = self.groups.get(&first.group) {
            return Some(tenant);
        }
        let mut others = entries.iter();
        others.find_map(|entry| match entry.port {
            0 => self.groups.get(&entry.group).copied(),
            port if port == source.port() => self.groups.get(&entry.group).copied(),
            _ => None,
        })
    }
}

impl Hosts {
    fn add(&mut self, host: &str, tenant: usize) {
        if let Some(name) = host.strip_prefix("*.") {
            self.longest_below = self.longest_below.max(name.len());
            self.below.insert(name.as_bytes().into(), tenant);
        } else if let Ok(ip) = host.parse() {
            self.addresses.insert(ip, tenant);
        } else {
            self.exact.insert(host.as_bytes().into(), tenant);
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.addresses.is_empty() && self.below.is_empty()
    }

    /// The tenant for the host of this URI.
    fn find(&self, uri: &[u8]) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let host = Uri::parse(uri).ok()?.host;
        if let Some(ip) = host.ip() {
            return self.addresses.get(&ip.to_canonical()).copied();
        }
        let Host::Name(name) = host else {
            return None;
        };
        let name = name.strip_suffix(b".").unwrap_or(name);
        let mut lower = [0; LONGEST_NAME];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let lower = &*lower;
        if let Some(&tenant) = self.exact.get(lower) {
            return Some(tenant);
        }
        // A name longer than every configured name cannot match: the work is bounded by the configuration.
        let first = lower.len().saturating_sub(self.longest_below + 1);
        let tail = lower.get(first..).unwrap_or_default();
        let dots = tail.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        dots.map(|(at, _)| &tail[at + 1..])
            .find_map(|above| self.below.get(above).copied())
    }
}

#[cfg(test)]
mod tests {
    use portcullis_address::{Row, TableBuilder};
    use portcullis_config::Config;
    use portcullis_sip::{Arrival, Framing};

    use super::*;

    const TENANTS: &str = r#"
        listen = ["udp:127.0.0.1:5060", "udp:127.0.0.1:5070"]
        [tenants.a]
        local = ["udp:127.0.0.1:5070"]
        [tenants.b]
        uri-domains = ["b.example", "*.below.example", "2001:db8::1"]
        [tenants.c]
        from-domains = ["c.example"]
        uri-domains = ["*.deep.below.example"]
        [tenants.d]
        source-groups = [7]
        [tenants.e]
        source-groups = [8]
        "#;

    fn request(uri: &str, from: &str, source: &str, local: &str) -> Request {
        let text = format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: \"x\" <sip:u@{from}>;tag=1\r\n\
             To: <sip:t@t>\r\nCall-ID: i\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        let arrival = Arrival {
            source: source.parse().unwrap(),
            local: local.parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        Request::read(text.into_bytes(), Framing::Datagram, arrival).unwrap()
    }

    fn table() -> Table {
        let mut table = TableBuilder::default();
        for (id, group, ip_addr, mask, port) in [
            (1, 8, "10.0.0.0", 8, 0),
            (2, 7, "10.1.0.0", 16, 0),
            (3, 9, "10.1.2.3", 32, 0),
            (4, 8, "10.1.2.3", 32, 5099),
        ] {
            let row = Row {
                id,
                group,
                ip_addr,
                mask,
                port,
                tag: None,
            };
            table.push(row).unwrap();
        }
        table.build()
    }

    #[test]
    fn the_first_kind_that_fits_decides() {
        let config = Config::parse(TENANTS).unwrap();
        let selector = Selector::new(config.tenants.iter().map(|tenant| &**tenant));
        let table = table();
        let name = |uri: &str, from: &str, source: &str, local: &str| {
            let request = request(uri, from, source, local);
            let found = selector.select(&request, &table);
            found.map_or("-", |at| config.tenants[at].name.as_str())
        };
        let (main, other) = ("127.0.0.1:5060", "127.0.0.1:5070");

        // Each kind alone, and each before the next.
        assert_eq!(
            name("sip:x@b.example", "c.example", "10.1.1.1:1", other),
            "a"
        );
        assert_eq!(
            name("sip:x@b.example", "c.example", "10.1.1.1:1", main),
            "b"
        );
        assert_eq!(
            name("sip:x@z.example", "c.example", "10.1.1.1:1", main),
            "c"
        );
        assert_eq!(
            name("sip:x@z.example", "z.example", "10.1.1.1:1", main),
            "d"
        );
        assert_eq!(
            name("sip:x@z.example", "z.example", "192.0.2.1:1", main),
            "-"
        );
        // Hosts in every form.
        assert_eq!(
            name("sip:x@B.Example.:5062;lr", "z", "192.0.2.1:1", main),
            "b"
        );
        assert_eq!(name("sip:x@[2001:DB8::1]", "z", "192.0.2.1:1", main), "b");
        assert_eq!(
            name("sip:x@one.below.example", "z", "192.0.2.1:1", main),
            "b"
        );
        assert_eq!(name("sip:x@below.example", "z", "192.0.2.1:1", main), "-");
        assert_eq!(
            name("sip:x@a.deep.below.example", "z", "192.0.2.1:1", main),
            "c"
        );
        assert_eq!(name("tel:+49", "z", "192.0.2.1:1", main), "-");
        // Groups in Kamailio's order: the address before the subnets, the lowest group first.
        assert_eq!(name("sip:x@z", "z", "10.1.1.1:1", main), "d");
        assert_eq!(name("sip:x@z", "z", "10.2.1.1:1", main), "e");
        assert_eq!(name("sip:x@z", "z", "10.1.2.3:5099", main), "e");
        assert_eq!(name("sip:x@z", "z", "10.1.2.3:1", main), "d");
    }
}
