//! `core.info`.

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `core.info`.
#[derive(Debug)]
pub(crate) struct Info;

/// The reply of `core.info`, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InfoReply {
    /// Name and version.
    pub version: String,
    /// Revision of the sources: not known.
    pub id: String,
    /// The compiler's oldest version that compiles the sources.
    pub compiler: String,
    /// Time of the build: empty, because builds are reproducible.
    pub compiled: String,
    /// What the build supports.
    pub flags: String,
}

impl FromCall for Info {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Info {
    type Reply = InfoReply;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<InfoReply, Fault> {
        Ok(InfoReply {
            version: concat!("portcullis ", env!("CARGO_PKG_VERSION")).into(),
            id: "unknown".into(),
            compiler: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION")).into(),
            compiled: String::new(),
            flags: "USE_UDP, USE_TCP, USE_IPV6, USE_WASM".into(),
        })
    }
}
