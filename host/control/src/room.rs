//! Memory for policies in transfer to and from this host, which is limited.

use std::sync::Arc;
use std::time::Duration;

use portcullis_rpc::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::caller::{Authority, Caller};

/// Bytes of all policies of tenants in transfer, and of the operator's, in KiB.
const TENANTS: u32 = 48 << 10;
const OPERATORS: u32 = 16 << 10;

const KIB: usize = 1 << 10;

/// How long a policy waits for memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory for policies in transfer, in KiB. The operator's policies do not wait for those of tenants.
#[derive(Debug)]
pub(crate) struct PolicyRoom {
    tenants: Arc<Semaphore>,
    operators: Arc<Semaphore>,
}

impl PolicyRoom {
    /// Reserves memory for a policy of this caller.
    ///
    /// # Errors
    /// 503 if others occupy all of it for too long.
    pub(crate) async fn acquire(
        &self,
        caller: &Caller,
        bytes: usize,
    ) -> Result<OwnedSemaphorePermit, Fault> {
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let (all, most) = match caller.authority() {
            Authority::Operator => (&self.operators, OPERATORS),
            Authority::Tenant(_) => (&self.tenants, TENANTS),
        };
        let room = Arc::clone(all).acquire_many_owned(kib.min(most));
        match timeout(PATIENCE, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => {
                let text = "too many policies in transfer to and from this host: try again later";
                Err(Fault::new(503, text))
            }
        }
    }
}

impl Default for PolicyRoom {
    fn default() -> Self {
        Self {
            tenants: Arc::new(Semaphore::new(TENANTS as usize)),
            operators: Arc::new(Semaphore::new(OPERATORS as usize)),
        }
    }
}
