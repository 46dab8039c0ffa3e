//! `dns.view`.

use std::ops::ControlFlow;

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Rows, RowsForm, Value, value_of};

use super::entry::DnsEntry;
use crate::Control;
use crate::caller::Caller;
use crate::commands::reply::Table;
use crate::commands::{FromCall, Procedure};

/// `dns.view`: the answers in the cache.
#[derive(Debug)]
pub(crate) struct View;

impl FromCall for View {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for View {
    type Reply = Table<DnsEntry>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let all = control.registry.dns().view();
        Ok(Table::new(Rows::new(RowsForm::Each, move |write| {
            for cached in &all {
                write(value_of(&DnsEntry::of(cached)).unwrap_or(Value::Null))?;
            }
            ControlFlow::Continue(())
        })))
    }
}
