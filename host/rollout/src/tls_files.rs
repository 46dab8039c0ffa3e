//! The files of certificates, keys and authorities: they are read again when one of them changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_address::FileWatch;
use portcullis_text::rfc3339;
use portcullis_tls::{Reloaded, Tls};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

/// Time for the other files that belong to a changed one: a certificate and its key are mostly replaced one after the other.
const SETTLE: Duration = Duration::from_millis(500);

/// How often the certificates are looked at.
const LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before its end a certificate is reported.
pub const NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Reads the files again whenever one of them changes, and reports certificates that expire soon. Never completes.
pub async fn watch(tls: Arc<Tls>) {
    let (changed, mut changes) = mpsc::channel(1);
    let mut watches = JoinSet::new();
    for file in tls.files() {
        let changed = changed.clone();
        watches.spawn(async move {
            let mut watch = FileWatch::quick(&file);
            loop {
                watch.changed().await;
                // One change that waits is enough.
                let _full = changed.try_send(());
            }
        });
    }
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => tell_expiry(&tls),
            Some(()) = changes.recv() => {
                sleep(SETTLE).await;
                let _further = changes.try_recv();
                reload(&tls).await;
            }
        }
    }
}

/// Reads all files again, and logs the results.
pub async fn reload(tls: &Arc<Tls>) -> Vec<Reloaded> {
    let reloading = Arc::clone(tls);
    let results = spawn_blocking(move || reloading.reload()).await;
    let results = results.unwrap_or_default();
    for Reloaded { section, result } in &results {
        match result {
            Ok(false) => {}
            Ok(true) => info!(
                event = "tls_certificate_loaded",
                section, "certificate replaced; connections that are open keep the previous one"
            ),
            Err(error) => warn!(
                event = "tls_certificate_refused",
                section, %error, "new TLS files refused, the previous ones stay in use"
            ),
        }
    }
    tell_expiry(tls);
    results
}

fn tell_expiry(tls: &Tls) {
    let soon = SystemTime::now() + NOTICE;
    for listed in tls.list() {
        let until = listed.certificate.not_after;
        if until < soon {
            warn!(
                event = "tls_certificate_expires",
                section = listed.section,
                until = rfc3339(until),
                subject = listed.certificate.subject,
                "a certificate expires within 14 days, or has expired: renew it"
            );
        }
    }
    for (section, until) in tls.outdated_lists(SystemTime::now()) {
        warn!(
            event = "tls_list_outdated",
            section,
            until = rfc3339(until),
            "a revocation list should have been replaced, and stays in use: what has been revoked since then is accepted"
        );
    }
    for client in tls.clients() {
        if client.verifies() && client.authorities() == 0 {
            warn!(
                event = "tls_no_authorities",
                section = client.section,
                "no certificate authorities are trusted, so no next hop over TLS can be verified: install the package ca-certificates, or set `ca` in the section"
            );
        }
    }
}
