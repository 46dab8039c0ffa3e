//! Keeps routes up to date: the addresses of names, and the destinations of the dispatcher.

use std::future::pending;
use std::mem;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_config::{NextHop, RelayConfig, TenantConfig};
use portcullis_dispatcher::Dispatcher;
use portcullis_sip::{RouteError, Routes};
use tokio::sync::watch;

use crate::resolve::{Dns, Resolver};

/// What routes are made of, beside the configuration.
#[derive(Clone)]
pub struct RouteSources {
    /// The destinations of the dispatcher.
    pub dispatcher: Arc<Dispatcher>,
    /// Where names lead.
    pub dns: Arc<Dns>,
}

/// Keeps the routes of the operator or of a tenant up to date. Each destination of the dispatcher is a next hop, under a name that policies do
/// not write.
pub struct RouteKeeper {
    relay: RelayConfig,
    /// `None` for the operator.
    tenant: Option<Arc<TenantConfig>>,
    sources: RouteSources,
    generations: watch::Receiver<u64>,
    resolver: Resolver,
}

impl RouteKeeper {
    /// Reads the routes of the operator, or of this tenant, from the configuration and from the sets that are loaded now, and resolves their
    /// names.
    ///
    /// # Errors
    /// If an entry is not a next hop or domain, which a validated configuration excludes.
    pub async fn new(
        relay: &RelayConfig,
        tenant: Option<&Arc<TenantConfig>>,
        sources: &RouteSources,
    ) -> Result<Self, RouteError> {
        let mut generations = sources.dispatcher.generations();
        generations.mark_unchanged();
        let mut resolver = resolver(relay, tenant.map(|tenant| &**tenant), sources)?;
        resolver.resolve_first().await;
        Ok(Self {
            relay: relay.clone(),
            tenant: tenant.cloned(),
            sources: sources.clone(),
            generations,
            resolver,
        })
    }

    /// Returns the routes with the current addresses.
    pub fn routes(&self) -> Routes {
        self.resolver.routes()
    }

    /// Whether the routes never change: they have no names, and no sets of the dispatcher. Nothing has to watch them then.
    pub fn is_fixed(&self) -> bool {
        let has_sets = (self.tenant.as_ref()).is_none_or(|tenant| !tenant.sets.is_empty());
        !has_sets && !self.resolver.has_names()
    }

    /// Keeps the published routes up to date until `stop` becomes true.
    pub async fn watch(self, routes: Arc<ArcSwap<Routes>>, stop: watch::Receiver<bool>) {
        let Self {
            relay,
            tenant,
            sources,
            mut generations,
            mut resolver,
        } = self;
        let mut stopping = stop.clone();
        loop {
            let resolving = resolver.keep_up(Arc::clone(&routes), stop.clone());
            // The resolver ends at once if there are no names.
            let resolving = async move {
                resolving.await;
                pending::<()>().await;
            };
            tokio::select! {
                () = resolving => {}
                _ = stopping.wait_for(|stop| *stop) => return,
                changed = generations.changed() => if changed.is_err() {
                    return;
                },
            }
            // The entries have been routes before, and those of the sets are checked when they are loaded.
            let Ok(new) = self::resolver(&relay, tenant.as_deref(), &sources) else {
                return;
            };
            let before = mem::replace(&mut resolver, new);
            resolver.inherit(before);
            resolver.resolve_first().await;
            routes.store(Arc::new(resolver.routes()));
        }
    }
}

/// The routes of the configuration and of the sets.
fn resolver(
    relay: &RelayConfig,
    tenant: Option<&TenantConfig>,
    RouteSources { dispatcher, dns }: &RouteSources,
) -> Result<Resolver, RouteError> {
    let sets = dispatcher.current();
    let mut relay = relay.clone();
    let is_permitted = |set| tenant.is_none_or(|tenant| tenant.sets.contains(&set));
    let members = sets.members().filter(|member| is_permitted(member.set));
    let hops = members.filter_map(|member| {
        let hop = NextHop::parse(&member.hop).ok()?;
        Some((member.name.to_string(), hop))
    });
    let hops: Vec<_> = hops.collect();
    let names: Vec<_> = hops.iter().map(|(name, _)| name.clone()).collect();
    relay.next_hops.extend(hops);
    let mut resolver = match tenant {
        None => Resolver::new(&relay, dns),
        Some(tenant) => {
            let mut tenant = tenant.clone();
            tenant.next_hops.extend(names);
            Resolver::of_tenant(&relay, &tenant, dns)
        }
    }?;
    let sockets = sets.members().filter(|member| is_permitted(member.set));
    resolver.send_from(sockets.filter_map(|member| Some((&*member.name, member.attrs.from?))));
    Ok(resolver)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_config::Config;
    use portcullis_dispatcher::next_hop_name;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn destinations_are_next_hops_of_those_who_may_use_their_sets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dispatcher.list");
        std::fs::write(&file, "1 sip:192.0.2.1\n2 sip:192.0.2.2:5070\n").unwrap();
        let text = format!(
            "[database]\nurl = \"sqlite:{}\"\n[dispatcher]\nfile = \"{}\"\n[tenants.acme]\nuri-domains = [\"acme.example\"]\nsets = [2]\n",
            folder.path().join("a.db").display(),
            file.display()
        );
        let config = Config::parse(&text).unwrap();
        let dispatcher = Arc::new(config.dispatcher.dispatcher(&config.database));
        dispatcher.reload().await.unwrap();
        let names = [
            next_hop_name(1, "sip:192.0.2.1"),
            next_hop_name(2, "sip:192.0.2.2:5070"),
        ];
        let has = |routes: &Routes| names.each_ref().map(|name| routes.has_hop(name));

        let sources = RouteSources {
            dispatcher: Arc::clone(&dispatcher),
            dns: Dns::new(&config.resolver),
        };
        let operator = RouteKeeper::new(&config.relay, None, &sources);
        let operator = operator.await.unwrap();
        assert_eq!(has(&operator.routes()), [true, true]);
        // So the guard counts them among the known ones.
        assert!(operator.routes().has_address([192, 0, 2, 1].into()));
        let tenant = &config.tenants[0];
        let tenant = RouteKeeper::new(&config.relay, Some(tenant), &sources);
        let tenant = tenant.await.unwrap();
        assert_eq!(has(&tenant.routes()), [false, true]);
        assert!(tenant.routes().permits(b"sip:bob@192.0.2.2:5070"));
        assert!(!tenant.routes().permits(b"sip:bob@192.0.2.1"));
        assert!(!operator.is_fixed() && !tenant.is_fixed());

        let routes = Arc::new(ArcSwap::from_pointee(operator.routes()));
        let (_stop, stopping) = watch::channel(false);
        let watching = tokio::spawn(operator.watch(Arc::clone(&routes), stopping));
        std::fs::write(&file, "1 sip:192.0.2.1\n").unwrap();
        dispatcher.reload().await.unwrap();
        let is_gone = async {
            while has(&routes.load()) != [true, false] {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), is_gone).await.unwrap();
        watching.abort();
    }
    #[tokio::test]
    async fn routes_are_fixed_without_names_and_sets() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[database]\nurl = \"sqlite:{}\"\n[relay.next-hops]\ncarrier = \"sip:192.0.2.1\"\nnamed = \"sip:gateway.invalid\"\n\
             [tenants.plain]\nuri-domains = [\"plain.example\"]\nnext-hops = [\"carrier\"]\n\
             [tenants.names]\nuri-domains = [\"names.example\"]\nnext-hops = [\"named\"]\n",
            folder.path().join("a.db").display()
        );
        let config = Config::parse(&text).unwrap();
        let resolver = portcullis_config::ResolverConfig {
            servers: vec!["127.0.0.1:9".parse().unwrap()],
            hosts_file: false,
            timeout: Duration::from_millis(50),
            ..Default::default()
        };
        let sources = RouteSources {
            dispatcher: Arc::new(config.dispatcher.dispatcher(&config.database)),
            dns: Dns::new(&resolver),
        };
        let mut fixed = Vec::new();
        for tenant in &config.tenants {
            let keeper = RouteKeeper::new(&config.relay, Some(tenant), &sources);
            fixed.push((&*tenant.name, keeper.await.unwrap().is_fixed()));
        }
        fixed.sort_unstable();
        assert_eq!(fixed, [("names", false), ("plain", true)]);
    }
}
