//! `sl.stats`.

use indexmap::IndexMap;
use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};

use super::{FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;
use crate::statistics::Replies;

/// `sl.stats`: responses that the host generated, by code or class.
#[derive(Debug)]
pub(crate) struct Stats;

impl FromCall for Stats {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Stats {
    type Reply = IndexMap<&'static str, u64>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        Ok(Replies::of(&control.shared.counters).named().collect())
    }
}
