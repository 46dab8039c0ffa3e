//! The SIP domains that a certificate speaks for (RFC 5922 §7.1), and how they are compared (§7.2).

use std::collections::HashMap;
use std::net::IpAddr;

use rustls::pki_types::ServerName;

/// The names of a certificate for SIP. The common name never counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SipNames {
    /// Domains of `sip:DOMAIN` among the alternative names, in lower case. If there are any, DNS names do not count.
    pub uris: Vec<String>,
    /// DNS names, in lower case; `*.` at the front stands for one label.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl SipNames {
    /// Whether the certificate is one for this name. `wildcards`: whether `*` stands for a label, against RFC 5922 §7.2, which permits none.
    pub fn include(&self, wanted: &ServerName<'_>, wildcards: bool) -> bool {
        match wanted {
            ServerName::DnsName(name) => self.include_domain(name.as_ref(), wildcards),
            ServerName::IpAddress(ip) => self.addresses.contains(&IpAddr::from(*ip)),
            // The library may add kinds of names, which no certificate has here.
            _ => false,
        }
    }

    /// Adds the alternative name with this URI, if it names a SIP domain.
    pub fn add_uri(&mut self, uri: &str) {
        self.uris.extend(domain_of_uri(uri));
    }

    /// Adds a DNS name.
    pub fn add_dns(&mut self, name: &str) {
        self.dns.push(normal(name));
    }

    /// The SIP domains: those of `sip:` URIs or, without any, the DNS names (RFC 5922 §7.1).
    pub fn domains(&self) -> &[String] {
        match self.uris.is_empty() {
            true => &self.dns,
            false => &self.uris,
        }
    }

    /// Whether the certificate is one for this domain or address, without wildcards (RFC 5922 §7.2).
    pub fn speak_for(&self, domain: &str) -> bool {
        match domain.parse() {
            Ok(ip) => self.addresses.contains(&ip),
            Err(_) => self.include_domain(domain, false),
        }
    }

    fn include_domain(&self, wanted: &str, wildcards: bool) -> bool {
        let wanted = normal(wanted);
        let is_dns = self.uris.is_empty();
        let mut domains = self.domains().iter();
        domains.any(|name| *name == wanted || (is_dns && wildcards && covers(name, &wanted)))
    }

    /// The names that peers compare, for display: `sip:` URIs first.
    pub fn shown(&self) -> Vec<String> {
        let uris = self.uris.iter().map(|domain| format!("sip:{domain}"));
        let addresses = self.addresses.iter().map(IpAddr::to_string);
        uris.chain(self.dns.iter().cloned())
            .chain(addresses)
            .collect()
    }
}

/// Positions by name: first the name as it is, then a wildcard for it.
#[derive(Debug, Default)]
pub(crate) struct NameIndex {
    exact: HashMap<String, usize>,
    wildcards: Vec<(String, usize)>,
}

impl NameIndex {
    /// Adds a name, or a wildcard for one label. The first position of a name remains.
    pub(crate) fn add(&mut self, name: &str, at: usize) {
        let name = normal(name);
        match name.starts_with("*.") {
            true => self.wildcards.push((name, at)),
            false => drop(self.exact.entry(name).or_insert(at)),
        }
    }

    /// The position of a name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let name = normal(name);
        let wildcard = || {
            let mut all = self.wildcards.iter();
            all.find(|(pattern, _)| covers(pattern, &name))
                .map(|(_, at)| *at)
        };
        self.exact.get(&name).copied().or_else(wildcard)
    }

    /// The position of a name or address.
    pub(crate) fn of(&self, host: &ServerName<'_>) -> Option<usize> {
        match host {
            ServerName::DnsName(name) => self.find(name.as_ref()),
            ServerName::IpAddress(ip) => {
                let ip = IpAddr::from(*ip).to_canonical();
                self.find(&ip.to_string())
            }
            // The library may add kinds of names, which no profile has.
            _ => None,
        }
    }
}

/// In lower case, without the final dot.
pub(crate) fn normal(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase()
}

/// Whether a name, in lower case, is one that a host can have, or a wildcard that covers such a name.
pub(crate) fn covers_any(name: &str) -> bool {
    // See `covers`.
    name.strip_prefix("*.")
        .is_none_or(|rest| rest.contains('.'))
}

/// Whether a pattern `*.DOMAIN` covers the name: one label more than the domain.
pub(crate) fn covers(pattern: &str, name: &str) -> bool {
    let rest = pattern.strip_prefix("*.");
    let parent = name.split_once('.').map(|(_, parent)| parent);
    // "*.example" would cover whole top-level domains.
    rest.is_some_and(|rest| rest.contains('.') && parent == Some(rest))
}

/// The domain of a URI `sip:DOMAIN` without a user and without parameters; `None` for any other URI.
fn domain_of_uri(uri: &str) -> Option<String> {
    let (scheme, domain) = uri.split_once(':')?;
    let is_plain = !domain.is_empty() && !domain.contains(['@', ';', '?', '/']);
    // A port is no part of the domain.
    let domain = domain.split(':').next()?;
    (scheme.eq_ignore_ascii_case("sip") && is_plain).then(|| normal(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn includes(names: &SipNames, wanted: &str, wildcards: bool) -> bool {
        let wanted = ServerName::try_from(wanted.to_owned()).unwrap();
        names.include(&wanted, wildcards)
    }

    #[test]
    fn a_sip_uri_outranks_dns_names() {
        let names = SipNames {
            uris: vec!["a.example".into()],
            dns: vec!["b.example".into()],
            addresses: vec!["192.0.2.1".parse().unwrap()],
        };
        assert!(includes(&names, "A.example", false));
        assert!(!includes(&names, "b.example", false));
        assert!(includes(&names, "192.0.2.1", false));
        assert!(!includes(&names, "192.0.2.2", false));
        assert_eq!(names.domains(), ["a.example"]);
        for (domain, is) in [
            ("A.example.", true),
            ("b.example", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("", false),
        ] {
            assert_eq!(names.speak_for(domain), is, "{domain}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label_where_it_is_permitted() {
        let names = SipNames {
            dns: vec!["*.a.example".into(), "*.example".into()],
            ..SipNames::default()
        };
        assert!(includes(&names, "x.a.example", true));
        assert!(!includes(&names, "x.a.example", false));
        assert!(!names.speak_for("x.a.example"));
        for other in ["a.example", "x.y.a.example", "b.example", "xa.example"] {
            assert!(!includes(&names, other, true), "{other}");
        }
    }

    #[test]
    fn a_name_is_found_before_a_wildcard_for_it() {
        let mut index = NameIndex::default();
        for (at, name) in ["*.a.example", "X.a.example", "x.a.example", "192.0.2.1"]
            .into_iter()
            .enumerate()
        {
            index.add(name, at);
        }
        assert_eq!(index.find("x.A.example."), Some(1));
        assert_eq!(index.find("y.a.example"), Some(0));
        assert_eq!(index.find("192.0.2.1"), Some(3));
        assert_eq!(index.find("a.example"), None);
    }

    #[test]
    fn only_a_plain_sip_uri_names_a_domain() {
        assert_eq!(domain_of_uri("SIP:A.example."), Some("a.example".into()));
        assert_eq!(
            domain_of_uri("sip:a.example:5061"),
            Some("a.example".into())
        );
        for other in [
            "sips:a.example",
            "sip:",
            "sip:ada@a.example",
            "sip:a.example;lr",
            "https://a.example",
            "a.example",
        ] {
            assert_eq!(domain_of_uri(other), None, "{other}");
        }
    }
}
