//! Whether the certificates, keys and authorities of SIP over TLS can be used, and for how long.

use std::net::IpAddr;
use std::time::SystemTime;

use portcullis_config::{Config, Host, Hosts, TenantConfig};
use portcullis_rollout::tls_files::NOTICE;
use portcullis_text::rfc3339;
use portcullis_tls::{NamedRelayProfile, Settings, Tls};
use rustls::pki_types::ServerName;

use super::findings::Finding;

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
    for client in tls.clients() {
        if client.verifies() && client.authorities() == 0 {
            let section = &client.section;
            findings.push(Finding::Odd(format!(
                "no certificate authorities are trusted, so no next hop over TLS can be verified: install the package ca-certificates, or set `ca` in [{section}]"
            )));
        }
    }
    let tenants = config.tenants.iter();
    findings.extend(tenants.flat_map(|tenant| borrowed(config, &settings, tenant)));
    findings
}

/// Hosts that a tenant reaches by its domains, and with a certificate of the operator.
pub(super) fn borrowed(
    config: &Config,
    settings: &Settings,
    tenant: &TenantConfig,
) -> Vec<Finding> {
    let next_hops = config.relay.next_hops.iter();
    let next_hops = next_hops.filter(|(name, _)| tenant.next_hops.contains(name));
    let lent: Vec<String> = next_hops.map(|(_, hop)| bare(&hop.host)).collect();
    let with_certificate = |profile: &&NamedRelayProfile| profile.profile.pair.is_some();
    let mut findings = Vec::new();
    for domain in &tenant.domains {
        let reached: Vec<(String, &NamedRelayProfile)> = match &domain.hosts {
            Hosts::Name(name) => {
                let wanted = ServerName::try_from(name.as_str()).ok();
                let profile = wanted.and_then(|wanted| settings.relay_profile(&wanted));
                let profile = profile.filter(with_certificate);
                profile
                    .map(|profile| (name.clone(), profile))
                    .into_iter()
                    .collect()
            }
            Hosts::Net(net) => {
                let profiles = settings.relay_profiles.iter().filter(with_certificate);
                let hosts = profiles.flat_map(|profile| {
                    profile
                        .hosts
                        .iter()
                        .map(move |host| (host.clone(), profile))
                });
                let is_within =
                    |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| net.contains(&ip));
                hosts.filter(|(host, _)| is_within(host)).collect()
            }
        };
        for (host, profile) in reached {
            if lent.contains(&host) {
                continue;
            }
            findings.push(Finding::Odd(format!(
                "tenant {} reaches {host} by its `domains`, with the certificate of [relay.tls-profiles.{}]: list the next hop in its \
                 `next-hops`, if it may use the certificate, or remove the domain",
                tenant.name, profile.name
            )));
        }
    }
    findings
}

/// As `hosts` of a profile have it.
fn bare(host: &Host) -> String {
    match host {
        Host::Addr(ip) => ip.to_canonical().to_string(),
        Host::Name(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_reaches_a_profile_by_its_domains_is_named() {
        let config = Config::parse(
            "listen = [\"tls:127.0.0.1:5061\"]\n[tls.edge]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n\
             [relay.next-hops]\ncarrier = \"sips:gw.carrier.example\"\n\
             [relay.tls-profiles.carrier]\nnext-hops = [\"carrier\"]\nhosts = [\"*.trunk.example\", \"192.0.2.7\"]\n\
             certificate = \"b.pem\"\nkey = \"b.key\"\n\
             [relay.tls-profiles.plain]\nhosts = [\"plain.example\"]\n\
             [tenants.acme]\nuri-domains = [\"acme.example\"]\nnext-hops = [\"carrier\"]\n\
             domains = [\"gw.carrier.example\", \"plain.example\", \"acme.example\"]\n\
             [tenants.other]\nuri-domains = [\"other.example\"]\n\
             domains = [\"gw.carrier.example\", \"a.trunk.example\", \"192.0.2.0/24\"]\n",
        )
        .unwrap();
        let settings = config.tls_settings().unwrap();
        let told = |name: &str| {
            let mut tenants = config.tenants.iter();
            let tenant = tenants.find(|tenant| tenant.name == name).unwrap();
            let findings = borrowed(&config, &settings, tenant).into_iter();
            let hosts = findings.map(|finding| match finding {
                Finding::Odd(text) => text.split(' ').nth(3).unwrap().to_owned(),
                Finding::Good(text) | Finding::Skipped(text) | Finding::Wrong(text) => {
                    panic!("{text}")
                }
            });
            hosts.collect::<Vec<_>>()
        };
        assert_eq!(told("acme"), [""; 0]);
        assert_eq!(
            told("other"),
            ["gw.carrier.example", "a.trunk.example", "192.0.2.7"]
        );
    }
}
