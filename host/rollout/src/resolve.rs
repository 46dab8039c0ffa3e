//! Names of next hops and domains, and the addresses that the system's resolver has for them.

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

/// How often names are resolved anew.
const EVERY: Duration = Duration::from_secs(60);

/// How often they are while one has no address yet.
const SOON: Duration = Duration::from_secs(5);

/// How long one look-up may take. The start of the host waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The routes of a configuration, and the addresses that their names have.
pub struct Resolver {
    builder: RoutesBuilder,
    names: HashMap<String, Resolved>,
}

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolved {
    /// The last addresses that it had, in a fixed order: which one a request goes to must not depend on the resolver's mood
    /// (RFC 3263 §4.4).
    addresses: Vec<IpAddr>,
    /// Why it has no new ones, as the log has told.
    error: Option<String>,
}

impl Resolver {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When an entry is no next hop or no domain. A validated configuration has none of these.
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

    /// Reads what a tenant may use of it, and its own domains.
    ///
    /// # Errors
    /// As [`Resolver::new`].
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

    /// Asks the system for the addresses of all names at once. A name that has lost its addresses keeps the last ones: a
    /// resolver that is down must not stop calls. True if an address is new.
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

    /// The routes with the addresses of the moment. To a name without any, nothing can be sent.
    pub fn routes(&self) -> Routes {
        let names = self.names.iter();
        let resolved = names.map(|(name, known)| (name.clone(), known.addresses.clone()));
        self.builder.build(&resolved.collect())
    }

    /// Keeps the published routes up to date until `stop` becomes true. Ends at once when there are no names.
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
    /// Takes an answer in, and tells the log if it differs from the last one. True if the addresses do.
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

/// The addresses of a name, sorted, at least one.
async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = match timeout(PATIENCE, lookup_host((name, 0))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer in {PATIENCE:?}")),
    };
    let found = found.map(|addr| addr.ip());
    usable(name, found).ok_or_else(|| NO_USABLE_ADDRESS.into())
}

/// What is wrong with a name that resolves, and leads nowhere that requests may go.
pub const NO_USABLE_ADDRESS: &str = "it has no address, or none but loopback, link-local, multicast and unspecified ones, where a name never leads; write the \
     address itself if it is meant";

/// The addresses of a name that requests may go to, sorted; none if there is none. Whoever answers for the name must not lead
/// requests to this machine's own services, to the link, or to many at once. `localhost` and names below it mean this machine by
/// definition (RFC 6761 §6.3).
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

/// Loopback, link-local, multicast, broadcast, and what stands for no address (RFC 6890).
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
            // `::127.0.0.1` is deprecated (RFC 4291 §2.5.5.1), and some systems still follow it.
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
        assert!(!resolver.resolve().await, "nothing is new the second time");
    }

    #[test]
    fn a_name_leads_neither_to_this_machine_nor_to_the_link_nor_to_many() {
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
        // Private addresses are where gateways live.
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
    async fn a_name_without_addresses_is_no_end() {
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
    async fn without_names_there_is_nothing_to_watch() {
        let resolver = resolver("[relay]\nnext-hop = \"sip:192.0.2.1\"\n");
        let (_stop, stopping) = watch::channel(false);
        resolver.watch(Arc::default(), stopping).await;
    }

    #[tokio::test]
    async fn watching_ends_when_told() {
        let resolver = resolver("[relay]\nnext-hop = \"sip:localhost\"\n");
        let (stop, stopping) = watch::channel(false);
        let watching = tokio::spawn(resolver.watch(Arc::default(), stopping));
        stop.send(true).unwrap();
        watching.await.unwrap();
    }

    #[test]
    fn whatever_the_configuration_accepts_can_be_routed() {
        resolver(
            "[relay]\nnext-hop = \"sip:[::1]:5080;transport=tcp\"\n\
             domains = [\"example.com\", \"example.com:5070\", \"10.0.0.0/8\", \"10.1.0.0/16:5060\", \"[2001:db8::1]:5060\", \
             \"2001:db8::/32\", \"example.org:*\", \"10.2.0.0/16:*\", \"2001:db8:1::/48:5070\", \"2001:db8:2::/48:*\", \"[2001:db8::2]:*\", \"192.0.2.1\", \"2001:db8::7\"]\n\n\
             [relay.next-hops]\ncarrier = \"sip:192.0.2.9\"\n",
        );
    }
}
