//! The callers: one socket for each source, and their shared counts.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use portcullis_udp::{Receiver, Sender};

use crate::answer::{Answer, Reader};
use crate::call::Rest;
use crate::histogram::Histogram;
use crate::ledger::{Ledger, Settled};
use crate::plan::{Mode, Plan};
use crate::socket;
use crate::tally::Tally;
use crate::template::Template;

/// Datagrams read or written with one system call.
pub(crate) const BATCH: usize = 32;

/// All callers of a run.
pub(crate) struct Crowd {
    /// The counts.
    pub(crate) tally: Tally,
    /// Latencies of requests that were sent once.
    pub(crate) latencies: Histogram,
    /// Times from the INVITE of a call to its 180.
    pub(crate) rung: Histogram,
    /// Times from the INVITE of a call to its 200.
    pub(crate) accepted: Histogram,
    callers: Vec<Caller>,
    ledger: Ledger,
    reader: Reader,
    receiver: Receiver,
    sender: Sender,
    target: SocketAddr,
    mode: Mode,
    expected: Option<u16>,
    rest: Rest,
    /// The BYE of each slot's call, once it has been sent: it is sent again in place of the INVITE.
    byes: Vec<Vec<u8>>,
}

/// One source. It owns every slot whose number modulo the number of callers is its own number.
struct Caller {
    socket: UdpSocket,
    address: SocketAddr,
    template: Template,
    free: VecDeque<usize>,
}

/// A round that no run within the last days had: milliseconds since 1970.
fn first_round() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

impl Crowd {
    /// Binds consecutive sources from this one on.
    pub(crate) fn bind(plan: &Plan, first: IpAddr) -> Result<Self> {
        let count = plan.sources;
        let mut callers = Vec::with_capacity(count);
        for (nth, address) in plan.sources_from(first).into_iter().enumerate() {
            let socket = socket::bind(SocketAddr::new(address, 0))
                .with_context(|| format!("source {address}"))?;
            callers.push(Caller {
                template: Template::new(plan, socket.local_addr()?),
                address: socket.local_addr()?,
                socket,
                free: (0..plan.outstanding).map(|n| n * count + nth).collect(),
            });
        }
        Ok(Self {
            tally: Tally::default(),
            latencies: Histogram::new(),
            rung: Histogram::new(),
            accepted: Histogram::new(),
            callers,
            ledger: Ledger::new(count * plan.outstanding, first_round(), plan.retransmit()),
            reader: Reader::new(),
            receiver: Receiver::new(BATCH),
            sender: Sender::new(BATCH),
            target: plan.target,
            mode: plan.mode,
            expected: plan.expected_code(),
            rest: Rest::default(),
            byes: vec![Vec::new(); count * plan.outstanding],
        })
    }

    /// Forgets the times measured so far.
    pub(crate) fn clear_times(&mut self) {
        self.latencies.clear();
        self.rung.clear();
        self.accepted.clear();
    }

    /// Number of callers.
    pub(crate) fn len(&self) -> usize {
        self.callers.len()
    }

    /// Sends a new request of this caller for each of its free slots, at most `limit`. Returns their number.
    pub(crate) fn call(&mut self, caller: usize, limit: u64, now_ns: u64) -> io::Result<u64> {
        let caller = &mut self.callers[caller];
        let mut sent = 0;
        while sent < limit {
            let Some(slot) = caller.free.pop_front() else {
                break;
            };
            let id = self.ledger.begin(slot, now_ns);
            self.byes[slot].clear();
            self.sender.push(caller.template.with_id(id), self.target);
            sent += 1;
        }
        socket::send(&mut self.sender, &caller.socket)?;
        self.tally.sent += sent;
        Ok(sent)
    }

    /// Receives one batch of responses on this caller's socket and returns its size.
    pub(crate) fn collect(&mut self, caller: usize, now_ns: u64) -> io::Result<usize> {
        let caller = &mut self.callers[caller];
        let count = socket::receive(&mut self.receiver, &caller.socket)?;
        for nth in 0..count {
            let bytes = self.receiver.datagram(nth).0;
            let answer = match self.mode {
                Mode::Echo => caller.template.id_of(bytes).map(|id| (0, id)),
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
                        continue;
                    }
                    Some(Answer {
                        code: 200,
                        id,
                        is_to_bye: false,
                    }) if self.mode == Mode::Call => {
                        if !self.rest.write(bytes, id, caller.address) {
                            continue;
                        }
                        // Each copy of the 200 has its ACK (RFC 3261 §13.2.2.4).
                        self.sender.push(&self.rest.ack, self.target);
                        let bye = &mut self.byes[self.ledger.slot_of(id)];
                        if self.ledger.is_under_way(id) && bye.is_empty() {
                            self.sender.push(&self.rest.bye, self.target);
                            bye.clone_from(&self.rest.bye);
                            if let Some(ns) = self.ledger.hang_up(id, now_ns) {
                                self.accepted.record(ns);
                            }
                        }
                        continue;
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
                    }
                    caller.free.push_back(slot);
                }
                Settled::Repeated => self.tally.repeated += 1,
                Settled::Foreign => self.tally.foreign += 1,
            }
        }
        socket::send(&mut self.sender, &caller.socket)?;
        Ok(count)
    }

    /// Sends requests again that are due.
    pub(crate) fn call_again(&mut self, now_ns: u64) -> io::Result<()> {
        let count = self.callers.len();
        for (slot, id) in self.ledger.overdue(now_ns) {
            let caller = &mut self.callers[slot % count];
            let request = match &self.byes[slot][..] {
                [] => caller.template.with_id(id),
                bye => bye,
            };
            self.sender.push(request, self.target);
            socket::send(&mut self.sender, &caller.socket)?;
            self.tally.resent += 1;
        }
        Ok(())
    }

    /// Gives up requests that have had no response for longer than `patience_ns`.
    pub(crate) fn give_up(&mut self, now_ns: u64, patience_ns: u64) {
        let count = self.callers.len();
        for slot in self.ledger.give_up(now_ns, patience_ns) {
            self.callers[slot % count].free.push_back(slot);
            self.tally.lost += 1;
        }
    }

    /// Whether a request is pending.
    pub(crate) fn any_under_way(&self) -> bool {
        self.ledger.any_under_way()
    }
}
