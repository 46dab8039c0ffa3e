//! Several hosts with a naive store, which loses, repeats and delays exchanges.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

const LONG: u64 = 1_000_000;

fn key(n: u8) -> Key {
    [n; 16]
}

fn change(n: u8, value: u64, ends: u64) -> Change {
    Change {
        key: key(n),
        value,
        ends,
    }
}

/// What the script does, written as simply as possible.
#[derive(Default)]
struct Store {
    epoch: u32,
    version: u64,
    now: u64,
    items: BTreeMap<(Key, Instance), (u64, u64, u64)>,
    numbers: HashMap<Instance, u64>,
}

#[derive(Clone)]
struct Request {
    instance: Instance,
    number: u64,
    cursor: Cursor,
    batch: Vec<Change>,
}

impl Store {
    fn exchange(&mut self, request: &Request) -> Reply {
        let last = self.numbers.get(&request.instance).copied();
        if last.is_none_or(|last| request.number > last) {
            for change in &request.batch {
                if change.ends > self.now {
                    self.version += 1;
                    let item = (change.value, change.ends, self.version);
                    self.items.insert((change.key, request.instance), item);
                }
            }
            self.numbers.insert(request.instance, request.number);
        }
        let now = self.now;
        self.items.retain(|_, (_, ends, _)| *ends > now);
        let epoch = self.epoch.to_string();
        let since = match request.cursor.epoch == epoch {
            true => request.cursor.version,
            false => 0,
        };
        let fields = self.items.iter();
        let fields = fields.filter(|((_, instance), (_, _, version))| {
            *instance != request.instance && *version > since
        });
        let field =
            |(&(key, instance), &(value, ends, _)): (&(Key, Instance), &(u64, u64, u64))| {
                let field = Field {
                    instance,
                    value,
                    ends,
                };
                (key, field)
            };
        Reply {
            epoch,
            version: self.version,
            now,
            hosts: 1,
            refused: 0,
            more: false,
            fields: fields.map(field).collect(),
            garbage: 0,
        }
    }

    /// Redis starts again without what it had.
    fn forget(&mut self) {
        *self = Self {
            epoch: self.epoch + 1,
            now: self.now,
            ..Self::default()
        };
    }
}

/// A host that counts events, and what it believes of the others.
struct Host {
    ledger: Ledger,
    instance: Instance,
    number: u64,
    /// How far the clock of Redis is ahead.
    ahead: i64,
    counted: HashMap<u8, u64>,
    others: HashMap<Key, u64>,
    late: Vec<Request>,
}

impl Host {
    fn new(n: u8, ahead: i64) -> Self {
        Self {
            ledger: Ledger::default(),
            instance: [n; 16],
            number: 0,
            ahead,
            counted: HashMap::new(),
            others: HashMap::new(),
            late: Vec::new(),
        }
    }

    fn count(&mut self, n: u8, store: &Store) {
        let total = self.counted.entry(n).or_default();
        *total += 1;
        let ends = (store.now + LONG).saturating_add_signed(-self.ahead);
        self.ledger
            .note(&[change(n, *total, ends)], store.now, self.ahead);
    }

    fn request(&mut self, now: u64) -> Request {
        self.number += 1;
        Request {
            instance: self.instance,
            number: self.number,
            cursor: self.ledger.cursor().clone(),
            batch: self.ledger.batch(3, now),
        }
    }

    fn take(&mut self, request: &Request, reply: &Reply) {
        self.ledger.stored(&request.batch);
        self.ledger.receive(reply);
        for sum in self.ledger.sums(reply.now, self.ahead) {
            self.others.insert(sum.key, sum.value);
        }
    }

    fn exchange(&mut self, store: &mut Store) {
        let request = self.request(store.now);
        let reply = store.exchange(&request);
        self.take(&request, &reply);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Count(usize, u8),
    Exchange(usize),
    /// The request does not arrive.
    LoseRequest(usize),
    /// The request arrives, and the answer does not.
    LoseAnswer(usize),
    /// The request counts as lost, and arrives later.
    Delay(usize),
    /// A delayed or repeated request arrives.
    Arrive(usize),
    Forget,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 0..3_usize;
    let step = prop_oneof![
        6 => (host.clone(), 0..4_u8).prop_map(|(host, n)| Step::Count(host, n)),
        4 => host.clone().prop_map(Step::Exchange),
        1 => host.clone().prop_map(Step::LoseRequest),
        1 => host.clone().prop_map(Step::LoseAnswer),
        1 => host.clone().prop_map(Step::Delay),
        1 => host.prop_map(Step::Arrive),
        1 => Just(Step::Forget),
        1 => (1..1_000_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_event_counts_twice_and_none_is_missed_after_an_exchange(steps in steps()) {
        let mut store = Store { now: 1_700_000_000_000, ..Store::default() };
        let mut hosts = [Host::new(1, 0), Host::new(2, 300_000), Host::new(3, -240_000)];
        for step in steps {
            match step {
                Step::Count(host, n) => hosts[host].count(n, &store),
                Step::Exchange(host) => hosts[host].exchange(&mut store),
                Step::LoseRequest(host) => {
                    let request = hosts[host].request(store.now);
                    hosts[host].ledger.lost(&request.batch);
                }
                Step::LoseAnswer(host) => {
                    let request = hosts[host].request(store.now);
                    store.exchange(&request);
                    hosts[host].ledger.lost(&request.batch);
                    hosts[host].late.push(request);
                }
                Step::Delay(host) => {
                    let request = hosts[host].request(store.now);
                    hosts[host].ledger.lost(&request.batch);
                    hosts[host].late.push(request);
                }
                Step::Arrive(host) => {
                    if let Some(request) = hosts[host].late.pop() {
                        store.exchange(&request);
                    }
                }
                Step::Forget => store.forget(),
                Step::Wait(time) => store.now += time,
            }
            // Never more than has happened.
            for at in 0..3 {
                for n in 0..4 {
                    let others = hosts[at].others.get(&key(n)).copied().unwrap_or(0);
                    let happened: u64 = (0..3)
                        .filter(|other| *other != at)
                        .map(|other| hosts[other].counted.get(&n).copied().unwrap_or(0))
                        .sum();
                    prop_assert!(others <= happened, "{others} of {happened}");
                }
            }
        }
        // A request that is late by more than the rest of the test arrives at a store that has heard later ones.
        for _ in 0..4 {
            for host in &mut hosts {
                host.exchange(&mut store);
            }
        }
        for host in &mut hosts {
            while let Some(request) = host.late.pop() {
                store.exchange(&request);
            }
        }
        for host in &mut hosts {
            host.exchange(&mut store);
        }
        for at in 0..3 {
            for n in 0..4 {
                let others = hosts[at].others.get(&key(n)).copied().unwrap_or(0);
                let happened: u64 = (0..3)
                    .filter(|other| *other != at)
                    .map(|other| hosts[other].counted.get(&n).copied().unwrap_or(0))
                    .sum();
                prop_assert_eq!(others, happened, "host {} item {}", at, n);
            }
        }
    }
}

#[test]
fn items_end_by_the_clock_of_redis() {
    let mut store = Store {
        now: 1_000_000,
        ..Store::default()
    };
    let (mut one, mut other) = (Host::new(1, 0), Host::new(2, 300_000));
    // The clock of the second host is five minutes late: the same instant is 800,000 there.
    one.ledger.note(&[change(7, 5, 1_100_000)], store.now, 0);
    one.exchange(&mut store);
    let request = other.request(store.now);
    let reply = store.exchange(&request);
    other.ledger.stored(&request.batch);
    other.ledger.receive(&reply);
    let sums = other.ledger.sums(reply.now, other.ahead);
    assert_eq!(sums, [change(7, 5, 800_000)]);
    assert_eq!(other.ledger.sums(1_099_999, other.ahead), []);
    let over = other.ledger.sums(1_100_000, other.ahead);
    assert_eq!((over.len(), over[0].value), (1, 0));
    assert_eq!(other.ledger.items(), 0);
}

#[test]
fn a_process_that_starts_again_counts_from_zero_beside_what_it_had() {
    let mut store = Store {
        now: 1_000,
        ..Store::default()
    };
    let mut witness = Host::new(9, 0);
    let mut first = Host::new(1, 0);
    for _ in 0..3 {
        first.count(5, &store);
    }
    first.exchange(&mut store);
    let mut second = Host::new(2, 0);
    second.count(5, &store);
    second.exchange(&mut store);
    second.exchange(&mut store);
    witness.exchange(&mut store);
    assert_eq!(second.others[&key(5)], 3);
    assert_eq!(witness.others[&key(5)], 4);
}

#[test]
fn what_ends_leaves_no_trace() {
    let mut ledger = Ledger::default();
    ledger.note(&[change(1, 1, 100), change(2, 1, 900)], 50, 0);
    assert_eq!(ledger.batch(10, 100), [change(2, 1, 900)]);
    ledger.stored(&[change(2, 1, 900)]);
    assert_eq!((ledger.items(), ledger.waiting()), (1, 0));
    ledger.sweep(900);
    assert_eq!(ledger.items(), 0);
    // A part cannot keep an item for ever.
    ledger.note(&[change(3, 1, u64::MAX)], 1_000, 0);
    assert_eq!(ledger.batch(10, 1_000), [change(3, 1, 1_000 + LONGEST_MS)]);
}
