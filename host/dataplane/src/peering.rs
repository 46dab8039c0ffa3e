//! Messages that other hosts pass to this one.

use std::sync::Arc;

use portcullis_peers::{Carried, Facts, Refusal};
use portcullis_sip::{Arrival, Transaction, Transport};
use tokio::sync::watch;

use crate::drain::Stage;
use crate::handover::Item;
use crate::shared::Shared;

/// What the thread of [`Peers`](portcullis_peers::Peers) needs of the host.
pub struct Door {
    shared: Arc<Shared>,
    stopping: watch::Receiver<bool>,
}

impl Door {
    /// Of a host that ends when `stopping` becomes true.
    pub fn new(shared: Arc<Shared>, stopping: watch::Receiver<bool>) -> Self {
        Self { shared, stopping }
    }
}

impl Facts for Door {
    fn serves(&self) -> bool {
        self.shared.drain.stage() == Stage::Serving
    }

    fn deliver(&self, message: Carried<'_>) -> Result<(), Refusal> {
        let bound = self.shared.listen.get(usize::from(message.socket));
        let bound = bound.filter(|bound| bound.transport == Transport::Udp);
        let arrival = Arrival {
            source: message.source,
            local: bound.ok_or(Refusal::Socket)?.addr,
            transport: Transport::Udp,
            connection: None,
        };
        let transaction = Transaction::of_number(message.transaction);
        let owner = transaction.owner(self.shared.counters.len());
        let bytes = message.bytes.to_vec();
        let item = Item::Passed { bytes, arrival };
        let pushed = self.shared.handovers.push(owner, item);
        pushed.map_err(|_| Refusal::Full)
    }

    fn has_ended(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }
}
