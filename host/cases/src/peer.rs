//! The peer of a connection over TLS, as a case states it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_policy::StatedHost;
use portcullis_sip::Transport;
use portcullis_text::from_rfc3339;
use portcullis_tls::{Certificate, Session, SipNames};
use serde::Deserialize;
use toml::{Table, Value};

use crate::message::Values;

/// Keys that have a list of texts.
const LISTS: [&str; 4] = ["uris", "dns", "addresses", "emails"];

/// What TLS has settled on the connection of a request, and the certificate that its peer has shown. A peer without any of the keys of a
/// certificate has shown none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PeerSpec {
    /// `TLSv1.3`, or `TLSv1.2`.
    tls_version: Option<String>,
    /// `TLS_AES_256_GCM_SHA384`, or the name of another suite.
    cipher_suite: Option<String>,
    /// The name that the client asked for.
    server_name: Option<String>,
    /// Whether the certificate was verified: true, unless this says otherwise.
    verified: Option<bool>,
    /// The alternative names.
    uris: Option<Values>,
    dns: Option<Values>,
    addresses: Option<Values>,
    emails: Option<Values>,
    subject: Option<String>,
    issuer: Option<String>,
    common_name: Option<String>,
    serial_number: Option<String>,
    fingerprint: Option<String>,
    /// In RFC 3339.
    valid_from: Option<String>,
    valid_until: Option<String>,
}

impl PeerSpec {
    /// Reads `KEY=VALUE` for each key; a key with a list may be there several times.
    ///
    /// # Errors
    /// What is wrong, and which keys there are.
    pub fn of_pairs<'p>(pairs: impl IntoIterator<Item = &'p str>) -> Result<Self, String> {
        let mut table = Table::new();
        for pair in pairs {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("peer {pair:?}: write KEY=VALUE"))?;
            let text = Value::String(value.to_owned());
            if LISTS.contains(&key) {
                let list = table.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(text);
                }
                continue;
            }
            let value = value.parse().map_or(text, Value::Boolean);
            if table.insert(key.to_owned(), value).is_some() {
                return Err(format!("peer: {key} is there twice"));
            }
        }
        let read = Value::Table(table).try_into();
        read.map_err(|error: toml::de::Error| format!("peer: {}", error.message().trim()))
    }

    /// What a policy gets to know of a request over this transport. Over TLS without a stated peer, the client has shown no certificate.
    ///
    /// # Errors
    /// What is wrong, and how to correct it.
    pub fn state(peer: Option<&Self>, transport: Transport) -> Result<StatedHost, String> {
        let session = match (peer, transport.is_secure()) {
            (None, false) => None,
            (Some(_), false) => {
                return Err(format!(
                    "peer: the transport is {}, which has no TLS: set it to tls or wss",
                    transport.parameter()
                ));
            }
            (Some(peer), true) => Some(peer.session()?),
            (None, true) => Some(Self::default().session()?),
        };
        Ok(StatedHost {
            session: session.map(Into::into),
            ..StatedHost::default()
        })
    }

    fn session(&self) -> Result<Session, String> {
        let or = |own: &Option<String>, other: &str| own.as_deref().unwrap_or(other).to_owned();
        let certificate = self.certificate()?;
        Ok(Session {
            version: or(&self.tls_version, "TLSv1.3"),
            cipher_suite: or(&self.cipher_suite, "TLS_AES_256_GCM_SHA384"),
            server_name: self.server_name.as_ref().map(|name| name.to_lowercase()),
            shows_certificate: certificate.is_some(),
            peer: certificate.filter(|_| self.verified != Some(false)),
        })
    }

    fn certificate(&self) -> Result<Option<Certificate>, String> {
        let with_session_only = Self {
            tls_version: self.tls_version.clone(),
            cipher_suite: self.cipher_suite.clone(),
            server_name: self.server_name.clone(),
            ..Self::default()
        };
        if *self == with_session_only {
            return Ok(None);
        }
        let all = |values: &Option<Values>| values.clone().unwrap_or_default().0;
        let mut names = SipNames::default();
        let uris = all(&self.uris);
        uris.iter().for_each(|uri| names.add_uri(uri));
        all(&self.dns).iter().for_each(|name| names.add_dns(name));
        for text in all(&self.addresses) {
            let address: IpAddr = text
                .parse()
                .map_err(|_| format!("peer: addresses: {text:?} is not an IP address"))?;
            names.addresses.push(address);
        }
        let text = |own: &Option<String>| own.clone().unwrap_or_default();
        Ok(Some(Certificate {
            names,
            uris,
            emails: all(&self.emails),
            subject: text(&self.subject),
            common_name: self.common_name.clone(),
            issuer: text(&self.issuer),
            serial_number: text(&self.serial_number).to_lowercase(),
            not_before: time("valid-from", &self.valid_from, UNIX_EPOCH)?,
            not_after: time("valid-until", &self.valid_until, UNIX_EPOCH + FAR)?,
            fingerprint: self.sha256()?,
        }))
    }

    fn sha256(&self) -> Result<[u8; 32], String> {
        let Some(text) = &self.fingerprint else {
            return Ok([0; 32]);
        };
        let mut digest = [0; 32];
        hex::decode_to_slice(text.replace(':', ""), &mut digest).map_err(|_| {
            format!("peer: fingerprint {text:?}: write the SHA-256 as 64 hexadecimal digits")
        })?;
        Ok(digest)
    }
}

/// The end of the year 2099, after 1970.
const FAR: Duration = Duration::from_secs(4_102_444_799);

fn time(key: &str, text: &Option<String>, other: SystemTime) -> Result<SystemTime, String> {
    let Some(text) = text else {
        return Ok(other);
    };
    let time = from_rfc3339(text);
    time.ok_or_else(|| format!("peer: {key} {text:?}: write a time like 2026-01-01T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> PeerSpec {
        toml::from_str(text).unwrap()
    }

    fn session(text: &str) -> Session {
        let state = PeerSpec::state(Some(&spec(text)), Transport::Tls).unwrap();
        Session::clone(&state.session.unwrap())
    }

    #[test]
    fn a_peer_with_names_has_a_verified_certificate() {
        let with = session("uris = \"sip:a.example\"\ndns = [\"B.example\", \"c.example\"]");
        let peer = with.peer.unwrap();
        assert!(with.shows_certificate);
        assert_eq!(peer.names.domains(), ["a.example"]);
        assert_eq!(peer.names.dns, ["b.example", "c.example"]);
        let without = session("server-name = \"Edge.example\"");
        assert_eq!(without.server_name.as_deref(), Some("edge.example"));
        assert_eq!((without.shows_certificate, without.peer), (false, None));
        let unverified = session("verified = false");
        assert_eq!(
            (unverified.shows_certificate, unverified.peer),
            (true, None)
        );
    }

    #[test]
    fn a_peer_needs_tls_and_tls_needs_no_peer() {
        let peer = spec("dns = \"a.example\"");
        let error = PeerSpec::state(Some(&peer), Transport::Tcp).unwrap_err();
        assert!(error.contains("set it to tls or wss"), "{error}");
        let none = PeerSpec::state(None, Transport::Udp).unwrap();
        assert_eq!(none.session, None);
        let session = PeerSpec::state(None, Transport::Wss).unwrap().session;
        assert!(!session.unwrap().shows_certificate);
    }

    #[test]
    fn errors_name_the_key() {
        for (text, expected) in [
            ("addresses = \"office\"", "addresses: \"office\" is not"),
            ("fingerprint = \"abc\"", "64 hexadecimal digits"),
            (
                "valid-until = \"soon\"",
                "valid-until \"soon\": write a time",
            ),
        ] {
            let error = PeerSpec::state(Some(&spec(text)), Transport::Tls).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn pairs_are_the_same_as_a_table() {
        let pairs = ["dns=a.example", "dns=b.example", "verified=false"];
        let table = spec("dns = [\"a.example\", \"b.example\"]\nverified = false");
        assert_eq!(PeerSpec::of_pairs(pairs), Ok(table));
        for (pairs, expected) in [
            (vec!["dns"], "write KEY=VALUE"),
            (vec!["subject=a", "subject=b"], "subject is there twice"),
            (vec!["dsn=a"], "unknown field `dsn`"),
        ] {
            let error = PeerSpec::of_pairs(pairs).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
