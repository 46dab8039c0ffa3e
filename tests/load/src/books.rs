//! What is known of the requests of a crowd: which are pending, what came back, and what is due in return.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::answer::{Answer, Reader};
use crate::call::Rest;
use crate::histogram::Histogram;
use crate::ledger::{Ledger, Settled};
use crate::plan::{Mode, Plan};
use crate::tally::Tally;
use crate::template::Template;
use crate::transport::Transport;

/// The books of a crowd.
pub(crate) struct Books {
    /// The counts.
    pub(crate) tally: Tally,
    /// Latencies of requests that were sent once.
    pub(crate) latencies: Histogram,
    /// Times from the INVITE of a call to its 180.
    pub(crate) rung: Histogram,
    /// Times from the INVITE of a call to its 200.
    pub(crate) accepted: Histogram,
    late_ns: u64,
    ledger: Ledger,
    reader: Reader,
    mode: Mode,
    transport: Transport,
    expected: Option<u16>,
    rest: Rest,
    /// The BYE of each slot's call, once it has been sent: it is sent again in place of the INVITE.
    byes: Vec<Vec<u8>>,
}

/// A round that no run within the last days had: milliseconds since 1970.
fn first_round() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

impl Books {
    /// Empty books.
    pub(crate) fn new(plan: &Plan) -> Self {
        let slots = plan.sources * plan.outstanding;
        Self {
            tally: Tally::default(),
            latencies: Histogram::new(),
            rung: Histogram::new(),
            accepted: Histogram::new(),
            late_ns: plan.late.map_or(u64::MAX, |late| late.as_nanos() as u64),
            ledger: Ledger::new(slots, first_round(), plan.retransmit()),
            reader: Reader::new(),
            mode: plan.mode,
            transport: plan.transport,
            expected: plan.expected_code(),
            rest: Rest::default(),
            byes: vec![Vec::new(); slots],
        }
    }

    /// Forgets the times measured so far.
    pub(crate) fn clear_times(&mut self) {
        self.latencies.clear();
        self.rung.clear();
        self.accepted.clear();
    }

    /// Enters a new request of this slot, and returns its id.
    pub(crate) fn begin(&mut self, slot: usize, now_ns: u64) -> u64 {
        self.byes[slot].clear();
        self.tally.sent += 1;
        self.ledger.begin(slot, now_ns)
    }

    /// Enters what a source has received, and gives `send` what the source has to send in return. Returns the slot that is free now.
    pub(crate) fn enter(
        &mut self,
        bytes: &[u8],
        template: &Template,
        source: SocketAddr,
        now_ns: u64,
        mut send: impl FnMut(&[u8]),
    ) -> Option<usize> {
        let answer = match self.mode {
            Mode::Echo => template.id_of(bytes).map(|id| (0, id)),
            Mode::Reject | Mode::Options => self
                .reader
                .read(bytes)
                .map(|answer| (answer.code, answer.id)),
            Mode::Relay | Mode::Message | Mode::Call => match self.reader.read(bytes) {
                // What a proxy may send before the final response.
                Some(Answer {
                    code: code @ 100..=199,
                    id,
                    is_to_bye,
                }) => {
                    if self.mode == Mode::Call
                        && !is_to_bye
                        && let Some(ns) = self.ledger.proceed(id, code, now_ns)
                    {
                        self.rung.record(ns);
                    }
                    return None;
                }
                Some(Answer {
                    code: 200,
                    id,
                    is_to_bye: false,
                }) if self.mode == Mode::Call => {
                    self.accept(bytes, id, source, now_ns, &mut send);
                    return None;
                }
                answer => answer.map(|answer| (answer.code, answer.id)),
            },
        };
        let settled = answer.map_or(Settled::Foreign, |(_, id)| self.ledger.settle(id, now_ns));
        match settled {
            Settled::First { slot, latency_ns } => {
                let code = answer.map_or(0, |(code, _)| code);
                // A final response frees the slot. So does a provisional one, which no mode expects and which is counted as wrong.
                self.tally
                    .answer(code, self.expected.is_none_or(|expected| code == expected));
                if let Some(ns) = latency_ns {
                    self.latencies.record(ns);
                    self.tally.late += u64::from(ns > self.late_ns);
                }
                return Some(slot);
            }
            Settled::Repeated => self.tally.repeated += 1,
            Settled::Foreign => self.tally.foreign += 1,
        }
        None
    }

    /// A call is accepted: it is acknowledged, and ends.
    fn accept(
        &mut self,
        ok: &[u8],
        id: u64,
        source: SocketAddr,
        now_ns: u64,
        send: &mut impl FnMut(&[u8]),
    ) {
        if !self.rest.write(ok, id, source, self.transport) {
            return;
        }
        // Each copy of the 200 has its ACK (RFC 3261 §13.2.2.4).
        send(&self.rest.ack);
        let bye = &mut self.byes[self.ledger.slot_of(id)];
        if self.ledger.is_under_way(id) && bye.is_empty() {
            send(&self.rest.bye);
            bye.clone_from(&self.rest.bye);
            if let Some(ns) = self.ledger.hang_up(id, now_ns) {
                self.accepted.record(ns);
            }
        }
    }

    /// Slots whose request is to be sent again, with its id. Each counts as sent again now.
    pub(crate) fn overdue(&mut self, now_ns: u64) -> Vec<(usize, u64)> {
        let overdue = self.ledger.overdue(now_ns);
        self.tally.resent += overdue.len() as u64;
        overdue
    }

    /// The BYE of the call of this slot, once it has been sent.
    pub(crate) fn bye(&self, slot: usize) -> Option<&[u8]> {
        let bye = &self.byes[slot];
        (!bye.is_empty()).then_some(bye)
    }

    /// Gives up requests that have had no response for longer than `patience_ns`, and returns their slots.
    pub(crate) fn give_up(&mut self, now_ns: u64, patience_ns: u64) -> Vec<usize> {
        let slots: Vec<usize> = self
            .ledger
            .give_up(now_ns, patience_ns)
            .into_iter()
            .collect();
        self.tally.lost += slots.len() as u64;
        slots
    }

    /// Whether a request is pending.
    pub(crate) fn any_under_way(&self) -> bool {
        self.ledger.any_under_way()
    }
}
