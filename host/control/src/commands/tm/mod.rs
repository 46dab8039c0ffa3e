//! `tm.…`: Kamailio's commands about transactions (`src/modules/tm`).

mod cancel;
mod list;
mod stats;

pub(crate) use cancel::Cancel;
pub(crate) use list::ListTransactions;
pub use list::{ListedTransaction, TransactionEntry};
pub(crate) use stats::Stats;
pub use stats::TransactionStats;
