//! Connections that stay open and send nothing: the memory that they take.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::answer::Reader;
use crate::connection::{Connection, PATIENCE, Route};
use crate::open_files;
use crate::plan::{Mode, Plan};
use crate::sources::consecutive;
use crate::template::Template;
use crate::tls::{self, Sessions, TlsVersion};
use crate::transport::Transport;
use crate::usage::Watched;

/// A run that opens connections and keeps them.
#[derive(Clone, Debug)]
pub struct IdlePlan {
    /// The server.
    pub target: SocketAddr,
    /// Over connections.
    pub transport: Transport,
    /// The version of TLS.
    pub tls: TlsVersion,
    /// Connections that are opened before memory is measured for the first time.
    pub before: usize,
    /// Connections that are measured.
    pub connections: usize,
    /// The first source address; the sources take turns.
    pub first_source: IpAddr,
    /// Number of sources.
    pub sources: usize,
    /// Whether each connection sends one OPTIONS and waits for its 200 before it is idle.
    pub asks: bool,
    /// How long the connections are idle before memory is measured.
    pub hold: Duration,
    /// The processes whose memory is measured, with their descendants.
    pub watch: Vec<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdleReport {
    /// The transport.
    pub transport: Transport,
    /// Number of connections that are measured.
    pub connections: usize,
    /// Those that the server has closed meanwhile.
    pub closed: usize,
    /// Time to open them, one after the other.
    pub seconds: f64,
    /// Memory of the processes before: the proportional set sizes (`Pss` in /proc/PID/smaps_rollup), which for a single process is its resident
    /// set. The kernel's memory for sockets is not in it.
    pub before_bytes: u64,
    /// The same with all connections.
    pub after_bytes: u64,
    /// The same after all connections have ended.
    pub closed_bytes: u64,
    /// The difference for each connection.
    pub bytes_each: f64,
}

/// Runs the plan to its end.
///
/// # Errors
/// If connections cannot be opened, or the server does not answer.
pub fn idle(plan: &IdlePlan) -> Result<IdleReport> {
    ensure!(
        plan.transport.has_connections(),
        "--transport {}: there are no connections",
        plan.transport
    );
    ensure!(plan.connections > 0, "--connections must be at least 1");
    ensure!(
        !plan.watch.is_empty(),
        "--watch is missing: whose memory is measured?"
    );
    open_files::permit(plan.before + plan.connections)?;
    let watched = Watched::new(&plan.watch)?;
    let mut opener = Opener::new(plan)?;
    let first = opener.open(plan.before)?;
    thread::sleep(plan.hold);
    let before_bytes = watched.memory_bytes();
    let begun = Instant::now();
    let mut all = opener.open(plan.connections)?;
    let seconds = begun.elapsed().as_secs_f64();
    thread::sleep(plan.hold);
    let after_bytes = watched.memory_bytes();
    ensure!(
        before_bytes > 0 && after_bytes > 0,
        "the memory of a watched process cannot be read: it has ended, or belongs to another user"
    );
    let mut closed = 0;
    for connection in &mut all {
        closed += usize::from(connection.turn().is_err() || connection.is_over());
    }
    drop((first, all));
    thread::sleep(plan.hold);
    Ok(IdleReport {
        transport: plan.transport,
        connections: plan.connections,
        closed,
        seconds,
        before_bytes,
        after_bytes,
        closed_bytes: watched.memory_bytes(),
        bytes_each: (after_bytes as f64 - before_bytes as f64) / plan.connections as f64,
    })
}

/// Opens connections from the sources in turn.
struct Opener {
    route: Route,
    /// For the templates of OPTIONS.
    plan: Plan,
    asks: bool,
    sources: Vec<IpAddr>,
    opened: usize,
    reader: Reader,
}

impl Opener {
    fn new(plan: &IdlePlan) -> Result<Self> {
        let mut options = Plan::new(plan.target, Mode::Options, plan.first_source);
        options.transport = plan.transport;
        Ok(Self {
            route: Route {
                target: plan.target,
                transport: plan.transport,
                tls: match plan.transport.has_tls() {
                    true => Some(tls::client(plan.tls, Sessions::New)?),
                    false => None,
                },
            },
            plan: options,
            asks: plan.asks,
            sources: consecutive(plan.first_source, plan.sources, plan.target)?,
            opened: 0,
            reader: Reader::new(),
        })
    }

    fn open(&mut self, count: usize) -> Result<Vec<Connection>> {
        (0..count).map(|_| self.one()).collect()
    }

    fn one(&mut self) -> Result<Connection> {
        let source = self.sources[self.opened % self.sources.len()];
        self.opened += 1;
        let nth = self.opened;
        let mut connection = Connection::establish(&self.route, source)
            .with_context(|| format!("connection {nth}"))?;
        if self.asks {
            let asked = self.ask(&mut connection);
            asked.with_context(|| format!("OPTIONS over connection {nth} from {source}"))?;
        }
        Ok(connection)
    }

    /// Sends OPTIONS and waits for its 200.
    fn ask(&self, connection: &mut Connection) -> Result<()> {
        let mut template = Template::new(&self.plan, connection.address()?);
        let request = template.with_id(self.opened as u64);
        connection.outbox().push(request);
        let give_up = Instant::now() + PATIENCE;
        let mut code = None;
        while code.is_none() {
            let left = give_up.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no answer within {PATIENCE:?}");
            connection.wait(left, Connection::has_received)?;
            connection.take(|bytes, _| {
                code = self.reader.read(bytes).map(|answer| answer.code).or(code);
            })?;
        }
        ensure!(
            code == Some(200),
            "the answer is {}",
            code.unwrap_or_default()
        );
        Ok(())
    }
}
