//! Which flows of clients are pinged, and when: spread evenly over the interval, in a table of limited size. No sockets, no clocks.

use std::collections::HashMap;
use std::time::Duration;

use portcullis_dataplane::flow_pings::ClientFlow;

/// Turns in an interval: each flow has its place in one of them.
const TURNS: usize = 256;

/// Pings in a row without an answer after which a flow is not pinged any more until its client registers again. By then, the NAT has forgotten it:
/// only the client can open it again. So an address that never answers gets this many for a registration.
pub(crate) const MOST_SILENT: u8 = 3;

/// The flows that are pinged. Times count from any moment, the same for all calls.
#[derive(Debug)]
pub(crate) struct FlowTurns {
    interval: Duration,
    most: usize,
    flows: HashMap<ClientFlow, PingedFlow>,
    /// The flows of each turn.
    turns: Box<[Vec<ClientFlow>]>,
    /// The turn to come.
    next: usize,
    /// When it comes.
    due: Duration,
}

/// A flow that is pinged.
#[derive(Debug)]
struct PingedFlow {
    /// When its last registration ends.
    until: Duration,
    /// The number of a ping that has not been answered.
    waits_for: Option<u64>,
    /// Number of pings in a row without an answer.
    silent: u8,
    /// Whether the process before may have pinged it, and this one has not yet: the number of that ping is not known.
    is_inherited: bool,
}

/// What has become of the flows of a turn since their turn before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Those to ping, with the numbers of the pings.
    pub(crate) pings: Vec<(ClientFlow, u64)>,
    /// Number of those that have not answered.
    pub(crate) silent: u64,
    /// Those that are not pinged any more, because they have not answered [`MOST_SILENT`] times.
    pub(crate) given_up: Vec<ClientFlow>,
}

impl FlowTurns {
    /// Without flows: at most so many will be pinged, each once in an interval.
    pub(crate) fn new(interval: Duration, most: usize) -> Self {
        Self {
            interval: interval.max(Duration::from_millis(1)),
            most,
            flows: HashMap::new(),
            turns: (0..TURNS).map(|_| Vec::new()).collect(),
            next: 0,
            due: Duration::ZERO,
        }
    }

    /// Number of flows.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// All flows, when their registrations end, and the number of their pings in a row without an answer.
    pub(crate) fn all(&self) -> impl Iterator<Item = (ClientFlow, Duration, u8)> {
        let flows = self.flows.iter();
        flows.map(|(flow, kept)| (*flow, kept.until, kept.silent))
    }

    /// When the next turn comes.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// Notes a registration along a flow, which lasts until then. Its first ping follows within an interval. Returns false if it is not pinged because
    /// the table is full.
    ///
    /// The end of one registration says nothing about others along the flow, of the other lines of a phone: the last one counts.
    pub(crate) fn register(&mut self, flow: ClientFlow, until: Duration) -> bool {
        if let Some(kept) = self.flows.get_mut(&flow) {
            kept.until = kept.until.max(until);
            kept.silent = 0;
            return true;
        }
        if self.flows.len() >= self.most {
            return false;
        }
        // The turn with the fewest flows, from the next one on.
        let from_next = |at: usize| (at + TURNS - self.next) % TURNS;
        let fewest = (0..TURNS).min_by_key(|at| (self.turns[*at].len(), from_next(*at)));
        let Some(turn) = fewest.and_then(|at| self.turns.get_mut(at)) else {
            return false;
        };
        turn.push(flow);
        let kept = PingedFlow {
            until,
            waits_for: None,
            silent: 0,
            is_inherited: false,
        };
        self.flows.insert(flow, kept);
        true
    }

    /// Notes a flow that the process before has pinged, so many times in a row without an answer. Otherwise as [`FlowTurns::register`]: what has
    /// registered here counts more.
    pub(crate) fn inherit(&mut self, flow: ClientFlow, until: Duration, silent: u8) -> bool {
        let is_new = !self.flows.contains_key(&flow);
        let is_taken = self.register(flow, until);
        if is_new && let Some(kept) = self.flows.get_mut(&flow) {
            kept.silent = silent;
            kept.is_inherited = true;
        }
        is_taken
    }

    /// Notes an answer. Returns false if nothing waits for it.
    pub(crate) fn answered(&mut self, flow: &ClientFlow, number: u64) -> bool {
        let Some(kept) = self.flows.get_mut(flow) else {
            return false;
        };
        let is_expected = kept.waits_for == Some(number) || kept.is_inherited;
        if is_expected {
            kept.waits_for = None;
            kept.silent = 0;
            kept.is_inherited = false;
        }
        is_expected
    }

    /// Notes that a ping was not sent, because its client has not proved its address: it counts like one without an answer. Returns false if nothing
    /// waits for its answer.
    pub(crate) fn kept_back(&mut self, flow: &ClientFlow, number: u64) -> bool {
        let Some(kept) = self.flows.get_mut(flow) else {
            return false;
        };
        let is_expected = kept.waits_for == Some(number);
        if is_expected {
            kept.waits_for = None;
            kept.silent = kept.silent.saturating_add(1);
        }
        is_expected
    }

    /// Notes that a ping was not delivered: the flow is not pinged any more. Returns false if nothing waits for its answer.
    pub(crate) fn undelivered(&mut self, flow: &ClientFlow, number: u64) -> bool {
        let Some(kept) = self.flows.get_mut(flow) else {
            return false;
        };
        let is_expected = kept.waits_for == Some(number);
        if is_expected {
            kept.waits_for = None;
            // It goes with its next turn, unless its client registers before.
            kept.until = Duration::ZERO;
        }
        is_expected
    }

    /// Takes the turn to come. `number` draws the number of a ping.
    pub(crate) fn take(&mut self, now: Duration, mut number: impl FnMut() -> u64) -> Turn {
        let mut taken = Turn::default();
        let flows = &mut self.flows;
        if let Some(turn) = self.turns.get_mut(self.next) {
            turn.retain(|flow| {
                let Some(kept) = flows.get_mut(flow) else {
                    return false;
                };
                if kept.waits_for.take().is_some() {
                    taken.silent += 1;
                    kept.silent = kept.silent.saturating_add(1);
                }
                let is_silent = kept.silent >= MOST_SILENT;
                if is_silent || kept.until <= now {
                    flows.remove(flow);
                    if is_silent {
                        taken.given_up.push(*flow);
                    }
                    return false;
                }
                let number = number();
                kept.waits_for = Some(number);
                kept.is_inherited = false;
                taken.pings.push((*flow, number));
                true
            });
        }
        self.next = (self.next + 1) % TURNS;
        let step = self.interval / TURNS as u32;
        // A host that was stopped for a while does not make up for what it has missed.
        self.due = match self.due + self.interval < now {
            true => now + step,
            false => self.due + step,
        };
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn flow(number: u16) -> ClientFlow {
        ClientFlow {
            local: "192.0.2.9:5060".parse().unwrap(),
            client: SocketAddr::from(([198, 51, 100, 7], number)),
        }
    }

    fn turns(most: usize) -> FlowTurns {
        FlowTurns::new(INTERVAL, most)
    }

    /// Takes all turns until this time. Every ping is answered, if `answers`. Returns the pings with their times, and the flows that were given up.
    fn run(
        turns: &mut FlowTurns,
        until: Duration,
        answers: bool,
    ) -> (Vec<(Duration, ClientFlow)>, Vec<ClientFlow>) {
        let (mut pings, mut given_up) = (Vec::new(), Vec::new());
        let mut last = 0;
        while turns.due() <= until {
            let now = turns.due();
            let turn = turns.take(now, || {
                last += 1;
                last
            });
            for (flow, number) in turn.pings {
                pings.push((now, flow));
                assert!(!answers || turns.answered(&flow, number));
            }
            given_up.extend(turn.given_up);
        }
        (pings, given_up)
    }

    #[test]
    fn pings_are_spread_evenly_and_an_interval_apart() {
        let mut turns = turns(100_000);
        for number in 0..10_000 {
            assert!(turns.register(flow(number), HOUR));
        }
        let (pings, given_up) = run(&mut turns, INTERVAL * 10 - Duration::from_millis(1), true);
        assert_eq!((pings.len(), given_up.len()), (100_000, 0));
        for at in pings.chunk_by(|one, next| one.0 == next.0) {
            assert!((39..=40).contains(&at.len()), "{}", at.len());
        }
        let mut last = HashMap::new();
        for (at, flow) in pings {
            if let Some(before) = last.insert(flow, at) {
                let apart = (at - before).as_secs_f64() / INTERVAL.as_secs_f64();
                assert!((0.999..1.001).contains(&apart), "{apart}");
            }
        }
    }

    #[test]
    fn pings_end_with_the_last_registration() {
        let mut turns = turns(9);
        let two_and_a_half = INTERVAL * 5 / 2;
        turns.register(flow(1), two_and_a_half);
        // Another line of the phone, which is registered for less.
        turns.register(flow(1), INTERVAL);
        let (pings, given_up) = run(&mut turns, HOUR, true);
        assert_eq!((pings.len(), given_up.len(), turns.len()), (3, 0, 0));
        assert!(pings.iter().all(|(at, _)| *at < two_and_a_half));
    }

    #[test]
    fn a_client_that_never_answers_gets_three_pings_for_each_registration() {
        let mut turns = turns(9);
        for round in 1..=2 {
            assert!(turns.register(flow(1), HOUR * round));
            let until = turns.due() + INTERVAL * 10;
            let (pings, given_up) = run(&mut turns, until, false);
            assert_eq!(pings.len(), usize::from(MOST_SILENT));
            assert_eq!((&given_up[..], turns.len()), (&[flow(1)][..], 0));
        }
        // One answer in three is enough.
        turns.register(flow(1), HOUR * 9);
        let mut sent = 0;
        for _ in 0..TURNS * 30 {
            let now = turns.due();
            let turn = turns.take(now, || 7);
            sent += turn.pings.len();
            if !turn.pings.is_empty() && sent.is_multiple_of(3) {
                assert!(turns.answered(&flow(1), 7));
            }
        }
        assert_eq!((sent, turns.len()), (30, 1));
    }

    #[test]
    fn a_ping_that_is_kept_back_counts_like_one_without_an_answer() {
        let mut turns = turns(9);
        turns.register(flow(1), HOUR);
        let (mut pings, mut given_up) = (0, Vec::new());
        while given_up.is_empty() {
            let now = turns.due();
            let turn = turns.take(now, || 5);
            pings += turn.pings.len();
            assert_eq!(turn.silent, 0);
            given_up = turn.given_up;
            if !turn.pings.is_empty() {
                assert!(!turns.kept_back(&flow(1), 4) && !turns.kept_back(&flow(2), 5));
                assert!(turns.kept_back(&flow(1), 5) && !turns.kept_back(&flow(1), 5));
            }
        }
        assert_eq!(
            (pings, &given_up[..]),
            (usize::from(MOST_SILENT), &[flow(1)][..])
        );
    }

    #[test]
    fn an_upgrade_begins_no_new_count_and_takes_the_answer_to_the_last_ping() {
        let mut turns = turns(9);
        assert!(turns.inherit(flow(1), HOUR, 2));
        assert_eq!(turns.all().collect::<Vec<_>>(), [(flow(1), HOUR, 2)]);
        let until = turns.due() + INTERVAL * 10;
        let (pings, given_up) = run(&mut turns, until, false);
        assert_eq!((pings.len(), &given_up[..]), (1, &[flow(1)][..]));

        assert!(turns.inherit(flow(2), HOUR, 2));
        assert!(turns.answered(&flow(2), 77), "a ping of the process before");
        assert!(!turns.answered(&flow(2), 77), "a copy");
        let until = turns.due() + INTERVAL * 10;
        let (pings, _) = run(&mut turns, until, false);
        assert_eq!(pings.len(), usize::from(MOST_SILENT));

        assert!(turns.register(flow(3), HOUR));
        assert!(turns.inherit(flow(3), HOUR * 2, 2));
        let all: Vec<_> = turns.all().collect();
        assert_eq!(all, [(flow(3), HOUR * 2, 0)], "it has registered here");
        assert!(!turns.answered(&flow(3), 77));
    }

    #[test]
    fn a_table_that_is_full_takes_no_new_flow_until_another_one_ends() {
        let mut turns = turns(2);
        assert!(turns.register(flow(1), INTERVAL));
        assert!(turns.register(flow(2), HOUR));
        assert!(!turns.register(flow(3), HOUR));
        assert!(turns.register(flow(2), HOUR), "it has its place");
        run(&mut turns, INTERVAL * 3, true);
        assert_eq!(turns.len(), 1);
        assert!(turns.register(flow(3), HOUR));
    }

    #[test]
    fn only_the_answer_to_the_last_ping_counts() {
        let mut turns = turns(9);
        turns.register(flow(1), HOUR);
        let pinged = (0..TURNS).flat_map(|_| {
            let now = turns.due();
            turns.take(now, || 5).pings
        });
        assert_eq!(pinged.collect::<Vec<_>>(), [(flow(1), 5)]);
        assert!(!turns.answered(&flow(2), 5));
        assert!(!turns.answered(&flow(1), 4));
        assert!(!turns.undelivered(&flow(1), 4));
        assert!(turns.answered(&flow(1), 5));
        assert!(!turns.answered(&flow(1), 5), "a copy");
        assert!(!turns.undelivered(&flow(1), 5));
    }

    #[test]
    fn a_flow_that_cannot_be_reached_ends_unless_its_client_registers() {
        for registers in [false, true] {
            let mut turns = turns(9);
            turns.register(flow(1), HOUR);
            let mut pings = 0;
            while pings == 0 {
                let now = turns.due();
                pings = turns.take(now, || 5).pings.len();
            }
            assert!(turns.undelivered(&flow(1), 5));
            if registers {
                assert!(turns.register(flow(1), HOUR));
            }
            run(&mut turns, INTERVAL * 2, true);
            assert_eq!(turns.len(), usize::from(registers));
        }
    }

    #[test]
    fn what_a_stopped_host_has_missed_is_not_made_up_for() {
        let mut turns = turns(9);
        turns.register(flow(1), HOUR * 9);
        turns.take(HOUR, || 1);
        assert!(turns.due() > HOUR && turns.due() < HOUR + INTERVAL);
    }

    proptest! {
        #[test]
        fn tables_stay_within_their_limit_and_hold_each_flow_once(
            steps in prop::collection::vec((0..3_u8, 0..12_u16, 0..100_u64), 0..400),
            most in 0..10_usize,
        ) {
            let mut turns = turns(most);
            for (kind, number, value) in steps {
                let now = turns.due();
                match kind {
                    0 => drop(turns.register(flow(number), now + Duration::from_secs(value))),
                    1 => drop(turns.answered(&flow(number), value)),
                    _ => drop(turns.take(now, || value)),
                }
                prop_assert!(turns.len() <= most);
                let placed: usize = turns.turns.iter().map(Vec::len).sum();
                prop_assert_eq!(placed, turns.len());
            }
        }
    }
}
