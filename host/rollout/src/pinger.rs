//! Pings the destinations of the dispatcher (Kamailio: `ds_ping_interval`): decides when, chooses the address, and judges the answers. Workers send the
//! requests from the sockets of the host, and report answers.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_dataplane::pings::{PingEvent, PingFate};
use portcullis_dataplane::shared::Shared;
use portcullis_dispatcher::{Member, Schedule};
use portcullis_sip::{Choice, Destination, Ping, RelayError};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::debug;

/// Most pings under way at the same time; others wait for their turn.
const MOST_UNDER_WAY: usize = 1_024;

/// Longest pause between two looks at what may have changed: sets, and whether pings are wanted.
const LOOK: Duration = Duration::from_millis(500);

/// Events that are handled before time goes on.
const EVENTS_AT_ONCE: usize = 256;

/// The time before a request is sent again over UDP, which doubles each time (RFC 3261 §17.1.2.1: T1 and T2).
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// The pings of a host.
pub struct Pinger {
    shared: Arc<Shared>,
    schedule: Schedule,
    /// The time that the schedule counts from.
    start: Instant,
    /// The generation of the sets that the schedule follows; `None` while nothing is pinged.
    follows: Option<u64>,
    /// By their numbers.
    under_way: HashMap<u64, UnderWay>,
    /// When something is to be done for a ping under way.
    due: BTreeSet<(Instant, u64)>,
    numbers: RandomState,
    /// Number of requests sent.
    sent: u64,
    /// For requests while they are written.
    draft: Vec<u8>,
}

/// A ping that waits for its answer.
struct UnderWay {
    member: Member,
    /// The addresses before the present one.
    tried: Vec<Destination>,
    to: Destination,
    request: Box<[u8]>,
    worker: usize,
    /// Number of further addresses of the name.
    others: usize,
    sent: Instant,
    /// When the answer is too late.
    deadline: Instant,
    /// The time of the next retransmission, and the pause before it; `None` over a stream.
    again: Option<(Instant, Duration)>,
}

/// Why an address has not answered.
enum Silence {
    /// Nothing has come in time.
    Late,
    /// The request was not delivered, for this reason if it is known.
    Undelivered(Option<Box<str>>),
}

impl Pinger {
    /// Pings the destinations of this host. Nothing is sent yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        let interval = shared.dispatcher.rules().pings.interval;
        Self {
            shared,
            schedule: Schedule::new(interval),
            start: Instant::now(),
            follows: None,
            under_way: HashMap::new(),
            due: BTreeSet::new(),
            numbers: RandomState::new(),
            sent: 0,
            draft: Vec::new(),
        }
    }

    /// Pings until `stop` becomes true. Returns at once if no pings are configured.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        if self.shared.dispatcher.rules().pings.interval.is_zero() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                event = shared.pings.next() => self.take(event),
                () = sleep_until(self.next_time().into()) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            for _ in 1..EVENTS_AT_ONCE {
                let Some(event) = shared.pings.next_now() else {
                    break;
                };
                self.take(event);
            }
            let now = Instant::now();
            self.follow(now);
            self.go_on(now);
            self.begin(now);
        }
    }

    /// When something is to be done at the latest.
    fn next_time(&self) -> Instant {
        let look = Instant::now() + LOOK;
        let due = self.due.first().map(|(due, _)| *due);
        let has_room = self.under_way.len() < MOST_UNDER_WAY;
        let turn = self.schedule.next().filter(|_| has_room);
        let turn = turn.map(|turn| self.start + turn);
        [due, turn].into_iter().flatten().fold(look, Instant::min)
    }

    /// Follows new sets, and whether pings are wanted. What is under way while they are not is forgotten.
    fn follow(&mut self, now: Instant) {
        let dispatcher = &self.shared.dispatcher;
        let is_wanted = dispatcher.is_pinging() && self.shared.pings.is_serving();
        let sets = dispatcher.current();
        let generation = is_wanted.then_some(sets.generation);
        if generation == self.follows {
            return;
        }
        self.follows = generation;
        if !is_wanted {
            self.under_way.clear();
            self.due.clear();
            // A later start gives new turns.
            self.schedule.follow([], now - self.start);
            return;
        }
        let pings = &dispatcher.rules().pings;
        let members = sets
            .members()
            .filter(|member| pings.may_include(member.flags));
        let names = members.map(|member| Arc::clone(&member.name));
        self.schedule.follow(names, now - self.start);
    }

    /// Pings the destinations whose turn has come.
    fn begin(&mut self, now: Instant) {
        let sets = self.shared.dispatcher.current();
        while self.under_way.len() < MOST_UNDER_WAY {
            let Some(name) = self.schedule.take(now - self.start) else {
                return;
            };
            let mut members = sets.members_named(&name);
            let pinged = members.find(|member| self.shared.dispatcher.pings(member));
            match pinged.cloned() {
                Some(member) => self.send(member, Vec::new(), now),
                None => self.schedule.done(&name, now - self.start),
            }
        }
    }

    /// Sends a ping to the first address that has not been tried.
    fn send(&mut self, member: Member, tried: Vec<Destination>, now: Instant) {
        let shared = Arc::clone(&self.shared);
        let pings = &shared.dispatcher.rules().pings;
        self.sent += 1;
        let number = self.numbers.hash_one(self.sent);
        let failed = &shared.failed_addresses;
        let ping = Ping {
            hop: &member.name,
            uri: member.ping_uri(),
            method: &pings.method,
            from: member.ping_from().unwrap_or(&pings.from),
            number,
            choice: Choice {
                tried: &tried,
                has_failed: &|transport, addr| failed.has(transport, addr),
            },
        };
        let mut draft = mem::take(&mut self.draft);
        let written = shared.proxy.ping(&shared.routes.load(), &ping, &mut draft);
        let request: Box<[u8]> = draft.as_slice().into();
        self.draft = draft;
        let forwarded = match written {
            Ok(forwarded) => forwarded,
            // Routes follow new sets a moment later: nothing is known of the destination yet.
            Err(RelayError::UnknownNextHop(_)) => {
                let now = now.saturating_duration_since(self.start);
                return self.schedule.done(&member.name, now);
            }
            Err(error) => {
                count(&shared.pings.results.unreachable);
                return self.end(&member, None, Some(why_not_sent(&error, &tried)), now);
            }
        };
        let worker = usize::try_from(self.sent).unwrap_or(0) % shared.orders.workers().max(1);
        let deadline = now + pings.timeout;
        let is_datagram = !forwarded.to.transport.is_reliable();
        let under_way = UnderWay {
            member,
            tried,
            to: forwarded.to,
            request,
            worker,
            others: forwarded.others,
            sent: now,
            deadline,
            again: is_datagram.then_some((now + T1, T1)),
        };
        self.transmit(&under_way);
        self.due.insert((under_way.due(), number));
        self.under_way.insert(number, under_way);
    }

    fn transmit(&self, ping: &UnderWay) {
        let request = ping.request.clone();
        // A worker that has ended is one of a host that ends: the ping is not answered.
        let _ending = self.shared.orders.send(ping.worker, request, ping.to);
    }

    /// Sends again, or gives up, what is due.
    fn go_on(&mut self, now: Instant) {
        while let Some(&(due, number)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(mut ping) = self.under_way.remove(&number) else {
                continue;
            };
            match ping.again {
                Some((at, pause)) if at <= now && now < ping.deadline => {
                    self.transmit(&ping);
                    let pause = (pause * 2).min(T2);
                    ping.again = Some((now + pause, pause));
                    self.due.insert((ping.due(), number));
                    self.under_way.insert(number, ping);
                }
                Some(_) | None => self.fail(ping, Silence::Late, now),
            }
        }
    }

    /// Takes what a worker has noticed.
    fn take(&mut self, event: PingEvent) {
        let PingEvent { number, at, fate } = event;
        // A provisional response is no answer yet.
        if matches!(fate, PingFate::Answered(..200)) {
            return;
        }
        // Others are late, or copies, or those of another host with the same key and address.
        let Some(ping) = self.under_way.remove(&number) else {
            return;
        };
        self.due.remove(&(ping.due(), number));
        let code = match fate {
            PingFate::Answered(code) => code,
            PingFate::Undelivered(why) => return self.fail(ping, Silence::Undelivered(why), at),
        };
        let shared = Arc::clone(&self.shared);
        let codes = &shared.dispatcher.rules().pings.codes;
        let is_good = codes.has(code);
        let results = &shared.pings.results;
        count(if is_good { &results.good } else { &results.bad });
        shared.failed_addresses.forget(&ping.to);
        let complaint = (!is_good).then(|| format!("{code} is not one of `ping-codes` ({codes})"));
        let took = at.saturating_duration_since(ping.sent);
        self.end(&ping.member, Some((code, took)), complaint, at);
    }

    /// Tries the next address of the name, or ends the ping.
    fn fail(&mut self, ping: UnderWay, silence: Silence, now: Instant) {
        let UnderWay {
            member,
            mut tried,
            to,
            others,
            ..
        } = ping;
        self.shared.failed_addresses.note(&to);
        tried.push(to);
        let most = usize::from(self.shared.config.resolver.addresses);
        if others > 0 && tried.len() < most {
            return self.send(member, tried, now);
        }
        let results = &self.shared.pings.results;
        count(match silence {
            Silence::Late => &results.silent,
            Silence::Undelivered(_) => &results.unreachable,
        });
        let complaint = why_silent(&silence, &tried, &self.shared);
        self.end(&member, None, Some(complaint), now);
    }

    /// Notes the result of a ping, and gives the destination its next turn.
    fn end(
        &mut self,
        member: &Member,
        answer: Option<(u16, Duration)>,
        complaint: Option<String>,
        now: Instant,
    ) {
        if let Some(reason) = &complaint {
            let (set, uri) = (member.set, &*member.uri);
            debug!(
                event = "ping_failed",
                set, uri, reason, "ping without success"
            );
        }
        let complaint = complaint.map(String::into_boxed_str);
        self.shared.dispatcher.note_ping(member, answer, complaint);
        let now = now.saturating_duration_since(self.start);
        self.schedule.done(&member.name, now);
    }
}

impl UnderWay {
    /// When something is to be done.
    fn due(&self) -> Instant {
        let again = self.again.map(|(at, _)| at);
        again.map_or(self.deadline, |at| at.min(self.deadline))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn why_not_sent(error: &RelayError, tried: &[Destination]) -> String {
    match tried {
        [] => error.to_string(),
        tried => format!("{error}, after {}", shown(tried)),
    }
}

fn why_silent(silence: &Silence, tried: &[Destination], shared: &Shared) -> String {
    let tried = shown(tried);
    match silence {
        Silence::Late => {
            let limit = shared.dispatcher.rules().pings.timeout;
            format!("no answer from {tried} within {limit:?} (`ping-timeout`)")
        }
        Silence::Undelivered(why) => {
            let why = why.as_deref();
            let why = why.unwrap_or("the connection failed, or the network refuses it");
            format!("{tried} cannot be reached: {why}")
        }
    }
}

fn shown(tried: &[Destination]) -> String {
    let shown = tried.iter();
    let shown = shown.map(|to| format!("{} over {}", to.addr, to.transport));
    shown.collect::<Vec<_>>().join(", ")
}
