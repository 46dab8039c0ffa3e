//! `portcullis-load`: load, yardstick and callee from the command line.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use portcullis_load::{
    Echo, End, HandshakePlan, IdlePlan, Mode, Plan, ProbePlan, Sink, TlsVersion, Transport,
    handshakes, idle, probe, run,
};
use serde::Serialize;

#[derive(Parser)]
#[command(
    about = "Load for SIP servers on one machine: many loopback sources, exact books on what came back"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Puts a server under load and prints a JSON report.
    Run(Box<Run>),
    /// Opens and closes connections, and prints a JSON report of what their handshakes cost the server.
    Handshakes(Box<Handshakes>),
    /// Opens connections and keeps them, and prints a JSON report of the memory that they take in the server.
    Idle(Box<Idle>),
    /// Sends single requests over UDP beside other load, and prints a JSON report of their latencies.
    Probe(Probe),
    /// Returns every datagram unchanged: the cost of UDP alone.
    Echo {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Answers every request but ACK with 200.
    Sink {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct Run {
    /// The server.
    #[arg(long)]
    target: SocketAddr,
    /// Kind of request.
    #[arg(long)]
    mode: Mode,
    /// How requests travel. Each source has a connection, if the transport has connections, on which nothing is sent again.
    #[arg(long, default_value = "udp")]
    transport: Transport,
    /// Version of TLS.
    #[arg(long, default_value = "1.3")]
    tls: TlsVersion,
    /// Expected status code, if not that of the mode.
    #[arg(long)]
    expect: Option<u16>,
    /// First source address; further ones are consecutive.
    #[arg(long, default_value = "127.1.0.1")]
    source: IpAddr,
    /// Number of sources.
    #[arg(long, default_value_t = 16)]
    sources: usize,
    /// Most pending requests of each source.
    #[arg(long, default_value_t = 16)]
    outstanding: usize,
    /// Requests per second; without it, each response triggers the next request.
    #[arg(long)]
    rate: Option<u64>,
    /// With --rate: keep the core between requests, so that they are evenly spaced and not in small bursts.
    #[arg(long, requires = "rate")]
    spin: bool,
    /// Seconds of load before the measurement.
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 2.0, conflicts_with = "requests")]
    seconds: f64,
    /// End the measurement after this many requests instead.
    #[arg(long)]
    requests: Option<u64>,
    /// Milliseconds after which a request without a response is sent again or, with --rate or over connections, given up. Default: 500, with
    /// --rate or over connections 5000. Calls are sent again as by a user agent, and given up after this time; default: 32000.
    #[arg(long)]
    patience: Option<u64>,
    /// Milliseconds after which an answer counts as late.
    #[arg(long)]
    late: Option<u64>,
    /// Run a callee here, for `--mode relay`, `message` and `call`.
    #[arg(long)]
    sink: Option<SocketAddr>,
    /// Measure CPU time and memory of this process and its descendants; can be given several times.
    #[arg(long)]
    watch: Vec<u32>,
    /// First source address of further callers, as many as the first ones and at the same rate, which add load and are not measured; can be
    /// given several times.
    #[arg(long, requires = "rate")]
    beside: Vec<IpAddr>,
    /// Distribute the requests over this many tenants in random order: they go to users at t00000.tenants.example and so on.
    #[arg(long)]
    tenants: Option<u32>,
    /// Write the report to this file instead of standard output.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Exit with status 1 unless every request had exactly one correct response.
    #[arg(long)]
    strict: bool,
}

#[derive(Args)]
struct Handshakes {
    /// The server.
    #[arg(long)]
    target: SocketAddr,
    /// tls, ws or wss. A connection is opened, greeted and closed; its source waits until the server has closed it, too.
    #[arg(long, default_value = "tls")]
    transport: Transport,
    /// Version of TLS.
    #[arg(long, default_value = "1.3")]
    tls: TlsVersion,
    /// Resume sessions, where the server gives tickets.
    #[arg(long)]
    resume: bool,
    /// First source address; further ones are consecutive.
    #[arg(long, default_value = "127.2.0.1")]
    source: IpAddr,
    /// Number of sources, which take turns.
    #[arg(long, default_value_t = 64)]
    sources: usize,
    /// Connections in progress, at most.
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Connections per second; without it, as many as the server can take.
    #[arg(long)]
    rate: Option<u64>,
    /// Seconds of load before the measurement.
    #[arg(long, default_value_t = 0.2)]
    warm_up: f64,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Milliseconds after which a connection that makes no progress has failed.
    #[arg(long, default_value_t = 5000)]
    patience: u64,
    /// Measure CPU time and memory of this process and its descendants; can be given several times.
    #[arg(long)]
    watch: Vec<u32>,
}

#[derive(Args)]
struct Idle {
    /// The server.
    #[arg(long)]
    target: SocketAddr,
    /// tcp, tls, ws or wss.
    #[arg(long, default_value = "tls")]
    transport: Transport,
    /// Version of TLS.
    #[arg(long, default_value = "1.3")]
    tls: TlsVersion,
    /// Number of connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Connections that are opened before, so that what is needed once does not count.
    #[arg(long, default_value_t = 100)]
    before: usize,
    /// First source address; further ones are consecutive.
    #[arg(long, default_value = "127.2.0.1")]
    source: IpAddr,
    /// Number of sources, which take turns.
    #[arg(long, default_value_t = 64)]
    sources: usize,
    /// Send nothing. Otherwise each connection sends an OPTIONS and waits for its 200 before it is idle.
    #[arg(long)]
    silent: bool,
    /// Seconds for which the connections are idle before memory is measured.
    #[arg(long, default_value_t = 2.0)]
    hold: f64,
    /// Measure the memory of this process and its descendants; can be given several times.
    #[arg(long, required = true)]
    watch: Vec<u32>,
}

#[derive(Args)]
struct Probe {
    /// The server, which answers each request with 401.
    #[arg(long)]
    target: SocketAddr,
    /// Source address.
    #[arg(long, default_value = "127.1.1.1")]
    source: IpAddr,
    /// Requests per second, at most: the next one waits for the response to this one.
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Seconds of requests before the measurement.
    #[arg(long, default_value_t = 0.2)]
    warm_up: f64,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Milliseconds after which a request is lost.
    #[arg(long, default_value_t = 2000)]
    patience: u64,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => load(&args),
        Command::Handshakes(args) => print(&handshakes(&args.plan()?)?),
        Command::Idle(args) => print(&idle(&args.plan()?)?),
        Command::Probe(args) => print(&probe(&args.plan()?)?),
        Command::Echo { listen } => serve_echo(listen),
        Command::Sink { listen } => serve_sink(listen),
    }
}

fn load(args: &Run) -> Result<()> {
    let report = run(&args.plan()?)?;
    let text = serde_json::to_string_pretty(&report)?;
    match &args.json {
        Some(path) => {
            let written = fs::write(path, text);
            written.with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => println!("{text}"),
    }
    match report.fault() {
        Some(fault) if args.strict => bail!(fault),
        _ => Ok(()),
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}

fn serve_echo(listen: SocketAddr) -> Result<()> {
    let mut echo = Echo::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("echo on {}", echo.address()?);
    loop {
        echo.turn()?;
    }
}

fn serve_sink(listen: SocketAddr) -> Result<()> {
    let mut sink = Sink::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("sink on {}", sink.address()?);
    loop {
        if sink.turn()? == 0 {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Run {
    fn plan(&self) -> Result<Plan> {
        let patience = match (self.patience, self.mode, self.rate) {
            (Some(patience), _, _) => patience,
            (None, Mode::Call, _) => 32_000,
            (None, _, Some(_)) => 5000,
            (None, _, None) if self.transport.has_connections() => 5000,
            (None, _, None) => 500,
        };
        Ok(Plan {
            target: self.target,
            transport: self.transport,
            tls: self.tls,
            mode: self.mode,
            expect: self.expect,
            first_source: self.source,
            sources: self.sources,
            outstanding: self.outstanding,
            rate: self.rate,
            spin: self.spin,
            warm_up: seconds(self.warm_up)?,
            end: match self.requests {
                Some(count) => End::Requests(count),
                None => End::After(seconds(self.seconds)?),
            },
            patience: Duration::from_millis(patience),
            late: self.late.map(Duration::from_millis),
            sink: self.sink,
            watch: self.watch.clone(),
            beside: self.beside.clone(),
            tenants: self.tenants,
        })
    }
}

impl Handshakes {
    fn plan(&self) -> Result<HandshakePlan> {
        Ok(HandshakePlan {
            target: self.target,
            transport: self.transport,
            tls: self.tls,
            resume: self.resume,
            first_source: self.source,
            sources: self.sources,
            at_once: self.at_once,
            rate: self.rate,
            warm_up: seconds(self.warm_up)?,
            length: seconds(self.seconds)?,
            patience: Duration::from_millis(self.patience),
            watch: self.watch.clone(),
        })
    }
}

impl Idle {
    fn plan(&self) -> Result<IdlePlan> {
        Ok(IdlePlan {
            target: self.target,
            transport: self.transport,
            tls: self.tls,
            before: self.before,
            connections: self.connections,
            first_source: self.source,
            sources: self.sources,
            asks: !self.silent,
            hold: seconds(self.hold)?,
            watch: self.watch.clone(),
        })
    }
}

impl Probe {
    fn plan(&self) -> Result<ProbePlan> {
        Ok(ProbePlan {
            target: self.target,
            source: self.source,
            rate: self.rate,
            warm_up: seconds(self.warm_up)?,
            length: seconds(self.seconds)?,
            patience: Duration::from_millis(self.patience),
        })
    }
}

fn seconds(value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{value} is not a duration"))
}
