//! Reloads under load: the table of 100,000 rows changes and is reloaded by all kinds of clients, ten times a second, while requests are
//! sent. No request is lost or evaluated against two tables, each reload reports the loaded table, and memory does not grow. Trusted peers
//! and rules are changed and reloaded at the same time.
//!
//! `PORTCULLIS_FIRE_SECONDS` makes it longer.

#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::oracle::ask;
use portcullis_testkit::oracle::case::{Answer, Question};
use portcullis_testkit::policy;
use portcullis_testkit::reloads::CLIENTS;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::states::{self, Counts, HOSTS, Item, NAMES, SUBNETS, State};
use portcullis_testkit::tools::{Tool, Tools};
use portcullis_testkit::wait;
use serde_json::{Value, json};

/// Default duration in seconds.
const SECONDS: u64 = 10;
/// A reload is asked for this often, by one client after the other.
const EVERY: Duration = Duration::from_millis(100);
/// Most pending reloads; a machine that is too slow for ten per second gets no more.
const MOST_UNDER_WAY: u64 = 14;
/// Between two requests of a caller.
const PAUSE: Duration = Duration::from_millis(2);
/// Questions in one request.
const QUESTIONS: usize = 24;
/// How much more memory the process may have in the second half than in the first, at the minimum of each. A table takes several MiB, so
/// that a leak of one per reload would be detected at once, and a leak of a twentieth within a minute. The rest is for the allocator, which
/// has an arena for each of the host's threads.
const GROWTH_MIB: u64 = 64;

/// The state that all threads share.
struct Fire<'t> {
    host: &'t Host,
    tools: &'t Tools,
    callers: &'t [IpAddr],
    stop: AtomicBool,
    /// Reloads asked for and not answered yet.
    under_way: AtomicU64,
    reloads: AtomicU64,
    /// Reloads of trusted peers and of rules.
    parts: AtomicU64,
    /// Requests that were evaluated against each state.
    judged: [AtomicU64; 2],
}

#[test]
fn peers_reloads_by_all_clients_under_fire() {
    let database = MariaDb::start();
    let builder = Builder::new();
    let callers: Vec<_> = [10, 11, 12, 13].map(|n| builder.lease().ip(n)).into();
    states::create(&database, &callers);
    let rules = tempfile::tempdir().expect("a temporary directory can be made");
    let host = Tools::doors(builder)
        .policy(policy("oracle"))
        .database(&database.url())
        .workers(2)
        .set("log", "level = \"error\"")
        // A busy machine must not make a correct policy exceed its deadline.
        .set("policy", "deadline = \"10s\"")
        .set("permissions", &format!("folder = {:?}", rules.path()))
        .start();
    let tools = Tools::for_host(&host, &database);
    let fire = Fire {
        host: &host,
        tools: &tools,
        callers: &callers,
        stop: AtomicBool::new(false),
        under_way: AtomicU64::new(0),
        reloads: AtomicU64::new(0),
        parts: AtomicU64::new(0),
        judged: [AtomicU64::new(0), AtomicU64::new(0)],
    };
    let memory = std::thread::scope(|threads| {
        // The threads must end however the test ends.
        let _stop = StopOnDrop(&fire.stop);
        for (number, ip) in (0..).zip(&callers) {
            let fire = &fire;
            let caller = match number % 2 {
                0 => Caller::udp(*ip, host.sip()),
                _ => Caller::tcp(*ip, host.sip()),
            };
            threads.spawn(move || fire.traffic(number, caller));
        }
        let fire = &fire;
        threads.spawn(move || {
            std::thread::scope(|clients| fire.ask_for_reloads(clients));
        });
        threads.spawn(|| fire.change_the_parts(&database, rules.path()));
        fire.change_the_table(&database)
    });
    let [a, b] = fire.judged.map(AtomicU64::into_inner);
    println!(
        "{} reloads, {} of the other parts, {} changes of the table, {a} + {b} requests, MiB: {memory:?}",
        fire.reloads.into_inner(),
        fire.parts.into_inner(),
        memory.len()
    );
    assert!(a > 0 && b > 0, "both states judged: {a}, {b}");
    // Memory grows until each of the host's threads has its arena.
    let settled = &memory[memory.len().min(3)..];
    let (first, second) = settled.split_at(settled.len() / 2);
    assert!(
        second.iter().min() <= first.iter().min().map(|mib| mib + GROWTH_MIB).as_ref(),
        "memory has grown: {first:?}, then {second:?} MiB"
    );
}

impl Fire<'_> {
    /// Sends requests. The whole response must be that of one state.
    fn traffic(&self, number: u32, mut caller: Caller) {
        let mut random = fastrand::Rng::with_seed(number.into());
        while !self.is_over() {
            let items = items(number, &mut random);
            let answers = ask(&mut caller, &questions(&items));
            let state = judge(&items, &answers);
            self.judged[state as usize].fetch_add(1, Ordering::Relaxed);
            // Leaves CPU time for the reloads.
            std::thread::sleep(PAUSE);
        }
    }

    /// Requests a reload ten times a second, whether the last one has finished or not.
    fn ask_for_reloads<'s>(&'s self, clients: &'s std::thread::Scope<'s, '_>) {
        let mut next = Instant::now();
        for client in CLIENTS.iter().cycle() {
            if self.is_over() {
                return;
            }
            next += EVERY;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if self.under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY {
                continue;
            }
            self.under_way.fetch_add(1, Ordering::Relaxed);
            clients.spawn(move || {
                let counts = client.reload(self.host, self.tools);
                let is_state = |state: State| counts == Some(state.counts(self.callers.len()));
                assert!(
                    counts.is_none() || is_state(State::A) || is_state(State::B),
                    "{client:?} tells of a table that never was: {counts:?}"
                );
                self.under_way.fetch_sub(1, Ordering::Relaxed);
                self.reloads.fetch_add(1, Ordering::Relaxed);
            });
        }
    }

    /// Changes the table, reloads it, and checks the result: the counts are those of the new state, and the next request is evaluated
    /// against it. Returns the memory of the process in MiB after each change.
    fn change_the_table(&self, database: &MariaDb) -> Vec<u64> {
        let end = Instant::now() + Duration::from_secs(seconds());
        let mut state = State::A;
        let mut memory = Vec::new();
        let mut random = fastrand::Rng::with_seed(77);
        let mut caller = Caller::udp(self.callers[0], self.host.sip());
        for client in CLIENTS.iter().cycle() {
            // Every kind of client is used, however slow the machine is.
            if Instant::now() > end && memory.len() >= CLIENTS.len() {
                return memory;
            }
            state = state.other();
            state.publish(database);
            let counts = client.reload(self.host, self.tools);
            let expected: Counts = state.counts(self.callers.len());
            assert!(
                counts.is_none_or(|counts| counts == expected),
                "{client:?} tells {counts:?} of a table with {expected:?}"
            );
            let mut asked = || {
                let items = items(0, &mut random);
                judge(&items, &ask(&mut caller, &questions(&items)))
            };
            match client.waits() {
                true => assert_eq!(asked(), state, "{client:?} has reloaded the table"),
                false => wait::until("the signal has reloaded the table", || {
                    (asked() == state).then_some(())
                }),
            }
            memory.push(self.host.memory_mib());
        }
        unreachable!("the clients go round and round");
    }

    /// Changes trusted peers and rules and reloads them, without a pause. Each result must be that of the new state.
    fn change_the_parts(&self, database: &MariaDb, rules: &Path) {
        for round in 1_u64.. {
            if self.is_over() {
                return;
            }
            let (rows, lines) = (round % 2 * 400 + 100, round % 3 + 1);
            let insert = format!(
                "BEGIN; DELETE FROM trusted; INSERT INTO trusted (src_ip, proto, from_pattern, tag) \
                 SELECT CONCAT('10.0.', seq DIV 256, '.', seq MOD 256), 'any', CONCAT('^sip:', seq, '@'), '{round}' \
                 FROM seq_1_to_{rows}; COMMIT"
            );
            database.sql("kamailio", &insert);
            let answer = self.host.rpc("trusted.reload", json!([]));
            assert_eq!(answer["result"]["rows"], rows, "{answer}");
            let said = self.tools.run(Tool::Kamcmd, "permissions.trustedReload");
            assert_eq!(said, "Reload OK\n");
            let dump = self.host.rpc("permissions.trustedDump", json!([]));
            let dump = dump["result"].as_array().expect("a dump is a list");
            let tag = Value::from(round.to_string());
            let is_of_round = |row: &Value| row["item"]["tag"] == tag;
            assert_eq!(
                dump.iter().filter(|row| is_of_round(row)).count() as u64,
                rows
            );
            assert_eq!(dump.len() as u64, rows, "one state, and no other");

            let text = "ALL : \"^sip:.49\"\n".repeat(lines as usize);
            std::fs::write(rules.join("calls.allow"), text).expect("a file can be written");
            let answer = self.host.rpc("rules.reload", json!([]));
            let set = format!("calls: {lines} allow, 0 deny");
            assert_eq!(answer["result"]["sets"], json!([set]), "{answer}");
            self.parts.fetch_add(3, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Returns the queries of a request: its own source, and rows of all kinds.
fn items(caller: u32, random: &mut fastrand::Rng) -> Vec<Item> {
    let mut items = vec![Item::Source(caller)];
    items.extend((1..QUESTIONS).map(|n| match n % 3 {
        0 => Item::Host(random.u32(..HOSTS)),
        1 => Item::Subnet(random.u32(..SUBNETS)),
        _ => Item::Name(random.u32(..NAMES)),
    }));
    random.shuffle(&mut items);
    items
}

fn questions(items: &[Item]) -> Vec<Question> {
    items.iter().map(|item| item.question()).collect()
}

/// Returns the state that has these results.
fn judge(items: &[Item], answers: &[Answer]) -> State {
    for state in [State::A, State::B] {
        let expected: Vec<_> = items.iter().map(|item| state.answer(*item)).collect();
        if answers == expected {
            return state;
        }
    }
    panic!("answers of neither state to {items:?}: {answers:?}");
}

fn seconds() -> u64 {
    let Ok(text) = std::env::var("PORTCULLIS_FIRE_SECONDS") else {
        return SECONDS;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("PORTCULLIS_FIRE_SECONDS={text}: a whole number is needed"))
}

struct StopOnDrop<'t>(&'t AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
