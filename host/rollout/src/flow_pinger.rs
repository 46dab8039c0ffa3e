//! Pings clients over UDP that have registered, so that their NATs keep their flows open (Kamailio: `natping_interval` of `nathelper`). Workers note
//! registrations and answers, and send the pings.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_dataplane::flow_pings::{ClientFlow, FlowEvent, FlowPings, Registration};
use portcullis_dataplane::shared::Shared;
use portcullis_sip::{Destination, Transport};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use crate::flow_turns::{FlowTurns, MOST_SILENT};

/// Longest pause between two looks at what workers have noticed.
const LOOK: Duration = Duration::from_millis(100);

/// How often the log says that there are too many flows.
const TELL: Duration = Duration::from_secs(60);

/// The pings to clients of a host.
pub struct FlowPinger {
    shared: Arc<Shared>,
    turns: FlowTurns,
    /// The time that the turns count from.
    start: Instant,
    /// The sockets that clients may have sent to.
    locals: Vec<SocketAddr>,
    /// No registration counts for longer.
    longest: Duration,
    numbers: RandomState,
    /// Number of pings.
    sent: u64,
    /// When the log may say again that there are too many flows.
    tells: Instant,
    /// Registrations that were not taken since it did.
    refused: u64,
}

impl FlowPinger {
    /// `None` if flows are not kept open with pings.
    pub fn new(shared: Arc<Shared>) -> Option<Self> {
        shared.flow_pings.as_ref()?;
        let nat = &shared.config.nat;
        let listen = shared.listen.iter();
        let locals = listen.filter(|bound| bound.transport == Transport::Udp);
        let start = Instant::now();
        Some(Self {
            turns: FlowTurns::new(nat.ping, nat.pinged_flows),
            locals: locals.map(|bound| bound.addr).collect(),
            longest: nat.flow_lifetime,
            start,
            numbers: RandomState::new(),
            sent: 0,
            tells: start,
            refused: 0,
            shared,
        })
    }

    /// Pings until `stop` becomes true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let shared = Arc::clone(&self.shared);
        let Some(pings) = &shared.flow_pings else {
            return;
        };
        loop {
            // A process that has handed its sockets over has handed its clients over, too.
            let is_serving = shared.pings.is_serving();
            let due = match is_serving {
                true => self.start + self.turns.due(),
                false => Instant::now() + LOOK,
            };
            let look = Instant::now() + LOOK;
            tokio::select! {
                () = sleep_until(due.min(look).into()) => {}
                asked = pings.question() => {
                    // Whoever asks may have given up.
                    let _gone = asked.send(self.registrations(Instant::now()));
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let now = Instant::now();
            for registration in pings.take_inherited() {
                self.inherit(&registration, now, pings);
            }
            while let Some(event) = pings.next_now() {
                self.take(event, now, pings);
            }
            self.tell(now);
            if is_serving && due <= now {
                self.turn(now, pings);
            }
            let count = u64::try_from(self.turns.len()).unwrap_or(u64::MAX);
            pings.flows.store(count, Ordering::Relaxed);
        }
    }

    /// The flows whose registration lasts.
    fn registrations(&self, now: Instant) -> Vec<Registration> {
        let now = now.saturating_duration_since(self.start);
        let left = self.turns.all().map(|(flow, until, silent)| {
            let left = until.saturating_sub(now).as_secs();
            let seconds = u32::try_from(left).unwrap_or(u32::MAX);
            Registration {
                flow,
                seconds,
                silent,
            }
        });
        left.filter(|one| one.seconds > 0).collect()
    }

    /// Goes on with what the process before has pinged.
    fn inherit(&mut self, registration: &Registration, now: Instant, pings: &FlowPings) {
        let until = self.until(registration.seconds, now);
        let taken = (self.turns).inherit(registration.flow, until, registration.silent);
        self.note_taken(taken, pings);
    }

    /// When a registration ends that lasts for so many seconds.
    fn until(&self, seconds: u32, now: Instant) -> Duration {
        let lasts = Duration::from_secs(seconds.into()).min(self.longest);
        now.saturating_duration_since(self.start) + lasts
    }

    fn note_taken(&mut self, taken: bool, pings: &FlowPings) {
        if !taken {
            self.refused += 1;
            count(&pings.refused, 1);
        }
    }

    fn take(&mut self, event: FlowEvent, now: Instant, pings: &FlowPings) {
        match event {
            FlowEvent::Registered { flow, seconds } => {
                let until = self.until(seconds, now);
                let taken = self.turns.register(flow, until);
                self.note_taken(taken, pings);
            }
            FlowEvent::Answered { flow, number } => {
                // Others are late, or copies.
                if self.turns.answered(&flow, number) {
                    count(&pings.results.answered, 1);
                }
            }
            FlowEvent::Undelivered { client, number } => {
                let Self { locals, turns, .. } = self;
                let mut locals = locals.iter();
                let is_it = |&local| turns.undelivered(&ClientFlow { local, client }, number);
                if locals.any(is_it) {
                    count(&pings.results.unreachable, 1);
                }
            }
            FlowEvent::KeptBack { flow, number } => {
                if self.turns.kept_back(&flow, number) {
                    count(&pings.results.kept_back, 1);
                }
            }
        }
    }

    /// Pings the flows whose turn has come, each worker a part of them.
    fn turn(&mut self, now: Instant, pings: &FlowPings) {
        let Self { numbers, sent, .. } = self;
        let number = || {
            *sent += 1;
            numbers.hash_one(*sent)
        };
        let turn = self
            .turns
            .take(now.saturating_duration_since(self.start), number);
        count(&pings.results.silent, turn.silent);
        for flow in turn.given_up {
            let ClientFlow { local, client } = flow;
            debug!(
                event = "flow_silent",
                %client,
                %local,
                pings = MOST_SILENT,
                "no answer to the last pings of a client, or none was sent because its address has not proved itself: its flow is not kept open until it registers again"
            );
        }
        let workers = self.shared.orders.workers().max(1);
        let each = turn.pings.len().div_ceil(workers).max(1);
        for (worker, part) in turn.pings.chunks(each).enumerate() {
            let requests: Vec<_> = part.iter().filter_map(|ping| self.written(ping)).collect();
            // A worker that has ended is one of a host that ends.
            let _ending = self.shared.orders.ping(worker, requests);
        }
    }

    fn written(&self, &(flow, number): &(ClientFlow, u64)) -> Option<(Box<[u8]>, Destination)> {
        let mut request = Vec::new();
        let ClientFlow { local, client } = flow;
        let to = self
            .shared
            .proxy
            .ping_flow(local, client, number, &mut request)?;
        Some((request.into(), to))
    }

    /// Says in the log that there are too many flows.
    fn tell(&mut self, now: Instant) {
        if self.refused == 0 || now < self.tells {
            return;
        }
        warn!(
            event = "flow_pings_full",
            registrations = self.refused,
            flows = self.turns.len(),
            "clients have registered whose flows are not kept open: raise `pinged-flows` in [nat]"
        );
        self.refused = 0;
        self.tells = now + TELL;
    }
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
