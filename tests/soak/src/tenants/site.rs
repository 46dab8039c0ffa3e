//! The host with many tenants, and their policy files.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait;
use tempfile::TempDir;

use super::policies::{Template, reason};
use crate::turns::Books;

/// Last parts of addresses in the lease of the host.
pub(crate) mod at {
    /// Source of the requests that determine the active version of a policy.
    pub(crate) const WATCHER: u8 = 5;
    /// The first source of the counted traffic.
    pub(crate) const TRAFFIC: u8 = 100;
}

/// Workers of the host.
const WORKERS: usize = 2;

/// Time for each tenant until the host is ready: an unoptimised host compiles a policy in a fraction of it.
const START_EACH: Duration = Duration::from_millis(500);

/// Time limit until a changed file is live. The report has the actual time.
const LIVE: Duration = Duration::from_secs(60);

/// The pause between two requests to a tenant whose file was changed.
const PROBE: Duration = Duration::from_millis(1);

/// A running host and the files of its tenants.
#[derive(Debug)]
pub(crate) struct Site {
    /// The host under test.
    pub(crate) host: Host,
    /// The counts.
    pub(crate) books: Books,
    /// Time from the start of the process until every tenant's policy had answered.
    pub(crate) started_in: Duration,
    files: TempDir,
    template: Template,
}

impl Site {
    /// Writes a policy file for each tenant, starts the host, and waits until every policy has answered.
    pub(crate) fn start(tenants: u32) -> Result<Self> {
        let (files, template) = (tempfile::tempdir()?, Template::new()?);
        let mut builder = Builder::new()
            .workers(WORKERS)
            .set("log", "level = \"warn,policy=off\"")
            .set(
                "policy",
                &format!("cache = {:?}", files.path().join("compiled")),
            )
            .set("policy", &format!("instances = {}", sandboxes(tenants)));
        for tenant in 0..tenants {
            let file = files.path().join(file(tenant));
            fs::write(&file, template.policy(tenant, 0))?;
            builder = builder.set(
                &format!("tenants.{}", name(tenant)),
                &format!("uri-domains = [\"{}\"]\nfile = {file:?}", domain(tenant)),
            );
        }
        let begun = Instant::now();
        let mut host = builder.launch();
        let patience = wait::PATIENCE + START_EACH * tenants;
        let is_up = wait::within(patience, || {
            let ready = host.get("/readyz").is_some_and(|(status, _)| status == 200);
            (ready || !host.is_alive()).then_some(ready)
        });
        let text = "the host with its tenants did not become ready";
        ensure!(is_up == Some(true), "{text}:\n{}", host.log());
        let mut site = Self {
            host,
            books: Books::default(),
            started_in: Duration::ZERO,
            files,
            template,
        };
        let mut caller = site.host.udp(at::WATCHER);
        for tenant in 0..tenants {
            let answer = site.ask(&mut caller, tenant)?;
            ensure!(
                is_of(&answer, tenant, 0),
                "tenant {tenant} answers {:?} after the start",
                answer.start_line()
            );
        }
        site.started_in = begun.elapsed();
        Ok(site)
    }

    /// Replaces the file of a tenant's policy with another version, and sends requests until the new policy answers. Returns the time. Every
    /// response until then is that of the previous version.
    pub(crate) fn replace(
        &self,
        caller: &mut Caller,
        tenant: u32,
        version: u32,
    ) -> Result<Duration> {
        let next = self.files.path().join(format!("{}.next", name(tenant)));
        fs::write(&next, self.template.policy(tenant, version))?;
        fs::rename(&next, self.file(tenant))?;
        let written = Instant::now();
        loop {
            let answer = self.ask(caller, tenant)?;
            let took = written.elapsed();
            if is_of(&answer, tenant, version) {
                return Ok(took);
            }
            let is_turned_away = answer.code() == 503;
            ensure!(
                is_turned_away || is_of(&answer, tenant, version - 1),
                "{:?} from tenant {tenant} while its policy changed to version {version}",
                answer.start_line()
            );
            ensure!(
                took < LIVE,
                "version {version} of tenant {tenant} does not answer {LIVE:?} after its file was changed"
            );
            std::thread::sleep(PROBE);
        }
    }

    fn ask(&self, caller: &mut Caller, tenant: u32) -> Result<Message> {
        let request = caller.request("MESSAGE", &format!("sip:x@{}", domain(tenant)));
        self.books.count("requests that look for a version");
        let answer = caller.try_ask(&request);
        answer.with_context(|| format!("a request of tenant {tenant} has no answer"))
    }

    fn file(&self, tenant: u32) -> PathBuf {
        self.files.path().join(file(tenant))
    }
}

/// Sandboxes of the host: one for each tenant and worker, as far as the host can be configured to have them.
fn sandboxes(tenants: u32) -> u32 {
    (WORKERS as u32 * tenants).clamp(2_500, 10_000)
}

fn is_of(answer: &Message, tenant: u32, version: u32) -> bool {
    answer.start_line() == format!("SIP/2.0 401 {}", reason(tenant, version))
}

fn file(tenant: u32) -> String {
    format!("{}.wasm", name(tenant))
}

/// The names that the load generator gives to tenants.
fn name(tenant: u32) -> String {
    format!("t{tenant:05}")
}

fn domain(tenant: u32) -> String {
    format!("{}.tenants.example", name(tenant))
}
