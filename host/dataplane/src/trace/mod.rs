//! Live traces: the outcome of each message that matches a filter, or each decision of a seat, as one line of JSON, streamed to a client.
//!
//! While no trace runs, a message costs one load. A worker never waits for a client: lines that exceed the buffer or the rate of a trace
//! are counted and left out.

mod decided_kind;
mod decisions;
mod entry;
mod filter;
mod outcome;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use portcullis_sip::{Arrival, Message};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

pub use decided_kind::DecidedKind;
pub use decisions::Decisions;
pub(crate) use entry::{Asked, Entry, Fields, code_of};
pub use filter::{Filter, FilterError};
pub use outcome::Outcome;

/// Maximum number of concurrent traces of messages.
const MOST: usize = 4;

/// Maximum number of clients that follow decisions: the operator's, those of one tenant, and those of all tenants.
const MOST_OPERATORS: usize = 8;
const MOST_OF_TENANT: usize = 4;
const MOST_TENANTS: usize = 32;

/// Lines that may wait for a client. A line has a few kilobytes at most.
const BUFFER: usize = 1_024;

/// Calls shown last by a trace, by which it recognises later losses.
const RECENT: usize = 64;

/// All traces of a host.
#[derive(Debug)]
pub struct Traces {
    count: AtomicUsize,
    all: ArcSwap<Vec<Arc<Trace>>>,
    /// Held while a trace begins or ends.
    change: Mutex<()>,
    /// Whether the host is ending.
    end: watch::Sender<bool>,
}

/// All permitted traces are running.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TooMany {
    /// Traces of messages.
    #[error("{MOST} traces run already: end one of them")]
    Messages,
    /// Clients of the operator that follow decisions.
    #[error("{MOST_OPERATORS} clients of the operator follow decisions already: end one of them")]
    Operators,
    /// Clients of this tenant that follow decisions.
    #[error(
        "{MOST_OF_TENANT} clients follow the decisions of this tenant already: end one of them"
    )]
    OfTenant,
    /// Clients of all tenants that follow decisions.
    #[error("{MOST_TENANTS} clients of tenants follow decisions already: try again later")]
    Tenants,
}

/// One trace.
#[derive(Debug)]
pub struct Trace {
    filter: Filter,
    begun: Instant,
    /// The current second since the start, and the number of messages in it.
    window: AtomicU64,
    recent: [AtomicU64; RECENT],
    next_recent: AtomicUsize,
    left_out: AtomicU64,
    lines: mpsc::Sender<Bytes>,
}

/// The owner of the traces of a host.
type Owner = dyn AsRef<Traces> + Send + Sync;

/// The receiving end of a trace. The trace ends when it is dropped.
pub struct Following {
    traces: Arc<Owner>,
    trace: Arc<Trace>,
    lines: mpsc::Receiver<Bytes>,
    end: watch::Receiver<bool>,
    told: u64,
}

/// The next item for a client.
#[derive(Debug)]
pub enum Next {
    /// A line, including its line ending.
    Line(Bytes),
    /// Number of messages left out since the last report.
    LeftOut(u64),
    /// Nothing to show for a while.
    Silence,
    /// The host is ending.
    End,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            all: ArcSwap::default(),
            change: Mutex::new(()),
            end: watch::channel(false).0,
        }
    }
}

impl Traces {
    /// Whether any trace runs.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Number of running traces.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether a trace shows which policies are called, if they are those of these seats.
    pub(crate) fn want_calls<'s>(&self, seats: impl Iterator<Item = &'s str> + Clone) -> bool {
        let all = self.all.load();
        all.iter().any(|trace| match trace.filter.decisions() {
            Some(decisions) => seats.clone().any(|seat| seat == decisions.seat),
            None => true,
        })
    }

    /// Whether a trace matches a message like this, with these policy calls, as far as can be known without its outcome.
    pub(crate) fn want(&self, message: Message<'_>, arrival: &Arrival, asked: &[Asked]) -> bool {
        let all = self.all.load();
        let mut filters = all.iter().map(|trace| &trace.filter);
        filters.any(|filter| filter.concerns(asked) && filter.matches_message(message, arrival))
    }

    /// Shows the outcome of a message in all matching traces.
    pub(crate) fn show(&self, message: Message<'_>, arrival: &Arrival, entry: &Entry<'_>) {
        let mut line = None;
        for trace in self.all.load().iter() {
            let filter = &trace.filter;
            if !filter.matches_message(message, arrival) {
                continue;
            }
            if let Some(decisions) = filter.decisions() {
                let decided = entry.asked.iter().filter(|asked| decisions.include(asked));
                decided.for_each(|asked| trace.send(|| entry.line_of(asked)));
                continue;
            }
            trace.remember(entry.call_id());
            if filter.matches_outcome(entry) {
                trace.send(|| line.get_or_insert_with(|| entry.line()).clone());
            }
        }
    }

    /// Shows the loss of a message after its decision, in traces that showed the call or filter by its Call-ID.
    pub(crate) fn show_loss(&self, call_id: &[u8], entry: &Entry<'_>) {
        let mut line = None;
        let all = self.all.load();
        let of_messages = all
            .iter()
            .filter(|trace| trace.filter.decisions().is_none());
        for trace in of_messages {
            let is_of = trace.filter.is_of_any()
                || trace.filter.is_call(call_id)
                || trace.has_shown(entry.call_id());
            if is_of && trace.filter.matches_loss(entry) {
                trace.send(|| line.get_or_insert_with(|| entry.line()).clone());
            }
        }
    }

    /// Ends all traces: the host is ending.
    pub(crate) fn close(&self) {
        self.end.send_replace(true);
    }

    fn begin(&self, filter: Filter) -> Result<(Arc<Trace>, mpsc::Receiver<Bytes>), TooMany> {
        let _turn = self.change.lock();
        let mut all = Vec::clone(&self.all.load());
        check_room(&all, &filter)?;
        let (lines, waiting) = mpsc::channel(BUFFER);
        let trace = Arc::new(Trace {
            filter,
            begun: Instant::now(),
            window: AtomicU64::new(0),
            recent: std::array::from_fn(|_| AtomicU64::new(0)),
            next_recent: AtomicUsize::new(0),
            left_out: AtomicU64::new(0),
            lines,
        });
        all.push(Arc::clone(&trace));
        self.publish(all);
        Ok((trace, waiting))
    }

    fn finish(&self, trace: &Arc<Trace>) {
        let _turn = self.change.lock();
        let mut all = Vec::clone(&self.all.load());
        all.retain(|other| !Arc::ptr_eq(other, trace));
        self.publish(all);
    }

    fn publish(&self, all: Vec<Arc<Trace>>) {
        self.count.store(all.len(), Ordering::Relaxed);
        self.all.store(Arc::new(all));
    }
}

/// Checks that one more trace may begin beside these.
fn check_room(all: &[Arc<Trace>], filter: &Filter) -> Result<(), TooMany> {
    let has_room = |most: usize, is_counted: &dyn Fn(Option<&Decisions>) -> bool| {
        let running = all.iter().map(|trace| trace.filter.decisions());
        running.filter(|decisions| is_counted(*decisions)).count() < most
    };
    let is_of = |is_tenants: bool| {
        move |decisions: Option<&Decisions>| {
            decisions.is_some_and(|decisions| decisions.is_tenants == is_tenants)
        }
    };
    match filter.decisions() {
        None if !has_room(MOST, &|decisions| decisions.is_none()) => Err(TooMany::Messages),
        None => Ok(()),
        Some(new) if !new.is_tenants => match has_room(MOST_OPERATORS, &is_of(false)) {
            true => Ok(()),
            false => Err(TooMany::Operators),
        },
        Some(new) => {
            let is_own = |decisions: Option<&Decisions>| {
                let decisions = decisions.filter(|decisions| decisions.is_tenants);
                decisions.is_some_and(|decisions| decisions.seat == new.seat)
            };
            if !has_room(MOST_OF_TENANT, &is_own) {
                return Err(TooMany::OfTenant);
            }
            match has_room(MOST_TENANTS, &is_of(true)) {
                true => Ok(()),
                false => Err(TooMany::Tenants),
            }
        }
    }
}

impl Trace {
    /// Sends a line to the client, or counts it. The line is made only if it is sent.
    fn send(&self, line: impl FnOnce() -> Bytes) {
        let is_admitted = self.admits(self.begun.elapsed().as_secs());
        match self.lines.try_reserve() {
            Ok(place) if is_admitted => place.send(line()),
            Ok(_) | Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether one more message may be shown in this second. Concurrent workers may count two messages as one.
    fn admits(&self, second: u64) -> bool {
        let window = self.window.load(Ordering::Relaxed);
        let (begun, shown) = (window >> 32, window as u32);
        let shown = if begun == second { shown } else { 0 };
        if shown >= self.filter.rate() {
            return false;
        }
        let next = second << 32 | u64::from(shown + 1);
        self.window.store(next, Ordering::Relaxed);
        true
    }

    fn remember(&self, call_id: &str) {
        let at = self.next_recent.fetch_add(1, Ordering::Relaxed) % RECENT;
        self.recent[at].store(mark(call_id), Ordering::Relaxed);
    }

    fn has_shown(&self, call_id: &str) -> bool {
        let mark = mark(call_id);
        self.recent
            .iter()
            .any(|recent| recent.load(Ordering::Relaxed) == mark)
    }
}

/// A Call-ID as a non-zero number.
fn mark(call_id: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(call_id.as_bytes());
    hasher.finish() | 1
}

impl Following {
    /// Starts a trace.
    ///
    /// # Errors
    /// When the maximum number of traces is running.
    pub fn begin(
        traces: Arc<dyn AsRef<Traces> + Send + Sync>,
        filter: Filter,
    ) -> Result<Self, TooMany> {
        let all = (*traces).as_ref();
        let end = all.end.subscribe();
        let (trace, lines) = all.begin(filter)?;
        Ok(Self {
            traces,
            trace,
            lines,
            end,
            told: 0,
        })
    }

    /// Waits this long for the next item.
    pub async fn next(&mut self, patience: Duration) -> Next {
        let left_out = self.trace.left_out.load(Ordering::Relaxed);
        if left_out > self.told && self.lines.is_empty() {
            let new = left_out - self.told;
            self.told = left_out;
            return Next::LeftOut(new);
        }
        tokio::select! {
            biased;
            _ = self.end.wait_for(|end| *end) => Next::End,
            line = self.lines.recv() => line.map_or(Next::End, Next::Line),
            () = tokio::time::sleep(patience) => Next::Silence,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        (*self.traces).as_ref().finish(&self.trace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_rate(rate: u32) -> Filter {
        let mut filter = Filter::default();
        filter.rate = Some(rate);
        filter
    }

    #[test]
    fn traces_are_few_and_end() {
        let traces = Traces::default();
        assert!(!traces.is_any());
        let begin = || traces.begin(Filter::default());
        let all: Vec<_> = (0..MOST).map(|_| begin().unwrap()).collect();
        assert!(traces.is_any());
        assert_eq!(begin().unwrap_err(), TooMany::Messages);
        traces.finish(&all[1].0);
        begin().unwrap();
        assert_eq!(traces.all.load().len(), MOST);
    }

    #[test]
    fn clients_of_one_tenant_leave_room_for_others() {
        let traces = Traces::default();
        let begin = |seat: &str, is_tenants| {
            let filter = Filter::default().of_decisions(Decisions {
                seat: seat.to_owned(),
                verdict: None,
                share: None,
                is_tenants,
            });
            traces.begin(filter)
        };
        let own: Vec<_> = (0..MOST_OF_TENANT).map(|_| begin("acme", true)).collect();
        assert!(own.iter().all(Result::is_ok));
        assert_eq!(begin("acme", true).unwrap_err(), TooMany::OfTenant);
        let others: Vec<_> = (MOST_OF_TENANT..MOST_TENANTS)
            .map(|n| begin(&n.to_string(), true))
            .collect();
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(begin("late", true).unwrap_err(), TooMany::Tenants);
        let operators: Vec<_> = (0..MOST_OPERATORS).map(|_| begin("acme", false)).collect();
        assert!(operators.iter().all(Result::is_ok));
        assert_eq!(begin("acme", false).unwrap_err(), TooMany::Operators);
        traces.begin(Filter::default()).unwrap();
    }

    #[test]
    fn a_call_is_noted_only_if_a_trace_shows_it() {
        let traces = Traces::default();
        let seats = |seats: &'static [&'static str]| traces.want_calls(seats.iter().copied());
        assert!(!seats(&["acme"]));
        let filter = Filter::default().of_decisions(Decisions {
            seat: "acme".to_owned(),
            verdict: None,
            share: None,
            is_tenants: true,
        });
        let _followed = traces.begin(filter).unwrap();
        assert!(seats(&["before", "acme", "after"]) && !seats(&["before", "other", "after"]));
        let _traced = traces.begin(Filter::default()).unwrap();
        assert!(seats(&["before", "other", "after"]));
    }

    #[test]
    fn a_trace_shows_so_many_a_second_and_counts_the_others() {
        let traces = Traces::default();
        let (trace, _lines) = traces.begin(of_rate(3)).unwrap();
        let shown = |second| (0..10).filter(|_| trace.admits(second)).count();
        assert_eq!((shown(0), shown(1), shown(1), shown(7)), (3, 3, 0, 3));
    }

    #[test]
    fn a_follower_that_does_not_read_loses_lines_and_no_memory() {
        let traces = Traces::default();
        let (trace, mut lines) = traces.begin(of_rate(u32::MAX)).unwrap();
        for _ in 0..BUFFER + 7 {
            trace.send(|| Bytes::from_static(b"{}\n"));
        }
        assert_eq!(trace.left_out.load(Ordering::Relaxed), 7);
        assert_eq!(lines.try_recv().unwrap(), "{}\n");
    }

    #[test]
    fn the_last_calls_are_known() {
        let traces = Traces::default();
        let (trace, _lines) = traces.begin(Filter::default()).unwrap();
        trace.remember("first");
        assert!(trace.has_shown("first") && !trace.has_shown(""));
        (0..RECENT).for_each(|n| trace.remember(&n.to_string()));
        assert!(!trace.has_shown("first") && trace.has_shown("0"));
    }
}
