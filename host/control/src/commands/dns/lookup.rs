//! `dns.lookup`.

use portcullis_resolve::{Answer, Kind, Query};
use portcullis_rollout::resolve::Cached;
use portcullis_rpc::{Call, Fault};

use super::entry::DnsEntry;
use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `dns.lookup`: asks a query, unless its answer is in the cache.
#[derive(Debug)]
pub(crate) struct LookUp {
    query: Query,
}

impl FromCall for LookUp {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let texts = call.texts()?;
        let [kind, name] = texts[..] else {
            return Err(Fault::new(400, "dns.lookup takes a type and a name"));
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|one| one.as_str().eq_ignore_ascii_case(kind))
            .ok_or_else(|| Fault::new(400, "Invalid type"))?;
        let mut name = name.to_ascii_lowercase();
        // As the host asks for the services of a domain.
        if matches!(kind, Kind::Naptr | Kind::Srv) && name.contains('.') && !name.ends_with('.') {
            name.push('.');
        }
        Ok(Self {
            query: Query { name, kind },
        })
    }
}

impl Procedure for LookUp {
    type Reply = DnsEntry;

    fn subject(&self) -> Option<String> {
        Some(self.query.to_string())
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<DnsEntry, Fault> {
        let answer = control.registry.dns().answer(&self.query).await;
        match &answer {
            Answer::Found { .. } => Ok(DnsEntry::of(&Cached {
                query: self.query,
                answer,
            })),
            Answer::None { .. } => Err(Fault::new(400, "Not found")),
            Answer::Failed { error, .. } => Err(Fault::new(400, "Not found").because(error)),
        }
    }
}
