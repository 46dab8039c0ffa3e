//! `tm.…`: Kamailio's commands about transactions (`src/modules/tm`).

mod stats;

pub(crate) use stats::Stats;
pub use stats::TransactionStats;
