//! Resolution of the host names of next hops and domains.

mod cache;
mod client;
mod dns;
mod known;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_resolve::Found;
use portcullis_sip::{Lookup, RouteError, Routes, RoutesBuilder};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use portcullis_config::{RelayConfig, TenantConfig};

use known::{Known, LoggedResult};

pub use cache::Cached;
pub use dns::{Dns, QueryCounts};

/// Longest time between two looks at the files of the system, which may have changed.
const LOOK: Duration = Duration::from_secs(10);

/// Shortest time between two resolutions.
const SOON: Duration = Duration::from_secs(1);

/// The routes of a configuration, and what is known of their names.
pub struct Resolver {
    builder: RoutesBuilder,
    dns: Arc<Dns>,
    known: HashMap<Lookup, Known>,
    /// The names that are being resolved. Each has its result as soon as it comes: a name server that does not answer delays its own names only.
    asking: JoinSet<(Found, Lookup)>,
    /// What the log said last, for each name.
    logged: BTreeMap<Box<str>, LoggedResult>,
    /// How often all answers had been made to expire when the names were last looked at.
    age: u64,
}

impl Resolver {
    /// Reads the routes from the configuration.
    ///
    /// # Errors
    /// If an entry is not a next hop or domain, which a validated configuration excludes.
    pub fn new(config: &RelayConfig, dns: &Arc<Dns>) -> Result<Self, RouteError> {
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
        Ok(Self::of(builder, dns))
    }

    /// Reads the routes of a tenant: the next hops that it may use, and its own domains.
    ///
    /// # Errors
    /// See [`Resolver::new`].
    pub fn of_tenant(
        config: &RelayConfig,
        tenant: &TenantConfig,
        dns: &Arc<Dns>,
    ) -> Result<Self, RouteError> {
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
        Ok(Self::of(builder, dns))
    }

    /// Sets the sockets that requests to next hops leave by, by the names of these.
    pub fn send_from<'n>(&mut self, sockets: impl IntoIterator<Item = (&'n str, SocketAddr)>) {
        for (name, from) in sockets {
            self.builder.socket(name, from);
        }
    }

    fn of(builder: RoutesBuilder, dns: &Arc<Dns>) -> Self {
        let now = Instant::now();
        let lookups = builder.lookups().into_iter();
        Self {
            known: lookups.map(|lookup| (lookup, Known::new(now))).collect(),
            asking: JoinSet::new(),
            builder,
            dns: Arc::clone(dns),
            logged: BTreeMap::new(),
            age: dns.age(),
        }
    }

    /// Takes the results of the resolver before this one for the names that both have, so that a change of the routes loses no addresses.
    pub fn inherit(&mut self, before: Self) {
        for (lookup, known) in before.known {
            if let Some(own) = self.known.get_mut(&lookup) {
                *own = known;
            }
        }
        let names: HashSet<&str> = self.known.keys().map(|lookup| &*lookup.name).collect();
        let logged = before.logged.into_iter();
        self.logged = logged.filter(|(name, _)| names.contains(&**name)).collect();
        self.asking = before.asking;
        self.age = before.age;
    }

    /// Begins to resolve the names whose answers are about to expire, and waits for those that have had no result yet, for at most the time of one
    /// query: the start of the host, or a new tenant, waits for it. [`Resolver::watch`] takes the other results. Returns whether an address has
    /// changed.
    pub async fn resolve_first(&mut self) -> bool {
        let deadline = Instant::now() + self.dns.patience();
        self.begin();
        let mut is_new = false;
        while self.known.values().any(Known::is_awaited)
            && let Ok(Some(result)) = timeout_at(deadline, self.asking.join_next()).await
        {
            is_new |= self.take(result);
        }
        known::log_changes(&self.known, &mut self.logged);
        is_new
    }

    /// Begins to resolve the names whose answers are about to expire, each by itself.
    fn begin(&mut self) {
        let now = Instant::now();
        let due = self.known.iter_mut();
        for (lookup, known) in due.filter(|(_, known)| !known.is_asking && known.due <= now) {
            known.is_asking = true;
            let (dns, lookup) = (Arc::clone(&self.dns), lookup.clone());
            self.asking
                .spawn(async move { (dns.plan(&lookup).await, lookup) });
        }
    }

    /// Takes a result. A name that can no longer be resolved keeps its last addresses for `stale` of `[resolver]`: an unavailable resolver must not
    /// stop calls. Returns whether an address has changed.
    fn take(&mut self, result: Result<(Found, Lookup), JoinError>) -> bool {
        match result {
            Ok((found, lookup)) => self.learn(&lookup, found),
            // A plan that panics would be an error of this program: its name, which is not known here, is resolved again.
            Err(_) => {
                self.ask_again(Instant::now() + SOON);
                false
            }
        }
    }

    /// Drops what is asked, and resolves all names again at this time.
    fn ask_again(&mut self, at: Instant) {
        self.asking = JoinSet::new();
        for known in self.known.values_mut() {
            known.is_asking = false;
            known.due = at;
        }
    }

    fn learn(&mut self, lookup: &Lookup, found: Found) -> bool {
        let now = Instant::now();
        let known = self.known.get_mut(lookup);
        known.is_some_and(|known| known.learn(found, now, self.dns.stale(), SOON))
    }

    /// Returns the routes with the current addresses. A name without addresses is unreachable.
    pub fn routes(&self) -> Routes {
        self.builder.build_of(|lookup| {
            let known = self.known.get(lookup);
            known.map_or_else(Vec::new, |known| known.candidates.clone())
        })
    }

    /// Whether an address of the routes depends on a name.
    pub fn has_names(&self) -> bool {
        !self.known.is_empty()
    }

    /// Keeps the published routes up to date until `stop` becomes true. Returns at once if there are no names.
    pub async fn watch(mut self, routes: Arc<ArcSwap<Routes>>, stop: watch::Receiver<bool>) {
        self.keep_up(routes, stop).await;
    }

    /// The same, with a resolver that can still be used when this ends or is dropped.
    pub async fn keep_up(&mut self, routes: Arc<ArcSwap<Routes>>, mut stop: watch::Receiver<bool>) {
        while self.has_names() {
            self.begin();
            let waiting = self.known.values().filter(|known| !known.is_asking);
            let due = waiting.map(|known| known.due).min();
            let pause = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()));
            let result = tokio::select! {
                Some(result) = self.asking.join_next() => Some(result),
                () = sleep(pause.clamp(SOON, LOOK)) => None,
                () = self.dns.cleared(self.age) => None,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if let Some(result) = result {
                let mut is_new = self.take(result);
                // What follows looks at all names, so it does that once for all results that have come.
                while let Some(result) = self.asking.try_join_next() {
                    is_new |= self.take(result);
                }
                known::log_changes(&self.known, &mut self.logged);
                if is_new {
                    routes.store(Arc::new(self.routes()));
                }
            }
            self.dns.look_at_files();
            let age = self.dns.age();
            if age != self.age {
                self.age = age;
                self.ask_again(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use portcullis_config::{Config, ResolverConfig};

    use super::*;

    /// Without the files and the name servers of this machine.
    fn resolver(text: &str) -> Resolver {
        let config = ResolverConfig {
            servers: vec!["127.0.0.1:9".parse().unwrap()],
            hosts_file: false,
            timeout: Duration::from_millis(500),
            ..ResolverConfig::default()
        };
        Resolver::new(&Config::parse(text).unwrap().relay, &Dns::new(&config)).unwrap()
    }

    /// Waits until every name has a result.
    async fn resolve(resolver: &mut Resolver) -> bool {
        resolver.begin();
        let mut is_new = false;
        while let Some(result) = resolver.asking.join_next().await {
            is_new |= resolver.take(result);
        }
        is_new
    }

    #[tokio::test]
    async fn names_get_addresses() {
        let mut resolver =
            resolver("[relay]\nnext-hop = \"sip:localhost:5080\"\ndomains = [\"192.0.2.0/24\"]\n");
        assert_eq!(resolver.known.len(), 1);
        assert!(resolve(&mut resolver).await);
        let known = resolver.known.values().next().unwrap();
        assert!(!known.candidates.is_empty());
        let ips: Vec<IpAddr> = known.candidates.iter().map(|one| one.ip()).collect();
        assert!(ips.iter().all(IpAddr::is_loopback), "{ips:?}");
        assert!(!resolve(&mut resolver).await, "no changes the second time");
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_unreachable() {
        let mut resolver = resolver("[relay]\nnext-hop = \"sip:nowhere.invalid:5060\"\n");
        assert!(!resolve(&mut resolver).await);
        assert!(resolver.known.values().all(|known| known.error.is_some()));
        resolver.routes();
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

    #[tokio::test]
    async fn a_new_resolver_knows_the_names_that_remain() {
        let text = "[relay]\nnext-hop = \"sip:localhost:5080\"\n";
        let mut before = resolver(text);
        assert!(before.resolve_first().await);
        let mut after = resolver(text);
        after.inherit(before);
        let known = after.known.values().next().unwrap();
        assert!(!known.candidates.is_empty());
        assert_eq!(after.logged.len(), 1);
        assert!(!after.resolve_first().await, "nothing is due");
        let mut without = resolver("[relay]\nnext-hop = \"sip:192.0.2.1\"\n");
        without.inherit(after);
        assert!(without.known.is_empty() && without.logged.is_empty());
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
