//! `tls.options`.

use std::path::Path;

use portcullis_config::TokenRole;
use portcullis_dataplane::transport::{IDLE, QUEUE_BYTES, QUEUES_BYTES};
use portcullis_rpc::{Call, Fault};
use portcullis_tls::{ClientAuth, MinVersion, Profile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `tls.options`: what Kamailio's module `tls` has as parameters, of the profile that clients get which ask for no name.
#[derive(Debug)]
pub(crate) struct Options;

/// The reply of `tls.options`, with Kamailio's names in Kamailio's order. A setting that this host has not is 0 or -1, as the comment says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsOptions {
    /// 0: no OpenSSL is there to be forced.
    pub force_run: i64,
    /// The versions: `TLSv1.2+` or `TLSv1.3+`.
    pub method: String,
    /// Whether certificates of clients are verified: 0 or 1.
    pub verify_certificate: i64,
    /// Most authorities between a certificate and one that is trusted.
    pub verify_depth: i64,
    /// Whether clients must show a certificate: 0 or 1.
    pub require_certificate: i64,
    /// `off`, `optional` or `on`.
    pub verify_client: String,
    /// The file of the key.
    pub private_key: Option<String>,
    /// The file of the authorities of clients.
    pub ca_list: Option<String>,
    /// The file of the certificate.
    pub certificate: Option<String>,
    /// None: suites are not chosen.
    pub cipher_list: Option<String>,
    /// 0: sessions are resumed by tickets, without a cache.
    pub session_cache: i64,
    /// The name of this program.
    pub session_id: String,
    /// None: the sections `[tls.NAME]` are in the configuration file.
    pub config: Option<String>,
    /// 0: `[log]` has the level.
    pub log: i64,
    /// 0: `[log]` has the level.
    pub debug: i64,
    /// Seconds without a message after which a connection is closed.
    pub connection_timeout: i64,
    /// 1: there is no compression.
    pub disable_compression: i64,
    /// -1: a setting of OpenSSL.
    pub ssl_release_buffers: i64,
    /// -1: a setting of OpenSSL.
    pub ssl_freelist_max: i64,
    /// -1: a setting of OpenSSL.
    pub ssl_max_send_fragment: i64,
    /// 0: a setting of OpenSSL.
    pub ssl_read_ahead: i64,
    /// 1: the host says that it closes a connection.
    pub send_close_notify: i64,
    /// 0: memory has no such threshold.
    pub low_mem_threshold1: i64,
    /// 0: memory has no such threshold.
    pub low_mem_threshold2: i64,
    /// Most bytes that wait for all connections.
    pub ct_wq_max: i64,
    /// Most bytes that wait for one connection.
    pub con_ct_wq_max: i64,
    /// 0: what waits has no blocks.
    pub ct_wq_blk_size: i64,
}

impl FromCall for Options {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Options {
    type Reply = TlsOptions;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TlsOptions, Fault> {
        let profiles = &control.shared.config.tls;
        let default = profiles.iter().find(|profile| profile.is_default);
        Ok(TlsOptions::of(default.or_else(|| profiles.first())))
    }
}

impl TlsOptions {
    /// `None`: the host has no certificate.
    fn of(profile: Option<&Profile>) -> Self {
        let client_auth = profile.map_or(ClientAuth::None, |profile| profile.client_auth);
        let shown = |path: &Path| path.display().to_string();
        Self {
            force_run: 0,
            method: match profile.map(|profile| profile.min_version) {
                None | Some(MinVersion::Tls12) => "TLSv1.2+",
                Some(MinVersion::Tls13) => "TLSv1.3+",
            }
            .into(),
            verify_certificate: i64::from(client_auth != ClientAuth::None),
            verify_depth: VERIFY_DEPTH,
            require_certificate: i64::from(client_auth == ClientAuth::Required),
            verify_client: match client_auth {
                ClientAuth::None => "off",
                ClientAuth::Optional => "optional",
                ClientAuth::Required => "on",
            }
            .into(),
            private_key: profile.map(|profile| shown(&profile.key)),
            ca_list: profile
                .and_then(|profile| profile.client_ca.as_deref())
                .map(shown),
            certificate: profile.map(|profile| shown(&profile.certificate)),
            cipher_list: None,
            session_cache: 0,
            session_id: "portcullis".into(),
            config: None,
            log: 0,
            debug: 0,
            connection_timeout: i64::try_from(IDLE.as_secs()).unwrap_or(i64::MAX),
            disable_compression: 1,
            ssl_release_buffers: -1,
            ssl_freelist_max: -1,
            ssl_max_send_fragment: -1,
            ssl_read_ahead: 0,
            send_close_notify: 1,
            low_mem_threshold1: 0,
            low_mem_threshold2: 0,
            ct_wq_max: i64::try_from(QUEUES_BYTES).unwrap_or(i64::MAX),
            con_ct_wq_max: i64::try_from(QUEUE_BYTES).unwrap_or(i64::MAX),
            ct_wq_blk_size: 0,
        }
    }
}

/// What the library that verifies chains permits.
const VERIFY_DEPTH: i64 = 6;
