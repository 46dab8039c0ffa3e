//! What `portcullis.status` tells of the parts beside the address table: trusted peers, allow and deny rules.

use portcullis_address::PartStatus;
use portcullis_rpc::Value;

use super::super::Control;
use super::own::lines;
use crate::time::rfc3339;

type Members = Vec<(&'static str, Value<'static>)>;

impl Control {
    pub(super) fn trusted_members(&self) -> Value<'static> {
        let mut members = self.trusted_part();
        members.extend(fared(self.shared.addresses.status().trusted));
        Value::Struct(members)
    }

    pub(super) fn rules_members(&self) -> Value<'static> {
        let mut members = self.rules_part();
        members.extend(fared(self.shared.addresses.status().rules));
        Value::Struct(members)
    }

    /// What the last load of the trusted peers brought.
    pub(super) fn trusted_part(&self) -> Members {
        let part = &self.shared.addresses.current().trusted;
        let took = u64::try_from(part.took.as_millis()).unwrap_or(u64::MAX);
        vec![
            ("generation", part.generation.into()),
            ("rows", part.table.rows().len().into()),
            ("table_is_absent", part.is_absent.into()),
            ("ignored", part.ignored.into()),
            ("skipped", part.skipped.into()),
            ("warned", part.warned.into()),
            ("errors", lines(&part.errors)),
            ("warnings", lines(&part.warnings)),
            ("loaded_at", rfc3339(part.loaded_at).into()),
            ("took_ms", took.into()),
        ]
    }

    /// What the last load of the rules brought.
    pub(super) fn rules_part(&self) -> Members {
        let part = &self.shared.addresses.current().rules;
        let sets = part.rules.names().into_iter();
        let sets = sets.map(|(name, allow, deny)| format!("{name}: {allow} allow, {deny} deny"));
        let took = u64::try_from(part.took.as_millis()).unwrap_or(u64::MAX);
        vec![
            ("generation", part.generation.into()),
            ("files", part.files.into()),
            ("sets", sets.collect::<Vec<_>>().into()),
            ("skipped", part.skipped.into()),
            ("errors", lines(&part.errors)),
            ("loaded_at", rfc3339(part.loaded_at).into()),
            ("took_ms", took.into()),
        ]
    }
}

fn fared(status: PartStatus) -> Members {
    vec![
        ("loads", status.loads.into()),
        ("failed_loads", status.failures.into()),
        ("error", status.last_error.into()),
    ]
}
