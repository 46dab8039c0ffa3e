//! `tls.list`.

use std::ops::ControlFlow;

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_dataplane::transport::SecureConnection;
use portcullis_rpc::{Call, Fault, Rows, RowsForm, Value, value_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::reply::Table;
use crate::commands::{Dispatch, FromCall, Procedure};
use crate::operation::{Answer, Api, Operation, Routes, answer};

/// `tls.list`: the connections over TLS, those of WebSocket included, the oldest first.
#[derive(Debug)]
pub(crate) struct ListConnections;

/// A connection over TLS, with Kamailio's names in Kamailio's order; the last members are our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsConnection {
    /// The number that `tls.kill` takes.
    pub id: u32,
    /// Seconds that it may be without a message before it is closed.
    pub timeout: u64,
    /// The address of the peer, whoever has opened the connection.
    pub src_ip: String,
    /// The port of the peer.
    pub src_port: u16,
    /// The address of this host; that of the peer until the handshake has ended.
    pub dst_ip: String,
    /// The port of this host; 0 until the handshake has ended.
    pub dst_port: u16,
    /// The cipher suite, as OpenSSL describes it; `unknown` until the handshake has ended.
    pub cipher: String,
    /// Bytes that wait to be encrypted and sent, with 256 for each message.
    pub ct_wq_size: u64,
    /// Encrypted bytes that wait to be decrypted: none do.
    pub enc_rd_buf: u64,
    /// Kamailio's flags: 2 after the handshake.
    pub flags: u32,
    /// `established`, or `tls_accept` or `tls_connect` until the handshake has ended.
    pub state: String,
    /// The names of the peer's certificate, if it was verified, separated by commas.
    pub peer: String,
}

impl FromCall for ListConnections {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for ListConnections {
    type Reply = Table<TlsConnection>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let all = control.shared.connections.secure_connections();
        Ok(Table::new(Rows::new(RowsForm::Each, move |write| {
            for one in &all {
                write(value_of(&TlsConnection::of(one)).unwrap_or(Value::Null))?;
            }
            ControlFlow::Continue(())
        })))
    }
}

impl ListConnections {
    /// `GET /v1/tls/connections`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<TlsConnection>>(
            Method::GET,
            "/v1/tls/connections",
            "listTlsConnections",
            "List the connections over TLS, the oldest first",
        );
        routes.on(get.answers(200, "The connections"), list)
    }
}

async fn list(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ListConnections.dispatch(&control, &caller).await)
}

impl TlsConnection {
    fn of(one: &SecureConnection) -> Self {
        let session = one.secured.as_ref().map(|secured| &*secured.session);
        let local = one.secured.as_ref().map(|secured| secured.local);
        let state = match (session, one.is_opened_by_host) {
            (Some(_), _) => "established",
            (None, false) => "tls_accept",
            (None, true) => "tls_connect",
        };
        let peer = session.and_then(|session| session.peer.as_ref());
        let names = peer.map(|certificate| certificate.names.shown().join(", "));
        Self {
            id: one.number(),
            timeout: one.idle.as_secs(),
            src_ip: one.peer.ip().to_string(),
            src_port: one.peer.port(),
            dst_ip: local
                .map_or_else(|| one.peer.ip(), |local| local.ip())
                .to_string(),
            dst_port: local.map_or(0, |local| local.port()),
            cipher: session.map_or_else(|| "unknown".into(), |one| described(&one.cipher_suite)),
            ct_wq_size: one.waiting as u64,
            enc_rd_buf: 0,
            flags: if session.is_some() { 2 } else { 0 },
            state: state.into(),
            peer: names.unwrap_or_default(),
        }
    }
}

/// A cipher suite, of which this is the registered name, as `openssl ciphers -v` describes it.
fn described(suite: &str) -> String {
    const AES_256: &str = "AESGCM(256)";
    const AES_128: &str = "AESGCM(128)";
    const CHACHA20: &str = "CHACHA20/POLY1305(256)";
    let known = match suite {
        "TLS_AES_256_GCM_SHA384" => (suite, "any", AES_256),
        "TLS_AES_128_GCM_SHA256" => (suite, "any", AES_128),
        "TLS_CHACHA20_POLY1305_SHA256" => (suite, "any", CHACHA20),
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDSA", AES_256)
        }
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA", AES_128)
        }
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDSA", CHACHA20)
        }
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => ("ECDHE-RSA-AES256-GCM-SHA384", "RSA", AES_256),
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => ("ECDHE-RSA-AES128-GCM-SHA256", "RSA", AES_128),
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            ("ECDHE-RSA-CHACHA20-POLY1305", "RSA", CHACHA20)
        }
        "" => return "unknown".into(),
        other => return other.into(),
    };
    let (name, authentication, encryption) = known;
    let (version, exchange) = match authentication {
        "any" => ("TLSv1.3", "any"),
        _ => ("TLSv1.2", "ECDH"),
    };
    format!(
        "{name:<30} {version:<7} Kx={exchange:<8} Au={authentication:<5} Enc={encryption:<22} Mac=AEAD"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_described_as_openssl_does() {
        assert_eq!(
            described("TLS_AES_256_GCM_SHA384"),
            "TLS_AES_256_GCM_SHA384         TLSv1.3 Kx=any      Au=any   Enc=AESGCM(256)            Mac=AEAD"
        );
        assert_eq!(
            described("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
            "ECDHE-ECDSA-CHACHA20-POLY1305  TLSv1.2 Kx=ECDH     Au=ECDSA Enc=CHACHA20/POLY1305(256) Mac=AEAD"
        );
        assert_eq!(
            described("TLS_NULL_WITH_NULL_NULL"),
            "TLS_NULL_WITH_NULL_NULL"
        );
        assert_eq!(described(""), "unknown");
    }
}
