//! Where the control port is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{anyhow, bail};
use portcullis_config::Config;
use portcullis_text::is_loopback;
use ureq::http::Uri;

/// The variable with the token that replaces the one in the configuration.
pub(super) const TOKEN: &str = "PORTCULLIS_TOKEN";

/// Scheme and authority of the control port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) is_tls: bool,
    pub(super) authority: String,
}

impl Base {
    /// The base that is given, or that of the configuration, and whether it is that of the configuration.
    ///
    /// # Errors
    /// If the URL names no control port, or there is none and the host has no HTTP interface.
    pub(super) fn find(given: Option<&str>, config: &Config) -> anyhow::Result<(Self, bool)> {
        let Some(url) = given else {
            return Ok((Self::of(config)?, true));
        };
        let base = Self::parse(url)?;
        let is_own = Self::of(config).is_ok_and(|own| own == base);
        Ok((base, is_own))
    }

    /// # Errors
    /// If the host has no HTTP interface.
    fn of(config: &Config) -> anyhow::Result<Self> {
        let Some(mut addr) = config.control.listen else {
            bail!(
                "the host has no HTTP interface: `listen` in [control] is \"\"; give it an address, or use kamcmd, kamctl or kamcli"
            );
        };
        // A wildcard address: the loopback address reaches it.
        match addr.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        Ok(Self {
            is_tls: config.control.tls.is_some(),
            authority: addr.to_string(),
        })
    }

    /// # Errors
    /// If the URL names no control port, or a token would cross the network in plain text.
    fn parse(url: &str) -> anyhow::Result<Self> {
        let mend = "write for example https://edge.example.com:8060";
        let parsed: Uri = url
            .parse()
            .map_err(|error| anyhow!("{url:?} is not a URL ({error}): {mend}"))?;
        let is_tls = match parsed.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => {
                bail!("{url:?} begins neither with https:// nor with http://: {mend}")
            }
        };
        let Some(authority) = parsed.authority().filter(|named| !named.host().is_empty()) else {
            bail!("{url:?} names no host: {mend}");
        };
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
            bail!("{url:?} has a path or a query, and the control port has neither: {mend}");
        }
        if authority.as_str().contains('@') {
            bail!(
                "{url:?} has a user; the token is taken from the variable {TOKEN} or the configuration: {mend}"
            );
        }
        if !is_tls && !is_loopback(authority.host()) {
            bail!(
                "{url:?} is not on this machine, and the token would cross the network in plain text: write https://, with `certificate` and \
                 `key` in [control] of the host, or a proxy with TLS in front of it"
            );
        }
        Ok(Self {
            is_tls,
            authority: authority.to_string(),
        })
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_its_scheme() {
        let parsed = |url: &str| Base::parse(url).map(|base| base.to_string());
        for url in [
            "https://edge.example.com:8060",
            "https://192.0.2.1",
            "https://[2001:db8::1]:8060",
            "http://127.0.0.1:8060",
            "http://[::1]:8060",
            "http://localhost:1",
        ] {
            assert_eq!(parsed(url).unwrap(), url);
        }
        assert_eq!(parsed("https://a.example/").unwrap(), "https://a.example");
        for (url, said) in [
            ("edge.example.com", "begins neither with https:// nor"),
            ("ftp://edge.example.com", "begins neither with https:// nor"),
            ("https://edge.example.com/v1", "has a path or a query"),
            ("https://ann:x@edge.example.com", "has a user"),
            ("http://edge.example.com", "in plain text"),
            ("http://192.0.2.1:8060", "in plain text"),
            ("https://", "is not a URL"),
        ] {
            let error = parsed(url).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn only_its_own_control_port_gets_the_secrets_of_a_configuration() {
        let config = Config::default();
        let own = Base::of(&config).unwrap().to_string();
        let is_own = |given: Option<&str>| Base::find(given, &config).unwrap().1;
        assert!(is_own(None));
        assert!(is_own(Some(&own)));
        for other in [
            "http://127.0.0.1:1",
            "https://edge.example.com:8060",
            &own.replace("http:", "https:"),
        ] {
            assert!(!is_own(Some(other)), "{other}");
        }
    }
}
