//! The parts of a host: state is loaded and sockets are bound before anything is served.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use portcullis_capture::Capture;
use portcullis_config::{Config, Pass, Socket};
use portcullis_control::descriptors::{self, Limit, Parts};
use portcullis_control::memory_maps::MemoryMaps;
use portcullis_control::{Control, Doors};
use portcullis_dataplane::drain::Drain;
use portcullis_dataplane::failed_addresses::FailedAddresses;
use portcullis_dataplane::flow_pings::FlowPings;
use portcullis_dataplane::guard_log;
use portcullis_dataplane::handover::Handovers;
use portcullis_dataplane::handshakes::Handshakes;
use portcullis_dataplane::next_hop_load::NextHopLoad;
use portcullis_dataplane::notice_log;
use portcullis_dataplane::notices::Notices;
use portcullis_dataplane::orders::Orders;
use portcullis_dataplane::own_load;
use portcullis_dataplane::peering::Door;
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport;
use portcullis_dataplane::transport::{Bound, Connections, WorkerSockets};
use portcullis_dataplane::worker;
use portcullis_dispatcher::{Dispatcher, DispatcherError};
use portcullis_export::{Exports, Traces};
use portcullis_fleet::exchange::{Exchange, Shared as SharedPart};
use portcullis_fleet::host_name;
use portcullis_guard::{Guard, Unproved};
use portcullis_metrics::WorkerCounters;
use portcullis_peers::{Options as PeerOptions, Peers};
use portcullis_policy::ShareKey;
use portcullis_records::{Record, Recorder, Sink};
use portcullis_rollout::address_task;
use portcullis_rollout::compiler;
use portcullis_rollout::tls_files;
use portcullis_rollout::{
    FlowPinger, Pinger, Registry, RouteKeeper, SharedCounters, Start, fleet_parts,
};
use portcullis_sip::{Clients, Local, OverloadControl, Proxy, ProxyConfig};
use portcullis_store::Store;
use portcullis_tls::Tls;
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

use super::running::Running;
use crate::logging;
use crate::modes;
use crate::seal_keys::{self, SealKeys};
use crate::upgrade::{Inheritance, Predecessor, Upgrade};

/// The parts of a host before it runs.
pub(super) struct Host {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    /// The policies of tenants that are still to be loaded.
    start: Option<Start>,
    keeper: RouteKeeper,
    sockets: Vec<WorkerSockets>,
    doors: Doors,
    parts: Parts,
    /// What the host exports.
    exports: Exports,
    /// The exchange with other hosts; `None` without `[fleet.redis]`.
    exchange: Option<Exchange>,
    /// What is left of it for workers.
    pub(super) inheritance: Inheritance,
    /// Whether another process has the sockets until this one takes over.
    takes_over: bool,
    upgrade: Upgrade,
}

impl Host {
    /// Loads state and binds the sockets. Nothing is served yet.
    pub(super) async fn assemble(
        config: Config,
        path: Option<&Path>,
        limit: Limit,
        mut exports: Exports,
        stopping: &watch::Receiver<bool>,
        predecessor: Option<&Predecessor>,
    ) -> anyhow::Result<Self> {
        let started = SystemTime::now();
        let keys = seal_keys(&config, predecessor)?;
        let workers = config.worker_count();
        let opened = address_task::open(&config.database, &config.permissions).await?;
        let store = Store::new(opened.book.database().connections().clone());
        let mut registry = Registry::new(&config, workers, stopping.clone())?.with_store(store);
        if let Some(path) = path {
            registry = registry.with_file(path.to_owned(), config.clone());
        }
        let registry = Arc::new(registry);
        load_sets(registry.dispatcher()).await?;
        let compiler = compiler::elsewhere(registry.runtime().limits());
        registry.runtime().compile_with(compiler);
        compiler::keep_code(registry.runtime(), &config.policy.cache);
        registry.load_operators().await?;
        let start = registry.start(&Arc::new(config.clone())).await?;
        let start = match opened.broken.is_empty() && predecessor.is_none() {
            true => Some(start),
            // Whether a tenant's policy needs a broken part is known only when the policy is loaded. A successor replaces a process that
            // has all policies.
            false => {
                start.finish().await;
                None
            }
        };
        opened.must_do_for(&registry)?;
        tell_what_others_see(&config);
        let keeper = RouteKeeper::new(&config.relay, None, registry.route_sources()).await?;
        let routes = Arc::clone(registry.routes());
        routes.store(Arc::new(keeper.routes()));
        let listen = Socket::all(&config.listen)?;
        tell_unmatched(&config, &listen);
        let wanted = listen.iter().map(|socket| (socket.transport, socket.addr));
        let mut inheritance = match predecessor {
            Some(predecessor) => block_in_place(|| predecessor.ask())?,
            None => Inheritance::default(),
        };
        let inherited = std::mem::take(&mut inheritance.sockets);
        let (bound, sockets) =
            transport::bind_or_inherit(wanted, workers, config.spread, inherited)?;
        let heritage = std::mem::take(&mut inheritance.control);
        let doors = Doors::open(&config.control, heritage).await?;
        let traces = Traces::start(&config.records)?;
        exports.extend(traces.iter().map(|traces| ("traces", traces.stats())));
        let sink =
            traces.map(|traces| -> Sink { Box::new(move |record: &Record| traces.record(record)) });
        let records = Recorder::start_with(&config.records, sink)?;
        let capture = Capture::start(&config.capture, ShareKey::new(&keys.current))?;
        // Each worker duplicates the descriptor of each UDP socket.
        let second = sockets.iter().map(|worker| worker.udp.len());
        let open = descriptors::open_now() + second.sum::<usize>();
        let parts = Parts::of(limit.now, open, workers, &config);
        parts.tell(limit, &config);
        let tenants = registry.current().load().named.len();
        if let Some(maps) = MemoryMaps::of(tenants, &config) {
            maps.tell();
        }
        let peers = peers(&config, &listen, &bound, &keys)?;
        let tag = peers.as_ref().map(|peers| peers.tag());
        let shared = Shared {
            addresses: opened.book,
            records,
            capture,
            share_key: ShareKey::new(&keys.current),
            dispatcher: Arc::clone(registry.dispatcher()),
            tenants: Arc::clone(registry.current()),
            sandboxes: registry.sandboxes(),
            shadow: registry.shadow().clone(),
            proxy: Arc::new(
                Proxy::new(proxy_config(&config, &listen, &bound, keys.clone()))
                    .with_tag(tag)
                    .with_overload_control(OverloadControl {
                        next_hops: config.relay.overload_control,
                        clients: config.sip.overload_control,
                    }),
            ),
            routes,
            connections: Arc::new(Connections::new(parts.bounds(&config))),
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            handshakes: handshakes(&config, workers)?,
            handovers: match peers {
                Some(_) => Handovers::among_hosts(workers),
                None => Handovers::new(workers),
            },
            peers,
            orders: Orders::new(workers, predecessor.is_none()),
            notices: Notices::new(workers),
            guard: config
                .guard
                .enabled
                .then(|| Guard::new(&config.guard.limits, Instant::now())),
            unproved: Unproved::new(&config.sip.unasked, Instant::now()),
            drain: Drain::default(),
            failed_addresses: FailedAddresses::default(),
            pings: Default::default(),
            flow_pings: (!config.nat.ping.is_zero()).then(FlowPings::default),
            next_hop_load: NextHopLoad::default(),
            client_load: Default::default(),
            listen: bound,
            started,
            config,
        };
        transport::steer(&sockets, shared.config.spread, shared.proxy.steering());
        let shared = Arc::new(shared);
        let exchange = exchange(&shared, &registry, &keys)?;
        Ok(Self {
            upgrade: Upgrade::new(&shared, &keys)?,
            shared,
            registry,
            start,
            keeper,
            sockets,
            doors,
            parts,
            exports,
            exchange,
            inheritance,
            takes_over: predecessor.is_some(),
        })
    }

    /// Starts workers and tasks. The set yields when a worker ends. The control interfaces answer when the last value becomes true.
    pub(super) fn start(
        self,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<(Running, JoinSet<anyhow::Result<()>>, watch::Sender<bool>)> {
        let mut workers = JoinSet::new();
        for (number, sockets) in self.sockets.into_iter().enumerate() {
            let thread = worker::spawn(number, Arc::clone(&self.shared), sockets, stopping.clone())
                .with_context(|| format!("cannot start worker {number}"))?;
            let ended = stopping.clone();
            workers.spawn_blocking(move || match thread.join() {
                Ok(()) if *ended.borrow() => Ok(()),
                Ok(()) => bail!("worker {number} ended unexpectedly"),
                Err(_) => bail!("worker {number} died: please report this with the lines above"),
            });
        }
        let listening = self.doors.listening().clone();
        let control = Control::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.registry),
            listening.clone(),
            self.doors.token().cloned(),
            &self.parts,
            logging::lost_lines,
            self.exports,
        );
        let exchange = self.exchange.as_ref().map(Exchange::status);
        let control = control
            .with_events(logging::live_events())
            .with_exchange(exchange);
        let drain_wish = control.drain_wish();
        let lent = self.doors.lent().to_vec();
        let (close, closing) = watch::channel(false);
        let (open, mut opening) = watch::channel(false);
        let doors = tokio::spawn(async move {
            if opening.wait_for(|open| *open).await.is_ok() {
                self.doors.serve(Arc::new(control), closing).await;
            }
        });
        if let Some(peers) = &self.shared.peers {
            let door = Door::new(Arc::clone(&self.shared), stopping.clone());
            let _ends_with_the_host = peers.start(self.takes_over, door)?;
        }
        let addresses = Arc::clone(&self.shared.addresses);
        tokio::spawn(async move { addresses.watch().await });
        if let Some(handshakes) = &self.shared.handshakes {
            tokio::spawn(tls_files::watch(Arc::clone(handshakes.tls())));
        }
        let dispatcher = Arc::clone(&self.shared.dispatcher);
        let proxy = Arc::clone(&self.shared.proxy);
        dispatcher.know_sockets(move |addr| proxy.has_socket(addr));
        tokio::spawn(async move { dispatcher.watch().await });
        tokio::spawn(Pinger::new(Arc::clone(&self.shared)).run(stopping.clone()));
        if let Some(pinger) = FlowPinger::new(Arc::clone(&self.shared)) {
            tokio::spawn(pinger.run(stopping.clone()));
        }
        if let Some(exchange) = self.exchange {
            tokio::spawn(exchange.run(stopping.clone()));
        }
        if let Some(start) = self.start {
            tokio::spawn(start.finish());
        }
        tokio::spawn(Arc::clone(&self.registry).tend());
        tokio::spawn(notice_log::watch(
            Arc::clone(&self.shared),
            stopping.clone(),
        ));
        tokio::spawn(guard_log::watch(Arc::clone(&self.shared), stopping.clone()));
        tokio::spawn(own_load::watch(Arc::clone(&self.shared), stopping.clone()));
        tokio::spawn(
            self.keeper
                .watch(Arc::clone(&self.shared.routes), stopping.clone()),
        );
        let running = Running {
            shared: self.shared,
            registry: self.registry,
            control: listening,
            doors,
            close,
            lent,
            drain_wish,
            upgrade: self.upgrade,
            successor: None,
        };
        Ok((running, workers, open))
    }
}

/// The exchange with other hosts, with all parts of this host that take part; `None` without `[fleet.redis]`.
fn exchange(
    shared: &Arc<Shared>,
    registry: &Registry,
    keys: &SealKeys,
) -> anyhow::Result<Option<Exchange>> {
    let host = host_name(shared.config.fleet.name.as_deref());
    let Some(options) = crate::exchange::options(&shared.config.redis, &host) else {
        return Ok(None);
    };
    let mut instance = [0; 16];
    getrandom::fill(&mut instance).context("the system has no random numbers")?;
    let counters = SharedCounters::new(Arc::clone(registry.fleet_tables()));
    let mut parts: Vec<Arc<dyn SharedPart>> = vec![Arc::new(counters)];
    parts.extend(fleet_parts(shared, &host, &keys.current));
    Ok(Some(Exchange::new(options, instance, parts)))
}

/// The hosts that share the addresses of this one; `None` if nothing is passed to any.
fn peers(
    config: &Config,
    listen: &[Socket],
    bound: &[Bound],
    keys: &SealKeys,
) -> anyhow::Result<Option<Arc<Peers>>> {
    let peers = &config.fleet.peers;
    let Some(own) = peers.listen else {
        return Ok(None);
    };
    let sockets = listen.iter().zip(bound);
    let sockets = sockets.map(|(listen, bound)| match &listen.advertise {
        _ if bound.transport.is_reliable() => String::new(),
        Some((host, port)) => format!("{host}:{port}"),
        None => bound.addr.to_string(),
    });
    let options = PeerOptions {
        listen: own,
        peers: peers.hosts.clone(),
        requests: peers.pass == Pass::All,
        key: keys.current,
        earlier_keys: keys.earlier.clone(),
        sockets: sockets.collect(),
    };
    Ok(Some(Arc::new(Peers::open(&options)?)))
}

/// Loads the sets of the dispatcher. A table that cannot be read leaves them empty until it can be: the log says why. The load of the addresses
/// has checked the database.
///
/// # Errors
/// If a file is configured and cannot be used.
async fn load_sets(dispatcher: &Dispatcher) -> anyhow::Result<()> {
    match dispatcher.reload().await {
        Err(error @ (DispatcherError::File { .. } | DispatcherError::NoUsableLine { .. })) => {
            Err(error.into())
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Warns of what other users of this machine, or on the network path to the database, can read.
fn tell_what_others_see(config: &Config) {
    let mut modes = Vec::new();
    let urls = &config.database.url;
    for url in urls.all() {
        if let Some(what) = url.insecurity() {
            tracing::warn!(event = "database_insecure", "the database {url} {what}");
        }
    }
    modes.extend(
        urls.file()
            .and_then(|file| modes::too_open(file, modes::PRIVATE)),
    );
    let records = [&config.records.file, &config.records.calls];
    let records = records.into_iter().flatten();
    modes.extend(records.filter_map(|file| modes::too_open(file, modes::RECORDS)));
    for mode in modes {
        tracing::warn!(event = "file_mode", "{mode}");
    }
}

/// An interface may have other addresses than the configuration names elsewhere.
fn tell_unmatched(config: &Config, sockets: &[Socket]) {
    for (key, listen) in config.unmatched(sockets) {
        tracing::warn!(
            event = "listen_unmatched",
            key = key.as_str(),
            %listen,
            "the host does not listen on an address that the configuration names: the key has no effect there"
        );
    }
}

/// The threads of TLS handshakes, with the certificates that they need; `None` without TLS.
fn handshakes(config: &Config, workers: usize) -> anyhow::Result<Option<Handshakes>> {
    let Some(settings) = config.tls_settings() else {
        return Ok(None);
    };
    let tls = Arc::new(Tls::open(&settings)?);
    // Workers have all processors; a storm of handshakes has half of them at most.
    let threads = workers.div_ceil(2);
    let handshakes = Handshakes::start(tls, threads, config.streams.handshake)
        .context("cannot start the threads of TLS handshakes")?;
    Ok(Some(handshakes))
}

/// The keys of the configured file, or of the one in systemd's state directory; otherwise those of the predecessor, or random keys.
fn seal_keys(config: &Config, predecessor: Option<&Predecessor>) -> anyhow::Result<SealKeys> {
    let file = config.sip.key_file.clone().or_else(seal_keys::default_file);
    let keys = SealKeys::load(file.as_deref())?;
    let keys = match predecessor {
        Some(predecessor) => predecessor.keys(config, file.is_some().then_some(keys))?,
        None => keys,
    };
    if let Some(file) = file.filter(|file| seal_keys::is_open(file)) {
        tracing::warn!(
            event = "key_file_open",
            file = %file.display(),
            "seal key readable by every user of this machine: chmod 600"
        );
    }
    Ok(keys)
}

fn proxy_config(
    config: &Config,
    listen: &[Socket],
    bound: &[Bound],
    keys: SealKeys,
) -> ProxyConfig {
    let locals = listen.iter().zip(bound).map(|(listen, bound)| Local {
        transport: bound.transport,
        addr: bound.addr,
        advertised: listen.advertise.clone(),
    });
    let dialog_minutes = config.policy.in_dialog_lifetime.as_secs() / 60;
    let sockets = listen.iter().zip(bound);
    let force_rport = sockets
        .filter(|(listen, _)| config.sip.force_rport.goes_for(listen))
        .map(|(_, bound)| bound.addr);
    let clients = listen.iter().zip(bound);
    let clients = clients
        .filter(|(listen, _)| listen.transport.is_websocket() || config.nat.has_clients(listen))
        .map(|(_, bound)| (bound.transport, bound.addr));
    let flow_minutes = config.nat.flow_lifetime.as_secs() / 60;
    ProxyConfig {
        locals: locals.collect(),
        aliases: config.sip.aliases.clone(),
        key: keys.current,
        earlier_keys: keys.earlier,
        dialog_minutes: u32::try_from(dialog_minutes).unwrap_or(u32::MAX),
        record_route: config.relay.record_route,
        server_header: config.sip.server_header.clone(),
        force_rport: force_rport.collect(),
        clients: Clients {
            sockets: clients.collect(),
            minutes: u32::try_from(flow_minutes).unwrap_or(u32::MAX),
            flow_timer: u32::try_from(config.nat.flow_timer.as_secs())
                .ok()
                .filter(|seconds| *seconds > 0),
        },
    }
}
