//! When each destination is pinged: spread evenly over the interval, and never twice at once.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// The golden ratio: the fractional parts of its multiples fill an interval evenly, however many there are (Weyl, 1916).
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// How far a ping may be from its place, as a share of the interval: two pings of a destination are up to 10 % closer or further apart.
const JITTER: f64 = 0.05;

/// The turns of all destinations. Times count from any moment, the same for all calls.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    /// The turns to come, the next one first.
    turns: BTreeSet<(Duration, u64)>,
    places: HashMap<u64, Place>,
    numbers: HashMap<Arc<str>, u64>,
    /// The number of the next new destination.
    next: u64,
    jitter: RandomState,
}

/// The place of a destination within the interval.
#[derive(Debug)]
struct Place {
    name: Arc<str>,
    /// From the begin of the interval.
    phase: Duration,
    /// Number of its turns.
    count: u64,
    /// Its turn to come; `None` while a ping is under way.
    turn: Option<Duration>,
}

impl Schedule {
    /// Without destinations. The interval must not be zero.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval: interval.max(Duration::from_millis(1)),
            turns: BTreeSet::new(),
            places: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
            jitter: RandomState::new(),
        }
    }

    /// Takes these destinations in place of those before. One that is new gets its first turn within an interval from `now` on; the others keep
    /// their places.
    pub fn follow(&mut self, names: impl IntoIterator<Item = Arc<str>>, now: Duration) {
        let mut gone = std::mem::take(&mut self.numbers);
        for name in names {
            match gone.remove_entry(&name) {
                Some((name, number)) => {
                    self.numbers.insert(name, number);
                }
                None if self.numbers.contains_key(&name) => {}
                None => self.add(name, now),
            }
        }
        for number in gone.into_values() {
            if let Some(Place {
                turn: Some(turn), ..
            }) = self.places.remove(&number)
            {
                self.turns.remove(&(turn, number));
            }
        }
    }

    /// The next turn; `None` if no destination waits for one.
    pub fn next(&self) -> Option<Duration> {
        self.turns.first().map(|(turn, _)| *turn)
    }

    /// Takes a turn that is due. The destination has no other one before [`Schedule::done`].
    pub fn take(&mut self, now: Duration) -> Option<Arc<str>> {
        let &(turn, number) = self.turns.first().filter(|(turn, _)| *turn <= now)?;
        self.turns.remove(&(turn, number));
        let place = self.places.get_mut(&number)?;
        place.turn = None;
        Some(Arc::clone(&place.name))
    }

    /// Gives a destination its next turn after `now`, unless it has one or is gone.
    pub fn done(&mut self, name: &str, now: Duration) {
        let Some(&number) = self.numbers.get(name) else {
            return;
        };
        let Some(place) = self.places.get_mut(&number) else {
            return;
        };
        if place.turn.is_some() {
            return;
        }
        place.count += 1;
        // A turn is early by the jitter at most: half an interval distinguishes it from the one before.
        let half = self.interval / 2;
        let passed = (now + half).saturating_sub(place.phase).as_nanos() / self.interval.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        let regular = place.phase + self.interval.saturating_mul(passed.saturating_add(1));
        let drawn = self.jitter.hash_one((number, place.count)) as f64 / u64::MAX as f64;
        let early = self.interval.mul_f64(JITTER);
        let turn = (regular + self.interval.mul_f64(drawn * 2.0 * JITTER)).saturating_sub(early);
        place.turn = Some(turn);
        self.turns.insert((turn, number));
    }

    fn add(&mut self, name: Arc<str>, now: Duration) {
        let number = self.next;
        self.next += 1;
        let share = (number as f64 * GOLDEN).fract();
        let turn = now + self.interval.mul_f64(share);
        let phase = turn.as_nanos() % self.interval.as_nanos();
        let place = Place {
            name: Arc::clone(&name),
            phase: Duration::from_nanos(u64::try_from(phase).unwrap_or(0)),
            count: 0,
            turn: Some(turn),
        };
        self.turns.insert((turn, number));
        self.places.insert(number, place);
        self.numbers.insert(name, number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn names(count: usize) -> impl Iterator<Item = Arc<str>> {
        (0..count).map(|number| Arc::from(number.to_string()))
    }

    /// Runs until this time, with answers after `took`. Returns the times and names of all pings.
    fn run(schedule: &mut Schedule, until: Duration, took: Duration) -> Vec<(Duration, Arc<str>)> {
        let mut pings = Vec::new();
        let mut answers: BTreeSet<(Duration, Arc<str>)> = BTreeSet::new();
        loop {
            let answer = answers.first().map(|(at, _)| *at);
            let now = [schedule.next(), answer].into_iter().flatten().min();
            let Some(now) = now.filter(|now| *now <= until) else {
                return pings;
            };
            while answers.first().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, name)) = answers.pop_first() {
                    schedule.done(&name, now);
                }
            }
            while let Some(name) = schedule.take(now) {
                answers.insert((now + took, Arc::clone(&name)));
                pings.push((now, name));
            }
        }
    }

    #[test]
    fn pings_are_spread_evenly_over_the_interval() {
        for count in [1, 2, 7, 100, 1_000] {
            let mut schedule = Schedule::new(INTERVAL);
            schedule.follow(names(count), Duration::ZERO);
            let pings = run(&mut schedule, INTERVAL * 20, Duration::from_millis(3));
            // Twenty each, give or take the jitter at both ends.
            let total = pings.len() as i64;
            assert!(
                (total - 20 * count as i64).abs() <= count as i64,
                "{count}: {total}"
            );
            // In each tenth of an interval a tenth of the destinations, give or take a few for the jitter.
            let tenth = INTERVAL / 10;
            for part in 10..190 {
                let at = tenth * part..tenth * (part + 1);
                let found = pings.iter().filter(|(time, _)| at.contains(time)).count();
                let (found, expected) = (found as f64, count as f64 / 10.0);
                let most = expected * 0.6 + 4.0;
                assert!(
                    (found - expected).abs() < most,
                    "{count}, part {part}: {found}"
                );
            }
        }
    }

    #[test]
    fn two_pings_of_a_destination_are_an_interval_apart() {
        let mut schedule = Schedule::new(INTERVAL);
        schedule.follow(names(5), Duration::ZERO);
        let pings = run(&mut schedule, INTERVAL * 50, Duration::from_millis(40));
        let mut last: HashMap<Arc<str>, Duration> = HashMap::new();
        let mut apart = BTreeSet::new();
        for (time, name) in pings {
            if let Some(before) = last.insert(name, time) {
                let times = (time - before).as_secs_f64() / INTERVAL.as_secs_f64();
                assert!((0.899..1.101).contains(&times), "{times}");
                apart.insert((times * 1_000.0) as u64);
            }
        }
        assert!(apart.len() > 20, "the interval varies: {apart:?}");
    }

    #[test]
    fn a_destination_that_answers_late_misses_turns_and_is_never_pinged_twice_at_once() {
        let mut schedule = Schedule::new(INTERVAL);
        schedule.follow(names(3), Duration::ZERO);
        let took = INTERVAL * 5 / 2;
        let pings = run(&mut schedule, INTERVAL * 30, took);
        let mut last: HashMap<Arc<str>, Duration> = HashMap::new();
        for (time, name) in &pings {
            if let Some(before) = last.insert(Arc::clone(name), *time) {
                assert!(
                    *time >= before + took,
                    "{name} at {time:?}, before that at {before:?}"
                );
            }
        }
        assert!(pings.len() >= 3 * 8, "{}", pings.len());
    }

    #[test]
    fn destinations_come_and_go_and_the_others_keep_their_places() {
        let mut schedule = Schedule::new(INTERVAL);
        schedule.follow(names(3), Duration::ZERO);
        let before: Vec<_> = schedule.turns.iter().copied().collect();
        schedule.follow(names(4), Duration::from_secs(2));
        assert!(before.iter().all(|turn| schedule.turns.contains(turn)));
        assert_eq!(schedule.turns.len(), 4);
        schedule.follow(names(1), Duration::from_secs(3));
        assert_eq!((schedule.turns.len(), schedule.places.len()), (1, 1));
        let taken = schedule.take(Duration::from_secs(60)).unwrap();
        schedule.follow(names(0), Duration::from_secs(60));
        // The answer to a ping of a destination that is gone.
        schedule.done(&taken, Duration::from_secs(61));
        assert_eq!((schedule.next(), schedule.places.len()), (None, 0));
        // A name that occurs twice is one destination.
        schedule.follow(names(2).chain(names(2)), Duration::from_secs(62));
        assert_eq!(schedule.turns.len(), 2);
        schedule.done("0", Duration::from_secs(63));
        assert_eq!(schedule.turns.len(), 2, "it has its turn already");
    }

    proptest! {
        #[test]
        fn every_destination_has_its_turn_in_each_interval_and_a_half(
            count in 1..40_usize,
            interval in 1..100_000_u64,
            start in 0..1_000_000_u64,
        ) {
            let interval = Duration::from_millis(interval);
            let start = Duration::from_millis(start);
            let mut schedule = Schedule::new(interval);
            schedule.follow(names(count), start);
            let pings = run(&mut schedule, start + interval * 3 + interval / 10, Duration::ZERO);
            for name in names(count) {
                let found = pings.iter().filter(|(_, pinged)| *pinged == name).count();
                prop_assert!((2..=5).contains(&found), "{}: {}", name, found);
            }
        }
    }
}
