//! What all workers and the control side see. Everything in here is immutable, swapped whole, or a counter.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use portcullis_address::AddressBook;
use portcullis_config::Config;
use portcullis_metrics::WorkerCounters;
use portcullis_policy::ShareKey;
use portcullis_records::Recorder;
use portcullis_sip::{Proxy, Routes};

use crate::notices::Notices;
use crate::tenants::{Shadow, Tenants};
use crate::trace::Traces;
use crate::transport::{Bound, Connections};

/// The state of one running host. `serve` builds it once; every worker and the control side hold it in an `Arc`.
pub struct Shared {
    /// The configuration, validated.
    pub config: Config,
    /// The sockets that are bound, with the ports that the system chose where the configuration says 0.
    pub listen: Vec<Bound>,
    /// The address table of the moment.
    pub addresses: Arc<AddressBook>,
    /// Who decides at the moment.
    pub tenants: Arc<ArcSwap<Tenants>>,
    /// Sandboxes that each worker may keep.
    pub sandboxes: usize,
    /// The way to the thread that asks candidates about what has been decided.
    pub shadow: Shadow,
    /// Which dialogs a canary decides on.
    pub share_key: ShareKey,
    /// Decisions that are written down; none if none are.
    pub records: Option<Recorder>,
    /// The proxy rules.
    pub proxy: Arc<Proxy>,
    /// Next hops and domains with their resolved addresses; a task replaces them as names resolve anew.
    pub routes: Arc<ArcSwap<Routes>>,
    /// The TCP connections of all workers.
    pub connections: Arc<Connections>,
    /// One for each worker; worker `n` is the only writer of the `n`-th.
    pub counters: Vec<WorkerCounters>,
    /// What operators are told about messages that did not get through.
    pub notices: Notices,
    /// When the host started.
    pub started: SystemTime,
}

impl Shared {
    /// Waits until no worker decides by what it saw before this was called: what was published before is live on all of them then.
    /// False if one takes longer than `patience`.
    pub async fn live_on_all_workers(&self, patience: Duration) -> bool {
        let passes = |at: usize| self.counters[at].passes.value();
        let before: Vec<_> = (0..self.counters.len()).map(passes).collect();
        let is_past = |(at, before): (usize, &u64)| before % 2 == 0 || passes(at) != *before;
        let all_past = async {
            while !before.iter().enumerate().all(is_past) {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        tokio::time::timeout(patience, all_past).await.is_ok()
    }
}

impl AsRef<Traces> for Shared {
    fn as_ref(&self) -> &Traces {
        &self.notices.traces
    }
}
