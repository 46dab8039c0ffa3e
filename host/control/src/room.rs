//! Memory for policies in transfer to and from this host, which is limited.

use std::sync::Arc;
use std::time::Duration;

use portcullis_rpc::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::caller::{Authority, Caller};

/// Memory for policies of tenants in transfer, and of the operator's, in KiB.
const TENANTS: u32 = 48 << 10;
const OPERATORS: u32 = 16 << 10;

/// Memory for files that are inspected, of tenants and of the operator, in KiB.
const INSPECTED: u32 = 8 << 10;

const KIB: usize = 1 << 10;

/// How long a policy waits for memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory for policies in transfer. The operator's policies do not wait for those of tenants, and none waits for files that are only
/// inspected.
#[derive(Debug)]
pub(crate) struct PolicyRoom {
    transfers: Shares,
    inspections: Shares,
}

/// Why a policy is in transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be kept, or to be sent.
    Transfer,
    /// To show what it contains.
    Inspection,
}

/// Memory of which tenants and the operator have their shares.
#[derive(Debug)]
struct Shares {
    tenants: Share,
    operators: Share,
}

/// A share, in KiB.
#[derive(Debug)]
struct Share {
    room: Arc<Semaphore>,
    most: u32,
}

impl PolicyRoom {
    /// Reserves memory for a policy of this caller.
    ///
    /// # Errors
    /// 503 if others occupy all of it for too long.
    pub(crate) async fn acquire(
        &self,
        caller: &Caller,
        purpose: Purpose,
        bytes: usize,
    ) -> Result<OwnedSemaphorePermit, Fault> {
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let share = self.share(caller, purpose);
        let room = Arc::clone(&share.room).acquire_many_owned(kib.min(share.most));
        match timeout(PATIENCE, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => {
                let text = "too many policies in transfer to and from this host: try again later";
                Err(Fault::new(503, text))
            }
        }
    }

    fn share(&self, caller: &Caller, purpose: Purpose) -> &Share {
        let shares = match purpose {
            Purpose::Transfer => &self.transfers,
            Purpose::Inspection => &self.inspections,
        };
        match caller.authority() {
            Authority::Operator => &shares.operators,
            Authority::Tenant(_) => &shares.tenants,
        }
    }
}

impl Share {
    fn new(most: u32) -> Self {
        Self {
            room: Arc::new(Semaphore::new(most as usize)),
            most,
        }
    }
}

impl Default for PolicyRoom {
    fn default() -> Self {
        Self {
            transfers: Shares {
                tenants: Share::new(TENANTS),
                operators: Share::new(OPERATORS),
            },
            inspections: Shares {
                tenants: Share::new(INSPECTED),
                operators: Share::new(INSPECTED),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::caller::Door;

    #[tokio::test]
    async fn inspections_and_tenants_take_nothing_from_others() {
        let room = PolicyRoom::default();
        let (tenant, operator) = (Caller::tenant("acme"), Caller::operator(Door::Http));
        let take = |caller: &Caller, purpose, mib: usize| {
            room.acquire(caller, purpose, mib << 20).now_or_never()
        };
        let whole = take(&tenant, Purpose::Inspection, 100).unwrap().unwrap();
        assert!(take(&tenant, Purpose::Inspection, 1).is_none());
        let _other = take(&operator, Purpose::Inspection, 8).unwrap().unwrap();
        let _tenants = take(&tenant, Purpose::Transfer, 48).unwrap().unwrap();
        assert!(take(&tenant, Purpose::Transfer, 1).is_none());
        let _operators = take(&operator, Purpose::Transfer, 16).unwrap().unwrap();
        drop(whole);
        assert!(take(&tenant, Purpose::Inspection, 1).is_some());
    }
}
