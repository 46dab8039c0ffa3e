//! `portcullis serve`: puts a host together, keeps it running, and ends it in order.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use portcullis_sip::{Local, Proxy, ProxyConfig};
use portcullis_store::Store;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::compiler;
use crate::config::{Config, Listen};
use crate::control::{Control, Doors, Listening};
use crate::error_text::one_line;
use crate::metrics::WorkerCounters;
use crate::records::Recorder;
use crate::resolve::Resolver;
use crate::shared::{Bound, Shared};
use crate::tenants::{ReconfigureError, Registry};
use crate::transport::{Connections, WorkerSockets};
use crate::{address_task, logging, transport, worker};

/// How long workers may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a host until a signal ends it. `path` is the file that the configuration came from.
///
/// # Errors
/// If the log can't be started. Everything later is told in the log, and by the exit code.
pub fn run(config: Config, path: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let _log = logging::start(&config.log).map_err(anyhow::Error::msg)?;
    // Everything but the workers: loading, compiling, HTTP. Two threads, so that one slow thing does not hold up all others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(config, path.as_deref()));
    // A worker or a compilation that hangs must not keep the process.
    runtime.shutdown_timeout(PATIENCE);
    if let Err(error) = ended {
        tracing::error!("{}", one_line(&error));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config, path: Option<&Path>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let (stop, stopping) = watch::channel(false);
    let host = tokio::select! {
        host = Host::assemble(config, path, &stopping) => host?,
        () = signals.end() => return Ok(()),
    };
    let (running, mut workers) = host.start(&stopping)?;
    running.announce(path);
    let ended = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Asked::End => break Ok(()),
                Asked::Reload => running.reload(),
            },
            Some(ended) = workers.join_next() => break ended.context("a worker").and_then(|worker| worker),
        }
    };
    tracing::info!("Portcullis ends.");
    let _nobody_listens = stop.send(true);
    let all_ended = async { while workers.join_next().await.is_some() {} };
    if timeout(PATIENCE, all_ended).await.is_err() {
        tracing::warn!("Not every worker ended within {PATIENCE:?}.");
    }
    // The files of unix sockets and FIFO are removed with them.
    if timeout(PATIENCE, running.doors).await.is_err() {
        tracing::warn!("Not every request of control was answered within {PATIENCE:?}.");
    }
    ended
}

/// Everything that a host is made of, before it runs.
struct Host {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    resolver: Resolver,
    sockets: Vec<WorkerSockets>,
    doors: Doors,
}

/// A host that runs.
struct Running {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    control: Listening,
    doors: JoinHandle<()>,
}

impl Host {
    /// Loads what is needed and binds the sockets. Nothing is answered yet.
    async fn assemble(
        config: Config,
        path: Option<&Path>,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let started = SystemTime::now();
        let workers = config.worker_count();
        let addresses = address_task::open(&config.database, &config.permissions).await?;
        let store = Store::new(config.database.url.clone());
        let mut registry = Registry::new(&config, workers, stopping.clone())?.with_store(store);
        if let Some(path) = path {
            registry = registry.with_file(path.to_owned(), config.clone());
        }
        registry.runtime().compile_with(compiler::elsewhere());
        registry.load_operators().await?;
        registry.apply_all(&Arc::new(config.clone())).await?;
        let mut resolver = Resolver::new(&config.relay)?;
        resolver.resolve().await;
        let listen = expand(&config.listen)?;
        let wanted = listen.iter().map(|listen| (listen.transport, listen.addr));
        let (bound, sockets) = transport::bind(wanted, workers, config.spread)?;
        let doors = Doors::open(&config.control).await?;
        let records = Recorder::start(&config.records)?;
        let shared = Shared {
            addresses,
            records,
            tenants: Arc::clone(registry.current()),
            sandboxes: registry.sandboxes(),
            shadow: registry.shadow().clone(),
            proxy: Arc::new(Proxy::new(proxy_config(&config, &listen, &bound)?)),
            routes: Arc::new(ArcSwap::from_pointee(resolver.routes())),
            connections: Arc::new(Connections::default()),
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            listen: bound,
            started,
            config,
        };
        Ok(Self {
            shared: Arc::new(shared),
            registry: Arc::new(registry),
            resolver,
            sockets,
            doors,
        })
    }

    /// Starts workers and tasks. The set yields when a worker ends.
    fn start(
        self,
        stopping: &watch::Receiver<bool>,
    ) -> anyhow::Result<(Running, JoinSet<anyhow::Result<()>>)> {
        let mut workers = JoinSet::new();
        for (number, sockets) in self.sockets.into_iter().enumerate() {
            let thread = worker::spawn(number, Arc::clone(&self.shared), sockets, stopping.clone())
                .with_context(|| format!("can't start worker {number}"))?;
            let ended = stopping.clone();
            workers.spawn_blocking(move || match thread.join() {
                Ok(()) if *ended.borrow() => Ok(()),
                Ok(()) => bail!("worker {number} ended by itself"),
                Err(_) => bail!("worker {number} died: please report this with the lines above"),
            });
        }
        let listening = self.doors.listening().clone();
        let control = Control::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.registry),
            listening.clone(),
        );
        let doors = tokio::spawn(self.doors.serve(Arc::new(control), stopping.clone()));
        let addresses = Arc::clone(&self.shared.addresses);
        tokio::spawn(async move { addresses.watch().await });
        tokio::spawn(Arc::clone(&self.registry).tend());
        tokio::spawn(
            self.resolver
                .watch(Arc::clone(&self.shared.routes), stopping.clone()),
        );
        let running = Running {
            shared: self.shared,
            registry: self.registry,
            control: listening,
            doors,
        };
        Ok((running, workers))
    }
}

impl Running {
    /// The one line that says what runs where.
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
            version = env!("CARGO_PKG_VERSION"),
            listen = listen.join(" "),
            workers = self.shared.counters.len(),
            tenants = self.shared.tenants.load().named.len(),
            addresses = address_task::summary(addresses),
            policy,
            control = %self.control,
            configuration = path.map_or_else(|| "defaults".into(), |path| path.display().to_string()),
            "Portcullis serves."
        );
    }

    /// Reloads policies, tables and rules, and takes the tenants over, as SIGHUP asks. How it went is in the log.
    fn reload(&self) {
        tracing::info!("SIGHUP: tenants, policies, tables and rules are loaded anew.");
        let registry = Arc::clone(&self.registry);
        tokio::spawn(async move {
            match registry.reconfigure().await {
                Ok(_) | Err(ReconfigureError::NoFile) => {}
                Err(error) => tracing::error!(%error, "The tenants stay as they are."),
            }
            registry.reload_all().await;
        });
        let addresses = Arc::clone(&self.shared.addresses);
        tokio::spawn(async move {
            // How each went is in the log.
            let _told = tokio::join!(
                addresses.reload(),
                addresses.reload_trusted(),
                addresses.reload_rules()
            );
        });
    }
}

/// What a signal asks for.
enum Asked {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    async fn end(&mut self) {
        while let Asked::Reload = self.next().await {}
    }
}

/// The addresses to bind, each with what is advertised for it.
fn expand(listen: &[Listen]) -> anyhow::Result<Vec<Listen>> {
    let mut all = Vec::<Listen>::new();
    for one in listen {
        let expanded = one
            .expand()
            .with_context(|| format!("can't list this machine's addresses for {one}"))?;
        if expanded.is_empty() {
            bail!(
                "{one} stands for no address: this machine has none of that family; change `listen`"
            );
        }
        for one in expanded {
            let same = |other: &Listen| other.transport == one.transport && other.addr == one.addr;
            if one.addr.port() == 0 || !all.iter().any(same) {
                all.push(one);
            }
        }
    }
    Ok(all)
}

fn proxy_config(
    config: &Config,
    listen: &[Listen],
    bound: &[Bound],
) -> anyhow::Result<ProxyConfig> {
    let locals = listen.iter().zip(bound).map(|(listen, bound)| Local {
        transport: bound.transport,
        addr: bound.addr,
        advertised: listen.advertise.clone(),
    });
    let mut key = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context("the system gives no random numbers (/dev/urandom)")?;
    Ok(ProxyConfig {
        locals: locals.collect(),
        aliases: config.sip.aliases.clone(),
        key,
        record_route: config.relay.record_route,
        server_header: config.sip.server_header.clone(),
    })
}
