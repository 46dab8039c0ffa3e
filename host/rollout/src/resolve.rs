//! Resolution of the host names of next hops and domains.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_sip::{RouteError, Routes, RoutesBuilder};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use portcullis_config::{RelayConfig, TenantConfig};

/// Interval between two resolutions.
const EVERY: Duration = Duration::from_secs(60);

/// The same while a name has no address yet.
const SOON: Duration = Duration::from_secs(5);

/// Time limit of one lookup. The start of the host waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The routes of a configuration, and the addresses of their names.
pub struct Resolver {
    builder: RoutesBuilder,
    names: HashMap<String, Resolved>,
}

/// State of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolved {
    /// The last addresses, in a fixed order: which of them a request goes to must not depend on the order in the response (RFC 3263 §4.4).
    addresses: Vec<IpAddr>,
    /// The error of the last lookup, as logged.
    error: Option<String>,
}

impl Resolver {
    /// Reads the routes from the configuration.
    ///
    /// # Errors
    /// If an entry is not a next hop or domain, which a validated configuration excludes.
    pub fn new(config: &RelayConfig) -> Result<Self, RouteError> {
        let mut builder = RoutesBuilder::new();
        if let Some(hop) = &config.next_hop {
            builder.default_hop(&hop.to_string())?;
        }
        for (name, hop) in &config.next_hops {
            builder.hop(name, &hop.to_string())?;
        }
        for domain in &config.domains {
            builder.domain(&domain.to_string())?;
        }
        Ok(Self::of(builder))
    }

    /// Reads the routes of a tenant: the next hops that it may use, and its own domains.
    ///
    /// # Errors
    /// See [`Resolver::new`].
    pub fn of_tenant(config: &RelayConfig, tenant: &TenantConfig) -> Result<Self, RouteError> {
        let mut builder = RoutesBuilder::new();
        builder.owner(&tenant.name);
        for (name, hop) in &config.next_hops {
            if tenant.next_hops.contains(name) {
                builder.hop(name, &hop.to_string())?;
            }
            if tenant.next_hop.as_ref() == Some(name) {
                builder.default_hop(&hop.to_string())?;
            }
        }
        for domain in &tenant.domains {
            builder.domain(&domain.to_string())?;
        }
        Ok(Self::of(builder))
    }

    fn of(builder: RoutesBuilder) -> Self {
        let names = builder.names_to_resolve().into_iter();
        let names = names.map(|name| (name.to_owned(), Resolved::default()));
        Self {
            names: names.collect(),
            builder,
        }
    }

    /// Resolves all names concurrently. A name that can no longer be resolved keeps its last addresses: an unavailable resolver must not
    /// stop calls. Returns whether an address has changed.
    pub async fn resolve(&mut self) -> bool {
        let mut lookups = JoinSet::new();
        for name in self.names.keys().cloned() {
            lookups.spawn(async move { (look_up(&name).await, name) });
        }
        let mut is_new = false;
        for (found, name) in lookups.join_all().await {
            let known = self.names.entry(name.clone()).or_default();
            is_new |= known.learn(&name, found);
        }
        is_new
    }

    /// Returns the routes with the current addresses. A name without addresses is unreachable.
    pub fn routes(&self) -> Routes {
        let names = self.names.iter();
        let resolved = names.map(|(name, known)| (name.clone(), known.addresses.clone()));
        self.builder.build(&resolved.collect())
    }

    /// Keeps the published routes up to date until `stop` becomes true. Returns at once if there are no names.
    pub async fn watch(mut self, routes: Arc<ArcSwap<Routes>>, mut stop: watch::Receiver<bool>) {
        while !self.names.is_empty() {
            let is_complete = self.names.values().all(|known| known.error.is_none());
            let pause = if is_complete { EVERY } else { SOON };
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if self.resolve().await {
                routes.store(Arc::new(self.routes()));
            }
        }
    }
}

impl Resolved {
    /// Stores the result of a lookup, and logs it if it differs from the previous one. Returns whether the addresses have changed.
    fn learn(&mut self, name: &str, found: Result<Vec<IpAddr>, String>) -> bool {
        match found {
            Ok(addresses) => {
                let is_new = self.addresses != addresses;
                if is_new || self.error.is_some() {
                    info!(
                        event = "name_resolved",
                        name,
                        ?addresses,
                        "name of [relay] resolved"
                    );
                }
                *self = Self {
                    addresses,
                    error: None,
                };
                is_new
            }
            Err(error) => {
                if self.error.as_ref() != Some(&error) {
                    self.complain(name, &error);
                }
                self.error = Some(error);
                false
            }
        }
    }

    fn complain(&self, name: &str, error: &str) {
        let addresses = &self.addresses;
        if addresses.is_empty() {
            warn!(
                event = "name_unresolved",
                name,
                error,
                "a name in [relay] has no address: requests to it are answered 503 until it resolves; check the name and the \
                 system's resolver"
            );
        } else {
            warn!(
                event = "name_stale",
                name,
                error,
                ?addresses,
                "name of [relay] no longer resolves, last addresses kept; check the system's resolver"
            );
        }
    }
}

/// Returns the addresses of a name, sorted; at least one.
async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = match timeout(PATIENCE, lookup_host((name, 0))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {PATIENCE:?}")),
    };
    let found = found.map(|addr| addr.ip());
    usable(name, found).ok_or_else(|| NO_USABLE_ADDRESS.into())
}

/// Error for a name all of whose addresses are ignored.
pub const NO_USABLE_ADDRESS: &str = "it has no addresses other than loopback, link-local, multicast and unspecified ones, which are ignored; to relay there, write the \
     address itself";

/// Returns the addresses of a name that requests may be relayed to, sorted; `None` if there are none. Whoever controls the DNS of the name
/// must not be able to direct requests to this machine's own services, to link-local hosts, or to groups. `localhost` and names below it
/// mean this machine by definition (RFC 6761 §6.3).
pub fn usable(name: &str, found: impl Iterator<Item = IpAddr>) -> Option<Vec<IpAddr>> {
    let is_local = name == "localhost" || name.ends_with(".localhost");
    let found = found.map(|ip| ip.to_canonical());
    let mut addresses: Vec<IpAddr> = found
        .filter(|ip| !is_special(*ip) || (is_local && ip.is_loopback()))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    (!addresses.is_empty()).then_some(addresses)
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
    use portcullis_config::Config;

    use super::*;

    fn resolver(text: &str) -> Resolver {
        Resolver::new(&Config::parse(text).unwrap().relay).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn names_get_addresses() {
        let mut resolver =
            resolver("[relay]\nnext-hop = \"sip:localhost:5080\"\ndomains = [\"192.0.2.0/24\"]\n");
        assert_eq!(resolver.names.len(), 1);
        assert!(resolver.resolve().await);
        let known = &resolver.names["localhost"];
        assert!(!known.addresses.is_empty());
        assert!(known.addresses.iter().all(IpAddr::is_loopback));
        assert!(!resolver.resolve().await, "no changes the second time");
    }

    #[test]
    fn loopback_link_local_and_multicast_addresses_of_names_are_ignored() {
        let of = |name: &str, ips: &[&str]| usable(name, ips.iter().map(|text| ip(text)));
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
            assert_eq!(of("gw.example.com", &[inside]), None, "{inside}");
            assert_eq!(
                of("gw.example.com", &["192.0.2.1", inside]),
                Some(vec![ip("192.0.2.1")])
            );
        }
        // Gateways commonly have private addresses.
        for fine in ["10.0.0.1", "192.168.1.1", "fd00::1", "2001:db8::1"] {
            assert_eq!(of("gw.example.com", &[fine]), Some(vec![ip(fine)]));
        }
        assert_eq!(of("localhost", &["::1"]), Some(vec![ip("::1")]));
        assert_eq!(
            of("pbx.localhost", &["127.0.0.1"]),
            Some(vec![ip("127.0.0.1")])
        );
        assert_eq!(of("notlocalhost", &["127.0.0.1"]), None);
        assert_eq!(of("localhost", &["169.254.1.1"]), None);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_unreachable() {
        let mut resolver = resolver("[relay]\nnext-hop = \"sip:nowhere.invalid\"\n");
        assert!(!resolver.resolve().await);
        assert!(resolver.names["nowhere.invalid"].error.is_some());
        resolver.routes();
    }

    #[test]
    fn a_name_keeps_its_last_addresses() {
        let mut known = Resolved::default();
        assert!(known.learn("a", Ok(vec![ip("192.0.2.1")])));
        assert!(!known.learn("a", Err("down".into())));
        assert_eq!(known.addresses, [ip("192.0.2.1")]);
        assert!(!known.learn("a", Ok(vec![ip("192.0.2.1")])));
        assert_eq!(known.error, None);
        assert!(known.learn("a", Ok(vec![ip("2001:db8::1")])));
        assert_eq!(known.addresses, [ip("2001:db8::1")]);
    }

    #[tokio::test]
    async fn the_watch_ends_at_once_without_names() {
        let resolver = resolver("[relay]\nnext-hop = \"sip:192.0.2.1\"\n");
        let (_stop, stopping) = watch::channel(false);
        resolver.watch(Arc::default(), stopping).await;
    }

    #[tokio::test]
    async fn the_watch_ends_with_the_host() {
        let resolver = resolver("[relay]\nnext-hop = \"sip:localhost\"\n");
        let (stop, stopping) = watch::channel(false);
        let watching = tokio::spawn(resolver.watch(Arc::default(), stopping));
        stop.send(true).unwrap();
        watching.await.unwrap();
    }

    #[test]
    fn every_accepted_configuration_has_routes() {
        resolver(
            "[relay]\nnext-hop = \"sip:[::1]:5080;transport=tcp\"\n\
             domains = [\"example.com\", \"example.com:5070\", \"10.0.0.0/8\", \"10.1.0.0/16:5060\", \"[2001:db8::1]:5060\", \
             \"2001:db8::/32\", \"example.org:*\", \"10.2.0.0/16:*\", \"2001:db8:1::/48:5070\", \"2001:db8:2::/48:*\", \"[2001:db8::2]:*\", \"192.0.2.1\", \"2001:db8::7\"]\n\n\
             [relay.next-hops]\ncarrier = \"sip:192.0.2.9\"\n",
        );
    }
}
