//! `portcullis-load`: load, yardstick and callee from the command line.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use portcullis_load::{Echo, End, Mode, Plan, Sink, run};

#[derive(Parser)]
#[command(
    about = "Load for SIP servers over UDP on one machine: many loopback sources, exact books on what came back"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Puts a server under load and prints a JSON report.
    Run(Box<Run>),
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
    /// Milliseconds after which a request without a response is sent again or, with --rate, given up. Default: 500, with --rate 5000. Calls
    /// are sent again as by a user agent, and given up after this time; default: 32000.
    #[arg(long)]
    patience: Option<u64>,
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

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => load(&args),
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
            (None, _, None) => 500,
        };
        Ok(Plan {
            target: self.target,
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
            sink: self.sink,
            watch: self.watch.clone(),
            beside: self.beside.clone(),
            tenants: self.tenants,
        })
    }
}

fn seconds(value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{value} is not a duration"))
}
