//! The hosts of a fleet, their database, and the next hop that they share.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portcullis_load::Sink;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::{policy, wait};
use tempfile::TempDir;

use super::databases::Databases;
use super::plan::Plan;
use crate::tenants::policies::{Template, reason};
use crate::turns::Stop;

/// Last part of the addresses from which changes are watched.
const WATCHER: u8 = 5;

/// The row that comes and goes: all hosts and all watchers are in this network.
const ROW: &str = "grp = 200 AND ip_addr = '127.0.0.0'";

/// The pause between two rounds of requests to the hosts that have not followed a change.
const ROUND: Duration = Duration::from_millis(5);

/// The pause between two looks at hosts that start.
const LOOK: Duration = Duration::from_millis(50);

/// Time limit until a change is live on all hosts. The report has the actual times.
const LIVE: Duration = Duration::from_secs(60);

/// Time limit of a start, for each policy of each host: an unoptimised host compiles one in a fraction of it.
const START_EACH: Duration = Duration::from_millis(500);

/// Pause of the next hop when no request waits.
const REST: Duration = Duration::from_millis(1);

/// A fleet.
pub(crate) struct Site {
    pub(crate) databases: Databases,
    /// Stopped hosts are here, too.
    pub(crate) hosts: Vec<Host>,
    callers: Vec<Caller>,
    template: Template,
    /// The version of each tenant's policy.
    versions: Vec<u32>,
    has_row: bool,
    /// Tenants that were added.
    added: u32,
    callee: Callee,
    folder: TempDir,
    plan: Plan,
    /// How often the hosts were started.
    starts: usize,
}

/// How long hosts that were started at the same moment took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Started {
    /// Until each was ready.
    pub(crate) ready: Vec<Duration>,
    /// Until each had loaded the policies of all tenants.
    pub(crate) loaded: Vec<Duration>,
}

/// The next hop of all hosts.
struct Callee {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<io::Result<()>>>,
    address: std::net::SocketAddr,
    _lease: Lease,
}

impl Site {
    /// Starts the database and the next hop, and stores the tenants with their policies through a host that is then stopped.
    pub(crate) fn prepare(plan: Plan) -> Result<Self> {
        let site = Self {
            databases: Databases::start(plan.is_cluster, plan.rows),
            hosts: Vec::new(),
            callers: Vec::new(),
            template: Template::new()?,
            versions: vec![0; plan.tenants as usize],
            has_row: false,
            added: 0,
            callee: Callee::start()?,
            folder: tempfile::tempdir()?,
            plan,
            starts: 0,
        };
        let host = site.builder(plan.hosts).start();
        for tenant in 0..plan.tenants {
            put_tenant(&host, &name(tenant))?;
            site.push(&host, tenant)?;
        }
        Ok(site)
    }

    fn builder(&self, nth: usize) -> Builder {
        let cache = self.folder.path().join(format!("compiled-{nth}"));
        self.databases
            .configure(Builder::new())
            .workers(1)
            .policy(policy("address-acl"))
            .set("log", "level = \"info,policy=off\"")
            .set("policy", "deadline = \"10s\"")
            .set("policy", &format!("cache = {cache:?}"))
            .set(
                "relay",
                &format!("next-hop = \"sip:{}\"", self.callee.address),
            )
    }

    /// Starts all hosts at once, each for the first time.
    ///
    /// # Errors
    /// If one of them does not become ready.
    pub(crate) fn start(&mut self) -> Result<Started> {
        let begun = Instant::now();
        let hosts = (0..self.plan.hosts).map(|nth| self.builder(nth).launch());
        self.hosts = hosts.collect();
        let started = self.await_all(begun)?;
        self.callers = self.hosts.iter().map(|host| host.udp(WATCHER)).collect();
        Ok(started)
    }

    /// Kills all hosts, and starts all of them at once, with what they have on disk.
    ///
    /// # Errors
    /// If one of them does not become ready.
    pub(crate) fn start_again(&mut self) -> Result<Started> {
        for host in &mut self.hosts {
            host.kill();
        }
        let begun = Instant::now();
        for host in &mut self.hosts {
            host.launch_again();
        }
        self.await_all(begun)
    }

    fn await_all(&mut self, begun: Instant) -> Result<Started> {
        self.starts += 1;
        let policies = self.plan.tenants * self.hosts.len() as u32;
        let patience = wait::PATIENCE + START_EACH * policies;
        let mut started = Started::default();
        let mut starting: Vec<usize> = (0..self.hosts.len()).collect();
        let mut loading = starting.clone();
        while !loading.is_empty() {
            for nth in starting.clone() {
                let host = &mut self.hosts[nth];
                ensure!(host.is_alive(), "host {nth} has ended:\n{}", host.log());
                if host.get("/readyz").is_some_and(|(status, _)| status == 200) {
                    starting.retain(|other| *other != nth);
                    started.ready.push(begun.elapsed());
                }
            }
            let is_loaded = |nth: usize| {
                let log = self.hosts[nth].log();
                log.matches("event=\"start_finished\"").count() >= self.starts
            };
            let loaded: Vec<usize> = loading
                .iter()
                .copied()
                .filter(|nth| !starting.contains(nth) && is_loaded(*nth))
                .collect();
            started
                .loaded
                .extend(loaded.iter().map(|_| begun.elapsed()));
            loading.retain(|nth| !loaded.contains(nth));
            ensure!(
                begun.elapsed() < patience,
                "hosts {loading:?} have not started after {patience:?}"
            );
            std::thread::sleep(LOOK);
        }
        Ok(started)
    }

    /// Inserts or deletes a row of the addresses. Returns how long it took until it was live on each host.
    ///
    /// # Errors
    /// If a host does not follow it.
    pub(crate) fn change_row(&mut self) -> Result<Vec<Duration>> {
        let begun = Instant::now();
        self.has_row = !self.has_row;
        self.databases.sql(&match self.has_row {
            true => "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (200, '127.0.0.0', 8, 0, '')".to_owned(),
            false => format!("DELETE FROM address WHERE {ROW}"),
        });
        let code = if self.has_row { 200 } else { 401 };
        let is_new = |answer: &Message| answer.code() == code;
        self.follow("a row", "sip:x@example.com", begun, is_new)
    }

    /// Pushes another version of a tenant's policy through one of the hosts, and activates it. Returns how long it took until it was live on
    /// each host.
    ///
    /// # Errors
    /// If the push is refused, or a host does not follow it.
    pub(crate) fn change_policy(&mut self, nth: usize) -> Result<Vec<Duration>> {
        let tenant = (nth % self.versions.len()) as u32;
        self.versions[tenant as usize] += 1;
        let version = self.versions[tenant as usize];
        let begun = Instant::now();
        self.push(&self.hosts[nth % self.hosts.len()], tenant)?;
        let expected = format!("SIP/2.0 401 {}", reason(tenant, version));
        let uri = format!("sip:x@{}", domain(&name(tenant)));
        self.follow("a push", &uri, begun, |answer| {
            answer.start_line() == expected
        })
    }

    /// Stores a new tenant through one of the hosts. Returns how long it took until it was live on each host.
    ///
    /// # Errors
    /// If the tenant is refused, or a host does not follow it.
    pub(crate) fn add_tenant(&mut self, nth: usize) -> Result<Vec<Duration>> {
        let tenant = format!("added{}", self.added);
        self.added += 1;
        let uri = format!("sip:x@{}", domain(&tenant));
        let begun = Instant::now();
        put_tenant(&self.hosts[nth % self.hosts.len()], &tenant)?;
        let before = if self.has_row { 200 } else { 401 };
        // It has no policy yet, so its requests are answered otherwise than those of no tenant.
        self.follow("a tenant", &uri, begun, |answer| answer.code() != before)
    }

    fn push(&self, host: &Host, tenant: u32) -> Result<()> {
        let version = self.versions[tenant as usize];
        let bytes = self.template.policy(tenant, version);
        let (status, told) = host.push(&name(tenant), "arrival=activate&name=soak.wasm", &bytes);
        ensure!(status == 201, "a push is answered {status}: {told}");
        Ok(())
    }

    /// Sends requests to all hosts until each has followed a change. Returns how long that took for each.
    fn follow(
        &mut self,
        what: &str,
        uri: &str,
        begun: Instant,
        is_new: impl Fn(&Message) -> bool,
    ) -> Result<Vec<Duration>> {
        let mut took = Vec::new();
        let mut waiting: Vec<usize> = (0..self.callers.len()).collect();
        while !waiting.is_empty() {
            for nth in std::mem::take(&mut waiting) {
                let caller = &mut self.callers[nth];
                let request = caller.request("MESSAGE", uri);
                let answer = caller.try_ask(&request);
                let answer = answer.with_context(|| format!("host {nth} does not answer"))?;
                match is_new(&answer) {
                    true => took.push(begun.elapsed()),
                    false => waiting.push(nth),
                }
            }
            ensure!(
                begun.elapsed() < LIVE,
                "{what} is not live on the hosts {waiting:?} after {LIVE:?}"
            );
            std::thread::sleep(ROUND);
        }
        Ok(took)
    }

    /// The resident memory of each host, in MiB.
    pub(crate) fn memory_mib(&self) -> Vec<u64> {
        self.hosts.iter().map(Host::memory_mib).collect()
    }
}

impl Callee {
    fn start() -> Result<Self> {
        let lease = Lease::new();
        let address = lease.addr(3, 5070);
        let mut sink = Sink::bind(address).context("the next hop")?;
        let stop = Arc::new(Stop::default());
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !until.is_stopped() {
                if sink.turn()? == 0 {
                    std::thread::sleep(REST);
                }
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread),
            address,
            _lease: lease,
        })
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _told_by_the_watchers = thread.join();
        }
    }
}

fn put_tenant(host: &Host, tenant: &str) -> Result<()> {
    let section = format!("uri-domains = [\"{}\"]\n", domain(tenant));
    let sent = (Some("application/toml"), section.as_bytes());
    let (status, _, told) = host.ask(None, "PUT", &format!("/v1/tenants/{tenant}"), sent);
    let told = String::from_utf8_lossy(&told);
    ensure!(status == 200, "a tenant is answered {status}: {told}");
    Ok(())
}

fn name(tenant: u32) -> String {
    format!("t{tenant:05}")
}

fn domain(tenant: &str) -> String {
    format!("{tenant}.fleet.example")
}
