//! The host under test, its peers and its database.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use portcullis_testkit::callee::Callee;
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::policy;

use crate::disk::SmallDisk;
use crate::process::set_descriptor_limit;
use crate::turns::{Books, Disruptions};

/// Last parts of addresses in the lease of the host.
pub(crate) mod at {
    /// The callee of calls.
    pub(crate) const CALLEE: u8 = 3;
    /// The caller of calls.
    pub(crate) const CALLER: u8 = 4;
    /// The callers of the tenant whose policy is pushed, over UDP and TCP.
    pub(crate) const WATCHER: u8 = 5;
    /// Sources of requests to hostile tenants, one address for each.
    pub(crate) const HOSTILE: u8 = 20;
    /// Source of slow clients and idle connections.
    pub(crate) const SLOW: u8 = 30;
    /// The first source of the counted traffic.
    pub(crate) const TRAFFIC: u8 = 100;
}

/// Tenants with a hostile policy, and how each misbehaves (`tests/hostile`).
pub(crate) const HOSTILE: [(&str, &str); 4] = [
    ("loops", "loop"),
    ("grows", "grow"),
    ("traps", "trap"),
    ("shouts", "log"),
];

/// Number of rows of the address table that match no source.
const ROWS: u32 = 5_000;

/// The host's limit of descriptors: low, so that connections can use them up.
pub(crate) const DESCRIPTORS: u64 = 1024;

/// The running processes.
#[derive(Debug)]
pub(crate) struct Site {
    /// The host under test.
    pub(crate) host: Host,
    /// Its callee, for the actor that makes calls.
    pub(crate) callee: Mutex<Callee>,
    /// The disk with its records; `None` if nothing can be mounted.
    pub(crate) disk: Option<SmallDisk>,
    /// The disruptions.
    pub(crate) disruptions: Disruptions,
    /// The counts.
    pub(crate) books: Books,
    database: Mutex<MariaDb>,
    failure: Mutex<()>,
}

impl Site {
    /// Starts the database, the callee and the host.
    pub(crate) fn start() -> Result<Self> {
        set_descriptor_limit(std::process::id(), DESCRIPTORS, DESCRIPTORS)?;
        let database = MariaDb::start();
        database.fill_subnets(ROWS);
        let disk = SmallDisk::mount()?;
        let builder = Builder::new();
        let lease = builder.lease();
        let callee = Callee::start(lease.addr(at::CALLEE, 5060));
        let (caller, callee_ip) = (lease.ip(at::CALLER), lease.ip(at::CALLEE));
        for ip in [caller, callee_ip] {
            database.sql(
                "kamailio",
                &format!(
                    "INSERT INTO address (grp, ip_addr, mask, port) VALUES (200, '{ip}', 32, 0)"
                ),
            );
        }
        let first = tempfile::NamedTempFile::new()?;
        std::fs::write(first.path(), rejecting(401, "file 0"))?;
        let mut builder = builder
            .workers(2)
            .policy(first.path())
            .database(&database.url())
            .set("log", "level = \"warn,policy=off\"")
            // High enough for the counted traffic, which comes from few addresses, and still a limit.
            .set("sip", "answers-per-second = 100000")
            // Each honest call ends long before: the machine is shared with all that goes on here.
            .set("policy", "deadline = \"50ms\"")
            .set(
                "relay",
                &format!("domains = [\"{caller}\", \"{callee_ip}:*\"]"),
            )
            .set(
                "relay.next-hops",
                &format!("callee = \"sip:{}\"", callee.addr()),
            )
            .set("tenants.acme", "uri-domains = [\"acme.example\"]")
            .set("tenants.carol", "uri-domains = [\"carol.example\"]")
            .set("tenants.carol", "from-domains = [\"carol.example\"]")
            .set("tenants.carol", "groups = [200]")
            .set(
                "tenants.carol",
                &format!("file = {:?}", policy("address-acl")),
            )
            .set("tenants.carol", "next-hop = \"callee\"")
            .set(
                "tenants.carol",
                &format!("domains = [\"{caller}\", \"{callee_ip}:*\"]"),
            );
        for (name, how) in HOSTILE {
            let section = format!("tenants.{name}");
            builder = builder
                .set(&section, &format!("uri-domains = [\"{name}.example\"]"))
                .set(&section, &format!("file = {:?}", policy("hostile")))
                .set(&section, &format!("settings = {{ how = \"{how}\" }}"));
        }
        if let Some(disk) = &disk {
            builder = builder
                .set(
                    "records",
                    &format!("file = {:?}", disk.path().join("records.jsonl")),
                )
                .set("records", "size = \"1MiB\"")
                .set("records", "per-second = 1000");
        }
        let host = builder.start();
        let (status, told) = host.push("acme", "arrival=activate", &rejecting(480, "generation 0"));
        ensure!(status == 201, "the first push: status {status}: {told}");
        Ok(Self {
            host,
            callee: Mutex::new(callee),
            disk,
            disruptions: Disruptions::default(),
            books: Books::default(),
            database: Mutex::new(database),
            failure: Mutex::new(()),
        })
    }

    /// The database, for one actor at a time.
    pub(crate) fn database(&self) -> MutexGuard<'_, MariaDb> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`Site::database`]; `None` while another actor uses it, which may have stopped it.
    pub(crate) fn database_if_up(&self) -> Option<MutexGuard<'_, MariaDb>> {
        self.database.try_lock().ok()
    }

    /// Held during a failure, so that failures do not overlap.
    pub(crate) fn one_failure(&self) -> MutexGuard<'_, ()> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
