//! `permissions.…`: the module's commands with its texts and codes (`src/modules/permissions/rpc.c`).
//! Each is a method here, beside its line and its arm in the parent module; what it dumps is written in `dump`.

use portcullis_rpc::{Call, Fault, Reply};

use super::super::Control;
use super::dump;

/// What has room in Kamailio's buffers, in bytes: a file's name less the longer ending and a final zero, and a URI.
const LONGEST_BASENAME: usize = 128 - 6 - 1;
const LONGEST_URI: usize = 1024;

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

    pub(super) async fn trusted_reload(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let reloaded = self.shared.addresses.reload_trusted().await;
        reloaded.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        Ok(Reply::One("Reload OK".into()))
    }

    pub(super) fn trusted_dump(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        Ok(dump::trusted(self.shared.addresses.current()).into())
    }

    /// `permissions.testUri` and `permissions.allowUri`, one function in Kamailio too (`rpc_test_uri`).
    pub(super) fn test_uri(&self, call: &Call) -> Result<Reply, Fault> {
        let texts = call.texts()?;
        let [basename, uri, contact, ..] = texts[..] else {
            let text = "Not enough parameters (basename, URI and contact)";
            return Err(Fault::new(500, text));
        };
        let too_long = match () {
            () if basename.len() > LONGEST_BASENAME => "Basename is too long",
            () if contact.len() > LONGEST_URI => "Contact is too long",
            () if uri.len() > LONGEST_URI => "URI is too long",
            () => "",
        };
        if !too_long.is_empty() {
            return Err(Fault::new(500, too_long));
        }
        let rules = &self.shared.addresses.current().rules.rules;
        let answer = match rules.test(basename, uri, contact) {
            true => "Allowed",
            false => "Denied",
        };
        Ok(Reply::One(answer.into()))
    }
}
