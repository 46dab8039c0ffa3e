//! Names of next hops and domains, and the addresses that the system's resolver has for them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_sip::{RouteError, Routes, RoutesBuilder};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::RelayConfig;

/// How often names are resolved anew.
const EVERY: Duration = Duration::from_secs(60);

/// How often names without an address are tried again.
const SOON: Duration = Duration::from_secs(5);

/// The routes of a configuration, and the addresses that their names have.
pub struct Resolver {
    builder: RoutesBuilder,
    names: Vec<String>,
    resolved: HashMap<String, Vec<IpAddr>>,
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
        let names = builder.names_to_resolve().into_iter().map(str::to_owned);
        Ok(Self {
            names: names.collect(),
            resolved: HashMap::new(),
            builder,
        })
    }

    /// Asks the system for every name. A name that has lost its addresses keeps the last ones: a resolver that is down must not
    /// stop calls. True if anything is new.
    pub async fn resolve(&mut self) -> bool {
        let mut changed = false;
        for name in &self.names {
            let mut addresses: Vec<IpAddr> = match tokio::net::lookup_host((name.as_str(), 0)).await
            {
                Ok(found) => found.map(|addr| addr.ip()).collect(),
                Err(error) => {
                    warn!(name, %error, "A name in [relay] cannot be resolved: check it and the system's resolver.");
                    continue;
                }
            };
            addresses.sort_unstable();
            addresses.dedup();
            if self.resolved.get(name) != Some(&addresses) {
                info!(name, ?addresses, "A name in [relay] is resolved.");
                self.resolved.insert(name.clone(), addresses);
                changed = true;
            }
        }
        changed
    }

    /// The routes with the addresses of the moment.
    pub fn routes(&self) -> Routes {
        self.builder.build(&self.resolved)
    }

    /// Keeps the published routes up to date until `stop` becomes true. Ends at once when there are no names.
    pub async fn watch(mut self, routes: Arc<ArcSwap<Routes>>, mut stop: watch::Receiver<bool>) {
        while !self.names.is_empty() {
            let is_complete = self
                .names
                .iter()
                .all(|name| self.resolved.contains_key(name));
            let pause = if is_complete { EVERY } else { SOON };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if self.resolve().await {
                routes.store(Arc::new(self.routes()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn relay(text: &str) -> RelayConfig {
        Config::parse(text).unwrap().relay
    }

    #[tokio::test]
    async fn names_get_addresses() {
        let config =
            relay("[relay]\nnext-hop = \"sip:localhost:5080\"\ndomains = [\"192.0.2.0/24\"]\n");
        let mut resolver = Resolver::new(&config).unwrap();
        assert_eq!(resolver.names, ["localhost"]);
        assert!(resolver.resolve().await);
        assert!(
            resolver.resolved["localhost"]
                .iter()
                .all(IpAddr::is_loopback)
        );
        assert!(!resolver.resolve().await, "nothing is new the second time");
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_no_end() {
        let config = relay("[relay]\nnext-hop = \"sip:nowhere.invalid\"\n");
        let mut resolver = Resolver::new(&config).unwrap();
        assert!(!resolver.resolve().await);
        resolver.routes();
    }

    #[test]
    fn whatever_the_configuration_accepts_can_be_routed() {
        let config = relay(
            "[relay]\nnext-hop = \"sip:[::1]:5080;transport=tcp\"\n\
             domains = [\"example.com\", \"example.com:5070\", \"10.0.0.0/8\", \"10.1.0.0/16:5060\", \"[2001:db8::1]:5060\", \
             \"2001:db8::/32\", \"192.0.2.1\", \"2001:db8::7\"]\n\n\
             [relay.next-hops]\ncarrier = \"sip:192.0.2.9\"\n",
        );
        Resolver::new(&config).unwrap();
    }
}
