//! Common parts of replies.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use portcullis_rpc::{Fault, Reply, Rows, value_of};
use portcullis_text::rfc3339;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A result that every control interface can serialise.
pub(crate) trait IntoReply {
    /// Converts the result to the form for the protocols.
    ///
    /// # Errors
    /// 500 if it cannot be serialised, which is an error in its type.
    fn into_reply(self) -> Result<Reply, Fault>;

    /// Returns its JSON schema.
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

impl<T: Serialize + JsonSchema> IntoReply for T {
    fn into_reply(self) -> Result<Reply, Fault> {
        let value = value_of(&self).map_err(|error| Fault::new(500, error.to_string()))?;
        Ok(Reply::One(value))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// The rows of a table, each of type `T`, generated as they are written.
pub(crate) struct Table<T> {
    rows: Rows,
    row: PhantomData<fn() -> T>,
}

impl<T> Table<T> {
    /// Creates a table of rows of this type.
    pub(crate) fn new(rows: Rows) -> Self {
        Self {
            rows,
            row: PhantomData,
        }
    }
}

impl<T: JsonSchema> IntoReply for Table<T> {
    fn into_reply(self) -> Result<Reply, Fault> {
        Ok(self.rows.into())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Vec<T>>()
    }
}

/// Result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReloadStatus {
    /// Loaded.
    #[serde(rename = "Reload OK")]
    Ok,
    /// Loaded, and equal to what was active before.
    #[serde(rename = "Reload OK, nothing new")]
    Unchanged,
}

impl fmt::Display for ReloadStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "Reload OK",
            Self::Unchanged => "Reload OK, nothing new",
        })
    }
}

/// A time in RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(String);

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(rfc3339(time))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// Formats findings, one per line.
pub(crate) fn lines(findings: &[impl fmt::Display]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// Returns whole milliseconds.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Formats the digest of a policy.
pub(crate) fn digest(of: impl fmt::Display) -> String {
    format!("sha256:{of}")
}
