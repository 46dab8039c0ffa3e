//! `tls.…`: certificates of SIP over TLS, and Kamailio's commands of the module `tls`.

mod kill;
mod list;
mod options;

use std::time::SystemTime;

use portcullis_config::TokenRole;
use portcullis_rollout::tls_files;
use portcullis_rpc::{Call, Fault};
use portcullis_tls::ClientAuth;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FromCall, Procedure, Timestamp};
use crate::Control;
use crate::caller::Caller;
pub(crate) use kill::Kill;
pub(crate) use list::ListConnections;
pub use list::TlsConnection;
pub(crate) use options::Options;
pub use options::TlsOptions;

/// `tls.reload`: read all certificates, keys and authorities again.
#[derive(Debug)]
pub(crate) struct Reload;

/// `tls.info`.
#[derive(Debug)]
pub(crate) struct Info;

/// `tls.certificates`: the certificates in use.
#[derive(Debug)]
pub(crate) struct Certificates;

/// The reply of `tls.info`, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsInfo {
    /// Limit of the number of connections; there is none for TLS alone.
    pub max_connections: u64,
    /// Open TLS connections.
    pub opened_connections: u64,
    /// Bytes that wait to be encrypted, for connections of all stream transports.
    pub clear_text_write_queued_bytes: u64,
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsCertificate {
    /// The section of the configuration that has it.
    pub section: String,
    /// Names that clients ask for (SNI) to get it; none for `relay.tls`.
    pub server_names: Vec<String>,
    /// Whether it is configured as the one for all other names.
    pub is_default: bool,
    /// Whether clients have to show a certificate: `none`, `optional` or `required`.
    pub client_auth: String,
    /// Its subject.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its names for SIP: `sip:` URIs, DNS names, addresses.
    pub names: Vec<String>,
    /// When it becomes valid.
    pub not_before: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
    /// Whole days until it expires, negative after that.
    pub days_left: i64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Why the files were refused at the last reload; none if they were not.
    pub fault: Option<String>,
}

impl FromCall for Reload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Reload {
    type Reply = String;

    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        let handshakes = control.shared.handshakes.as_ref().ok_or_else(no_tls)?;
        let results = tls_files::reload(handshakes.tls()).await;
        let faults = results.iter().filter_map(|one| {
            let error = one.result.as_ref().err()?;
            Some(format!("[{}]: {error}", one.section))
        });
        let faults: Vec<_> = faults.collect();
        match faults.is_empty() {
            true => Ok("Ok. TLS configuration reloaded.".into()),
            false => Err(
                Fault::new(500, "Error while fixing TLS configuration").because(format!(
                    "{}; the previous files stay in use",
                    faults.join("; ")
                )),
            ),
        }
    }
}

impl FromCall for Info {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Info {
    type Reply = TlsInfo;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TlsInfo, Fault> {
        let connections = &control.shared.connections;
        Ok(TlsInfo {
            max_connections: connections.limit() as u64,
            opened_connections: connections.secure_len() as u64,
            clear_text_write_queued_bytes: connections.waiting_bytes() as u64,
        })
    }
}

impl FromCall for Certificates {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Certificates {
    type Reply = Vec<TlsCertificate>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<TlsCertificate>, Fault> {
        let handshakes = control.shared.handshakes.as_ref();
        let listed = handshakes.map(|all| all.tls().list()).unwrap_or_default();
        let now = SystemTime::now();
        let certificates = listed.into_iter().map(|listed| {
            let profile = listed.profile.as_ref();
            let certificate = listed.certificate;
            TlsCertificate {
                section: listed.section,
                server_names: listed.server_names,
                is_default: profile.is_some_and(|profile| profile.is_default),
                client_auth: match profile.map(|profile| profile.client_auth) {
                    None | Some(ClientAuth::None) => "none",
                    Some(ClientAuth::Optional) => "optional",
                    Some(ClientAuth::Required) => "required",
                }
                .into(),
                days_left: days_until(certificate.not_after, now),
                subject: certificate.subject,
                issuer: certificate.issuer,
                names: certificate.names.shown(),
                not_before: certificate.not_before.into(),
                not_after: certificate.not_after.into(),
                sha256: hex::encode(certificate.fingerprint),
                fault: listed.fault,
            }
        });
        Ok(certificates.collect())
    }
}

fn no_tls() -> Fault {
    Fault::new(
        500,
        "this host has no TLS: add a tls: address to `listen`, and restart",
    )
}

fn days_until(time: SystemTime, now: SystemTime) -> i64 {
    const DAY: u64 = 24 * 60 * 60;
    let days = |seconds: u64| i64::try_from(seconds / DAY).unwrap_or(i64::MAX);
    match time.duration_since(now) {
        Ok(left) => days(left.as_secs()),
        Err(past) => -days(past.duration().as_secs()) - 1,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn days_are_whole_and_negative_after_the_end() {
        let now = SystemTime::now();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(days_until(now + hours(49), now), 2);
        assert_eq!(days_until(now + hours(1), now), 0);
        assert_eq!(days_until(now - hours(1), now), -1);
        assert_eq!(days_until(now - hours(25), now), -2);
    }
}
