//! Messages on their way, and what else will happen, in the order of time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::schedule::Weather;

/// What happens at some time.
#[derive(Debug)]
pub(super) enum Action {
    /// A message of the caller arrives at the host.
    FromCaller(String),
    /// A message of a target arrives at the host.
    FromCallee(usize, String),
    /// A message of the host arrives at the caller.
    ToCaller(String),
    /// A message of the host arrives at a target.
    ToCallee(usize, String),
    /// The caller gives up.
    Cancel,
    /// The decision is made.
    Decide,
    /// The next step is decided.
    Step,
    /// The request for a target is written.
    Write(u8),
    /// The network reports an error of a target.
    Error(u8),
    /// A target says the next thing.
    Say(usize),
    /// A target sends its 2xx response again, after this interval.
    Again(usize, u64),
}

/// All that will happen.
#[derive(Debug)]
pub(super) struct Network {
    weather: Weather,
    random: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    count: u64,
}

#[derive(Debug)]
struct Planned {
    at: u64,
    /// Distinguishes what happens at the same time.
    number: u64,
    action: Action,
}

impl Network {
    pub(super) fn new(seed: u32, weather: Weather) -> Self {
        Self {
            weather,
            random: seed.into(),
            queue: BinaryHeap::new(),
            count: 0,
        }
    }

    pub(super) fn plan(&mut self, at: u64, action: Action) {
        self.count += 1;
        self.queue.push(Reverse(Planned {
            at,
            number: self.count,
            action,
        }));
    }

    /// Sends a message. `make` makes the arrival of it or of its double.
    pub(super) fn send(&mut self, now: u64, is_reliable: bool, make: impl Fn() -> Action) {
        if is_reliable {
            return self.plan(now + 5, make());
        }
        let copies = if self.below(100) < self.weather.doubled.into() {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.below(100) >= self.weather.lost.into() {
                let delay = 1 + self.below(self.weather.delay.into());
                self.plan(now + delay, make());
            }
        }
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.queue.peek().map(|planned| planned.0.at)
    }

    pub(super) fn take(&mut self) -> Option<Action> {
        self.queue.pop().map(|planned| planned.0.action)
    }

    /// A number below `limit` (SplitMix64).
    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit.max(1)
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}
