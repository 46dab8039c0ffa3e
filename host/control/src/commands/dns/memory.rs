//! `dns.mem_info`.

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};

use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `dns.mem_info`: bytes that the cache takes, and how many it may take.
#[derive(Debug)]
pub(crate) struct Memory;

impl FromCall for Memory {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Memory {
    type Reply = Vec<u64>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<u64>, Fault> {
        let dns = control.registry.dns();
        Ok(vec![dns.bytes() as u64, dns.most_bytes() as u64])
    }
}
