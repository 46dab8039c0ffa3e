//! Answers of the interface `peer`. The session of the connection is looked up once in a call, and only if the policy asks and the transport
//! has TLS.

use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_tls::{Certificate, Session};
use serde_json::json;

use crate::tape::{Answer, SideEffect};

use super::Call;

/// A kind of alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameKind {
    Uri,
    Dns,
    Address,
    Email,
}

impl NameKind {
    /// Every kind, in the order of the contract.
    pub(crate) const ALL: [Self; 4] = [Self::Uri, Self::Dns, Self::Address, Self::Email];

    /// As the contract and the tape name it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri",
            Self::Dns => "dns",
            Self::Address => "address",
            Self::Email => "email",
        }
    }
}

impl Call {
    /// `peer.listener`
    pub(crate) fn listener(&mut self) -> String {
        self.answered(
            "peer.listener",
            SideEffect::None,
            || json!([]),
            |call| {
                let arrival = &call.request().arrival;
                format!("{}:{}", arrival.transport.parameter(), arrival.local)
            },
        )
    }

    /// `peer.is-secure`
    pub(crate) fn is_secure(&mut self) -> bool {
        self.answered(
            "peer.is-secure",
            SideEffect::None,
            || json!([]),
            |call| call.request().arrival.transport.is_secure(),
        )
    }

    /// `peer.tls-version`
    pub(crate) fn tls_version(&mut self) -> Option<String> {
        self.of_session("peer.tls-version", |session| Some(session.version.clone()))
    }

    /// `peer.cipher-suite`
    pub(crate) fn cipher_suite(&mut self) -> Option<String> {
        self.of_session("peer.cipher-suite", |session| {
            Some(session.cipher_suite.clone())
        })
    }

    /// `peer.server-name`
    pub(crate) fn server_name(&mut self) -> Option<String> {
        self.of_session("peer.server-name", |session| session.server_name.clone())
    }

    /// `peer.has-certificate`
    pub(crate) fn has_certificate(&mut self) -> bool {
        self.of_session("peer.has-certificate", |session| session.shows_certificate)
    }

    /// `peer.is-verified`
    pub(crate) fn is_verified(&mut self) -> bool {
        self.of_certificate("peer.is-verified", |_| true)
    }

    /// `peer.names`
    pub(crate) fn alternative_names(&mut self, kind: NameKind) -> Vec<String> {
        self.answered(
            "peer.names",
            SideEffect::None,
            || json!([kind.as_str()]),
            |call| {
                let Some(certificate) = call.certificate() else {
                    return Vec::new();
                };
                match kind {
                    NameKind::Uri => certificate.uris.clone(),
                    NameKind::Dns => certificate.names.dns.clone(),
                    NameKind::Address => {
                        let addresses = certificate.names.addresses.iter();
                        addresses.map(ToString::to_string).collect()
                    }
                    NameKind::Email => certificate.emails.clone(),
                }
            },
        )
    }

    /// `peer.domains`
    pub(crate) fn domains(&mut self) -> Vec<String> {
        self.of_certificate("peer.domains", |certificate| {
            certificate.names.domains().to_vec()
        })
    }

    /// `peer.speaks-for`
    pub(crate) fn speaks_for(&mut self, domain: &str) -> bool {
        self.answered(
            "peer.speaks-for",
            SideEffect::None,
            || json!([domain]),
            |call| {
                let certificate = call.certificate();
                certificate.is_some_and(|certificate| certificate.names.speak_for(domain))
            },
        )
    }

    /// `peer.subject`
    pub(crate) fn subject(&mut self) -> Option<String> {
        self.of_certificate("peer.subject", |certificate| {
            Some(certificate.subject.clone())
        })
    }

    /// `peer.issuer`
    pub(crate) fn issuer(&mut self) -> Option<String> {
        self.of_certificate("peer.issuer", |certificate| {
            Some(certificate.issuer.clone())
        })
    }

    /// `peer.common-name`
    pub(crate) fn common_name(&mut self) -> Option<String> {
        self.of_certificate("peer.common-name", |certificate| {
            certificate.common_name.clone()
        })
    }

    /// `peer.serial-number`
    pub(crate) fn serial_number(&mut self) -> Option<String> {
        self.of_certificate("peer.serial-number", |certificate| {
            Some(certificate.serial_number.clone())
        })
    }

    /// `peer.fingerprint`
    pub(crate) fn fingerprint(&mut self) -> Option<String> {
        self.of_certificate("peer.fingerprint", |certificate| {
            Some(hex::encode(certificate.fingerprint))
        })
    }

    /// `peer.valid-from`
    pub(crate) fn valid_from(&mut self) -> Option<u64> {
        self.of_certificate("peer.valid-from", |certificate| {
            Some(milliseconds(certificate.not_before))
        })
    }

    /// `peer.valid-until`
    pub(crate) fn valid_until(&mut self) -> Option<u64> {
        self.of_certificate("peer.valid-until", |certificate| {
            Some(milliseconds(certificate.not_after))
        })
    }

    /// Answers a query from the session; with nothing, if there is none.
    fn of_session<T: Answer + Default>(
        &mut self,
        function: &'static str,
        read: impl FnOnce(&Session) -> T,
    ) -> T {
        self.answered(
            function,
            SideEffect::None,
            || json!([]),
            |call| call.session().map(read).unwrap_or_default(),
        )
    }

    /// Answers a query from the verified certificate; with nothing, if there is none.
    fn of_certificate<T: Answer + Default>(
        &mut self,
        function: &'static str,
        read: impl FnOnce(&Certificate) -> T,
    ) -> T {
        self.answered(
            function,
            SideEffect::None,
            || json!([]),
            |call| call.certificate().map(read).unwrap_or_default(),
        )
    }

    fn certificate(&mut self) -> Option<&Certificate> {
        self.session()?.peer.as_ref()
    }
}

/// Milliseconds since 1970; 0 for an earlier time.
fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
