//! Whether the certificates, keys and authorities of SIP over TLS can be used, and for how long.

use std::time::{Duration, SystemTime};

use portcullis_config::Config;
use portcullis_text::rfc3339;
use portcullis_tls::Tls;

use super::findings::Finding;

/// How long before its end a certificate is reported.
const NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// One finding for each certificate, or the first error; nothing without TLS.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let Some(settings) = config.tls_settings() else {
        return Vec::new();
    };
    let tls = match Tls::open(&settings) {
        Ok(tls) => tls,
        Err(error) => return vec![Finding::Wrong(error.to_string())],
    };
    let now = SystemTime::now();
    let certificates = tls.list().into_iter().map(|listed| {
        let until = listed.certificate.not_after;
        let text = format!(
            "[{}] {}, valid until {}",
            listed.section,
            listed.certificate.subject,
            rfc3339(until)
        );
        match listed.certificate.is_valid_at(now) && until > now + NOTICE {
            true => Finding::Good(text),
            false => Finding::Odd(format!("{text}: renew it")),
        }
    });
    let mut findings: Vec<_> = certificates.collect();
    let client = tls.client();
    if client.verifies() && client.authorities() == 0 {
        let text = "no certificate authorities are trusted, so no next hop over TLS can be verified: install the package ca-certificates, or set `ca` in [relay.tls]";
        findings.push(Finding::Odd(text.into()));
    }
    findings
}
