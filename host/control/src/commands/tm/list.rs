//! `tm.list`.

use std::ops::ControlFlow;

use portcullis_config::TokenRole;
use portcullis_dataplane::active::ActiveTransaction;
use portcullis_dataplane::inspection::{self, Listing};
use portcullis_metrics::WorkerCounters;
use portcullis_rpc::{Call, Fault, Param, Rows, RowsForm, Value, value_of};
use portcullis_text::clean;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::reply::Table;
use crate::commands::{FromCall, Procedure};

/// Transactions in a list of which the caller names no number: about what kamcli accepts.
const MOST: u16 = 200;

/// Most transactions in one list.
const MOST_AT_ALL: u16 = 10_000;

/// `tm.list`: the active transactions.
#[derive(Debug)]
pub(crate) struct ListTransactions {
    most: u16,
}

/// A row in the reply of `tm.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TransactionEntry {
    /// An active transaction.
    Transaction(ListedTransaction),
    /// The row behind the transactions, if there are more than the list may have.
    LeftOut {
        /// About how many.
        left_out: u64,
    },
    /// A row for each worker that did not answer: some of its transactions may be missing.
    Unanswered {
        /// The number of the worker.
        unanswered: u64,
    },
}

/// An active transaction, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedTransaction {
    /// A number that no other transaction of the worker has or had, in the form of an address.
    pub cell: String,
    /// The number of the worker.
    pub tindex: u64,
    /// The transaction's place in the table of the worker.
    pub tlabel: u32,
    /// The method of the request.
    pub method: String,
    /// The header field From with its line end.
    pub from: String,
    /// The header field To with its line end.
    pub to: String,
    /// The header field Call-ID with its line end.
    pub callid: String,
    /// The header field CSeq without its method.
    pub cseq: String,
    /// Whether it began with a received request: `yes`.
    pub uas_request: String,
    /// Kamailio's flags: 1 for INVITE, 8 if cancelled, 16 after a 6xx, 64 if a 100 is sent.
    pub tflags: u32,
    /// Targets that were tried.
    pub outgoings: u64,
    /// Users of the memory: 1.
    pub ref_count: u32,
    /// Seconds until the search for an answer ends in any case.
    pub lifetime: u64,
}

impl FromCall for ListTransactions {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let most = match &call.params[..] {
            [] => Some(MOST),
            [Param::Int(most)] => u16::try_from(*most).ok(),
            [Param::Text(most)] => most.parse().ok(),
            _ => None,
        };
        let most = most.filter(|most| (1..=MOST_AT_ALL).contains(most));
        let most = most.ok_or_else(|| {
            let text = format!("tm.list takes nothing, or a number from 1 to {MOST_AT_ALL}");
            Fault::new(400, text)
        })?;
        Ok(Self { most })
    }
}

impl Procedure for ListTransactions {
    type Reply = Table<TransactionEntry>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let shared = &control.shared;
        let most = usize::from(self.most);
        let listing = inspection::list(shared, most).await;
        let Listing {
            transactions: listed,
            unanswered,
        } = listing.map_err(|error| Fault::new(500, error.to_string()))?;
        let active = |worker: &WorkerCounters| worker.transactions.active.value();
        let all: u64 = shared.counters.iter().map(active).sum();
        let left_out = match listed.len() < most {
            true => 0,
            false => all.saturating_sub(listed.len() as u64),
        };
        let sends_trying = shared.config.relay.trying != portcullis_config::Trying::Never;
        Ok(Table::new(Rows::new(RowsForm::Each, move |write| {
            for active in listed {
                let row = ListedTransaction::of(active, sends_trying);
                write(row_of(TransactionEntry::Transaction(row)))?;
            }
            if left_out > 0 {
                write(row_of(TransactionEntry::LeftOut { left_out }))?;
            }
            for worker in unanswered {
                let unanswered = worker as u64;
                write(row_of(TransactionEntry::Unanswered { unanswered }))?;
            }
            ControlFlow::Continue(())
        })))
    }
}

impl ListedTransaction {
    fn of(active: ActiveTransaction, sends_trying: bool) -> Self {
        // Anybody can send these texts; Kamailio's tools print them on a terminal.
        let field = |name: &str, value: &str| format!("{name}: {}\r\n", clean(value));
        let flags = [
            (active.is_invite, 1),
            (active.is_cancelled, 8),
            (active.code.is_some_and(|code| code >= 600), 16),
            (active.is_invite && sends_trying, 64),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        let (slot, generation) = (active.id.slot(), active.id.generation());
        Self {
            cell: format!("{:#x}", u64::from(generation) << 32 | u64::from(slot)),
            tindex: active.worker as u64,
            tlabel: slot,
            method: active.method,
            from: field("From", &active.from),
            to: field("To", &active.to),
            callid: field("Call-ID", &active.call_id),
            cseq: format!("CSeq: {}", active.cseq),
            uas_request: "yes".into(),
            tflags: flags.map(|(_, flag)| flag).sum(),
            outgoings: active.targets as u64,
            ref_count: 1,
            lifetime: active.seconds_left,
        }
    }
}

fn row_of(row: TransactionEntry) -> Value<'static> {
    value_of(&row).unwrap_or(Value::Null)
}
