//! One run: warm-up, measured window, and the wait for the last responses.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::crowd::Crowd;
use crate::pacer::Pacer;
use crate::plan::{End, Mode, Plan, Retransmit};
use crate::sink::Sink;
use crate::tally::{Beside, Report, SetUp, Window};
use crate::usage::{Consumed, Watched};

/// Interval between checks for overdue requests and for the end of a window.
const HOUSEKEEPING_NS: u64 = 5_000_000;
/// Pause between turns at a fixed rate, which leaves the core to other processes. In a closed loop the generator never sleeps: the kernel would
/// charge the wake-up to the server's send call.
const REST: Duration = Duration::from_micros(100);
/// Pause after few responses in a closed loop, so that batches form, and at a fixed rate that keeps its core.
const PAUSE_NS: u64 = 20_000;
/// Number of datagrams in one turn above which there is no pause.
const PLENTY: usize = 8;
/// Number of times that a request is sent again at the end of a closed loop before it counts as lost.
const LAST_TRIES: u32 = 6;

/// Runs the plan to its end.
///
/// # Errors
/// If sockets cannot be bound, or a watched process does not exist.
pub fn run(plan: &Plan) -> Result<Report> {
    plan.check()?;
    let mut drive = Drive::new(plan)?;
    drive.warm_up()?;
    drive.measure()?;
    drive.finish()?;
    let relayed = drive.sink.as_ref().map(Sink::requests);
    let mut report = drive
        .crowd
        .books
        .tally
        .report(plan.mode, relayed, drive.window);
    report.repeated_answers = drive.sink.as_ref().map_or(0, Sink::repeated);
    report.beside = drive
        .beside
        .iter()
        .map(|(crowd, _)| Beside {
            sent: crowd.books.tally.sent,
            answered: crowd.books.tally.answered,
        })
        .collect();
    Ok(report)
}

struct Drive<'p> {
    plan: &'p Plan,
    crowd: Crowd,
    beside: Vec<(Crowd, Pacer)>,
    sink: Option<Sink>,
    watched: Option<Watched>,
    begun: Instant,
    pacer: Pacer,
    window: Window,
    idle_ns: u64,
}

impl<'p> Drive<'p> {
    fn new(plan: &'p Plan) -> Result<Self> {
        let watched = (!plan.watch.is_empty()).then(|| Watched::new(&plan.watch));
        let beside = plan.beside.iter().map(|first| {
            let crowd = Crowd::bind(plan, *first)?;
            Ok((crowd, Pacer::new(plan.rate, 0, u64::MAX)))
        });
        Ok(Self {
            plan,
            crowd: Crowd::bind(plan, plan.first_source)?,
            beside: beside.collect::<Result<_>>()?,
            sink: plan
                .sink
                .map(|address| {
                    let sink = Sink::bind(address).context("the callee")?;
                    Ok::<_, anyhow::Error>(match plan.mode {
                        Mode::Call => sink.ringing(),
                        Mode::Reject | Mode::Options | Mode::Relay | Mode::Message | Mode::Echo => {
                            sink
                        }
                    })
                })
                .transpose()?,
            watched: watched.transpose()?,
            begun: Instant::now(),
            pacer: Pacer::new(plan.rate, 0, u64::MAX),
            window: Window::default(),
            idle_ns: 0,
        })
    }

    fn warm_up(&mut self) -> Result<()> {
        if self.plan.warm_up.is_zero() {
            return Ok(());
        }
        let end = self.plan.warm_up.as_nanos() as u64;
        self.turn_until(|drive| drive.now_ns() >= end)
    }

    fn measure(&mut self) -> Result<()> {
        let start = self.now_ns();
        let (limit, end) = match self.plan.end {
            End::Requests(count) => (count, u64::MAX),
            End::After(length) => (u64::MAX, start + length.as_nanos() as u64),
        };
        let answered = self.crowd.books.tally.answered;
        self.crowd.books.clear_times();
        self.pacer = Pacer::new(self.plan.rate, start, limit);
        for (_, pacer) in &mut self.beside {
            *pacer = Pacer::new(self.plan.rate, start, u64::MAX);
        }
        self.idle_ns = 0;
        let before = self.consumed()?;
        self.turn_until(|drive| drive.now_ns() >= end || drive.pacer.spent())?;
        let after = self.consumed()?;
        let seconds = (self.now_ns() - start) as f64 / 1e9;

        let answered = self.crowd.books.tally.answered - answered;
        self.window = Window {
            seconds,
            answered,
            per_second: answered as f64 / seconds,
            latency: self.crowd.books.latencies.latency(),
            set_up: (self.plan.mode == Mode::Call).then(|| SetUp {
                ringing: self.crowd.books.rung.latency(),
                accepted: self.crowd.books.accepted.latency(),
            }),
            generator_idle: self.idle_ns as f64 / 1e9 / seconds,
            server: before.zip(after).map(|(before, after)| {
                let memory = self.watched.as_ref().map_or(0, Watched::memory_bytes);
                after.usage(&before, answered, seconds, memory)
            }),
        };
        Ok(())
    }

    /// Sends no new requests, and waits until every request is answered or given up.
    fn finish(&mut self) -> Result<()> {
        self.pacer.limit = self.pacer.sent;
        for (_, pacer) in &mut self.beside {
            pacer.limit = pacer.sent;
        }
        let patience = match self.plan.retransmit() {
            Retransmit::Never | Retransmit::AsUserAgent => self.plan.patience + REST * 2,
            Retransmit::Every(time) => time * LAST_TRIES,
        };
        let end = self.now_ns() + patience.as_nanos() as u64;
        // Of all crowds: calls that are still set up would be load for whatever is measured next.
        self.turn_until(|drive| !drive.any_under_way() || drive.now_ns() >= end)?;
        self.crowd.give_up(u64::MAX, 0);
        Ok(())
    }

    fn any_under_way(&self) -> bool {
        let mut beside = self.beside.iter();
        self.crowd.books.any_under_way() || beside.any(|(crowd, _)| crowd.books.any_under_way())
    }

    /// Runs turns until `done` returns true. It is called from time to time.
    fn turn_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        let mut checked = 0;
        loop {
            let news = self.turn()?;
            let now = self.now_ns();
            let due = now - checked >= HOUSEKEEPING_NS;
            if due {
                checked = now;
                self.settle_overdue(now)?;
            }
            if (due || self.pacer.spent()) && done(self) {
                return Ok(());
            }
            if !news && self.plan.rate.is_some() {
                self.rest(now);
            }
        }
    }

    /// Runs one turn: each caller receives its responses and sends the requests that it may send. Returns whether anything was sent or received.
    fn turn(&mut self) -> Result<bool> {
        let mut news = false;
        for caller in 0..self.crowd.len() {
            let now = self.now_ns();
            let allowance = self.pacer.allowance(now, self.crowd.len());
            let mut received = self.crowd.collect(caller, now)?;
            let sent = self.crowd.call(caller, allowance, now)?;
            self.pacer.sent += sent;
            if let Some(sink) = &mut self.sink {
                received += sink.turn()?;
            }
            for (crowd, pacer) in &mut self.beside {
                let allowance = pacer.allowance(now, crowd.len());
                received += crowd.collect(caller, now)?;
                pacer.sent += crowd.call(caller, allowance, now)?;
            }
            news |= received > 0 || sent > 0;
            if self.plan.rate.is_none() && received < PLENTY {
                self.pause(now);
            }
        }
        Ok(news)
    }

    fn settle_overdue(&mut self, now_ns: u64) -> Result<()> {
        let patience_ns = self.plan.patience.as_nanos() as u64;
        let retransmit = self.plan.retransmit();
        let beside = self.beside.iter_mut().map(|(crowd, _)| crowd);
        for crowd in [&mut self.crowd].into_iter().chain(beside) {
            match retransmit {
                Retransmit::Never => crowd.give_up(now_ns, patience_ns),
                Retransmit::Every(_) => crowd.call_again(now_ns)?,
                Retransmit::AsUserAgent => {
                    crowd.give_up(now_ns, patience_ns);
                    crowd.call_again(now_ns)?;
                }
            }
        }
        Ok(())
    }

    fn rest(&mut self, now_ns: u64) {
        if self.plan.spin {
            return self.pause(now_ns);
        }
        thread::sleep(REST);
        self.idle_ns += self.now_ns() - now_ns;
    }

    fn pause(&mut self, since_ns: u64) {
        let end = since_ns + PAUSE_NS;
        let mut now = self.now_ns();
        let start = now;
        while now < end {
            hint::spin_loop();
            now = self.now_ns();
        }
        self.idle_ns += now - start;
    }

    fn consumed(&self) -> Result<Option<Consumed>> {
        self.watched.as_ref().map(Watched::consumed).transpose()
    }

    fn now_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }
}
