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

use crate::config::{RelayConfig, TenantConfig};

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
                    info!(name, ?addresses, "a name in [relay] is resolved");
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
                name,
                error,
                "a name in [relay] has no address: requests to it are answered 503 until it resolves; check the name and the \
                 system's resolver"
            );
        } else {
            warn!(
                name,
                error,
                ?addresses,
                "a name in [relay] does not resolve any more and keeps its last addresses; check the system's resolver"
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
    let mut addresses: Vec<IpAddr> = found.map(|addr| addr.ip().to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("the name is there and has no address".into());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
             \"2001:db8::/32\", \"192.0.2.1\", \"2001:db8::7\"]\n\n\
             [relay.next-hops]\ncarrier = \"sip:192.0.2.9\"\n",
        );
    }
}
