//! Room for policies on their way to this host and from it: their bytes are bounded.

use std::sync::Arc;
use std::time::Duration;

use portcullis_rpc::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::caller::{Authority, Caller};

/// Bytes of all policies of tenants on their way, and of the operator's, in KiB.
const TENANTS: u32 = 48 << 10;
const OPERATORS: u32 = 16 << 10;

const KIB: usize = 1 << 10;

/// How long a policy waits for room among the others.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for policies on their way, in KiB. The operator's do not wait for those of tenants.
#[derive(Debug)]
pub(crate) struct PolicyRoom {
    tenants: Arc<Semaphore>,
    operators: Arc<Semaphore>,
}

impl PolicyRoom {
    /// Room for a policy of this caller of so many bytes.
    ///
    /// # Errors
    /// 503 if others take all of it for too long.
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
                let text = "too many policies are on their way to and from this host: try again";
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
