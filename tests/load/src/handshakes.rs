//! Connections that are opened and closed: what their handshakes cost the server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, poll};
use rustls::{ClientConnection, HandshakeKind};
use serde::{Deserialize, Serialize};

use crate::connection::{Connection, Route, timespec};
use crate::histogram::{Histogram, Latency};
use crate::open_files;
use crate::pacer::Pacer;
use crate::sources::consecutive;
use crate::tls::{self, Sessions, TlsVersion};
use crate::transport::Transport;
use crate::usage::{Consumed, Usage, Watched};

/// The longest sleep between two looks at the clock.
const LOOK: Duration = Duration::from_millis(1);

/// Errors of a connection that the server has closed.
const ENDS: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];

/// A run that opens and closes connections.
#[derive(Clone, Debug)]
pub struct HandshakePlan {
    /// The server.
    pub target: SocketAddr,
    /// TLS, WebSocket or both.
    pub transport: Transport,
    /// The version of TLS.
    pub tls: TlsVersion,
    /// Whether connections resume the session of an earlier one.
    pub resume: bool,
    /// The first source address, and the number of sources, which take turns.
    pub first_source: IpAddr,
    /// Number of sources.
    pub sources: usize,
    /// Connections in progress, at most.
    pub at_once: usize,
    /// Connections per second; `None`: as many as the server can take.
    pub rate: Option<u64>,
    /// Load before the measured window.
    pub warm_up: Duration,
    /// Length of the measured window.
    pub length: Duration,
    /// Limit of the time of one connection.
    pub patience: Duration,
    /// Processes whose CPU time is measured.
    pub watch: Vec<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandshakeReport {
    /// The transport.
    pub transport: Transport,
    /// Version and cipher suite of TLS, as the server has chosen them; `None` without TLS.
    pub tls: Option<String>,
    /// Connections of the whole run that were established, and closed by the server in return.
    pub done: u64,
    /// Those that failed.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
    /// The measured window.
    pub window: HandshakeWindow,
}

/// The part that is measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct HandshakeWindow {
    /// Its length.
    pub seconds: f64,
    /// Connections with a full handshake, or without TLS.
    pub full: u64,
    /// Connections with a resumed session.
    pub resumed: u64,
    /// Connections per second.
    pub per_second: f64,
    /// From the beginning of the connection until messages can be sent, and with `resume` until a ticket has come.
    pub latency: Latency,
    /// Share of the window in which this generator was idle.
    pub generator_idle: f64,
    /// CPU time of the server for each connection, from accept to close, and its memory.
    pub server: Option<Usage>,
}

/// Runs the plan to its end.
///
/// # Errors
/// If the plan cannot be run, a watched process does not exist, or no connection succeeds.
pub fn handshakes(plan: &HandshakePlan) -> Result<HandshakeReport> {
    plan.check()?;
    open_files::permit(plan.at_once)?;
    let mut storm = Storm::new(plan)?;
    storm.run_until(plan.warm_up)?;
    storm.clear();
    let begun = storm.begun.elapsed();
    storm.pacer = Pacer::new(plan.rate, begun.as_nanos() as u64, u64::MAX);
    let before = storm.consumed()?;
    storm.run_until(begun + plan.length)?;
    // On a slow machine, the window lasts until the first connection is done.
    let give_up = begun + plan.length + plan.patience;
    while storm.done + storm.failed == 0 && storm.begun.elapsed() < give_up {
        storm.turn()?;
    }
    let after = storm.consumed()?;
    let seconds = (storm.begun.elapsed() - begun).as_secs_f64();
    let count = storm.window.full + storm.window.resumed;
    if count == 0 {
        match storm.first_failure {
            Some(why) => bail!("no connection succeeds: {why}"),
            None => bail!("no connection was done within {seconds:.1} s"),
        }
    }
    let memory = storm.watched.as_ref().map_or(0, Watched::memory_bytes);
    let usage =
        |(before, after): (Consumed, Consumed)| after.usage(&before, count, seconds, memory);
    storm.window.seconds = seconds;
    storm.window.per_second = count as f64 / seconds;
    storm.window.latency = storm.latencies.latency();
    storm.window.generator_idle = storm.idle.as_secs_f64() / seconds;
    storm.window.server = before.zip(after).map(usage);
    // The connections in progress are finished, so that the server is not left with them.
    storm.pacer.limit = storm.pacer.sent;
    let give_up = storm.begun.elapsed() + plan.patience;
    while storm.slots.iter().any(|slot| slot.present.is_some()) && storm.begun.elapsed() < give_up {
        storm.turn()?;
    }
    Ok(HandshakeReport {
        transport: plan.transport,
        tls: storm.chosen,
        done: storm.done,
        failed: storm.failed,
        first_failure: storm.first_failure,
        window: storm.window,
    })
}

impl HandshakePlan {
    /// Whether the next connection needs a ticket to resume this session, and the server has sent none yet: with TLS 1.3, tickets follow the handshake
    /// (RFC 8446 §4.6.1).
    fn waits_for_ticket(&self, connection: &Connection) -> bool {
        let has_none = |tls: &ClientConnection| tls.tls13_tickets_received() == 0;
        self.resume && self.tls == TlsVersion::V13 && connection.tls().is_some_and(has_none)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.transport.has_tls() || self.transport.is_websocket(),
            "--transport {}: a connection without TLS and WebSocket has no handshake",
            self.transport
        );
        ensure!(
            !self.resume || self.transport.has_tls(),
            "--resume needs a transport with TLS"
        );
        ensure!(self.at_once > 0, "--at-once must be at least 1");
        ensure!(self.rate != Some(0), "--rate must be at least 1");
        ensure!(
            self.target.ip().is_loopback(),
            "{} is no loopback address: this generator is made for 127.0.0.0/8 and ::1 only",
            self.target
        );
        Ok(())
    }
}

/// The connections of a run. Each slot has one at a time, and its own sessions.
struct Storm<'p> {
    plan: &'p HandshakePlan,
    sources: Vec<IpAddr>,
    slots: Vec<Slot>,
    begun: Instant,
    pacer: Pacer,
    watched: Option<Watched>,
    window: HandshakeWindow,
    latencies: Histogram,
    idle: Duration,
    /// Connections begun, which choose the source.
    number: usize,
    done: u64,
    failed: u64,
    first_failure: Option<String>,
    chosen: Option<String>,
}

struct Slot {
    route: Route,
    present: Option<Present>,
}

/// A connection in progress.
struct Present {
    connection: Connection,
    begun: Instant,
    /// The handshakes are done, and the server has been told that nothing more comes.
    is_closing: bool,
    is_resumed: bool,
}

impl<'p> Storm<'p> {
    fn new(plan: &'p HandshakePlan) -> Result<Self> {
        let sessions = match plan.resume {
            true => Sessions::Resumed,
            false => Sessions::New,
        };
        let slot = || {
            anyhow::Ok(Slot {
                route: Route {
                    target: plan.target,
                    transport: plan.transport,
                    tls: match plan.transport.has_tls() {
                        true => Some(tls::client(plan.tls, sessions)?),
                        false => None,
                    },
                },
                present: None,
            })
        };
        let watched = (!plan.watch.is_empty()).then(|| Watched::new(&plan.watch));
        Ok(Self {
            plan,
            sources: consecutive(plan.first_source, plan.sources, plan.target)?,
            slots: (0..plan.at_once).map(|_| slot()).collect::<Result<_>>()?,
            begun: Instant::now(),
            pacer: Pacer::new(plan.rate, 0, u64::MAX),
            watched: watched.transpose()?,
            window: HandshakeWindow::default(),
            latencies: Histogram::new(),
            idle: Duration::ZERO,
            number: 0,
            done: 0,
            failed: 0,
            first_failure: None,
            chosen: None,
        })
    }

    fn clear(&mut self) {
        self.window = HandshakeWindow::default();
        self.latencies.clear();
        self.idle = Duration::ZERO;
    }

    fn consumed(&self) -> Result<Option<Consumed>> {
        self.watched.as_ref().map(Watched::consumed).transpose()
    }

    fn run_until(&mut self, end: Duration) -> Result<()> {
        while self.begun.elapsed() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Begins the connections that are due, waits until some of those in progress have news, and continues these.
    fn turn(&mut self) -> Result<()> {
        self.begin()?;
        let has_news = self.wait()?;
        for (nth, has_news) in has_news.into_iter().enumerate() {
            let Some(mut present) = self.slots[nth].present.take() else {
                continue;
            };
            let step = match has_news {
                true => self.advance(&mut present),
                false => present.check(self.plan.patience).map(|()| false),
            };
            match step {
                Ok(true) => {}
                Ok(false) => self.slots[nth].present = Some(present),
                Err(error) => self.fail(&error),
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let now_ns = self.begun.elapsed().as_nanos() as u64;
        let mut allowance = self.pacer.allowance(now_ns, 1);
        for nth in 0..self.slots.len() {
            if allowance == 0 {
                break;
            }
            if self.slots[nth].present.is_some() {
                continue;
            }
            let source = self.sources[self.number % self.sources.len()];
            self.number += 1;
            self.pacer.sent += 1;
            allowance -= 1;
            let begun = Instant::now();
            match Connection::open(&self.slots[nth].route, source) {
                Ok(connection) => {
                    connection.leave_no_trace()?;
                    self.slots[nth].present = Some(Present {
                        connection,
                        begun,
                        is_closing: false,
                        is_resumed: false,
                    });
                }
                Err(error) => self.fail(&error),
            }
        }
        Ok(())
    }

    /// Waits for a moment, and returns which slots have news.
    fn wait(&mut self) -> Result<Vec<bool>> {
        let begun = Instant::now();
        let slots = self.slots.iter().enumerate();
        let (at, mut all): (Vec<usize>, Vec<PollFd<'_>>) = slots
            .filter_map(|(nth, slot)| {
                let connection = &slot.present.as_ref()?.connection;
                Some((nth, PollFd::new(connection, connection.interest())))
            })
            .unzip();
        poll(&mut all, Some(&timespec(LOOK))).context("poll")?;
        let mut has_news = vec![false; self.slots.len()];
        for (nth, one) in at.into_iter().zip(&all) {
            has_news[nth] = !one.revents().is_empty();
        }
        self.idle += begun.elapsed();
        Ok(has_news)
    }

    /// Continues a connection. Returns whether it has ended as it should.
    fn advance(&mut self, present: &mut Present) -> Result<bool> {
        let Present {
            connection, begun, ..
        } = present;
        let turned = connection.turn();
        if present.is_closing {
            let is_over = match turned {
                // A server may close its end before it has read ours.
                Err(error) if ENDS.contains(&error.kind()) => true,
                turned => turned.map(|()| connection.is_over())?,
            };
            if is_over {
                self.done += 1;
                match present.is_resumed {
                    true => self.window.resumed += 1,
                    false => self.window.full += 1,
                }
                return Ok(true);
            }
        } else {
            turned?;
            ensure!(
                !connection.is_over(),
                "the server has closed the connection within the handshake"
            );
            if connection.is_ready() && !self.plan.waits_for_ticket(connection) {
                self.latencies.record(begun.elapsed().as_nanos() as u64);
                if let Some(tls) = connection.tls() {
                    present.is_resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
                    if self.chosen.is_none() {
                        let version = tls.protocol_version();
                        let suite = tls.negotiated_cipher_suite();
                        let names = version.zip(suite.map(|suite| suite.suite()));
                        self.chosen =
                            names.map(|(version, suite)| format!("{version:?} {suite:?}"));
                    }
                }
                connection.close()?;
                present.is_closing = true;
            }
        }
        present.check(self.plan.patience).map(|()| false)
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        if self.first_failure.is_none() {
            self.first_failure = Some(format!("{error:#}"));
        }
    }
}

impl Present {
    /// Checks that it takes no longer than this.
    fn check(&self, patience: Duration) -> Result<()> {
        ensure!(
            self.begun.elapsed() < patience,
            "{} takes longer than {patience:?}",
            match self.is_closing {
                true => "the end of a connection",
                false => "a handshake",
            }
        );
        Ok(())
    }
}
