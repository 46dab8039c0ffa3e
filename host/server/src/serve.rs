//! `portcullis serve`: assembles a host, runs it, and shuts it down.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use nix::sys::signal::SigSet;
use portcullis_capture::Capture;
use portcullis_config::{Config, Socket};
use portcullis_control::descriptors::{self, Limit, Parts};
use portcullis_control::memory_maps::MemoryMaps;
use portcullis_control::{Control, Doors, Lent, Listening};
use portcullis_dataplane::drain::{Drain, Stage};
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
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport;
use portcullis_dataplane::transport::{Bound, Connections, WorkerSockets};
use portcullis_dataplane::worker;
use portcullis_dispatcher::{Dispatcher, DispatcherError};
use portcullis_export::{Events, Exports, Listener, Traces};
use portcullis_guard::{Guard, Unproved};
use portcullis_metrics::WorkerCounters;
use portcullis_policy::ShareKey;
use portcullis_records::{Record, Recorder, Sink};
use portcullis_rollout::address_task;
use portcullis_rollout::compiler;
use portcullis_rollout::tls_files;
use portcullis_rollout::{FlowPinger, Pinger, ReconfigureError, Registry, RouteKeeper, Start};
use portcullis_sip::{Clients, Local, OverloadControl, Proxy, ProxyConfig};
use portcullis_store::Store;
use portcullis_text::one_line;
use portcullis_tls::Tls;
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, block_in_place};
use tokio::time::timeout;

use crate::drain::Draining;
use crate::logging;
use crate::modes;
use crate::notify::Manager;
use crate::rights;
use crate::seal_keys::{self, SealKeys};
use crate::upgrade::{End, Inheritance, Predecessor, Upgrade, Upgraded};

/// Time limit for workers and control interfaces to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a host until a signal ends it. `path` is the file that the configuration came from.
///
/// # Errors
/// If the log cannot be started. Later errors are logged and determine the exit code.
pub fn run(config: Config, path: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let events = Events::start(&config.events)?;
    let exports = events.as_ref().map(|events| events.told());
    let listener = events.map(|events| (Listener::new(events), config.events.level));
    let _log = logging::start(&config.log, listener).map_err(anyhow::Error::msg)?;
    let limit = descriptors::raise().context("the limit of open files cannot be raised")?;
    // Everything except the workers: loading, compiling, HTTP. Two threads, so that one slow task does not block all others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(
        config,
        path.as_deref(),
        limit,
        exports.unwrap_or_default(),
    ));
    // A hanging worker or compilation must not keep the process alive.
    runtime.shutdown_timeout(PATIENCE);
    if let Err(error) = ended {
        tracing::error!(event = "host_failed", "{}", one_line(&error));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Holds SIGUSR2 back until a host can handle it. Otherwise, a signal to a host that starts, or to all processes of a unit, would end the
/// host or a compiler. To be called before there is another thread.
pub fn hold_upgrades() {
    let _supported = upgrades().thread_block();
}

fn upgrades() -> SigSet {
    SigSet::from(nix::sys::signal::Signal::SIGUSR2)
}

async fn serve(
    config: Config,
    path: Option<&Path>,
    limit: Limit,
    exports: Exports,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // This thread lasts as long as the runtime.
    let _supported = upgrades().thread_unblock();
    let (stop, stopping) = watch::channel(false);
    let predecessor = Predecessor::of_environment()?;
    let (mut running, mut workers) = tokio::select! {
        running = begin(config, path, limit, exports, predecessor, &stopping) => running?,
        () = signals.end() => return Ok(()),
    };
    running.announce(path);
    let manager = Arc::new(Manager::of_environment());
    manager.ready();
    tokio::spawn(Arc::clone(&manager).watchdog(Arc::clone(&running.shared)));
    tokio::task::spawn_blocking(rights::tell);
    let mut draining = Draining::default();
    // The signal for a process that has taken over meanwhile.
    let mut passed_on = None;
    let ended = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Asked::Drain if draining.begin(&running.shared) => manager.stopping(),
                // It is meant for the process that has taken over; this one ends by itself.
                Asked::Drain if draining.is_leaving() => {}
                Asked::Drain | Asked::End => {
                    passed_on = Some(Signal::INT);
                    break Ok(());
                }
                Asked::Reload => running.reload(),
                Asked::Upgrade => running.upgrade(&draining, &manager),
            },
            upgraded = running.upgrade.ended() => match upgraded {
                Ok(upgraded) => {
                    if draining.leave(&running.shared) {
                        // SIGTERM has come while the new process took over.
                        upgraded.signal(Signal::TERM);
                    }
                    running.leave(upgraded);
                }
                Err(error) => tracing::error!(
                    event = "upgrade_failed",
                    reason = %one_line(&anyhow::Error::from(error)),
                    "upgrade failed, this process goes on serving: remove the cause and send SIGUSR2 again, or restart the host"
                ),
            },
            end = successor_ended(&mut running.successor) => break after(end),
            () = draining.ended() => {
                passed_on = Some(Signal::TERM);
                break running.left();
            }
            Some(ended) = workers.join_next() => break ended.context("a worker").and_then(|worker| worker),
        }
    };
    tracing::info!(event = "ending", "Portcullis is ending");
    if running.upgrade.abandon()
        && let Ok(Ok(upgraded)) = timeout(PATIENCE, running.upgrade.ended()).await
    {
        if let Some(signal) = passed_on {
            upgraded.signal(signal);
        }
        running.leave(upgraded);
    }
    manager.stopping();
    let _nobody_listens = stop.send(true);
    running.close.send_replace(true);
    let all_ended = async { while workers.join_next().await.is_some() {} };
    if timeout(PATIENCE, all_ended).await.is_err() {
        tracing::warn!(
            event = "workers_not_ended",
            "workers did not end within {PATIENCE:?}"
        );
    }
    // Ends after the files of unix sockets and FIFO are removed.
    if timeout(PATIENCE, running.doors).await.is_err() {
        tracing::warn!(
            event = "control_not_ended",
            "control requests were not answered within {PATIENCE:?}"
        );
    }
    ended
}

/// Completes when the process that has taken over has ended. Never without one.
async fn successor_ended(successor: &mut Option<Upgraded>) -> End {
    match successor {
        Some(successor) => successor.ended().await,
        None => std::future::pending().await,
    }
}

/// The result of this process when the one that has taken over has ended before it: nobody reads the sockets any more, and a service manager that
/// restarts the host waits for both.
fn after(end: End) -> anyhow::Result<()> {
    if end == End::Exited(0) {
        tracing::info!(
            event = "successor_ended",
            %end,
            "the process that had taken over has ended, and so does this one"
        );
        return Ok(());
    }
    tracing::error!(
        event = "successor_ended",
        %end,
        "the process that had taken over ended, nobody reads the sockets: this one ends, too, so that the host is restarted"
    );
    bail!("the process that had taken over ended ({end})");
}

/// Loads everything and starts to serve, or to do so in place of a predecessor.
async fn begin(
    config: Config,
    path: Option<&Path>,
    limit: Limit,
    exports: Exports,
    predecessor: Option<Predecessor>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<(Running, JoinSet<anyhow::Result<()>>)> {
    let Some(predecessor) = predecessor else {
        let host = Host::assemble(config, path, limit, exports, stopping, None).await?;
        let (running, workers, open) = host.start(stopping)?;
        running.shared.pings.set_serving(true);
        open.send_replace(true);
        return Ok((running, workers));
    };
    let assembled =
        Host::assemble(config, path, limit, exports, stopping, Some(&predecessor)).await;
    let started = assembled.and_then(|mut host| {
        let inheritance = std::mem::take(&mut host.inheritance);
        Ok((inheritance, host.start(stopping)?))
    });
    let (inheritance, (running, workers, open)) = match started {
        Ok(started) => started,
        Err(error) => {
            predecessor.refuse(&error);
            return Err(error);
        }
    };
    predecessor
        .take_over(
            inheritance,
            &running.lent,
            &running.shared,
            running.upgrade.elders(),
        )
        .await?;
    running.shared.pings.set_serving(true);
    open.send_replace(true);
    // What has changed since this process read it was only told to the other one.
    running.reload();
    Ok((running, workers))
}

/// The parts of a host before it runs.
struct Host {
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
    /// What is left of it for workers.
    inheritance: Inheritance,
    upgrade: Upgrade,
}

/// A running host.
struct Running {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    control: Listening,
    doors: JoinHandle<()>,
    /// Closes the control interfaces.
    close: watch::Sender<bool>,
    lent: Vec<Lent>,
    upgrade: Upgrade,
    /// The process that has taken over.
    successor: Option<Upgraded>,
}

impl Host {
    /// Loads state and binds the sockets. Nothing is served yet.
    async fn assemble(
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
        exports.extend(traces.iter().map(|traces| ("traces", traces.told())));
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
                    .with_overload_control(OverloadControl {
                        next_hops: config.relay.overload_control,
                        clients: config.sip.overload_control,
                    }),
            ),
            routes,
            connections: Arc::new(Connections::new(parts.bounds(&config))),
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            handshakes: handshakes(&config, workers)?,
            handovers: Handovers::new(workers),
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
        Ok(Self {
            upgrade: Upgrade::new(&shared, &keys)?,
            shared: Arc::new(shared),
            registry,
            start,
            keeper,
            sockets,
            doors,
            parts,
            exports,
            inheritance,
        })
    }

    /// Starts workers and tasks. The set yields when a worker ends. The control interfaces answer when the last value becomes true.
    fn start(
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
        let control = control.with_events(logging::live_events());
        let lent = self.doors.lent().to_vec();
        let (close, closing) = watch::channel(false);
        let (open, mut opening) = watch::channel(false);
        let doors = tokio::spawn(async move {
            if opening.wait_for(|open| *open).await.is_ok() {
                self.doors.serve(Arc::new(control), closing).await;
            }
        });
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
            upgrade: self.upgrade,
            successor: None,
        };
        Ok((running, workers, open))
    }
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
    let url = &config.database.url;
    if let Some(what) = url.insecurity() {
        tracing::warn!(event = "database_insecure", "The database {url} {what}.");
    }
    modes.extend(
        url.file()
            .and_then(|file| modes::too_open(file, modes::PRIVATE)),
    );
    let records = [&config.records.file, &config.records.calls];
    let records = records.into_iter().flatten();
    modes.extend(records.filter_map(|file| modes::too_open(file, modes::RECORDS)));
    for mode in modes {
        tracing::warn!(event = "file_mode", "{mode}.");
    }
}

impl Running {
    /// Starts an upgrade after SIGUSR2, if that is possible now.
    fn upgrade(&mut self, draining: &Draining, manager: &Arc<Manager>) {
        let refusal = if draining.is_leaving() {
            Some("another process has taken over already")
        } else if self.shared.drain.stage() != Stage::Serving {
            Some("the host is ending")
        } else if !self.upgrade.begin(&self.shared, &self.lent, manager) {
            Some("an upgrade is in progress")
        } else {
            None
        };
        if let Some(reason) = refusal {
            refuse_upgrade(reason);
        }
    }

    /// Leaves the control interfaces to the process that has taken over.
    fn leave(&mut self, upgraded: Upgraded) {
        let is_taken = |lent: &&Lent| upgraded.taken.iter().any(|name| name == lent.name());
        for lent in self.lent.iter().filter(is_taken) {
            lent.give_up();
        }
        self.shared.pings.set_serving(false);
        self.close.send_replace(true);
        tracing::info!(
            event = "upgraded",
            pid = upgraded.pid(),
            pause = ?upgraded.pause,
            "a new process serves; this one ends when its transactions and connections have"
        );
        self.successor = Some(upgraded);
    }

    /// The result of this process when nothing is left.
    fn left(&self) -> anyhow::Result<()> {
        match &self.successor {
            Some(successor) if !successor.is_followed => bail!(
                "the service manager did not learn that process {} has taken over: this one ends with an error, so that the host is restarted",
                successor.pid()
            ),
            _ => Ok(()),
        }
    }

    /// Logs where and with what the host serves.
    fn announce(&self, path: Option<&Path>) {
        let Shared {
            listen, addresses, ..
        } = &*self.shared;
        let listen: Vec<_> = listen.iter().map(Bound::to_string).collect();
        let policy = match self.registry.default_files().slot().current() {
            Some(generation) => format!(
                "{} generation {} sha256:{:#}",
                generation.policy.name(),
                generation.number,
                generation.policy.digest()
            ),
            None => "none".into(),
        };
        tracing::info!(
            event = "serving",
            version = env!("CARGO_PKG_VERSION"),
            listen = listen.join(" "),
            workers = self.shared.counters.len(),
            tenants = self.shared.tenants.load().named.len(),
            addresses = address_task::summary(addresses),
            policy,
            control = %self.control,
            configuration = path.map_or_else(|| "defaults".into(), |path| path.display().to_string()),
            "Portcullis is serving"
        );
    }

    /// Reloads tenants, policies, tables and rules after SIGHUP. The results are logged.
    fn reload(&self) {
        tracing::info!(
            event = "reload_requested",
            "SIGHUP: reloading tenants, policies, tables, rules and certificates"
        );
        let registry = Arc::clone(&self.registry);
        tokio::spawn(async move {
            match registry.reconfigure().await {
                Ok(_) | Err(ReconfigureError::NoFile) => {}
                Err(error) => {
                    tracing::error!(event = "tenants_not_reloaded", %error, "tenants not reloaded, the previous ones stay");
                }
            }
            registry.reload_all().await;
        });
        if let Some(handshakes) = &self.shared.handshakes {
            let tls = Arc::clone(handshakes.tls());
            tokio::spawn(async move { tls_files::reload(&tls).await });
        }
        let addresses = Arc::clone(&self.shared.addresses);
        tokio::spawn(async move {
            // The results are logged.
            let _told = tokio::join!(
                addresses.reload(),
                addresses.reload_trusted(),
                addresses.reload_rules()
            );
        });
        let dispatcher = Arc::clone(&self.shared.dispatcher);
        tokio::spawn(async move { dispatcher.reload().await });
    }
}

fn refuse_upgrade(reason: &str) {
    tracing::warn!(
        event = "upgrade_refused",
        reason,
        "SIGUSR2 has no effect now"
    );
}

/// The request of a signal.
enum Asked {
    /// To end when no call is in set-up.
    Drain,
    /// To end at once.
    End,
    Reload,
    /// To hand the sockets to a new process.
    Upgrade,
}

struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    upgrade: unix::Signal,
    /// Never awaited: registering the signal keeps it from ending the host. A write beyond the file size limit (`LimitFSIZE=`, `ulimit -f`)
    /// then returns EFBIG, like a full disk.
    _file_size: unix::Signal,
}

/// The signal for a file that has reached its size limit.
const SIGXFSZ: i32 = 25;

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Drain,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }

    /// Completes when a host that starts is to end.
    async fn end(&mut self) {
        loop {
            match self.next().await {
                Asked::Drain | Asked::End => return,
                // It reads everything now.
                Asked::Reload => {}
                Asked::Upgrade => refuse_upgrade("the host is starting"),
            }
        }
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
