//! Certificates that are renewed beside requests and handshakes: by good files and by files that cannot be used.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::super::beside::beside;
use super::super::control::Control;
use super::super::figures::median;
use super::super::load::{self, Report};
use super::super::machine::resident_bytes;
use super::super::plan::Server;
use super::generator;
use super::servers::{CERTIFICATE, EdgeServer, KEY, Site, make_certificate};
use super::wire::Wire;

/// Requests per second over TLS, each answered 401.
const REQUESTS: u32 = 5_000;

/// Handshakes per second.
const HANDSHAKES: u32 = 500;

/// Time from one renewal to the next.
const EACH: Duration = Duration::from_millis(50);

/// Number of renewals.
const RENEWALS: u32 = 1_000;
/// The same in a quick run.
const FEW: u32 = 60;

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Renewals {
    /// Renewals by good files.
    pub(crate) good: u64,
    /// Files that could not be used, each of which the host refused.
    pub(crate) bad: u64,
    /// Milliseconds from the command until the host has answered it.
    pub(crate) reload_ms: f64,
    /// Requests per second over open connections with TLS, their number, and those without an answer.
    pub(crate) requests_per_second: u32,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Handshakes per second, their number, and those that failed.
    pub(crate) handshakes_per_second: f64,
    pub(crate) handshakes: u64,
    pub(crate) handshakes_failed: u64,
    pub(crate) first_failure: Option<String>,
    /// p99 of the requests beside handshakes only, in microseconds.
    pub(crate) quiet_p99_us: f64,
    /// The same beside renewals, too.
    pub(crate) p99_us: f64,
    /// Bytes by which the process has grown during the renewals.
    pub(crate) grown_bytes: i64,
}

/// What is put in place of the files.
struct Variant {
    certificate: Vec<u8>,
    key: Vec<u8>,
    is_good: bool,
}

/// Renews the certificate under load. What happens at the beginning is not measured: requests without renewals come first.
pub(crate) fn measure(site: &Site<'_>) -> Result<Renewals> {
    let pace = site.pace;
    let host = EdgeServer::start(Server::Portcullis, site)?;
    let control = Control::new(host.control());
    let variants = variants(host.folder())?;
    let renewals = if pace.quick { FEW } else { RENEWALS };
    let seconds = f64::from(renewals) * EACH.as_secs_f64();
    let (quiet, _) = under_load(pace.seconds.max(2.0), &host, site)?;
    let before = resident_bytes(host.pid());
    let (mut good, mut bad, mut times) = (0, 0, Vec::new());
    let mut turn = variants.iter().cycle();
    let renew = || -> Result<()> {
        let begun = Instant::now();
        let variant = turn.next().context("there are variants")?;
        put(host.folder(), variant)?;
        let asked = Instant::now();
        let is_accepted = control.reload_tls()?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
        ensure!(
            is_accepted == variant.is_good,
            "a host {} certificate {}",
            if is_accepted { "accepts" } else { "refuses" },
            String::from_utf8_lossy(&variant.certificate)
        );
        match variant.is_good {
            true => good += 1,
            false => bad += 1,
        }
        thread::sleep(EACH.saturating_sub(begun.elapsed()));
        Ok(())
    };
    let ((requests, handshakes), _) = beside(renew, || under_load(seconds, &host, site))?;
    let after = resident_bytes(host.pid());
    let result = Renewals {
        good,
        bad,
        reload_ms: median(times),
        requests_per_second: REQUESTS,
        sent: requests.sent,
        lost: requests.lost + requests.unexpected,
        handshakes_per_second: handshakes.window.per_second,
        handshakes: handshakes.done,
        handshakes_failed: handshakes.failed,
        first_failure: handshakes.first_failure,
        quiet_p99_us: quiet.window.latency.p99_us,
        p99_us: requests.window.latency.p99_us,
        grown_bytes: after as i64 - before as i64,
    };
    eprintln!("{result}");
    Ok(result)
}

/// Requests and handshakes beside each other.
fn under_load(
    seconds: f64,
    host: &EdgeServer,
    site: &Site<'_>,
) -> Result<(Report, generator::Report)> {
    let Site { programs, pace, .. } = *site;
    let address = host.address(Wire::Tls).to_string();
    let mut requests = Command::new(&programs.load);
    requests
        .args(["run", "--transport", "tls", "--mode", "reject"])
        .args(["--source", "127.1.0.1", "--target", &address])
        .args(["--sources", &pace.sources.to_string()])
        .args(["--outstanding", "256"])
        .args(["--rate", &REQUESTS.to_string()])
        .args(["--warm-up", &pace.warm_up_seconds.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(["--watch", &host.pid().to_string()]);
    let mut handshakes = Command::new(&programs.load);
    handshakes
        .args(["handshakes", "--target", &address])
        .args(["--rate", &HANDSHAKES.to_string()])
        .args(["--warm-up", &pace.warm_up_seconds.to_string()])
        .args(["--seconds", &seconds.to_string()]);
    thread::scope(|threads| {
        let handshakes = threads.spawn(|| generator::report(&handshakes, pace));
        let requests = load::unchecked(&requests, pace);
        let handshakes = handshakes
            .join()
            .ok()
            .context("the thread of the handshakes has panicked")?;
        Ok((requests?, handshakes?))
    })
}

/// Two certificates, with files that cannot be used between them.
fn variants(folder: &Path) -> Result<Vec<Variant>> {
    let mut pairs = Vec::new();
    for name in ["first", "second"] {
        let files = make_certificate(folder, &format!("{name}.pem"), &format!("{name}.key"))?;
        pairs.push([fs::read(&files[0])?, fs::read(&files[1])?]);
    }
    let [first, second] = [&pairs[0], &pairs[1]];
    let variant = |certificate: &[u8], key: &[u8], is_good| Variant {
        certificate: certificate.to_vec(),
        key: key.to_vec(),
        is_good,
    };
    let cut_off = &second[0][..second[0].len() / 2];
    Ok(vec![
        variant(&first[0], &first[1], true),
        // The key of another certificate.
        variant(&first[0], &second[1], false),
        variant(&second[0], &second[1], true),
        variant(cut_off, &second[1], false),
        variant(&first[0], &first[1], true),
        variant(&first[0], b"", false),
        variant(&second[0], &second[1], true),
        variant(b"no certificate\n", &second[1], false),
    ])
}

/// Replaces both files, one after the other, as whoever renews certificates does.
fn put(folder: &Path, variant: &Variant) -> Result<()> {
    for (name, bytes) in [(CERTIFICATE, &variant.certificate), (KEY, &variant.key)] {
        let (new, file) = (folder.join(format!("{name}.new")), folder.join(name));
        fs::write(&new, bytes)?;
        fs::rename(&new, &file)?;
    }
    Ok(())
}

impl fmt::Display for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} renewals of the certificate, and {} files that were refused, {:.1} ms each, beside {} requests a second over TLS and {:.0} \
             handshakes a second: {} of {} requests lost, {} of {} handshakes failed, p99 {:.2} ms, {:.2} ms without, memory {:+.1} MiB",
            self.good,
            self.bad,
            self.reload_ms,
            self.requests_per_second,
            self.handshakes_per_second,
            self.lost,
            self.sent,
            self.handshakes_failed,
            self.handshakes + self.handshakes_failed,
            self.p99_us / 1000.0,
            self.quiet_p99_us / 1000.0,
            self.grown_bytes as f64 / f64::from(1 << 20)
        )
    }
}
