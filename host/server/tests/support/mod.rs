//! Hosts within the test's own process: everything of `portcullis serve` that carries messages, and no files but a table.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "each test program uses a part of this, and a panic is how a test fails"
)]

pub mod peer;
pub mod policies;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use portcullis_address::{AddressBook, BookOptions, Database, DatabaseUrl, NewRow};
use portcullis_config::{Config, ForceRport};
use portcullis_dataplane::drain::Drain;
use portcullis_dataplane::handover::Handovers;
use portcullis_dataplane::notices::Notices;
use portcullis_dataplane::orders::Orders;
use portcullis_dataplane::pipeline::{Handled, Pipeline};
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport::{self, Connections, WorkerSockets};
use portcullis_dataplane::worker;
use portcullis_guard::{Guard, Unproved};
use portcullis_metrics::WorkerCounters;
use portcullis_policy::{PolicySlot, Runtime};
use portcullis_rollout::Registry;
use portcullis_rollout::resolve::{Dns, Resolver};
use portcullis_sip::{Destination, Local, Proxy, ProxyConfig, Transport};
use portcullis_transaction::Outbox;
use tempfile::TempDir;
use tokio::sync::watch;

pub use portcullis_testkit::wait::until_true as until;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a host is made of.
pub struct Setup {
    config: String,
    policy: Option<String>,
    rows: Vec<(i64, String)>,
    workers: usize,
    listen: Vec<(Transport, SocketAddr)>,
}

/// A host without threads: what a pipeline needs.
pub struct Parts {
    pub shared: Arc<Shared>,
    pub runtime: Arc<Runtime>,
    pub registry: Arc<Registry>,
    /// What the registry's tasks run on.
    pub tasks: tokio::runtime::Runtime,
    sockets: Vec<WorkerSockets>,
    _folder: TempDir,
}

/// A host with running workers.
pub struct Host {
    pub shared: Arc<Shared>,
    pub runtime: Arc<Runtime>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    _folder: TempDir,
}

impl Setup {
    /// One worker on a UDP and a TCP port of 127.0.0.1, without policy and with an empty table.
    pub fn new() -> Self {
        Self {
            config: String::new(),
            policy: None,
            rows: Vec::new(),
            workers: 1,
            listen: Vec::new(),
        }
        .listen(Transport::Udp, "127.0.0.1:0")
        .listen(Transport::Tcp, "127.0.0.1:0")
    }

    /// The same on ::1.
    pub fn v6() -> Self {
        Self {
            listen: Vec::new(),
            ..Self::new()
        }
        .listen(Transport::Udp, "[::1]:0")
        .listen(Transport::Tcp, "[::1]:0")
    }

    pub fn listen(mut self, transport: Transport, addr: &str) -> Self {
        self.listen.push((transport, addr.parse().unwrap()));
        self
    }

    /// Adds sections of a configuration file.
    pub fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self
    }

    /// Serves this policy, in WebAssembly's text form.
    pub fn policy(mut self, wat: impl Into<String>) -> Self {
        self.policy = Some(wat.into());
        self
    }

    /// Puts an address into a group.
    pub fn row(mut self, group: i64, ip_addr: &str) -> Self {
        self.rows.push((group, ip_addr.into()));
        self
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Puts the host together.
    pub fn parts(self) -> Parts {
        let folder = tempfile::tempdir().unwrap();
        let config = self.read_config();
        let (bound, sockets) =
            transport::bind(self.listen.clone(), self.workers, config.spread).unwrap();
        let locals = bound.iter().map(|bound| Local {
            transport: bound.transport,
            addr: bound.addr,
            advertised: None,
        });
        let forced = match config.sip.force_rport {
            ForceRport::Always => bound.iter().map(|bound| bound.addr).collect(),
            _ => Vec::new(),
        };
        let proxy = Proxy::new(ProxyConfig {
            locals: locals.collect(),
            aliases: config.sip.aliases.clone(),
            key: [7; 16],
            earlier_keys: Vec::new(),
            dialog_minutes: 24 * 60,
            record_route: config.relay.record_route,
            server_header: config.sip.server_header.clone(),
            force_rport: forced,
            clients: portcullis_sip::Clients::default(),
        });
        let url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
        let addresses = block_on(address_book(url, &self.rows));
        let mut resolver = Resolver::new(&config.relay, &Dns::new(&config.resolver)).unwrap();
        block_on(resolver.resolve_first());
        let (_never, stop) = watch::channel(false);
        let registry = Arc::new(Registry::new(&config, self.workers, stop).unwrap());
        registry.routes().store(Arc::new(resolver.routes()));
        let tasks = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let apply = registry.apply(&config, &config.tenants);
        tasks.block_on(apply).unwrap();
        let runtime = Arc::clone(registry.runtime());
        let shared = Arc::new(Shared {
            listen: bound,
            addresses: Arc::new(addresses),
            dispatcher: Arc::clone(registry.dispatcher()),
            tenants: Arc::clone(registry.current()),
            sandboxes: registry.sandboxes(),
            shadow: registry.shadow().clone(),
            share_key: portcullis_policy::ShareKey::random(),
            capture: None,
            records: portcullis_records::Recorder::start(&config.records).unwrap(),
            proxy: Arc::new(proxy),
            routes: Arc::clone(registry.routes()),
            connections: Arc::new(Connections::new(config.sip.tcp)),
            counters: (0..self.workers)
                .map(|_| WorkerCounters::default())
                .collect(),
            handshakes: None,
            handovers: Handovers::new(self.workers),
            peers: None,
            orders: Orders::new(self.workers, true),
            notices: Notices::new(self.workers),
            guard: config
                .guard
                .enabled
                .then(|| Guard::new(&config.guard.limits, Instant::now())),
            unproved: Unproved::new(&config.sip.unasked, Instant::now()),
            drain: Drain::default(),
            failed_addresses: Default::default(),
            pings: Default::default(),
            flow_pings: None,
            next_hop_load: Default::default(),
            client_load: Default::default(),
            started: SystemTime::now(),
            config,
        });
        if let Some(wat) = &self.policy {
            publish(&shared, &runtime, wat);
        }
        Parts {
            shared,
            runtime,
            registry,
            tasks,
            sockets,
            _folder: folder,
        }
    }

    /// Puts the host together and starts its workers.
    pub fn start(self) -> Host {
        self.parts().start()
    }

    fn read_config(&self) -> Config {
        let mut config = Config::parse(&self.config).unwrap();
        // A machine that is busy with other tests must not make an honest policy late.
        if !self.config.contains("deadline") {
            config.policy.seat.limits.deadline = PATIENCE;
        }
        config.policy.seat.limits.instances = 8;
        config
    }
}

impl Parts {
    pub fn start(self) -> Host {
        let (stop, stopping) = watch::channel(false);
        let sockets = self.sockets.into_iter().enumerate();
        let workers = sockets.map(|(number, sockets)| {
            worker::spawn(number, Arc::clone(&self.shared), sockets, stopping.clone()).unwrap()
        });
        Host {
            workers: workers.collect(),
            shared: self.shared,
            runtime: self.runtime,
            stop,
            _folder: self._folder,
        }
    }

    /// The address that the host listens on.
    pub fn addr(&self, transport: Transport) -> SocketAddr {
        addr(&self.shared, transport)
    }

    /// Replaces the policy.
    pub fn publish(&self, wat: &str) {
        publish(&self.shared, &self.runtime, wat);
    }

    /// Replaces the policy of a seat: that of a tenant, `default`, `before` or `after`.
    pub fn seat(&self, name: &str, wat: &str) -> u64 {
        let seat = Arc::clone(self.shared.tenants.load().seat(name).unwrap());
        let policy = self.runtime.load(name, &compiled(wat)).unwrap();
        seat.slot.publish(policy).number
    }

    /// Puts the same policy ready without letting it serve; the number of its generation.
    pub fn admit(&self, name: &str, wat: &str) -> u64 {
        let seat = Arc::clone(self.shared.tenants.load().seat(name).unwrap());
        let policy = self.runtime.load(name, &compiled(wat)).unwrap();
        seat.slot.admit(policy, None).number
    }
}

impl Host {
    pub fn udp(&self) -> SocketAddr {
        addr(&self.shared, Transport::Udp)
    }

    pub fn tcp(&self) -> SocketAddr {
        addr(&self.shared, Transport::Tcp)
    }

    /// The sum of a counter over all workers.
    pub fn count(&self, pick: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.shared.counters.iter().map(pick).sum()
    }

    /// Ends the host in order.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ended_already = self.stop.send(true);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() && !std::thread::panicking() {
                panic!("a worker died");
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

/// The destination of what a pipeline sends after it has handled a message; the bytes are in `out`. Of several messages of a transaction, this is
/// the last: the request after the 100.
pub fn sent(pipeline: &mut Pipeline, handled: Handled, out: &mut Vec<u8>) -> Option<Destination> {
    match handled {
        Handled::Done(Some(destination)) => Some(destination),
        Handled::Done(None) | Handled::Relayed => sent_by_transactions(pipeline, out),
        // Unoptimised code may make any policy a slow one.
        Handled::Waits(request) => {
            let destination = pipeline.decide(*request, out);
            destination.or_else(|| sent_by_transactions(pipeline, out))
        }
        Handled::HandOver(_) => panic!("there is one worker"),
    }
}

fn sent_by_transactions(pipeline: &mut Pipeline, out: &mut Vec<u8>) -> Option<Destination> {
    let mut sends = Outbox::default();
    pipeline.take_sends(&mut sends);
    let last = sends.iter().last()?;
    last.bytes.clone_into(out);
    Some(last.to)
}

fn addr(shared: &Shared, transport: Transport) -> SocketAddr {
    let mut listen = shared.listen.iter();
    let bound = listen.find(|bound| bound.transport == transport);
    bound.unwrap().addr
}

/// A policy from its text form.
pub fn compiled(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    portcullis_policy::embed(&mut module).unwrap();
    module
}

fn publish(shared: &Shared, runtime: &Runtime, wat: &str) {
    let module = compiled(wat);
    let slot = &shared.tenants.load().default.seat.slot;
    let loaded = slot.load(runtime, "test.wasm", &module, false);
    loaded.unwrap_or_else(|error| panic!("{error}"));
}

async fn address_book(url: DatabaseUrl, rows: &[(i64, String)]) -> AddressBook {
    let database = Database::new(url);
    database.create_tables().await.unwrap();
    for (group, ip_addr) in rows {
        let row = NewRow {
            group: *group,
            ip_addr: ip_addr.clone(),
            mask: 32,
            port: 0,
            tag: None,
        };
        database.add(&row).await.unwrap();
    }
    let book = AddressBook::new(database, BookOptions::default());
    book.reload().await.unwrap();
    book
}

/// Runs a future on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
}

/// A pipeline's request type, so that tests can name what a slot holds.
pub type Slot = PolicySlot;
