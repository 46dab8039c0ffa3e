//! The exchange through a real Redis.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_fleet::exchange::{
    Change, Credentials, Exchange, Options, Place, Sentinel, Shared, Status, TlsFiles, probe,
};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::redis::{PASSWORD, Redis};
use portcullis_testkit::wait;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A part that counts events by a number.
#[derive(Default)]
struct Events {
    totals: Mutex<HashMap<[u8; 16], (u64, bool)>>,
    others: Mutex<HashMap<[u8; 16], u64>>,
    peers: Mutex<Vec<Option<usize>>>,
}

impl Events {
    fn count(&self, n: u16, amount: u64) {
        let mut totals = self.totals.lock().unwrap();
        let (total, is_changed) = totals.entry(key(n)).or_default();
        *total += amount;
        *is_changed = true;
    }

    fn others(&self, n: u16) -> u64 {
        let others = self.others.lock().unwrap();
        others.get(&key(n)).copied().unwrap_or(0)
    }

    fn peers(&self) -> Option<usize> {
        self.peers.lock().unwrap().last().copied().flatten()
    }
}

impl Shared for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn take_changes(&self, most: usize) -> Vec<Change> {
        let mut totals = self.totals.lock().unwrap();
        let changed = totals.iter_mut().filter(|(_, (_, is_changed))| *is_changed);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let ends = u64::try_from(since.as_millis()).unwrap() + 600_000;
        let changed = changed.take(most).map(|(key, (value, is_changed))| {
            *is_changed = false;
            Change {
                key: *key,
                value: *value,
                ends,
            }
        });
        changed.collect()
    }

    fn merge(&self, others: &[Change]) {
        let mut known = self.others.lock().unwrap();
        known.extend(others.iter().map(|other| (other.key, other.value)));
    }

    fn set_peers(&self, peers: Option<usize>) {
        self.peers.lock().unwrap().push(peers);
    }
}

fn key(n: u16) -> [u8; 16] {
    let mut key = [7; 16];
    key[..2].copy_from_slice(&n.to_be_bytes());
    key
}

/// A host whose exchange runs until the value is dropped.
struct Host {
    events: Arc<Events>,
    status: Arc<Status>,
    _stop: watch::Sender<bool>,
}

impl Host {
    fn start(runtime: &Runtime, options: &Options, n: u8) -> Self {
        let events = Arc::new(Events::default());
        let part: Arc<dyn Shared> = events.clone();
        let exchange = Exchange::new(options.clone(), [n; 16], vec![part]);
        let status = exchange.status();
        let (stop, stopping) = watch::channel(false);
        runtime.spawn(exchange.run(stopping));
        Self {
            events,
            status,
            _stop: stop,
        }
    }

    fn waits_for(&self, n: u16, sum: u64) {
        wait::until(&format!("the others have {sum} of {n}"), || {
            (self.events.others(n) == sum).then_some(())
        });
    }

    fn waits_for_peers(&self, peers: Option<usize>) {
        wait::until(&format!("{peers:?} hosts take part"), || {
            (self.events.peers() == peers).then_some(())
        });
    }

    fn waits_for_trouble(&self, kind: &str) -> String {
        wait::until(&format!("the exchange fails: {kind}"), || {
            let (found, text) = self.status.health().trouble?;
            (found == kind).then_some(text)
        })
    }
}

fn options(redis: &Redis) -> Options {
    let place = Place {
        host: redis.addr().ip().to_string(),
        port: redis.addr().port(),
    };
    Options {
        servers: vec![place],
        sentinel: None,
        credentials: Credentials::default(),
        tls: None,
        database: 0,
        prefix: "edge".to_owned(),
        interval: Duration::from_millis(50),
        host: "edge one".to_owned(),
    }
}

#[test]
fn peers_redis_has_the_sums_also_after_it_was_killed() {
    let lease = Lease::new();
    let mut redis = Redis::start(lease.addr(6, 6379));
    let runtime = Runtime::new().unwrap();
    let options = options(&redis);
    let hosts: Vec<_> = (1..=3)
        .map(|n| Host::start(&runtime, &options, n))
        .collect();
    for host in &hosts {
        host.waits_for_peers(Some(3));
    }
    // More than one exchange takes.
    for n in 0..6_000 {
        hosts[0].events.count(n, 1);
    }
    hosts[1].events.count(0, 10);
    hosts[0].waits_for(0, 10);
    hosts[1].waits_for(0, 1);
    hosts[2].waits_for(0, 11);
    hosts[2].waits_for(5_999, 1);
    hosts[0].events.count(0, 1);
    hosts[2].waits_for(0, 12);
    redis.kill();
    for host in &hosts {
        host.waits_for_peers(None);
    }
    hosts[0].waits_for_trouble("unreachable");
    hosts[0].events.count(0, 100);
    hosts[1].events.count(1, 5);
    redis.restart();
    for host in &hosts {
        host.waits_for_peers(Some(3));
    }
    // What Redis has lost is stored again, and nothing counts twice.
    hosts[2].waits_for(0, 112);
    hosts[2].waits_for(1, 6);
    let late = Host::start(&runtime, &options, 4);
    late.waits_for(0, 112);
    late.waits_for(5_999, 1);
    assert_eq!(hosts[2].events.others(0), 112);
    // A server that does not answer is as good as none.
    redis.signal("STOP");
    hosts[1].waits_for_peers(None);
    redis.signal("CONT");
    hosts[1].waits_for_peers(Some(4));
    hosts[2].waits_for(0, 112);
}

#[test]
fn peers_redis_that_has_lost_everything_does_not_make_the_first_host_the_only_one() {
    let lease = Lease::new();
    let mut redis = Redis::start(lease.addr(6, 6379));
    let runtime = Runtime::new().unwrap();
    let options = options(&redis);
    let [one, other, third] = [1, 2, 3].map(|n| Host::start(&runtime, &options, n));
    for host in [&one, &other, &third] {
        host.waits_for_peers(Some(3));
    }
    redis.kill();
    one.waits_for_peers(None);
    let before = one.events.peers.lock().unwrap().len();
    // Two hosts end meanwhile.
    drop((other, third));
    redis.restart();
    let exchanges = one.status.exchanges();
    one.waits_for_peers(Some(1));
    assert!(
        one.status.exchanges() > exchanges + 1,
        "it has exchanged before"
    );
    // It has limited its share until the others counted as gone, and has not heard three hosts of which two are not there.
    let peers = one.events.peers.lock().unwrap().clone();
    assert_eq!(peers[before..], [Some(1)], "{peers:?}");
}

#[test]
fn peers_redis_keys_of_others_are_named_and_left() {
    let lease = Lease::new();
    let redis = Redis::start(lease.addr(6, 6379));
    let runtime = Runtime::new().unwrap();
    let options = options(&redis);
    // Keys of the same names that hold something else.
    assert_eq!(redis.cli(&["set", "{edge}:events:values", "mine"]), "OK");
    let one = Host::start(&runtime, &options, 1);
    let said = one.waits_for_trouble("foreign");
    assert!(
        said.starts_with("the key {edge}:events:values in Redis holds a string of another"),
        "{said}"
    );
    assert_eq!(redis.cli(&["get", "{edge}:events:values"]), "mine");
    // In one step: between two, a host would find nothing, and make its own.
    assert_eq!(redis.cli(&["hset", "theirs", "a", "b"]), "1");
    assert_eq!(
        redis.cli(&["rename", "theirs", "{edge}:events:values"]),
        "OK"
    );
    wait::until("the hash is found", || {
        let (_, text) = one.status.health().trouble?;
        text.contains("a hash of another").then_some(())
    });
    assert_eq!(redis.cli(&["hget", "{edge}:events:values", "a"]), "b");
    assert_eq!(redis.cli(&["del", "{edge}:events:values"]), "1");
    one.waits_for_peers(Some(1));
    let other = Host::start(&runtime, &options, 2);
    one.waits_for_peers(Some(2));
    // Garbage in a value, and a member that no host writes.
    one.events.count(1, 5);
    other.waits_for(1, 5);
    let item = format!("{}{}", "A".repeat(16), "B".repeat(16));
    redis.cli(&["hset", "{edge}:events:values", &item, "five tomorrow"]);
    redis.cli(&["zadd", "{edge}:events:changes", "0.5", &item]);
    let late = Host::start(&runtime, &options, 4);
    late.waits_for(1, 5);
    wait::until("the garbage is counted", || {
        (late.status.lost() == 1).then_some(())
    });
    one.events.count(1, 1);
    other.waits_for(1, 6);
    // An evicted key.
    redis.cli(&["del", "{edge}:events:changes"]);
    one.events.count(1, 1);
    other.waits_for(1, 7);
    // Another fleet in the same Redis.
    let foreign = Options {
        prefix: "other".to_owned(),
        ..options
    };
    let stranger = Host::start(&runtime, &foreign, 3);
    stranger.waits_for_peers(Some(1));
    assert_eq!(stranger.events.others(1), 0);
    // Everything ends by itself.
    for key in redis.cli(&["keys", "*"]).lines() {
        let left: i64 = redis.cli(&["pttl", key]).parse().unwrap();
        assert!(left > 0, "{key}: {left}");
    }
}

#[test]
fn peers_redis_with_tls_and_a_password() {
    let lease = Lease::new();
    let addr = lease.addr(6, 6379);
    let redis = Redis::start_secure(addr, &format!("IP:{}", addr.ip()));
    let runtime = Runtime::new().unwrap();
    let folder = tempfile_of(PASSWORD);
    let mut right = options(&redis);
    right.credentials.password_file = Some(folder.path().join("password"));
    right.tls = Some(TlsFiles {
        ca: Some(redis.folder().join("ca.pem")),
        pair: None,
    });
    let failed = |options: &Options| runtime.block_on(probe(options)).unwrap_err();
    // Signed by nobody whom the system knows.
    let unknown = Options {
        tls: Some(TlsFiles::default()),
        ..right.clone()
    };
    let wrong = failed(&unknown);
    assert_eq!(wrong.kind(), "tls", "{wrong}");
    let plain = Options {
        tls: None,
        ..right.clone()
    };
    let wrong = failed(&plain);
    assert_eq!(wrong.kind(), "closed", "{wrong}");
    assert!(wrong.to_string().contains("write rediss://"), "{wrong}");
    let found = runtime.block_on(probe(&right)).unwrap();
    assert!(found.ahead_ms.abs() < 1_000, "{found:?}");
    let one = Host::start(&runtime, &right, 1);
    let other = Host::start(&runtime, &right, 2);
    one.events.count(1, 3);
    other.waits_for(1, 3);
    let folder = tempfile_of("wrong");
    let mut wrong = right;
    wrong.credentials.password_file = Some(folder.path().join("password"));
    let error = failed(&wrong);
    assert_eq!(error.kind(), "password", "{error}");
    wrong.credentials.password_file = None;
    assert_eq!(failed(&wrong).kind(), "password");
    wrong.credentials.password_file = Some("/nowhere".into());
    assert_eq!(failed(&wrong).kind(), "file");
}

#[test]
fn peers_redis_replicas_sentinels_and_full_memory() {
    let lease = Lease::new();
    let primary = Redis::start(lease.addr(6, 6379));
    let (ip, port) = (
        primary.addr().ip().to_string(),
        primary.addr().port().to_string(),
    );
    let replica = Redis::start_with(lease.addr(7, 6379), &["--replicaof", &ip, &port]);
    let runtime = Runtime::new().unwrap();
    let error = runtime.block_on(probe(&options(&replica))).unwrap_err();
    assert_eq!(error.kind(), "read-only", "{error}");
    // The next server of the list is the primary.
    let mut both = options(&replica);
    both.servers.extend(options(&primary).servers);
    let one = Host::start(&runtime, &both, 1);
    one.waits_for_peers(Some(1));
    // A sentinel says which is the primary.
    let sentinel = Sentinels::start(&lease, &primary);
    let mut asked = options(&primary);
    asked.servers = vec![sentinel.place()];
    asked.sentinel = Some(Sentinel {
        primary: "edges".to_owned(),
        credentials: Credentials::default(),
    });
    let other = Host::start(&runtime, &asked, 2);
    other.events.count(1, 4);
    one.waits_for(1, 4);
    asked.sentinel = Some(Sentinel {
        primary: "nobody".to_owned(),
        credentials: Credentials::default(),
    });
    let error = runtime.block_on(probe(&asked)).unwrap_err();
    assert_eq!(error.kind(), "no-primary", "{error}");
    primary.cli(&["config", "set", "maxmemory", "1"]);
    one.waits_for_trouble("out-of-memory");
    one.waits_for_peers(None);
    primary.cli(&["config", "set", "maxmemory", "0"]);
    one.waits_for_peers(Some(2));
}

#[test]
fn peers_redis_cluster_nodes_refer_to_each_other() {
    let lease = Lease::new();
    let nodes: Vec<_> = (6..8)
        .map(|host| {
            let ip = lease.ip(host).to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-announce-ip", &ip];
            Redis::start_with(lease.addr(host, 6379), &cluster)
        })
        .collect();
    nodes[0].cli(&["cluster", "addslotsrange", "0", "8191"]);
    nodes[1].cli(&["cluster", "addslotsrange", "8192", "16383"]);
    let ip = nodes[1].addr().ip().to_string();
    nodes[0].cli(&["cluster", "meet", &ip, "6379"]);
    for node in &nodes {
        wait::until("the cluster is whole", || {
            let state = node.cli(&["cluster", "info"]);
            state.contains("cluster_state:ok").then_some(())
        });
    }
    let runtime = Runtime::new().unwrap();
    // Each node is asked by one host; only one of them has the keys.
    let hosts: Vec<_> = nodes
        .iter()
        .zip(1..)
        .map(|(node, n)| Host::start(&runtime, &options(node), n))
        .collect();
    hosts[0].events.count(1, 2);
    hosts[1].waits_for(1, 2);
    hosts[1].events.count(1, 3);
    hosts[0].waits_for(1, 3);
    for node in &nodes {
        runtime.block_on(probe(&options(node))).unwrap();
    }
}

#[test]
fn peers_redis_with_a_slow_network_and_a_script_that_was_removed() {
    let lease = Lease::new();
    let redis = Redis::start(lease.addr(6, 6379));
    let runtime = Runtime::new().unwrap();
    let options = options(&redis);
    let (one, other) = (
        Host::start(&runtime, &options, 1),
        Host::start(&runtime, &options, 2),
    );
    one.waits_for_peers(Some(2));
    // Every answer takes longer than the interval: exchanges are fewer, and the others are heard all the same.
    let slow = Slow::start(
        lease.addr(7, 6379),
        redis.addr(),
        Duration::from_millis(200),
    );
    let place = Place {
        host: slow.addr.ip().to_string(),
        port: slow.addr.port(),
    };
    let far = Options {
        servers: vec![place],
        ..options
    };
    let third = Host::start(&runtime, &far, 3);
    third.waits_for_peers(Some(3));
    third.events.count(1, 4);
    one.waits_for(1, 4);
    one.events.count(1, 1);
    third.waits_for(1, 1);
    assert!(third.status.round_trip() >= Duration::from_millis(200));
    assert_eq!(third.status.failures(), 0);
    let peers = third.events.peers.lock().unwrap().clone();
    assert!(!peers[1..].contains(&None), "{peers:?}");
    // Somebody empties the cache of scripts.
    assert_eq!(redis.cli(&["script", "flush"]), "OK");
    wait::until("the exchange has failed", || {
        (other.status.failures() > 0).then_some(())
    });
    other.events.count(1, 10);
    one.waits_for(1, 14);
}

#[test]
fn peers_redis_cluster_moves_the_slot() {
    let lease = Lease::new();
    let nodes: Vec<_> = (6..8)
        .map(|host| {
            let ip = lease.ip(host).to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-announce-ip", &ip];
            Redis::start_with(lease.addr(host, 6379), &cluster)
        })
        .collect();
    nodes[0].cli(&["cluster", "addslotsrange", "0", "16383"]);
    nodes[0].cli(&["cluster", "meet", &nodes[1].addr().ip().to_string(), "6379"]);
    for node in &nodes {
        wait::until("the cluster is whole", || {
            let state = node.cli(&["cluster", "info"]);
            let is_whole = state.contains("cluster_state:ok") && state.contains("known_nodes:2");
            is_whole.then_some(())
        });
    }
    let runtime = Runtime::new().unwrap();
    let one = Host::start(&runtime, &options(&nodes[0]), 1);
    let other = Host::start(&runtime, &options(&nodes[1]), 2);
    one.events.count(1, 2);
    other.waits_for(1, 2);
    let slot = nodes[0].cli(&["cluster", "keyslot", "{edge}:events:state"]);
    let ids: Vec<_> = nodes
        .iter()
        .map(|node| node.cli(&["cluster", "myid"]))
        .collect();
    nodes[1].cli(&["cluster", "setslot", &slot, "importing", &ids[0]]);
    nodes[0].cli(&["cluster", "setslot", &slot, "migrating", &ids[1]]);
    let ip = nodes[1].addr().ip().to_string();
    let keys = ["state", "values", "changes", "ends", "hosts"]
        .map(|name| format!("{{edge}}:events:{name}"));
    let mut moving = vec!["migrate", &ip, "6379", "", "0", "5000", "keys"];
    moving.extend(keys.iter().map(String::as_str));
    assert_eq!(nodes[0].cli(&moving), "OK");
    one.waits_for_trouble("migrating");
    one.events.count(1, 1);
    for node in nodes.iter().rev() {
        assert_eq!(
            node.cli(&["cluster", "setslot", &slot, "node", &ids[1]]),
            "OK"
        );
    }
    // The keys went with the slot, and nothing counts twice.
    other.waits_for(1, 3);
    other.events.count(1, 5);
    one.waits_for(1, 5);
}

/// Prints what docs/fleet.md says about a full store.
#[test]
#[ignore = "measures, and takes a minute"]
fn measures_a_full_store() {
    const HOSTS: u8 = 4;
    let lease = Lease::new();
    let redis = Redis::start(lease.addr(6, 6379));
    let runtime = Runtime::new().unwrap();
    let options = Options {
        interval: Duration::from_millis(200),
        ..options(&redis)
    };
    let number = |section: &str, name: &str| {
        let info = redis.cli(&["info", section]);
        let line = info
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.trim_start_matches(name).trim().to_owned()
    };
    let memory = || -> u64 { number("memory", "used_memory:").parse().unwrap() };
    let resident = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let tell = |what: &str| {
        println!("{what}");
        println!("  script: {}", number("commandstats", "cmdstat_evalsha:"));
        println!(
            "  script: {}",
            number("latencystats", "latency_percentiles_usec_evalsha:")
        );
        redis.cli(&["config", "resetstat"]);
    };
    let (empty, before) = (memory(), resident());
    let hosts: Vec<_> = (1..=HOSTS)
        .map(|n| Host::start(&runtime, &options, n))
        .collect();
    for host in &hosts {
        host.waits_for_peers(Some(HOSTS.into()));
    }
    redis.cli(&["config", "resetstat"]);
    for (n, host) in hosts.iter().enumerate() {
        for item in 0..=u16::MAX {
            host.events.count(item, n as u64 + 1);
        }
    }
    for (n, host) in hosts.iter().enumerate() {
        let others = u64::from(HOSTS) * (u64::from(HOSTS) + 1) / 2 - n as u64 - 1;
        (0..=u16::MAX).for_each(|item| host.waits_for(item, others));
    }
    tell("262,144 items were stored by 4 hosts, and read by each:");
    println!(
        "  Redis: {} bytes for each item",
        (memory() - empty) / 262_144
    );
    // The part of this test has a map of its own for both.
    println!("  all hosts: {} kB resident", resident() - before);
    let exchanges = hosts[0].status.exchanges() + 25;
    wait::until("some exchanges have been made", || {
        (hosts[0].status.exchanges() >= exchanges).then_some(())
    });
    tell("nothing changes:");
    let late = Host::start(&runtime, &options, 9);
    late.waits_for(u16::MAX, 10);
    (0..=u16::MAX).for_each(|item| late.waits_for(item, 10));
    tell("one more host reads everything:");
    assert_eq!(late.status.lost(), 0);
}

/// A way to a server on which every answer takes so long.
struct Slow {
    addr: std::net::SocketAddr,
}

impl Slow {
    fn start(addr: std::net::SocketAddr, to: std::net::SocketAddr, delay: Duration) -> Self {
        let listener = std::net::TcpListener::bind(addr).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = std::net::TcpStream::connect(to) else {
                    continue;
                };
                let _late = (client.set_nodelay(true), server.set_nodelay(true));
                let (mut asks, mut answers) = (client.try_clone().unwrap(), client);
                let (mut takes, mut says) = (server.try_clone().unwrap(), server);
                std::thread::spawn(move || std::io::copy(&mut asks, &mut takes));
                std::thread::spawn(move || {
                    let mut bytes = [0; 65_536];
                    while let Ok(read @ 1..) = std::io::Read::read(&mut says, &mut bytes) {
                        std::thread::sleep(delay);
                        if std::io::Write::write_all(&mut answers, &bytes[..read]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { addr }
    }
}

/// A directory with a file `password`.
fn tempfile_of(password: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), format!("{password}\n")).unwrap();
    folder
}

/// A sentinel that watches one primary.
struct Sentinels {
    server: std::process::Child,
    addr: std::net::SocketAddr,
    _folder: tempfile::TempDir,
}

impl Sentinels {
    fn start(lease: &Lease, primary: &Redis) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addr = lease.addr(8, 26379);
        let (ip, port) = (primary.addr().ip(), primary.addr().port());
        let config = format!(
            "bind {}\nport {}\nsentinel monitor edges {ip} {port} 1\n",
            addr.ip(),
            addr.port()
        );
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, config).unwrap();
        let server = std::process::Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .current_dir(folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("redis-server is installed: apt-get install redis-server");
        let sentinel = Self {
            server,
            addr,
            _folder: folder,
        };
        wait::until("the sentinel listens", || {
            std::net::TcpStream::connect(addr).ok().map(|_| ())
        });
        sentinel
    }

    fn place(&self) -> Place {
        Place {
            host: self.addr.ip().to_string(),
            port: self.addr.port(),
        }
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        let _ended = self.server.kill();
        let _reaped = self.server.wait();
    }
}
