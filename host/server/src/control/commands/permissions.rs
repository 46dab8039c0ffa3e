//! `permissions.…`: the module's commands with its texts and codes (`src/modules/permissions/rpc.c`).
//! Each is a method here, beside its line and its arm in the parent module; what it dumps is written in `dump`.

use portcullis_rpc::{Call, Fault, Reply};

use super::super::Control;
use super::dump;

impl Control {
    pub(super) async fn permissions_address_reload(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        self.reload_addresses().await?;
        Ok(Reply::One("Reload OK".into()))
    }

    pub(super) fn address_dump(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        Ok(dump::hosts(self.shared.addresses.current()).into())
    }

    pub(super) fn subnet_dump(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        Ok(dump::subnets(self.shared.addresses.current()).into())
    }

    pub(super) fn domain_dump(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        Ok(dump::domains(self.shared.addresses.current()).into())
    }
}
